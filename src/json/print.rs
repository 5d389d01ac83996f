//! Protobuf to JSON: names as in the .proto files, fields in the order of their declaration, no defaults,
//! 64-bit numbers as text, bytes as base64, enums by their names.

use std::fmt::Write as _;

use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::base64;
use super::schema::{Field, Kind, MessageId, Schema};

/// Escaping of texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spelling {
    /// As JSON requires.
    Plain,
    /// Characters with a meaning in HTML are escaped too, as by Go's `encoding/json`.
    Html,
}

impl Schema {
    /// Appends an encoded message as JSON.
    ///
    /// # Errors
    /// The bytes are not such a message.
    pub fn print(
        &self,
        message: MessageId,
        bytes: &[u8],
        spelling: Spelling,
        out: &mut String,
    ) -> Result<(), String> {
        let message = self.message(message);
        let mut parts = Vec::new();
        let mut rest = bytes;
        while rest.has_remaining() {
            let (number, wire) = decode_key(&mut rest).map_err(|error| error.to_string())?;
            match message.numbered(number) {
                Some(at) => parts.push((at, Part::read(wire, &mut rest)?)),
                None => skip_field(wire, number, &mut rest, DecodeContext::default())
                    .map_err(|error| error.to_string())?,
            }
        }
        // Stable, so that the members of a list keep their order.
        parts.sort_by_key(|(at, _)| *at);
        out.push('{');
        let mut is_first = true;
        for parts in parts.chunk_by(|(one, _), (other, _)| one == other) {
            let field = &message.fields[parts[0].0];
            let parts = parts.iter().map(|(_, part)| *part);
            let begin = out.len();
            if !std::mem::take(&mut is_first) {
                out.push(',');
            }
            out.push('"');
            out.push_str(&field.name);
            out.push_str("\":");
            let printed = match field.repeated {
                true => self.list(field, parts, spelling, out)?,
                false => self.last(field, parts, spelling, out)?,
            };
            if !printed {
                out.truncate(begin);
                is_first = out.ends_with('{');
            }
        }
        out.push('}');
        Ok(())
    }

    fn list<'a>(
        &self,
        field: &Field,
        parts: impl Iterator<Item = Part<'a>>,
        spelling: Spelling,
        out: &mut String,
    ) -> Result<bool, String> {
        out.push('[');
        let begin = out.len();
        for part in parts {
            match part {
                Part::Bytes(mut packed) if field.kind.is_packed() => {
                    while packed.has_remaining() {
                        let number =
                            decode_varint(&mut packed).map_err(|error| error.to_string())?;
                        self.one(field, Part::Number(number), spelling, out)?;
                        out.push(',');
                    }
                }
                Part::Bytes(_) | Part::Number(_) => {
                    self.one(field, part, spelling, out)?;
                    out.push(',');
                }
            }
        }
        if out.len() == begin {
            return Ok(false);
        }
        out.pop();
        out.push(']');
        Ok(true)
    }

    /// The last occurrence of a field counts; a default is not written.
    fn last<'a>(
        &self,
        field: &Field,
        parts: impl Iterator<Item = Part<'a>>,
        spelling: Spelling,
        out: &mut String,
    ) -> Result<bool, String> {
        let Some(part) = parts.last() else { return Ok(false) };
        let is_message = matches!(field.kind, Kind::Message(_));
        if part.is_default() && field.choice.is_none() && !is_message {
            return Ok(false);
        }
        self.one(field, part, spelling, out).map(|()| true)
    }

    fn one(
        &self,
        field: &Field,
        part: Part<'_>,
        spelling: Spelling,
        out: &mut String,
    ) -> Result<(), String> {
        match (field.kind, part) {
            (Kind::Message(id), Part::Bytes(bytes)) => self.print(id, bytes, spelling, out)?,
            (Kind::Text, Part::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
                quote(text, spelling, out);
            }
            (Kind::Bytes, Part::Bytes(bytes)) => {
                out.push('"');
                base64::encode(bytes, out);
                out.push('"');
            }
            (kind, Part::Number(number)) => self.number(kind, number, out)?,
            (Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint32, Part::Bytes(_))
            | (Kind::Uint64 | Kind::Enum(_), Part::Bytes(_)) => return Err(mismatch()),
        }
        Ok(())
    }

    fn number(&self, kind: Kind, number: u64, out: &mut String) -> Result<(), String> {
        let written = match kind {
            Kind::Bool => write!(out, "{}", number != 0),
            Kind::Int32 => write!(out, "{}", number as i32),
            Kind::Uint32 => write!(out, "{}", number as u32),
            Kind::Int64 => write!(out, "\"{}\"", number as i64),
            Kind::Uint64 => write!(out, "\"{number}\""),
            Kind::Enum(id) => {
                let number = number as i32;
                let values = &self.names_of(id).values;
                match values.iter().find(|(_, it)| *it == number) {
                    Some((name, _)) => write!(out, "\"{name}\""),
                    None => write!(out, "{number}"),
                }
            }
            Kind::Text | Kind::Bytes | Kind::Message(_) => return Err(mismatch()),
        };
        written.map_err(|error| error.to_string())
    }
}

/// The occurrences of a field.
#[derive(Clone, Copy)]
enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Part<'a> {
    fn read(wire: WireType, rest: &mut &'a [u8]) -> Result<Self, String> {
        let number = |rest: &mut &'a [u8]| decode_varint(rest).map_err(|error| error.to_string());
        match wire {
            WireType::Varint => number(rest).map(Self::Number),
            WireType::LengthDelimited => {
                let length = usize::try_from(number(rest)?).unwrap_or(usize::MAX);
                let (bytes, behind) = rest.split_at_checked(length).ok_or_else(mismatch)?;
                *rest = behind;
                Ok(Self::Bytes(bytes))
            }
            WireType::ThirtyTwoBit
            | WireType::SixtyFourBit
            | WireType::StartGroup
            | WireType::EndGroup => Err(mismatch()),
        }
    }

    const fn is_default(self) -> bool {
        match self {
            Self::Number(number) => number == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

fn mismatch() -> String {
    "a field is of another kind than its descriptor says".to_owned()
}

/// Appends a text in quotation marks.
pub fn quote(text: &str, spelling: Spelling, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if spelling == Spelling::Html => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            '\0'..' ' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}
