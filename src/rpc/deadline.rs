//! The deadline of a call: `grpc-timeout` of a request.
//!
//! Clients of Kubernetes send one with most requests, and nearly all are answered long before. So there is no timer for
//! a call: calls that wait are in a table of their executor, which is checked some times a second while there are any.
//! A call ends up to [`TICK`] late; its client has its own timer and has given up by then.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};
use tonic::{Code, Status};

use super::body::ResponseBody;
use super::timeout::{Malformed, parse, split};
use crate::io::clock::{self, Instant};
use crate::io::spawn;

/// The header of a request with its time.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Interval between two checks of the waiting calls.
const TICK: Duration = Duration::from_millis(50);
/// Eight digits and the unit, by the specification.
const TEXT_BYTES_MAX: usize = 9;

/// A waiting call with its deadline.
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

/// The waiting calls with deadlines of one executor: no more than there are streams.
#[derive(Default)]
struct Table {
    last: u64,
    calls: HashMap<u64, Waiting>,
    is_watched: bool,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

/// The deadline of one call. Must be polled on one executor only.
pub(super) struct Deadline {
    due: Due,
    /// Its key in the table, once it had to wait.
    id: Option<u64>,
}

impl Deadline {
    /// The deadline in the headers, counted from now.
    ///
    /// # Errors
    /// The timeout is malformed or zero: grpc-go's answer, and its HTTP status.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, (StatusCode, Status)> {
        let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
        match timeout(&String::from_utf8_lossy(value.as_bytes())) {
            Ok(Duration::ZERO) => Err((StatusCode::OK, late())),
            Ok(after) => Ok(Some(Self { due: Due { began: Instant::now(), after }, id: None })),
            Err(why) => {
                let status = Status::internal(format!("malformed grpc-timeout: {why}"));
                Err((StatusCode::BAD_REQUEST, status))
            }
        }
    }

    /// True if the deadline has passed. If not, the caller is woken when it does.
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

/// Wakes the calls whose deadline has passed, as long as any call waits.
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

/// Waits for a response until the deadline, if there is one.
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

/// The status of a call whose deadline has passed.
pub(super) fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// The status of a call whose message was not complete in time. Clients do not repeat it by themselves, as they do what is
/// unavailable.
pub(super) fn too_slow() -> Status {
    Status::new(Code::DeadlineExceeded, "the message of the request was not received in time")
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
