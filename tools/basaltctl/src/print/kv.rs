//! Keys and values: responses to get, put, del, txn and watch.

use basalt_proto::etcdserverpb::response_op::Response;
use basalt_proto::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, TxnResponse, WatchResponse,
};
use basalt_proto::mvccpb::KeyValue;
use prost::Message as _;

use crate::go::json::Json;
use crate::print::{Answer, Printer, fields, message};

/// A key and its value on a line each.
fn key_value(printer: &Printer, out: &mut Vec<u8>, kv: &KeyValue) {
    if !printer.value_only {
        raw(printer, out, &kv.key);
    }
    raw(printer, out, &kv.value);
}

fn raw(printer: &Printer, out: &mut Vec<u8>, bytes: &[u8]) {
    if printer.hex {
        for byte in bytes {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'\n');
}

impl Answer for RangeResponse {
    fn simple(&self, printer: &Printer, out: &mut Vec<u8>) {
        for kv in &self.kvs {
            key_value(printer, out, kv);
        }
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        for kv in &self.kvs {
            fields::key_value(out, "", kv, printer.hex);
        }
        fields::line(out, "More", self.more);
        fields::line(out, "Count", self.count);
        true
    }

    fn json(&self, _: &Printer) -> Json {
        message::json("RangeResponse", &self.encode_to_vec())
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Answer for PutResponse {
    fn simple(&self, printer: &Printer, out: &mut Vec<u8>) {
        out.extend_from_slice(b"OK\n");
        if let Some(kv) = &self.prev_kv {
            key_value(printer, out, kv);
        }
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        if let Some(kv) = &self.prev_kv {
            fields::key_value(out, "Prev", kv, printer.hex);
        }
        true
    }

    fn json(&self, _: &Printer) -> Json {
        message::json("PutResponse", &self.encode_to_vec())
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Answer for DeleteRangeResponse {
    fn simple(&self, printer: &Printer, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{}\n", self.deleted).as_bytes());
        for kv in &self.prev_kvs {
            key_value(printer, out, kv);
        }
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        fields::line(out, "Deleted", self.deleted);
        for kv in &self.prev_kvs {
            fields::key_value(out, "Prev", kv, printer.hex);
        }
        true
    }

    fn json(&self, _: &Printer) -> Json {
        message::json("DeleteRangeResponse", &self.encode_to_vec())
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Answer for TxnResponse {
    fn simple(&self, printer: &Printer, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.succeeded { b"SUCCESS\n" } else { b"FAILURE\n" });
        for response in self.responses.iter().filter_map(|it| it.response.as_ref()) {
            out.push(b'\n');
            match response {
                Response::ResponseRange(it) => it.simple(printer, out),
                Response::ResponsePut(it) => it.simple(printer, out),
                Response::ResponseDeleteRange(it) => it.simple(printer, out),
                Response::ResponseTxn(it) => it.simple(printer, out),
            }
        }
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        fields::line(out, "Succeeded", self.succeeded);
        for response in self.responses.iter().filter_map(|it| it.response.as_ref()) {
            match response {
                Response::ResponseRange(it) => it.fields(printer, out),
                Response::ResponsePut(it) => it.fields(printer, out),
                Response::ResponseDeleteRange(it) => it.fields(printer, out),
                Response::ResponseTxn(it) => it.fields(printer, out),
            };
        }
        true
    }

    fn json(&self, _: &Printer) -> Json {
        message::json("TxnResponse", &self.encode_to_vec())
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Answer for WatchResponse {
    fn simple(&self, printer: &Printer, out: &mut Vec<u8>) {
        for event in &self.events {
            out.extend_from_slice(event.r#type().as_str_name().as_bytes());
            out.push(b'\n');
            if let Some(kv) = &event.prev_kv {
                key_value(printer, out, kv);
            }
            key_value(printer, out, &event.kv.clone().unwrap_or_default());
        }
    }

    fn fields(&self, printer: &Printer, out: &mut String) -> bool {
        fields::header(out, self.header.as_ref(), printer.hex);
        for event in &self.events {
            fields::line(out, "Type", event.r#type().as_str_name());
            if let Some(kv) = &event.prev_kv {
                fields::key_value(out, "Prev", kv, printer.hex);
            }
            fields::key_value(out, "", &event.kv.clone().unwrap_or_default(), printer.hex);
        }
        true
    }

    /// The Go client's own struct, which has no names for JSON.
    fn json(&self, _: &Printer) -> Json {
        let header = self
            .header
            .map_or(Json::Null, |it| message::json("ResponseHeader", &it.encode_to_vec()));
        let events =
            self.events.iter().map(|it| message::json("mvccpb.Event", &it.encode_to_vec()));
        let events: Vec<Json> = events.collect();
        Json::object([
            ("Header", header),
            ("Events", if events.is_empty() { Json::Null } else { Json::List(events) }),
            ("CompactRevision", Json::Int(self.compact_revision)),
            ("Canceled", Json::Bool(self.canceled)),
            ("Created", Json::Bool(self.created)),
            ("CancelReason", Json::text(&self.cancel_reason)),
        ])
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        let told = Self {
            header: self.header,
            events: self.events.clone(),
            compact_revision: self.compact_revision,
            canceled: self.canceled,
            created: self.created,
            ..Self::default()
        };
        Some(told.encode_to_vec())
    }
}
