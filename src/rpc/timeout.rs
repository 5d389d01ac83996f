//! The value of the header `grpc-timeout`: digits and a unit (gRPC over HTTP/2, "Timeout"). Clients send it with gRPC, and
//! with the API over JSON, where grpc-gateway reads it.

use std::time::Duration;

/// The error of a malformed timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// It is shorter than a digit and a unit.
    TooShort,
    /// Its last letter is not a unit.
    Unit,
    /// The text before the unit is not a number.
    Number,
}

/// Parses a timeout. Times beyond `u64::MAX` seconds are reduced to that.
///
/// # Errors
/// It is malformed.
pub fn parse(text: &str) -> Result<Duration, Malformed> {
    if text.len() < 2 {
        return Err(Malformed::TooShort);
    }
    let (digits, unit) = split(text);
    let of: fn(u64) -> Duration = match unit {
        "H" => |number| Duration::from_secs(number.saturating_mul(3600)),
        "M" => |number| Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs,
        "m" => Duration::from_millis,
        "u" => Duration::from_micros,
        "n" => Duration::from_nanos,
        _ => return Err(Malformed::Unit),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number).map(of).ok_or(Malformed::Number)
}

/// The digits, and the last letter.
pub(super) fn split(text: &str) -> (&str, &str) {
    text.split_at(text.floor_char_boundary(text.len().saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        for (text, nanos) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("00000004m", 4_000_000),
            ("5u", 5_000),
            ("6n", 6),
            ("0n", 0),
        ] {
            assert_eq!(parse(text).map(|it| it.as_nanos()), Ok(nanos), "{text}");
        }
        for (text, why) in [
            ("", Malformed::TooShort),
            ("S", Malformed::TooShort),
            ("5x", Malformed::Unit),
            ("5\u{e4}", Malformed::Unit),
            ("+5S", Malformed::Number),
            ("-5S", Malformed::Number),
            ("99999999999999999999S", Malformed::Number),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
        assert_eq!(parse("18446744073709551615H"), Ok(Duration::from_secs(u64::MAX)));
    }
}
