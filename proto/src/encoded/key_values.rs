//! `repeated mvccpb.KeyValue kvs = 2` of a range's response, encoded: one by one as the store holds them, or in runs.
//!
//! A response of many keys is written in runs while it is read, each a buffer that HTTP/2 takes as it is: nothing of the
//! store is referenced for longer than a step of reading takes, and nothing is encoded afterwards.

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use prost::DecodeError;
use prost::encoding::{self, decode_varint, encode_varint, encoded_len_varint};

/// The number of the field.
pub(super) const KVS: u32 = 2;
/// Its tag, wire type 2, as one byte.
const KVS_TAG: u8 = (KVS << 3 | 2) as u8;
/// Bytes of a run: some frames of HTTP/2.
const RUN_BYTES: usize = 64 << 10;

/// Encoded `mvccpb.KeyValue`s in the order of the response.
#[derive(Clone, Debug, Default)]
pub struct KeyValues {
    /// Whole fields with tags and lengths, before all others. Only a value that is longer makes a run longer than
    /// `RUN_BYTES`.
    runs: Vec<Bytes>,
    /// The run that is being written.
    open: BytesMut,
    /// Messages alone.
    single: Vec<Bytes>,
}

impl From<Vec<Bytes>> for KeyValues {
    fn from(single: Vec<Bytes>) -> Self {
        Self { single, ..Self::default() }
    }
}

impl KeyValues {
    /// Copies these messages into runs. Must not be mixed with [`From`].
    pub fn extend_runs(&mut self, kvs: &[Bytes]) {
        let mut left: usize = kvs.iter().map(field_bytes).sum();
        for kv in kvs {
            let bytes = field_bytes(kv);
            if self.open.len() + bytes > RUN_BYTES {
                self.end_run();
            }
            if self.open.capacity() - self.open.len() < bytes {
                self.open.reserve(bytes.max(left.min(RUN_BYTES - self.open.len())));
            }
            self.open.put_u8(KVS_TAG);
            encode_varint(kv.len() as u64, &mut self.open);
            self.open.put_slice(kv);
            left -= bytes;
        }
    }

    fn end_run(&mut self) {
        if !self.open.is_empty() {
            self.runs.push(std::mem::take(&mut self.open).freeze());
        }
    }

    /// Takes the runs out; none if the messages are single.
    pub fn take_runs(&mut self) -> Vec<Bytes> {
        self.end_run();
        std::mem::take(&mut self.runs)
    }

    /// The messages.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        let runs = self.runs.iter().cloned();
        let open = (!self.open.is_empty()).then(|| Bytes::copy_from_slice(&self.open));
        runs.chain(open).flat_map(messages).chain(self.single.iter().cloned())
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.open.is_empty() && self.single.is_empty()
    }

    pub(super) fn encode(&self, buf: &mut impl BufMut) {
        for run in &self.runs {
            buf.put_slice(run);
        }
        buf.put_slice(&self.open);
        encoding::bytes::encode_repeated(KVS, &self.single, buf);
    }

    /// Bytes of the field.
    pub fn bytes(&self) -> usize {
        let runs: usize = self.runs.iter().map(Bytes::len).sum();
        runs + self.open.len() + encoding::bytes::encoded_len_repeated(KVS, &self.single)
    }

    pub(super) fn merge(
        &mut self,
        wire_type: encoding::WireType,
        buf: &mut impl bytes::Buf,
        context: encoding::DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::bytes::merge_repeated(wire_type, &mut self.single, buf, context)
    }
}

impl PartialEq for KeyValues {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Bytes of a message with tag and length.
fn field_bytes(kv: &Bytes) -> usize {
    1 + encoded_len_varint(kv.len() as u64) + kv.len()
}

/// The messages of a run.
fn messages(mut run: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        if run.is_empty() {
            return None;
        }
        run.advance(1);
        let length = decode_varint(&mut run).ok()?;
        Some(run.split_to(length as usize))
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::encoded::RangeResponse;
    use crate::{etcdserverpb, mvccpb};

    fn key_value(number: usize, length: usize) -> Bytes {
        let key = format!("key{number}").into();
        let value = vec![number as u8; length].into();
        mvccpb::KeyValue { key, value, ..Default::default() }.encode_to_vec().into()
    }

    #[test]
    fn runs_read_like_single_messages() {
        let lengths = [0, 1, 100, 10_000, RUN_BYTES - 20, 50_000, 3 * RUN_BYTES, 7, 60_000, 60_000];
        let kvs: Vec<_> =
            lengths.iter().enumerate().map(|(number, length)| key_value(number, *length)).collect();
        let single = RangeResponse {
            header: Some(etcdserverpb::ResponseHeader { revision: 9, ..Default::default() }),
            kvs: kvs.clone().into(),
            more: true,
            count: 300,
        };
        for at_once in 1..=kvs.len() {
            let mut in_runs = KeyValues::default();
            assert!(in_runs.is_empty());
            for part in kvs.chunks(at_once) {
                in_runs.extend_runs(part);
            }
            assert!(!in_runs.is_empty());
            let largest = in_runs.runs.iter().map(Bytes::len).filter(|run| *run > RUN_BYTES);
            assert_eq!(largest.count(), 1, "only the value that is longer");
            assert!(in_runs.iter().eq(kvs.iter().cloned()));
            let response = RangeResponse { kvs: in_runs, ..single.clone() };
            assert_eq!(response, single);
            let bytes = response.encode_to_vec();
            assert_eq!(bytes.len(), response.encoded_len());
            assert_eq!(bytes, single.encode_to_vec());
            assert_eq!(RangeResponse::decode(&bytes[..]), Ok(single.clone()));
            let typed = etcdserverpb::RangeResponse::decode(&bytes[..]).expect("typed");
            assert_eq!(typed.encode_to_vec(), bytes);
        }
        assert_eq!(RangeResponse::default().encoded_len(), 0);
    }
}
