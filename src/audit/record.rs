//! A line of the audit log.

use std::time::Duration;

use basalt_proto::rpc::Rpc;
use gocompat::time::rfc3339_micros;
use serde_json::{Map, Value};

use super::target::Target;
use crate::types::{CODE_NAMES, code_number};

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct AuditRecord<'a> {
    /// When it was answered, since 1970.
    pub time: Duration,
    /// In whose name; nobody if `None`.
    pub user: Option<&'a str>,
    /// How that is known.
    pub source: &'static str,
    /// The fingerprint of the client's certificate, if it has one.
    pub certificate: Option<&'a str>,
    /// The client's address.
    pub address: &'a str,
    /// The RPC.
    pub rpc: Rpc,
    /// Its keys and names.
    pub target: &'a Target,
    /// gRPC's code of the answer.
    pub code: i32,
    /// The revision of the answer; 0 if it has none.
    pub revision: i64,
    /// How long it took.
    pub took: Duration,
}

impl AuditRecord<'_> {
    /// The record as one line of JSON.
    pub fn line(&self) -> String {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        put("ts", rfc3339_micros(self.time).into());
        put("user", self.user.into());
        put("source", self.source.into());
        if let Some(certificate) = self.certificate {
            put("certificate", certificate.into());
        }
        put("remote", self.address.into());
        put("rpc", self.rpc.method().path.into());
        self.target.describe(&mut put);
        put("code", CODE_NAMES[code_number(self.code)].into());
        if self.revision != 0 {
            put("revision", self.revision.into());
        }
        let took_us = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX);
        put("took-us", took_us.into());
        let mut line = Value::Object(fields).to_string();
        line.push('\n');
        line
    }
}
