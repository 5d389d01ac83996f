//! A line of the audit log.

use std::time::Duration;

use basalt_proto::codes::code_name;
use basalt_proto::rpc::Rpc;
use gocompat::time::write_rfc3339_micros;

use super::text::JsonObject;

/// Bytes of most lines, at most.
const LINE_BYTES: usize = 512;

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
    /// Its keys and names: [`super::Target::to_fields`].
    pub fields: &'a [u8],
    /// gRPC's code of the answer.
    pub code: i32,
    /// The revision of the answer; 0 if it has none.
    pub revision: i64,
    /// How long it took.
    pub took: Duration,
}

impl AuditRecord<'_> {
    /// The record as one line of JSON.
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(LINE_BYTES);
        let mut fields = JsonObject::begin(&mut line);
        let time = fields.value("ts");
        time.push(b'"');
        write_rfc3339_micros(time, self.time);
        time.push(b'"');
        fields.optional("user", self.user);
        fields.word("source", self.source);
        if let Some(certificate) = self.certificate {
            fields.text("certificate", certificate);
        }
        fields.text("remote", self.address);
        fields.word("rpc", self.rpc.method().path);
        fields.fields(self.fields);
        fields.word("code", code_name(self.code));
        if let Some(revision) = u64::try_from(self.revision).ok().filter(|it| *it != 0) {
            fields.number("revision", revision);
        }
        fields.number("took-us", u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX));
        fields.end();
        line.push(b'\n');
        line
    }
}
