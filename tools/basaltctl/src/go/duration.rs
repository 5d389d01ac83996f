//! Durations as Go reads and prints them.

use std::time::Duration;

use crate::go::quote::quote;

const UNITS: &[(&str, f64)] = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// `time.ParseDuration`; what is below zero has passed already.
///
/// # Errors
/// Go's text.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = unsigned;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(rest.len());
        let (unit, tail) = rest.split_at(end);
        rest = tail;
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let Some((_, factor)) = UNITS.iter().find(|it| it.0 == unit) else {
            return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text)));
        };
        nanos += number * factor;
    }
    if unsigned.is_empty() || nanos > 9.2e18 {
        return Err(invalid());
    }
    let nanos = if text.starts_with('-') { 0.0 } else { nanos };
    Ok(Duration::from_secs_f64(nanos / 1e9))
}

/// `Duration.String`.
pub(crate) fn text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimals(nanos, 3)),
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

fn decimals(number: u128, places: usize) -> String {
    let whole = number / 10_u128.pow(u32::try_from(places).unwrap_or(9));
    let part = number % 10_u128.pow(u32::try_from(places).unwrap_or(9));
    let part = format!("{part:0places$}");
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
        for (text_in, out) in
            [("5s", "5s"), ("300ms", "300ms"), ("1m30s", "1m30s"), ("1.5h", "1h30m0s"), ("0", "0s")]
        {
            assert_eq!(text(parse(text_in).unwrap()), out);
        }
        assert_eq!(text(Duration::from_nanos(3_275_748)), "3.275748ms");
        assert_eq!(parse("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(parse("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        assert_eq!(parse("x").unwrap_err(), "time: invalid duration \"x\"");
    }
}
