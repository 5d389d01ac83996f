//! zap's JSON lines on standard error.

use std::time::{SystemTime, UNIX_EPOCH};

use gocompat::time::rfc3339_micros;

use crate::go::json::string;
use crate::print::out;

/// A line that is being put together.
pub(crate) struct Line(String);

impl Line {
    /// `logger` may be empty.
    pub(crate) fn new(level: &str, logger: &str, caller: &str) -> Self {
        let line = Self(format!("{{\"level\":\"{level}\",\"ts\":\"{}\"", now()));
        let line = if logger.is_empty() { line } else { line.text("logger", logger) };
        line.text("caller", caller)
    }

    pub(crate) fn message(self, message: &str) -> Self {
        self.text("msg", message)
    }

    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        self.0.push_str(&format!(",\"{name}\":"));
        string(&mut self.0, value, false);
        self
    }

    pub(crate) fn number(mut self, name: &str, value: u32) -> Self {
        self.0.push_str(&format!(",\"{name}\":{value}"));
        self
    }

    pub(crate) fn write(self) {
        out::error(&(self.0 + "}"));
    }
}

/// Now, in UTC.
#[allow(clippy::disallowed_methods, reason = "a log line tells its time")]
fn now() -> String {
    rfc3339_micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
