//! Leases. The Go client's own structs, whose header lies flat in them: JSON has its fields among the
//! others, protobuf has nothing else.

use basalt_proto::etcdserverpb::{
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseTimeToLiveResponse,
    ResponseHeader,
};
use prost::Message as _;

use crate::go::json::Json;
use crate::print::{Answer, Printer, fields, message};

fn flat<const N: usize>(header: Option<&ResponseHeader>, own: [(&str, Json); N]) -> Json {
    let mut all = match header.map(|it| message::json("ResponseHeader", &it.encode_to_vec())) {
        Some(Json::Object(fields)) => fields,
        _ => Vec::new(),
    };
    all.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Json::Object(all)
}

fn header_bytes(header: Option<&ResponseHeader>) -> Option<Vec<u8>> {
    Some(header.copied().unwrap_or_default().encode_to_vec())
}

impl Answer for LeaseGrantResponse {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        let line = format!("lease {:016x} granted with TTL({}s)\n", self.id, self.ttl);
        out.extend_from_slice(line.as_bytes());
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        fields::lease(out, "ID", self.id, printer.hex);
        fields::line(out, "TTL", self.ttl);
        true
    }

    fn json(&self, _: &Printer) -> Json {
        let error = Json::text(&self.error);
        let own = [("ID", Json::Int(self.id)), ("TTL", Json::Int(self.ttl)), ("Error", error)];
        flat(self.header.as_ref(), own)
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        header_bytes(self.header.as_ref())
    }
}

impl Answer for LeaseKeepAliveResponse {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        let line = format!("lease {:016x} keepalived with TTL({})\n", self.id, self.ttl);
        out.extend_from_slice(line.as_bytes());
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        fields::lease(out, "ID", self.id, printer.hex);
        fields::line(out, "TTL", self.ttl);
        true
    }

    fn json(&self, _: &Printer) -> Json {
        let own = [("ID", Json::Int(self.id)), ("TTL", Json::Int(self.ttl))];
        flat(self.header.as_ref(), own)
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        header_bytes(self.header.as_ref())
    }
}

/// Remaining time of a lease, and true if its keys were asked for.
pub(crate) struct TimeToLive(pub(crate) LeaseTimeToLiveResponse, pub(crate) bool);

impl Answer for TimeToLive {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        let it = &self.0;
        if it.granted_ttl == 0 && it.ttl == -1 {
            out.extend_from_slice(format!("lease {:016x} already expired\n", it.id).as_bytes());
            return;
        }
        let text = format!(
            "lease {:016x} granted with TTL({}s), remaining({}s)",
            it.id, it.granted_ttl, it.ttl
        );
        out.extend_from_slice(text.as_bytes());
        if self.1 {
            out.extend_from_slice(b", attached keys([");
            out.extend_from_slice(&it.keys.join(&b' '));
            out.extend_from_slice(b"])");
        }
        out.push(b'\n');
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.0.header.as_ref(), printer.hex);
        fields::lease(out, "ID", self.0.id, printer.hex);
        fields::line(out, "TTL", self.0.ttl);
        fields::line(out, "GrantedTTL", self.0.granted_ttl);
        for key in &self.0.keys {
            fields::text(out, "Key", key);
        }
        true
    }

    fn json(&self, _: &Printer) -> Json {
        let keys: Vec<Json> = self.0.keys.iter().map(|it| Json::Bytes(it.to_vec())).collect();
        let own = [
            ("id", Json::Int(self.0.id)),
            ("ttl", Json::Int(self.0.ttl)),
            ("granted-ttl", Json::Int(self.0.granted_ttl)),
            ("keys", if keys.is_empty() { Json::Null } else { Json::List(keys) }),
        ];
        flat(self.0.header.as_ref(), own)
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        header_bytes(self.0.header.as_ref())
    }
}

impl Answer for LeaseLeasesResponse {
    fn simple(&self, _: &Printer, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("found {} leases\n", self.leases.len()).as_bytes());
        for lease in &self.leases {
            out.extend_from_slice(format!("{:016x}\n", lease.id).as_bytes());
        }
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        for lease in &self.leases {
            fields::lease(out, "ID", lease.id, printer.hex);
        }
        true
    }

    fn json(&self, _: &Printer) -> Json {
        let leases = self.leases.iter().map(|it| Json::object([("id", Json::Int(it.id))]));
        flat(self.header.as_ref(), [("leases", Json::List(leases.collect()))])
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        header_bytes(self.header.as_ref())
    }
}
