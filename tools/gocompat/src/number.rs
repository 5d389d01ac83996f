//! Numbers as Go's `strconv` parses them, with its error texts.

use crate::quote::quote;

/// `strconv.ParseInt` with 64 bits; base 0 goes by the prefix.
///
/// # Errors
/// Go's error text.
pub fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = magnitude(digits, base).map_err(|why| why.text("ParseInt", text))?;
    let number = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(number).map_err(|_| Wrong::Range.text("ParseInt", text))
}

/// `strconv.ParseUint` with 64 bits.
///
/// # Errors
/// Go's error text.
pub fn parse_uint(text: &str, base: u32) -> Result<u64, String> {
    magnitude(text, base).map_err(|why| why.text("ParseUint", text))
}

/// `strconv.ParseUint` with 32 bits; the base goes by the prefix.
///
/// # Errors
/// Go's error text.
pub fn parse_uint32(text: &str) -> Result<u32, String> {
    let number = magnitude(text, 0).map_err(|why| why.text("ParseUint", text))?;
    u32::try_from(number).map_err(|_| Wrong::Range.text("ParseUint", text))
}

/// `strconv.ParseBool`.
///
/// # Errors
/// Go's error text.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Wrong::Syntax.text("ParseBool", text)),
    }
}

enum Wrong {
    Syntax,
    Range,
}

impl Wrong {
    fn text(&self, function: &str, text: &str) -> String {
        let why = match self {
            Self::Syntax => "invalid syntax",
            Self::Range => "value out of range",
        };
        format!("strconv.{function}: parsing {}: {why}", quote(text))
    }
}

fn magnitude(text: &str, base: u32) -> Result<u64, Wrong> {
    let (digits, base) = if base == 0 { by_prefix(text) } else { (text.to_owned(), base) };
    if digits.is_empty() || !digits.chars().all(|it| it.is_digit(base)) {
        return Err(Wrong::Syntax);
    }
    u64::from_str_radix(&digits, base).map_err(|_| Wrong::Range)
}

/// The digits without prefix and underscores, and the base that the prefix names.
fn by_prefix(text: &str) -> (String, u32) {
    let lower = text.to_ascii_lowercase();
    let (digits, base) = match lower.get(..2) {
        Some("0x") => (&lower[2..], 16),
        Some("0b") => (&lower[2..], 2),
        Some("0o") => (&lower[2..], 8),
        Some(two) if two.starts_with('0') => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    let between = !digits.contains("__") && !digits.ends_with('_');
    let between = between && (base != 10 || !digits.starts_with('_'));
    (if between { digits.replace('_', "") } else { digits.to_owned() }, base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_does() {
        assert_eq!(parse_int("-12", 10), Ok(-12));
        assert_eq!(parse_int("0x1F", 0), Ok(31));
        assert_eq!(parse_int("010", 0), Ok(8));
        assert_eq!(parse_int("1_000", 0), Ok(1000));
        assert_eq!(parse_int("-9223372036854775808", 10), Ok(i64::MIN));
        let out = "strconv.ParseInt: parsing \"9223372036854775808\": value out of range";
        assert_eq!(parse_int("9223372036854775808", 10), Err(out.to_owned()));
        let bad = "strconv.ParseInt: parsing \"x\": invalid syntax";
        assert_eq!(parse_int("x", 16), Err(bad.to_owned()));
        assert!(parse_uint("-1", 16).is_err() && parse_bool("yes").is_err());
    }
}
