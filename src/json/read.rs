//! JSON to protobuf: one pass over the text, directly to encoded bytes.

use std::collections::BTreeSet;

use prost::encoding::{WireType, encode_key, encode_varint};

use super::schema::{Field, Kind as Type, Message, MessageId, Schema};
use super::token::{Kind, Token, Tokens};
use super::{Value, base64, number};

/// Nesting depth of messages: as deep as encoded ones are decoded, two for each transaction and the depth of
/// the innermost one.
const DEPTH_MAX: usize = 2 * basalt_proto::nested::DEPTH_MAX + 3;

impl Schema {
    /// Encodes a message that is written as JSON. Members that the message does not have are ignored, and so are names
    /// that an enum does not have.
    ///
    /// # Errors
    /// The error and its position, with the text of `protojson`.
    pub fn encode(&self, message: MessageId, value: &Value) -> Result<Vec<u8>, String> {
        let mut reader = Reader { schema: self, tokens: Tokens::new(value) };
        let mut out = Vec::new();
        reader.message(message, &mut out, DEPTH_MAX)?;
        Ok(out)
    }
}

struct Reader<'a> {
    schema: &'a Schema,
    tokens: Tokens<'a>,
}

impl Reader<'_> {
    fn message(&mut self, id: MessageId, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        let Some(depth) = depth.checked_sub(1) else { return Err(too_deep()) };
        let open = self.tokens.read()?;
        if open.kind != Kind::ObjectOpen {
            return Err(self.tokens.unexpected(&open));
        }
        let message = self.schema.message(id);
        let mut seen = Seen::default();
        loop {
            let token = self.tokens.read()?;
            let Kind::Text(name) = &token.kind else { break };
            let Some((at, field)) = message.named(name) else {
                self.skip()?;
                continue;
            };
            if !seen.fields.insert(at) {
                let what = format!("duplicate field {}", token.text());
                return Err(self.tokens.error(&token, &what));
            }
            if self.tokens.peek()?.kind == Kind::Null {
                self.tokens.read()?;
                continue;
            }
            self.choose(message, field, &token, &mut seen)?;
            match field.repeated {
                true => self.list(field, out, depth)?,
                false => self.one(field, out, depth)?,
            }
        }
        Ok(())
    }

    /// Of the members of a oneof, only one may be given.
    fn choose(
        &self,
        message: &Message,
        field: &Field,
        name: &Token<'_>,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let Some(choice) = field.choice else { return Ok(()) };
        if seen.choices.insert(choice) {
            return Ok(());
        }
        let (name_text, oneof) = (name.text(), &message.choices[choice]);
        let what = format!("error parsing {name_text}, oneof {oneof} is already set");
        Err(self.tokens.error(name, &what))
    }

    fn one(&mut self, field: &Field, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        if let Type::Message(id) = field.kind {
            let mut inner = Vec::new();
            self.message(id, &mut inner, depth)?;
            delimited(field.number, &inner, out);
            return Ok(());
        }
        match self.scalar(field)? {
            // A default value is not written.
            Scalar::Number(0) if field.choice.is_none() => (),
            Scalar::Number(number) => {
                encode_key(field.number, WireType::Varint, out);
                encode_varint(number, out);
            }
            Scalar::Bytes(bytes) if bytes.is_empty() && field.choice.is_none() => (),
            Scalar::Bytes(bytes) => delimited(field.number, &bytes, out),
            Scalar::Unknown => (),
        }
        Ok(())
    }

    fn list(&mut self, field: &Field, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        let open = self.tokens.read()?;
        if open.kind != Kind::ArrayOpen {
            return Err(self.tokens.unexpected(&open));
        }
        let mut packed = Vec::new();
        while self.tokens.peek()?.kind != Kind::ArrayClose {
            if let Type::Message(id) = field.kind {
                let mut inner = Vec::new();
                self.message(id, &mut inner, depth)?;
                delimited(field.number, &inner, out);
                continue;
            }
            match self.scalar(field)? {
                Scalar::Number(number) => encode_varint(number, &mut packed),
                Scalar::Bytes(bytes) => delimited(field.number, &bytes, out),
                Scalar::Unknown => (),
            }
        }
        self.tokens.read()?;
        if !packed.is_empty() {
            delimited(field.number, &packed, out);
        }
        Ok(())
    }

    fn scalar(&mut self, field: &Field) -> Result<Scalar, String> {
        let token = self.tokens.read()?;
        self.fitting(field, &token).ok_or_else(|| {
            let (kind, name) = (field.kind.name(), &field.json_name);
            let what = format!("invalid value for {kind} field {name}: {}", token.text());
            self.tokens.error(&token, &what)
        })
    }

    fn fitting(&self, field: &Field, token: &Token<'_>) -> Option<Scalar> {
        let signed = |number: i64| Scalar::Number(number as u64);
        let text = if let Kind::Text(text) = &token.kind { Some(text) } else { None };
        Some(match field.kind {
            Type::Bool => {
                let Kind::Bool(value) = token.kind else { return None };
                Scalar::Number(u64::from(value))
            }
            Type::Int32 => signed(i64::from(number::whole(token)?.parse::<i32>().ok()?)),
            Type::Int64 => signed(number::whole(token)?.parse().ok()?),
            Type::Uint32 => Scalar::Number(u64::from(number::whole(token)?.parse::<u32>().ok()?)),
            Type::Uint64 => Scalar::Number(number::whole(token)?.parse().ok()?),
            Type::Text => Scalar::Bytes(text?.as_bytes().to_vec()),
            Type::Bytes => Scalar::Bytes(base64::decode(text?)?),
            Type::Enum(id) => match text {
                Some(text) => {
                    let values = &self.schema.names_of(id).values;
                    let found = values.iter().find(|(name, _)| name == text);
                    found.map_or(Scalar::Unknown, |(_, number)| signed(i64::from(*number)))
                }
                None => signed(i64::from(number::whole(token)?.parse::<i32>().ok()?)),
            },
            Type::Message(_) => return None,
        })
    }

    /// Skips one value.
    fn skip(&mut self) -> Result<(), String> {
        let mut open = 0_usize;
        loop {
            match self.tokens.read()?.kind {
                Kind::ObjectOpen | Kind::ArrayOpen => open += 1,
                Kind::ObjectClose | Kind::ArrayClose => open = open.saturating_sub(1),
                Kind::End => return Ok(()),
                Kind::Null | Kind::Bool(_) | Kind::Number | Kind::Text(_) => (),
            }
            if open == 0 {
                return Ok(());
            }
        }
    }
}

/// Fields and oneofs that were given already.
#[derive(Default)]
struct Seen {
    fields: BTreeSet<usize>,
    choices: BTreeSet<usize>,
}

enum Scalar {
    Number(u64),
    Bytes(Vec<u8>),
    /// A name that the enum does not have.
    Unknown,
}

fn too_deep() -> String {
    "proto: exceeded max recursion depth".to_owned()
}

fn delimited(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
