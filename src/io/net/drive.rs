//! Drives a connection of HTTP to its end, and looks after its client: one that makes no progress is given up.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::clock;
use super::open::OpenSlot;
use super::output::Duplex;
use super::progress::stall_time;
use super::scheduler::ConnectionScheduler;
use crate::metrics;

/// How long the client of one that has ended may take for what is left of its answer.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Drives a connection to its end; when the executor closes, requests in flight are finished. The calls of the
/// connection are dropped with this future at the latest.
pub(super) async fn until_closed<C: Future>(
    slot: &OpenSlot,
    mut turn: ConnectionScheduler,
    stream: Duplex,
    mut connection: Pin<&mut C>,
    wind_down: impl Fn(Pin<&mut C>),
) {
    let (mut told, mut awaited) = (false, None);
    let flow = turn.handle().flow().clone();
    poll_fn(|context| {
        if !told && slot.is_closing(context) {
            told = true;
            wind_down(connection.as_mut());
        }
        // Errors of a connection concern its client alone: it disconnected, or sent invalid input.
        let polled = turn.take(context, |context| {
            let polled = connection.as_mut().poll(context);
            stream.send(context);
            polled
        });
        if polled.is_ready() {
            return Poll::Ready(());
        }
        if awaited.is_some_and(OpenSlot::is_swept) {
            awaited = None;
            if sweep(&mut turn, &stream, context) {
                return Poll::Ready(());
            }
        }
        let may_stall = flow.waiting() > 0 || stream.may_stall();
        if may_stall && awaited.is_none() {
            awaited = Some(slot.await_sweep());
        }
        Poll::Pending
    })
    .await;
    // Its calls hold memory, and nobody waits for them.
    drop(turn);
    let left = async {
        if let Some(goaway) = stream.goaway() {
            // The connection ends in any case.
            let _ = poll_fn(|context| stream.poll_write(context, &goaway)).await;
        }
        // Another protocol begins after the last byte of the last response.
        let _ = poll_fn(|context| stream.poll_drain(context)).await;
    };
    if !stream.is_stalled(Duration::from_millis(clock::now_ms()), flow.answer_stall_time()) {
        slot.or_closing(clock::deadline(DRAIN_TIME, left)).await;
    }
}

/// Gives up calls that wait too long for their client. True if the whole connection is to end.
fn sweep(turn: &mut ConnectionScheduler, stream: &Duplex, context: &Context<'_>) -> bool {
    let (now, time) = (Duration::from_millis(clock::now_ms()), stall_time());
    let flow = turn.handle().flow().clone();
    let answer_time = flow.answer_stall_time();
    if stream.is_stalled(now, answer_time) || stream.sweep(now, time, flow.load().unsent) {
        metrics::CONNECTIONS_JUDGED.add(1);
        return true;
    }
    if turn.sweep(now, time, answer_time) {
        // HTTP/2 resets their streams when it is polled.
        context.waker().wake_by_ref();
    }
    false
}
