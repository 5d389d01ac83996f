//! Times in UTC, as RFC 3339 has them.

use std::cell::RefCell;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

/// A time since 1970 to the microsecond, as zap logs it: `2025-11-21T02:34:05.252995Z`.
pub fn rfc3339_micros(since_1970: Duration) -> String {
    format!("{:.6}", timestamp(since_1970))
}

/// The same, at the end of a buffer. Costs little where many times of one second follow each other.
pub fn write_rfc3339_micros(buffer: &mut Vec<u8>, since_1970: Duration) {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
    thread_local! {
        /// The last second, and its text without the zone.
        static SECOND: RefCell<(i64, Vec<u8>)> = const { RefCell::new((i64::MIN, Vec::new())) };
    }
    let time = timestamp(since_1970);
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != time.as_second() {
            *second = time.as_second();
            text.clear();
            PRINTER.print_timestamp(&time, &mut *text).expect("memory takes what is written");
            text.pop();
        }
        buffer.extend_from_slice(text);
    });
    let mut fraction = *b".000000Z";
    let mut micros = time.subsec_microsecond() as u32;
    for digit in fraction[1..7].iter_mut().rev() {
        *digit += (micros % 10) as u8;
        micros /= 10;
    }
    buffer.extend_from_slice(&fraction);
}

/// A time since 1970 to the second: `2025-11-21T02:34:05Z`.
pub fn rfc3339(since_1970: Duration) -> String {
    format!("{:.0}", timestamp(since_1970))
}

/// Times after the year 9999 are clamped to the last that can be printed.
fn timestamp(since_1970: Duration) -> Timestamp {
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    let nanoseconds = i32::try_from(since_1970.subsec_nanos()).unwrap_or(0);
    Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        let at = Duration::from_micros(1_763_692_445_252_995);
        assert_eq!(rfc3339_micros(at), "2025-11-21T02:34:05.252995Z");
        assert_eq!(rfc3339(at), "2025-11-21T02:34:05Z");
        assert_eq!(rfc3339_micros(Duration::ZERO), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339_micros(Duration::from_secs(951_782_400)), "2000-02-29T00:00:00.000000Z");
        // Excess digits are cut off, as by Go.
        assert_eq!(rfc3339_micros(Duration::new(1, 999_999_999)), "1970-01-01T00:00:01.999999Z");
        assert_eq!(rfc3339(Duration::MAX), "9999-12-30T22:00:00Z");
        for time in [at, Duration::ZERO, Duration::new(1, 999_999_999), Duration::MAX] {
            let mut written = b"at ".to_vec();
            write_rfc3339_micros(&mut written, time);
            assert_eq!(written, format!("at {}", rfc3339_micros(time)).as_bytes());
        }
    }
}
