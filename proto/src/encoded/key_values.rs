//! `repeated mvccpb.KeyValue kvs = 2` of a range's response, encoded: one by one as the store holds them, or in runs.
//!
//! A response of many keys is written in runs while it is read, each a buffer that HTTP/2 takes as it is: little of the
//! store is referenced for longer than a step of reading takes, and nothing is encoded afterwards. A run may be shared by
//! the responses to several ranges.

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
    /// Whole fields with tags and lengths, before all others.
    runs: Vec<Bytes>,
    /// Messages alone.
    single: Vec<Bytes>,
    /// Bytes of the single ones with tags and lengths.
    single_bytes: usize,
}

impl From<Vec<Bytes>> for KeyValues {
    fn from(single: Vec<Bytes>) -> Self {
        let single_bytes = single.iter().map(field_bytes).sum();
        Self { single, single_bytes, ..Self::default() }
    }
}

impl KeyValues {
    /// Appends a message. Only one that is longer than a run should be makes a longer run.
    pub fn push(&mut self, kv: Bytes) {
        let bytes = field_bytes(&kv);
        if self.single_bytes + bytes > RUN_BYTES {
            self.end_run();
        }
        self.single_bytes += bytes;
        self.single.push(kv);
    }

    /// Appends a run of other key-values, or a part of one that ends where a message does.
    pub fn push_run(&mut self, run: Bytes) {
        self.end_run();
        self.runs.push(run);
    }

    /// Copies the single messages into a run.
    fn end_run(&mut self) {
        if self.single.is_empty() {
            return;
        }
        let mut run = BytesMut::with_capacity(std::mem::take(&mut self.single_bytes));
        for kv in self.single.drain(..) {
            run.put_u8(KVS_TAG);
            encode_varint(kv.len() as u64, &mut run);
            run.put_slice(&kv);
        }
        self.runs.push(run.freeze());
    }

    /// All in runs.
    pub fn into_runs(mut self) -> Vec<Bytes> {
        self.end_run();
        self.runs
    }

    /// True if some are in runs.
    pub fn has_runs(&self) -> bool {
        !self.runs.is_empty()
    }

    /// The messages.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.runs.iter().cloned().flat_map(messages).chain(self.single.iter().cloned())
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.single.is_empty()
    }

    pub(super) fn encode(&self, buf: &mut impl BufMut) {
        for run in &self.runs {
            buf.put_slice(run);
        }
        encoding::bytes::encode_repeated(KVS, &self.single, buf);
    }

    /// Bytes of the field.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(Bytes::len).sum::<usize>() + self.single_bytes
    }

    pub(super) fn merge(
        &mut self,
        wire_type: encoding::WireType,
        buf: &mut impl bytes::Buf,
        context: encoding::DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::bytes::merge_repeated(wire_type, &mut self.single, buf, context)?;
        self.single_bytes += self.single.last().map_or(0, field_bytes);
        Ok(())
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
pub fn messages(mut run: Bytes) -> impl Iterator<Item = Bytes> {
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
            for (number, part) in kvs.chunks(at_once).enumerate() {
                let mut others = KeyValues::default();
                let kvs = if number % 3 == 0 { &mut others } else { &mut in_runs };
                part.iter().cloned().for_each(|kv| kvs.push(kv));
                others.into_runs().into_iter().for_each(|run| in_runs.push_run(run));
            }
            assert!(in_runs.has_runs() && !in_runs.is_empty());
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
