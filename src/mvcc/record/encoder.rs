//! Encoding of new versions.

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{
    CREATE, CREATION, EVENT_DELETE, EVENT_KV, FIXED, KEY, LEASE, MODIFIED, REPLACED, Record,
    RecordHeader, TOMBSTONE, VALUE, VERSION, damaged,
};
use crate::types::{Fault, LeaseId, Revision};

/// Content of a new version.
#[derive(Clone, Copy, Debug)]
pub(in crate::mvcc) struct Content<'a> {
    pub(in crate::mvcc) key: &'a [u8],
    pub(in crate::mvcc) value: &'a [u8],
    pub(in crate::mvcc) create: i64,
    pub(in crate::mvcc) version: i64,
    pub(in crate::mvcc) lease: LeaseId,
}

/// A new version, ready to be stored: two slices of one buffer.
pub(in crate::mvcc) struct EncodedRecord {
    pub(in crate::mvcc) log_key: Bytes,
    pub(in crate::mvcc) record: Record,
}

/// Encodes new versions; reuses a buffer.
#[derive(Clone, Debug, Default)]
pub(in crate::mvcc) struct Encoder {
    header: Vec<u8>,
}

impl Encoder {
    /// A put at `revision` on top of `previous`.
    pub(in crate::mvcc) fn put(
        &mut self,
        revision: Revision,
        previous: Option<&Record>,
        compacted: i64,
        content: &Content<'_>,
    ) -> Result<EncodedRecord, Fault> {
        let flags = if content.version == 1 { CREATION } else { 0 };
        self.header(flags, revision, previous, compacted)?;
        self.header.push(EVENT_KV);
        let length = content.length(revision.main);
        encode_varint(length as u64, &mut self.header);
        let mut buffer = self.start(revision, length)?;
        content.encode(revision.main, &mut buffer);
        Ok(finish(buffer))
    }

    /// A put whose `KeyValue` is encoded already, in the order of its fields.
    pub(in crate::mvcc) fn encoded_put(
        &mut self,
        revision: Revision,
        previous: Option<&Record>,
        kv: &[u8],
    ) -> Result<EncodedRecord, Fault> {
        let flags = if RecordHeader::new(kv)?.version == 1 { CREATION } else { 0 };
        self.header(flags, revision, previous, 0)?;
        self.header.push(EVENT_KV);
        encode_varint(kv.len() as u64, &mut self.header);
        let mut buffer = self.start(revision, kv.len())?;
        buffer.extend(kv);
        Ok(finish(buffer))
    }

    /// A delete at `revision` of the version `previous`.
    pub(in crate::mvcc) fn delete(
        &mut self,
        revision: Revision,
        previous: Option<&Record>,
        compacted: i64,
        key: &[u8],
    ) -> Result<EncodedRecord, Fault> {
        self.header(TOMBSTONE, revision, previous, compacted)?;
        self.header.extend(EVENT_DELETE);
        self.header.push(EVENT_KV);
        let length = bytes_length(key) + integer_length(revision.main);
        encode_varint(length as u64, &mut self.header);
        let mut buffer = self.start(revision, length)?;
        write_bytes(KEY, key, &mut buffer);
        write_integer(MODIFIED, revision.main, &mut buffer);
        Ok(finish(buffer))
    }

    fn header(
        &mut self,
        flags: u8,
        revision: Revision,
        previous: Option<&Record>,
        compacted: i64,
    ) -> Result<(), Fault> {
        self.header.clear();
        self.header.extend([flags, 0, 0]);
        if let Some(previous) = previous {
            self.header[0] |= REPLACED;
            let number = previous.item_bytes()? << 1 | u64::from(previous.is_large()?);
            encode_varint(number, &mut self.header);
        }
        encode_varint(revision.main.cast_unsigned(), &mut self.header);
        encode_varint(revision.sub.cast_unsigned(), &mut self.header);
        let Some(previous) = previous else {
            encode_varint(1, &mut self.header);
            return Ok(());
        };
        let (parent, depth, ancestors) = previous.chain()?;
        encode_varint(depth + 1, &mut self.header);
        let mut main = revision.main;
        self.ancestor(parent, &mut main);
        for ancestor in ancestors.skip(depth.trailing_zeros() as usize) {
            let ancestor = ancestor?;
            if ancestor.main < compacted {
                break;
            }
            self.ancestor(ancestor, &mut main);
        }
        Ok(())
    }

    fn ancestor(&mut self, ancestor: Revision, main: &mut i64) {
        let step = (*main - ancestor.main).cast_unsigned() << 1;
        encode_varint(step | u64::from(ancestor.sub != 0), &mut self.header);
        if ancestor.sub != 0 {
            encode_varint(ancestor.sub.cast_unsigned(), &mut self.header);
        }
        *main = ancestor.main;
    }

    /// A buffer of exactly the right size that contains everything before the `KeyValue`.
    fn start(&mut self, revision: Revision, length: usize) -> Result<Vec<u8>, Fault> {
        let Ok(kv_at) = u16::try_from(self.header.len()) else { return Err(damaged()) };
        self.header[1..FIXED].copy_from_slice(&kv_at.to_le_bytes());
        let mut buffer = Vec::with_capacity(Revision::KEY_LENGTH + self.header.len() + length);
        buffer.extend(revision.to_key());
        buffer.extend(&self.header);
        Ok(buffer)
    }
}

fn finish(buffer: Vec<u8>) -> EncodedRecord {
    let mut record = Bytes::from(buffer);
    let log_key = record.split_to(Revision::KEY_LENGTH);
    EncodedRecord { log_key, record: Record(record) }
}

impl Content<'_> {
    fn length(&self, main: i64) -> usize {
        bytes_length(self.key)
            + integer_length(self.create)
            + integer_length(main)
            + integer_length(self.version)
            + bytes_length(self.value)
            + integer_length(self.lease)
    }

    fn encode(&self, main: i64, out: &mut Vec<u8>) {
        write_bytes(KEY, self.key, out);
        write_integer(CREATE, self.create, out);
        write_integer(MODIFIED, main, out);
        write_integer(VERSION, self.version, out);
        write_bytes(VALUE, self.value, out);
        write_integer(LEASE, self.lease, out);
    }
}

fn integer_length(value: i64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value.cast_unsigned()) }
}

fn bytes_length(value: &[u8]) -> usize {
    match value.len() {
        0 => 0,
        length => 1 + encoded_len_varint(length as u64) + length,
    }
}

fn write_integer(tag: u8, value: i64, out: &mut Vec<u8>) {
    if value != 0 {
        out.push(tag);
        encode_varint(value.cast_unsigned(), out);
    }
}

fn write_bytes(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        out.push(tag);
        encode_varint(value.len() as u64, out);
        out.extend(value);
    }
}
