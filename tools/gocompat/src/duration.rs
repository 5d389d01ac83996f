//! Durations: `time.ParseDuration` and `Duration.String`.

use std::time::Duration;

const NANOS_OF_UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest duration of Go, some 292 years: its durations are nanoseconds in 64 bits with a sign.
pub const MAX: Duration = Duration::from_nanos(NANOS_MAX);
const NANOS_MAX: u64 = i64::MAX as u64;

/// Digits after the point that fit into 63 bits.
const FRACTION_DIGITS_MAX: usize = 18;

/// Parses a duration such as `1m30s` or `1.5h`. A negative one is returned as zero.
///
/// # Errors
/// The text of Go's error.
pub fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {}", quoted(text));
    let is_negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos = 0_u64;
    while !rest.is_empty() {
        let (number, after) = Number::read(rest).ok_or_else(invalid)?;
        let is_digit = |it: char| it.is_ascii_digit() || it == '.';
        let (unit, tail) = after.split_at(after.find(is_digit).unwrap_or(after.len()));
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quoted(text)));
        }
        let Some((_, of)) = NANOS_OF_UNITS.iter().find(|(known, _)| *known == unit) else {
            let (unit, text) = (quoted(unit), quoted(text));
            return Err(format!("time: unknown unit {unit} in duration {text}"));
        };
        let part = number.times(*of).ok_or_else(invalid)?;
        // The most negative duration is a nanosecond longer than the longest one.
        let sum = nanos.checked_add(part).filter(|sum| *sum <= NANOS_MAX + 1);
        nanos = sum.ok_or_else(invalid)?;
        rest = tail;
    }
    match is_negative {
        true => Ok(Duration::ZERO),
        false if nanos > NANOS_MAX => Err(invalid()),
        false => Ok(Duration::from_nanos(nanos)),
    }
}

/// Digits, and digits after the point.
struct Number {
    whole: u64,
    /// As a number, and the place value of a digit before them.
    fraction: (u64, f64),
}

impl Number {
    /// The number at the beginning of a text, and the rest.
    fn read(text: &str) -> Option<(Self, &str)> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = text.split_at(digits(text));
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits(rest)),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        // Digits beyond 64 bits do not change the nanoseconds.
        let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
        let places = fraction.len();
        let fraction = fraction.parse().unwrap_or(0);
        let scale = 10_f64.powi(i32::try_from(places).ok()?);
        Some((Self { whole, fraction: (fraction, scale) }, rest))
    }

    /// In nanoseconds, for a unit of this many; `None` if Go's type cannot hold it.
    fn times(&self, unit: u64) -> Option<u64> {
        let whole = self.whole.checked_mul(unit)?;
        let (fraction, scale) = self.fraction;
        let part = (fraction as f64 * (unit as f64 / scale)) as u64;
        whole.checked_add(part).filter(|nanos| *nanos <= NANOS_MAX + 1)
    }
}

/// A text as package `time` quotes it: bytes outside of ASCII are escaped one by one.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=0x7f => quoted.push(char::from(byte)),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

/// Prints a duration as `Duration.String` does.
pub fn text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}\u{b5}s", decimals(nanos, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimals(nanos, 6)),
        _ => {
            let (minutes, nanos) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = decimals(nanos, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// A number with this many of its digits after the point, without zeros at the end.
fn decimals(number: u128, places: u32) -> String {
    let unit = 10_u128.pow(places);
    let (whole, part) = (number / unit, number % unit);
    let part = format!("{part:0width$}", width = places as usize);
    match part.trim_end_matches('0') {
        "" => whole.to_string(),
        part => format!("{whole}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_there_and_back() {
        for (given, out) in [
            ("5s", "5s"),
            ("300ms", "300ms"),
            ("1m30s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("0", "0s"),
            ("-5s", "0s"),
            ("+1.s", "1s"),
            (".5s", "500ms"),
            ("1us2ns", "1.002\u{b5}s"),
            ("3\u{3bc}s", "3\u{b5}s"),
            ("9223372036854775807ns", "2562047h47m16.854775807s"),
            ("-9223372036854775808ns", "0s"),
            ("0.000000000000000000009h", "0s"),
            ("0.25h0.5m", "15m30s"),
        ] {
            assert_eq!(parse(given).map(text), Ok(out.to_owned()), "{given}");
        }
        assert_eq!(text(Duration::from_nanos(3_275_748)), "3.275748ms");
        assert_eq!(parse("2562047h47m16.854775807s"), Ok(MAX));
    }

    /// Each text was printed by etcdctl 3.7.1.
    #[test]
    fn errors_are_gos() {
        for (given, error) in [
            ("", r#"invalid duration """#),
            ("+", r#"invalid duration "+""#),
            ("x", r#"invalid duration "x""#),
            (".s", r#"invalid duration ".s""#),
            ("5", r#"missing unit in duration "5""#),
            ("1.5h2", r#"missing unit in duration "1.5h2""#),
            ("1e3s", r#"unknown unit "e" in duration "1e3s""#),
            ("1 s", r#"unknown unit " s" in duration "1 s""#),
            ("5\u{e4}", r#"unknown unit "\xc3\xa4" in duration "5\xc3\xa4""#),
            ("9223372036854775808ns", r#"invalid duration "9223372036854775808ns""#),
            ("2562048h", r#"invalid duration "2562048h""#),
            ("99999999999999999999s", r#"invalid duration "99999999999999999999s""#),
        ] {
            assert_eq!(parse(given), Err(format!("time: {error}")), "{given}");
        }
    }
}
