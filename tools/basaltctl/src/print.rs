//! Responses in the format of `--write-out`. [`kv`], [`lease`], [`cluster`] and [`auth`] format
//! each response; this file holds the shared part.

pub(crate) mod auth;
pub(crate) mod cluster;
pub(crate) mod fields;
pub(crate) mod human;
pub(crate) mod kv;
pub(crate) mod lease;
pub(crate) mod message;
pub(crate) mod out;
pub(crate) mod progress;
pub(crate) mod table;

use prost::Message;

use crate::go::json::Json;
use crate::{Failure, exit};

/// `--write-out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

/// Prints responses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    pub(crate) hex: bool,
    /// Values without their keys.
    pub(crate) value_only: bool,
}

/// A response that can be printed.
pub(crate) trait Answer {
    /// The format `simple`.
    fn simple(&self, printer: &Printer, out: &mut Vec<u8>);
    /// `"Name" : value` lines, if there are any.
    fn fields(&self, _: &Printer, _: &mut String) -> bool {
        false
    }
    /// One line of JSON.
    fn json(&self, printer: &Printer) -> Json;
    /// The message as it was received, if the response is one.
    fn protobuf(&self) -> Option<Vec<u8>>;
    /// Heading and rows, if it is a table.
    fn table(&self) -> Option<(Vec<String>, Vec<Vec<String>>)> {
        None
    }
}

impl Printer {
    /// Prints an answer.
    ///
    /// # Errors
    /// The response has no such format.
    pub(crate) fn show(&self, answer: &impl Answer) -> Result<(), Failure> {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => answer.simple(self, &mut out),
            Format::Fields => {
                let mut text = String::new();
                if !answer.fields(self, &mut text) {
                    return Err(unsupported("fields"));
                }
                out = text.into_bytes();
            }
            Format::Json => out = (answer.json(self).encode() + "\n").into_bytes(),
            Format::Protobuf => {
                out = answer.protobuf().ok_or_else(|| unsupported("protobuf"))?;
            }
            Format::Table => {
                let (heading, rows) = answer.table().ok_or_else(|| unsupported("table"))?;
                out = table::render(&heading, &rows).into_bytes();
            }
        }
        out::bytes(&out);
        Ok(())
    }
}

fn unsupported(format: &str) -> Failure {
    Failure::new(exit::BAD_FEATURE, format!("{format} not supported as output format"))
}

/// A response that only confirms a command.
pub(crate) struct Printed {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) simple: Vec<u8>,
    /// Its lines, if etcdctl has any for it.
    pub(crate) fields: Option<String>,
}

impl Printed {
    /// `name` is the message's name in etcd's package.
    pub(crate) fn new(name: &'static str, message: &impl Message, simple: String) -> Self {
        Self { name, bytes: message.encode_to_vec(), simple: simple.into_bytes(), fields: None }
    }

    pub(crate) fn fields(self, fields: String) -> Self {
        Self { fields: Some(fields), ..self }
    }
}

impl Answer for Printed {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.simple);
    }

    fn fields(&self, _: &Printer, out: &mut String) -> bool {
        out.push_str(self.fields.as_deref().unwrap_or_default());
        self.fields.is_some()
    }

    fn json(&self, _: &Printer) -> Json {
        message::json(self.name, &self.bytes)
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.bytes.clone())
    }
}
