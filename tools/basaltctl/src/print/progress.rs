//! Progress of a long operation: one line of standard error, overwritten at intervals
//! and erased at the end. Without a terminal at standard error, nothing is written.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Interval between two updates.
const EVERY: Duration = Duration::from_millis(100);
/// Back to the line's begin, and erase to its end.
const CLEAR: &str = "\r\x1b[K";

/// The progress line.
pub(crate) struct Progress {
    is_seen: bool,
    shown: Cell<Option<Instant>>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { is_seen: stderr().is_terminal(), shown: Cell::new(None) }
    }

    /// Shows the text, unless another was shown less than [`EVERY`] ago.
    #[allow(clippy::disallowed_methods, reason = "a person looks by the real clock")]
    pub(crate) fn show(&self, text: impl FnOnce() -> String) {
        let is_due = self.shown.get().is_none_or(|it| it.elapsed() >= EVERY);
        if self.is_seen && is_due {
            self.shown.set(Some(Instant::now()));
            let _ = write!(stderr(), "{CLEAR}{}", text());
        }
    }

    /// Updates the text at intervals until the work is done.
    pub(crate) async fn during<T>(
        &self,
        work: impl Future<Output = T>,
        text: impl Fn() -> String,
    ) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    self.clear();
                    return done;
                }
                () = sleep(EVERY) => self.show(&text),
            }
        }
    }

    /// Erases the line before other output.
    pub(crate) fn clear(&self) {
        if self.shown.take().is_some() {
            let _ = write!(stderr(), "{CLEAR}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
