//! Twins of the bulk responses, wire-compatible with those in [`crate::etcdserverpb`], whose keys
//! and events are bytes that were encoded once: a stored [`mvccpb::KeyValue`](crate::mvccpb::KeyValue)
//! is copied from the store to the socket unchanged, and one encoded event serves all watchers.

mod key_values;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{self, DecodeContext, WireType, encode_varint, encoded_len_varint};
use prost::{DecodeError, Message};

use self::key_values::KVS;
pub use self::key_values::{KeyValues, messages};
use crate::etcdserverpb::ResponseHeader;

/// `etcdserverpb.RangeResponse` whose `kvs` are encoded `mvccpb.KeyValue`s.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RangeResponse {
    /// The responding member, and the revision of the read.
    pub header: Option<ResponseHeader>,
    /// The key-values.
    pub kvs: KeyValues,
    /// True if the limit left keys out.
    pub more: bool,
    /// Number of keys in the range.
    pub count: i64,
}

impl Message for RangeResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if let Some(header) = &self.header {
            encoding::message::encode(1, header, buf);
        }
        self.kvs.encode(buf);
        if self.more {
            encoding::bool::encode(3, &self.more, buf);
        }
        if self.count != 0 {
            encoding::int64::encode(4, &self.count, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => {
                let header = self.header.get_or_insert_default();
                encoding::message::merge(wire_type, header, buf, context)
            }
            KVS => self.kvs.merge(wire_type, buf, context),
            3 => encoding::bool::merge(wire_type, &mut self.more, buf, context),
            4 => encoding::int64::merge(wire_type, &mut self.count, buf, context),
            _ => encoding::skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let count = match self.count {
            0 => 0,
            _ => encoding::int64::encoded_len(4, &self.count),
        };
        self.header.as_ref().map_or(0, |header| encoding::message::encoded_len(1, header))
            + self.kvs.bytes()
            + 2 * usize::from(self.more)
            + count
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// `etcdserverpb.RangeStreamResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeStreamResponse {
    #[prost(message, optional, tag = "1")]
    pub range_response: Option<RangeResponse>,
}

/// `etcdserverpb.PutResponse` whose `prev_kv` is an encoded `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub prev_kv: Option<Bytes>,
}

/// `etcdserverpb.DeleteRangeResponse` whose `prev_kvs` are encoded `mvccpb.KeyValue`s.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub deleted: i64,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub prev_kvs: Vec<Bytes>,
}

/// `etcdserverpb.TxnResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

/// `etcdserverpb.ResponseOp`; encoded and decoded as [`crate::nested`] does it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ResponseOp {
    /// The result of the operation.
    pub response: Option<Response>,
}

/// The response to one operation of a transaction.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Response {
    #[prost(message, tag = "1")]
    ResponseRange(RangeResponse),
    #[prost(message, tag = "2")]
    ResponsePut(PutResponse),
    #[prost(message, tag = "3")]
    ResponseDeleteRange(DeleteRangeResponse),
    #[prost(message, tag = "4")]
    ResponseTxn(TxnResponse),
}

/// `etcdserverpb.WatchResponse` whose events are one encoded body that many watchers share.
///
/// Ten thousand watchers of a key get ten thousand responses that differ in their watch id alone, so
/// the repeated field 11 is stored in its encoded form, tags and lengths included, and
/// appended to each response as it is.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WatchResponse {
    /// The responding member, and the revision of the response.
    pub header: Option<ResponseHeader>,
    /// The watch; −1 for all watches of the stream.
    pub watch_id: i64,
    /// Answers a create request.
    pub created: bool,
    /// No more responses will come for this id.
    pub canceled: bool,
    /// The compacted revision, if that is why the watch was canceled.
    pub compact_revision: i64,
    /// Reason why a watch could not be created.
    pub cancel_reason: String,
    /// More events of the same revision follow.
    pub fragment: bool,
    /// Field 11, repeated, each with tag and length: see [`push_event`].
    pub events: Bytes,
}

const EVENTS: u32 = 11;
/// Field 11 or 3, wire type 2, as one byte.
const EVENTS_TAG: u8 = (EVENTS << 3 | 2) as u8;
const PREV_KV_TAG: u8 = 3 << 3 | 2;

/// Appends an encoded `mvccpb.Event` to the body of a [`WatchResponse`]; `prev_kv` is the encoded
/// `mvccpb.KeyValue` to add to it.
pub fn push_event(body: &mut impl BufMut, event: &[u8], prev_kv: Option<&[u8]>) {
    body.put_u8(EVENTS_TAG);
    encode_varint(event_len(event, prev_kv) as u64, body);
    body.put_slice(event);
    if let Some(prev) = prev_kv {
        body.put_u8(PREV_KV_TAG);
        encode_varint(prev.len() as u64, body);
        body.put_slice(prev);
    }
}

/// Number of bytes that [`push_event`] appends.
pub fn pushed_len(event: &[u8], prev_kv: Option<&[u8]>) -> usize {
    let length = event_len(event, prev_kv);
    1 + encoded_len_varint(length as u64) + length
}

fn event_len(event: &[u8], prev_kv: Option<&[u8]>) -> usize {
    let added = prev_kv.map_or(0, |prev| 1 + encoded_len_varint(prev.len() as u64) + prev.len());
    event.len() + added
}

impl WatchResponse {
    /// Number of events in the body.
    pub fn events_count(&self) -> usize {
        let (mut rest, mut count) = (&self.events[..], 0);
        while rest.has_remaining() {
            rest.advance(1);
            let length = encoding::decode_varint(&mut rest).unwrap_or(0) as usize;
            rest.advance(length.min(rest.len()));
            count += 1;
        }
        count
    }
}

impl Message for WatchResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if let Some(header) = &self.header {
            encoding::message::encode(1, header, buf);
        }
        if self.watch_id != 0 {
            encoding::int64::encode(2, &self.watch_id, buf);
        }
        if self.created {
            encoding::bool::encode(3, &self.created, buf);
        }
        if self.canceled {
            encoding::bool::encode(4, &self.canceled, buf);
        }
        if self.compact_revision != 0 {
            encoding::int64::encode(5, &self.compact_revision, buf);
        }
        if !self.cancel_reason.is_empty() {
            encoding::string::encode(6, &self.cancel_reason, buf);
        }
        if self.fragment {
            encoding::bool::encode(7, &self.fragment, buf);
        }
        buf.put_slice(&self.events);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => {
                let header = self.header.get_or_insert_default();
                encoding::message::merge(wire_type, header, buf, context)
            }
            2 => encoding::int64::merge(wire_type, &mut self.watch_id, buf, context),
            3 => encoding::bool::merge(wire_type, &mut self.created, buf, context),
            4 => encoding::bool::merge(wire_type, &mut self.canceled, buf, context),
            5 => encoding::int64::merge(wire_type, &mut self.compact_revision, buf, context),
            6 => encoding::string::merge(wire_type, &mut self.cancel_reason, buf, context),
            7 => encoding::bool::merge(wire_type, &mut self.fragment, buf, context),
            EVENTS => {
                let mut event = Bytes::new();
                encoding::bytes::merge(wire_type, &mut event, buf, context)?;
                let mut body = BytesMut::from(std::mem::take(&mut self.events));
                push_event(&mut body, &event, None);
                self.events = body.freeze();
                Ok(())
            }
            _ => encoding::skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let flags =
            usize::from(self.created) + usize::from(self.canceled) + usize::from(self.fragment);
        let number = |tag, value: &i64| match value {
            0 => 0,
            _ => encoding::int64::encoded_len(tag, value),
        };
        let reason = match self.cancel_reason.as_str() {
            "" => 0,
            _ => encoding::string::encoded_len(6, &self.cancel_reason),
        };
        self.header.as_ref().map_or(0, |header| encoding::message::encoded_len(1, header))
            + number(2, &self.watch_id)
            + number(5, &self.compact_revision)
            + reason
            + 2 * flags
            + self.events.len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::{WatchResponse, push_event, pushed_len};
    use crate::{etcdserverpb, mvccpb};

    fn key_value(key: &'static str) -> mvccpb::KeyValue {
        mvccpb::KeyValue { key: key.into(), mod_revision: 300, ..Default::default() }
    }

    #[test]
    fn a_watch_response_reads_like_the_typed_one() {
        let prev = key_value("old").encode_to_vec();
        let event = mvccpb::Event { kv: Some(key_value("new")), ..Default::default() };
        let encoded = event.encode_to_vec();
        let mut body = Vec::new();
        push_event(&mut body, &encoded, None);
        push_event(&mut body, &encoded, Some(&prev));
        assert_eq!(body.len(), pushed_len(&encoded, None) + pushed_len(&encoded, Some(&prev)));
        let header =
            etcdserverpb::ResponseHeader { cluster_id: 7, member_id: 8, revision: 9, raft_term: 1 };
        let response = WatchResponse {
            header: Some(header),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 12,
            cancel_reason: "because".into(),
            fragment: true,
            events: body.into(),
        };
        assert_eq!(response.events_count(), 2);
        let bytes = response.encode_to_vec();
        assert_eq!(bytes.len(), response.encoded_len());
        assert_eq!(WatchResponse::decode(&bytes[..]), Ok(response));
        let typed = etcdserverpb::WatchResponse::decode(&bytes[..]).expect("typed");
        let with_prev = mvccpb::Event { prev_kv: Some(key_value("old")), ..event.clone() };
        assert_eq!(typed.events, [event, with_prev]);
        assert_eq!(typed.encode_to_vec(), bytes);
        assert_eq!(WatchResponse::default().encoded_len(), 0);
    }
}
