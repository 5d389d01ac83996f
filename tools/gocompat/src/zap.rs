//! zap's JSON lines on standard error.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::json::string;
use crate::time::rfc3339_micros;

/// A line that is being put together.
pub struct Line(String);

impl Line {
    /// `logger` may be empty.
    pub fn new(level: &str, logger: &str, caller: &str) -> Self {
        let line = Self(format!("{{\"level\":\"{level}\",\"ts\":\"{}\"", now()));
        let line = if logger.is_empty() { line } else { line.text("logger", logger) };
        line.text("caller", caller)
    }

    pub fn message(self, message: &str) -> Self {
        self.text("msg", message)
    }

    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.0.push_str(&format!(",\"{name}\":"));
        string(&mut self.0, value, false);
        self
    }

    pub fn number(mut self, name: &str, value: i64) -> Self {
        self.0.push_str(&format!(",\"{name}\":{value}"));
        self
    }

    /// A list of texts.
    pub fn texts(mut self, name: &str, values: &[String]) -> Self {
        self.0.push_str(&format!(",\"{name}\":["));
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            string(&mut self.0, value, false);
        }
        self.0.push(']');
        self
    }

    /// Writes the line, whole.
    pub fn write(self) {
        // Standard error is closed: there is no other place to report it.
        let _ = std::io::stderr().write_all(format!("{}}}\n", self.0).as_bytes());
    }
}

/// Now, in UTC.
#[allow(clippy::disallowed_methods, reason = "a log line tells its time")]
fn now() -> String {
    rfc3339_micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
