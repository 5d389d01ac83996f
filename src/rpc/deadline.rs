//! When a client's patience ends: `grpc-timeout` of a request.
//!
//! Clients of Kubernetes send one with most requests, and nearly all are answered long before. So there is no timer
//! for a call: those that wait are in a table of their executor, which is looked over some times a second while
//! there are any. A call ends up to [`TICK`] late; its client has counted by itself and is gone by then.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use tonic::{Code, Status};

use super::body::ResponseBody;
use super::timeout::{Malformed, parse, split};
use crate::io::clock::{self, Instant};
use crate::io::spawn;

/// Between two looks over the calls that wait.
const TICK: Duration = Duration::from_millis(50);
/// Eight digits and the unit, by the specification.
const TEXT_BYTES_MAX: usize = 9;

/// A call that waits with its time.
struct Waiting {
    due: Due,
    waker: Waker,
}

#[derive(Clone, Copy)]
struct Due {
    began: Instant,
    after: Duration,
}

impl Due {
    fn is_over(self, now: Instant) -> bool {
        now.since(self.began) >= self.after
    }
}

/// The calls of one executor that wait with their time: no more than there are streams.
#[derive(Default)]
struct Table {
    last: u64,
    calls: HashMap<u64, Waiting>,
    is_watched: bool,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

/// The time of one call. It is to be asked on one executor only.
pub(super) struct Deadline {
    due: Due,
    /// Its place in the table, once it had to wait.
    id: Option<u64>,
}

impl Deadline {
    /// What the headers ask for, counted from now.
    ///
    /// # Errors
    /// They ask for nonsense, or for no time at all: what grpc-go answers, and under which status of HTTP.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, (StatusCode, Status)> {
        let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
        match timeout(&String::from_utf8_lossy(value.as_bytes())) {
            Ok(Duration::ZERO) => Err((StatusCode::OK, late())),
            Ok(after) => Ok(Some(Self { due: Due { began: Instant::now(), after }, id: None })),
            Err(why) => {
                let status = Status::internal(format!("malformed grpc-timeout: {why}"));
                Err((StatusCode::BAD_REQUEST, status))
            }
        }
    }

    /// Whether the time is over. If not, who asks is woken when it is.
    pub(super) fn is_over(&mut self, context: &Context<'_>) -> bool {
        if self.due.is_over(Instant::now()) {
            return true;
        }
        let begins = TABLE.with_borrow_mut(|table| {
            let id = *self.id.get_or_insert_with(|| {
                table.last += 1;
                table.last
            });
            let waker = context.waker();
            let waiting = table.calls.entry(id);
            let waiting =
                waiting.or_insert_with(|| Waiting { due: self.due, waker: waker.clone() });
            waiting.waker.clone_from(waker);
            !std::mem::replace(&mut table.is_watched, true)
        });
        if begins {
            spawn(watch());
        }
        false
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            TABLE.with_borrow_mut(|table| table.calls.remove(&id));
        }
    }
}

/// Wakes those whose time is over, as long as anybody waits.
async fn watch() {
    loop {
        clock::sleep(TICK).await;
        let now = Instant::now();
        let (due, is_empty) = TABLE.with_borrow_mut(|table| {
            let due = table.calls.extract_if(|_, it| it.due.is_over(now));
            let due: Vec<_> = due.map(|(_, it)| it.waker).collect();
            table.is_watched = !table.calls.is_empty();
            (due, table.calls.is_empty())
        });
        due.into_iter().for_each(Waker::wake);
        if is_empty {
            return;
        }
    }
}

/// Waits for an answer as long as the time lasts, if it is limited.
pub(super) async fn in_time(
    mut answer: Pin<&mut impl Future<Output = hyper::Response<ResponseBody>>>,
    deadline: &mut Option<Deadline>,
) -> hyper::Response<ResponseBody> {
    poll_fn(|context| {
        let polled = answer.as_mut().poll(context);
        if polled.is_pending() && deadline.as_mut().is_some_and(|it| it.is_over(context)) {
            return Poll::Ready(late().into_http().map(ResponseBody::Stream));
        }
        polled
    })
    .await
}

/// What a call ends with whose time is over.
pub(super) fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// The timeout of a call.
///
/// # Errors
/// grpc-go's text.
fn timeout(text: &str) -> Result<Duration, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    parse(text).map_err(|malformed| match malformed {
        Malformed::TooShort => format!("transport: timeout string is too short: {text:?}"),
        Malformed::Unit => format!("transport: timeout unit is not recognized: {text:?}"),
        Malformed::Number => {
            let (digits, _) = split(text);
            format!("strconv.ParseUint: parsing {digits:?}: invalid syntax")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_timeouts_are_refused_in_the_words_of_grpc_go() {
        assert_eq!(timeout("00000004m"), Ok(Duration::from_millis(4)));
        for (text, why) in [
            ("", "transport: timeout string is too short: \"\""),
            ("S", "transport: timeout string is too short: \"S\""),
            ("123456789S", "transport: timeout string is too long: \"123456789S\""),
            ("5x", "transport: timeout unit is not recognized: \"5x\""),
            ("5ä", "transport: timeout unit is not recognized: \"5ä\""),
            ("+5S", "strconv.ParseUint: parsing \"+5\": invalid syntax"),
            ("-5S", "strconv.ParseUint: parsing \"-5\": invalid syntax"),
        ] {
            assert_eq!(timeout(text), Err(why.to_owned()));
        }
    }
}
