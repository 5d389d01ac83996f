//! Finds the end of a JSON value and syntax errors, a byte at a time, as text arrives in pieces. States and texts are
//! those of Go's `encoding/json`.

/// Nesting depth of values; Go's limit.
const DEPTH_MAX: usize = 10_000;

/// The expected next character.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A value.
    Value,
    /// A value, or the end of an empty array.
    ValueOrEnd,
    /// A name, or the end of an empty object.
    NameOrEnd,
    /// A name.
    Name,
    /// Any character that may follow a value.
    AfterValue,
    Text,
    Escape,
    /// So many hexadecimal digits.
    Hex(u8),
    /// The character after a minus.
    Minus,
    /// More digits before the point.
    Digits,
    /// The character after the digits before the point.
    Point,
    /// The first digit behind the point.
    Fraction,
    /// More digits behind the point.
    FractionDigits,
    Exponent,
    /// The first digit of the exponent.
    ExponentDigit,
    ExponentDigits,
    /// The rest of a literal: its text, and the length that was read.
    Word(&'static str, usize),
}

/// The enclosing value.
#[derive(Clone, Copy, Debug)]
enum Inside {
    /// An object, before the colon.
    Name,
    /// An object, after the colon.
    Member,
    Array,
}

/// The effect of a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The value continues.
    On,
    /// The value ended with this byte.
    Ended,
    /// The value ended before this byte, which is not part of it.
    EndedBefore,
}

/// Reads one value.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    inside: Vec<Inside>,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { state: State::Value, inside: Vec::new() }
    }

    /// Takes the next byte.
    ///
    /// # Errors
    /// Go's text for the error; the scanner cannot be used any more.
    pub(super) fn step(&mut self, byte: u8) -> Result<Step, String> {
        match self.state {
            State::Value => self.value(byte),
            State::ValueOrEnd if byte == b']' => self.after_value(byte),
            State::ValueOrEnd => self.value(byte),
            State::NameOrEnd if byte == b'}' => self.close(),
            State::NameOrEnd | State::Name => self.name(byte),
            State::AfterValue => self.after_value(byte),
            State::Text | State::Escape | State::Hex(_) => self.text(byte),
            State::Word(word, read) => self.word(byte, word, read),
            State::Minus
            | State::Digits
            | State::Point
            | State::Fraction
            | State::FractionDigits
            | State::Exponent
            | State::ExponentDigit
            | State::ExponentDigits => self.number(byte),
        }
    }

    fn to(&mut self, state: State) -> Result<Step, String> {
        self.state = state;
        Ok(Step::On)
    }

    fn value(&mut self, byte: u8) -> Result<Step, String> {
        match byte {
            _ if is_space(byte) => Ok(Step::On),
            b'{' => self.open(byte, Inside::Name, State::NameOrEnd),
            b'[' => self.open(byte, Inside::Array, State::ValueOrEnd),
            b'"' => self.to(State::Text),
            b'-' => self.to(State::Minus),
            b'0' => self.to(State::Point),
            b'1'..=b'9' => self.to(State::Digits),
            b't' => self.to(State::Word("true", 1)),
            b'f' => self.to(State::Word("false", 1)),
            b'n' => self.to(State::Word("null", 1)),
            _ => wrong(byte, "looking for beginning of value"),
        }
    }

    fn open(&mut self, byte: u8, inside: Inside, state: State) -> Result<Step, String> {
        self.inside.push(inside);
        match self.inside.len() <= DEPTH_MAX {
            true => self.to(state),
            false => wrong(byte, "exceeded max depth"),
        }
    }

    fn close(&mut self) -> Result<Step, String> {
        self.inside.pop();
        self.state = State::AfterValue;
        Ok(if self.inside.is_empty() { Step::Ended } else { Step::On })
    }

    fn name(&mut self, byte: u8) -> Result<Step, String> {
        match byte {
            _ if is_space(byte) => Ok(Step::On),
            b'"' => self.to(State::Text),
            _ => wrong(byte, "looking for beginning of object key string"),
        }
    }

    fn after_value(&mut self, byte: u8) -> Result<Step, String> {
        let Some(inside) = self.inside.last_mut() else { return Ok(Step::EndedBefore) };
        self.state = State::AfterValue;
        match (*inside, byte) {
            _ if is_space(byte) => Ok(Step::On),
            (Inside::Name, b':') => {
                *inside = Inside::Member;
                self.to(State::Value)
            }
            (Inside::Name, _) => wrong(byte, "after object key"),
            (Inside::Member, b',') => {
                *inside = Inside::Name;
                self.to(State::Name)
            }
            (Inside::Array, b',') => self.to(State::Value),
            (Inside::Member, b'}') | (Inside::Array, b']') => self.close(),
            (Inside::Member, _) => wrong(byte, "after object key:value pair"),
            (Inside::Array, _) => wrong(byte, "after array element"),
        }
    }

    fn text(&mut self, byte: u8) -> Result<Step, String> {
        match (self.state, byte) {
            (State::Hex(left), _) if byte.is_ascii_hexdigit() => {
                self.to(if left == 1 { State::Text } else { State::Hex(left - 1) })
            }
            (State::Hex(_), _) => wrong(byte, "in \\u hexadecimal character escape"),
            (State::Escape, b'u') => self.to(State::Hex(4)),
            (State::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => {
                self.to(State::Text)
            }
            (State::Escape, _) => wrong(byte, "in string escape code"),
            (_, b'"') => self.to(State::AfterValue),
            (_, b'\\') => self.to(State::Escape),
            (_, 0..0x20) => wrong(byte, "in string literal"),
            (_, _) => Ok(Step::On),
        }
    }

    fn number(&mut self, byte: u8) -> Result<Step, String> {
        let digit = byte.is_ascii_digit();
        match (self.state, byte) {
            (State::Minus, b'0') => self.to(State::Point),
            (State::Minus | State::Digits, _) if digit => self.to(State::Digits),
            (State::Minus, _) => wrong(byte, "in numeric literal"),
            (State::Digits | State::Point, b'.') => self.to(State::Fraction),
            (State::Fraction | State::FractionDigits, _) if digit => self.to(State::FractionDigits),
            (State::Fraction, _) => wrong(byte, "after decimal point in numeric literal"),
            (State::Digits | State::Point | State::FractionDigits, b'e' | b'E') => {
                self.to(State::Exponent)
            }
            (State::Exponent, b'+' | b'-') => self.to(State::ExponentDigit),
            (State::Exponent | State::ExponentDigit | State::ExponentDigits, _) if digit => {
                self.to(State::ExponentDigits)
            }
            (State::Exponent | State::ExponentDigit, _) => {
                wrong(byte, "in exponent of numeric literal")
            }
            (_, _) => self.after_value(byte),
        }
    }

    fn word(&mut self, byte: u8, word: &'static str, read: usize) -> Result<Step, String> {
        let expected = word.as_bytes()[read];
        if byte != expected {
            let expected = char::from(expected);
            return wrong(byte, &format!("in literal {word} (expecting '{expected}')"));
        }
        let is_whole = read + 1 == word.len();
        self.to(if is_whole { State::AfterValue } else { State::Word(word, read + 1) })
    }
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn wrong(byte: u8, context: &str) -> Result<Step, String> {
    Err(format!("invalid character {} {context}", quoted(byte)))
}

/// A byte as Go quotes it: as the character with that number.
fn quoted(byte: u8) -> String {
    let inner = match byte {
        b'\'' => "\\'".to_owned(),
        b'\\' => "\\\\".to_owned(),
        0x07 => "\\a".to_owned(),
        0x08 => "\\b".to_owned(),
        0x0c => "\\f".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        0x0b => "\\v".to_owned(),
        0..0x20 | 0x7f => format!("\\x{byte:02x}"),
        // Control characters, the no-break space, the soft hyphen.
        0x80..=0xa0 | 0xad => format!("\\u{byte:04x}"),
        _ => char::from(byte).to_string(),
    };
    format!("'{inner}'")
}
