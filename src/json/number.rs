//! Integers as `protojson` reads them: any notation of an integral number, so `1e3` and `5.0` too.

use super::token::{Kind, Token};

/// Digits of the largest number.
const DIGITS_MAX: usize = 20;

/// The digits of an integer, with its sign, if a token is one: as a number, or as a text that begins with one.
pub(super) fn whole(token: &Token<'_>) -> Option<String> {
    match &token.kind {
        Kind::Number => digits(token.raw),
        Kind::Text(text) if text.trim().len() == text.len() => {
            let text = text.as_bytes();
            digits(&text[..length(text)?])
        }
        Kind::Text(_)
        | Kind::End
        | Kind::Null
        | Kind::Bool(_)
        | Kind::ObjectOpen
        | Kind::ObjectClose
        | Kind::ArrayOpen
        | Kind::ArrayClose => None,
    }
}

/// Number of digits at the beginning.
fn run(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Length of the number at the beginning of a text.
fn length(text: &[u8]) -> Option<usize> {
    let mut length = usize::from(text.first() == Some(&b'-'));
    length += match text.get(length)? {
        b'0' => 1,
        b'1'..=b'9' => run(&text[length..]),
        _ => return None,
    };
    if text.get(length) == Some(&b'.') && run(&text[length + 1..]) > 0 {
        length += 1 + run(&text[length + 1..]);
    }
    if matches!(text.get(length), Some(b'e' | b'E')) && text.len() >= length + 2 {
        length += 1;
        if matches!(text[length], b'+' | b'-') {
            length += 1;
            text.get(length)?;
        }
        length += run(&text[length..]);
    }
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"-+._".contains(byte);
    (!text.get(length).is_some_and(goes_on)).then_some(length)
}

/// The digits of an integral number.
fn digits(number: &[u8]) -> Option<String> {
    let number = std::str::from_utf8(number).ok()?;
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |number| ("-", number));
    let (number, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (before, behind) = number.split_once('.').unwrap_or((number, ""));
    let (before, behind) = (before.trim_start_matches('0'), behind.trim_end_matches('0'));
    if before.is_empty() && behind.is_empty() {
        return Some("0".to_owned());
    }
    let exponent: i32 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    let shift = exponent.unsigned_abs() as usize;
    let digits = if exponent >= 0 {
        if behind.len() > shift || before.len() + shift > DIGITS_MAX {
            return None;
        }
        format!("{before}{behind}{}", "0".repeat(shift - behind.len()))
    } else {
        if !behind.is_empty() || shift > before.len() {
            return None;
        }
        let (whole, cut) = before.split_at(before.len() - shift);
        if cut.bytes().any(|digit| digit != b'0') {
            return None;
        }
        whole.to_owned()
    };
    Some(format!("{sign}{digits}"))
}
