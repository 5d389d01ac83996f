//! One version of a key as it is stored, the same bytes in `kv` and in `log`.
//!
//! ```text
//!  flags(1)  kv offset(2)  [replaced] main sub depth ancestors…   event header   encoded KeyValue
//!                          └──────────── varints ────────────┘   └─ mvccpb.Event of this change ─┘
//! ```
//!
//! **A large value is stored once.** `log` holds a stub of such a record: the same header, and of the
//! `KeyValue` what stands before value and lease. `kv` holds the record whole while it is its key's newest,
//! then `superseded` does.
//!
//! **Replaced** is the size of the predecessor as [`Usage`](super::Usage) counts it and whether it is in
//! `superseded`, so that compaction takes it away without reading it. Records of earlier versions, which do
//! not say it, superseded nothing that is there.
//!
//! Answers, events and hashes are slices of this buffer: nothing is encoded twice, nothing is copied.
//!
//! **Ancestors** lead back through the key's history. The version of depth `n` names those whose depths
//! are `n-1` with its lowest set bits cleared one after the other. That list follows from the
//! predecessor's list alone, so a put reads nothing extra, and any older version is found in a logarithmic
//! number of steps. Ancestors that were compacted are left out, except the first.

use std::ops::Range;

use bytes::{Buf, Bytes};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use super::usage::item_bytes;
use crate::types::limits::INLINE_BYTES_MAX;
use crate::types::{Fault, LeaseId, Revision};

const TOMBSTONE: u8 = 1;
const CREATION: u8 = 2;
const STUB: u8 = 4;
/// The varints begin with what the record replaced.
const REPLACED: u8 = 8;
/// Bytes before the varints.
const FIXED: usize = 3;

/// Tags of `mvccpb.KeyValue`.
const KEY: u8 = 0x0a;
const CREATE: u8 = 0x10;
const MODIFIED: u8 = 0x18;
const VERSION: u8 = 0x20;
const VALUE: u8 = 0x2a;
pub(super) const LEASE: u8 = 0x30;
/// Tag of `kv` in `mvccpb.Event`.
const EVENT_KV: u8 = 0x12;
/// `type: DELETE` in `mvccpb.Event`.
const EVENT_DELETE: [u8; 2] = [0x08, 1];

/// A stored version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record(Bytes);

/// What a new version says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) create: i64,
    pub(super) version: i64,
    pub(super) lease: LeaseId,
}

/// What a version replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    /// Its [`Record::item_bytes`].
    pub(super) item_bytes: u64,
    /// Whether `superseded` holds it.
    pub(super) superseded: bool,
}

/// A new version, ready to be stored: two slices of one buffer.
pub(super) struct Draft {
    pub(super) log_key: Bytes,
    pub(super) record: Record,
}

impl Record {
    /// Takes bytes that were read from the store.
    pub(super) fn new(bytes: Bytes) -> Result<Self, Fault> {
        let record = Self(bytes);
        let header_fits = record.0.len() >= FIXED
            && record.0.len() >= record.kv_at()
            && record.kv_at() > FIXED + record.event_header();
        if header_fits { Ok(record) } else { Err(damaged()) }
    }

    /// The bytes to store.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether it says that the key was deleted.
    pub(super) fn is_tombstone(&self) -> bool {
        self.0[0] & TOMBSTONE != 0
    }

    /// Whether it brought the key into being.
    pub(super) fn is_creation(&self) -> bool {
        self.0[0] & CREATION != 0
    }

    /// Whether value and lease are missing: content is to be asked of [`read::whole`](super::read::whole).
    pub(super) fn is_stub(&self) -> bool {
        self.0[0] & STUB != 0
    }

    /// Whether `log` holds a stub of it.
    pub(super) fn is_large(&self) -> Result<bool, Fault> {
        if self.0.len() <= INLINE_BYTES_MAX || self.is_tombstone() {
            return Ok(false);
        }
        Ok(self.peek()?.value.len() > INLINE_BYTES_MAX)
    }

    /// What `log` holds of it.
    pub(super) fn logged(&self) -> Result<Bytes, Fault> {
        if !self.is_large()? {
            return Ok(self.0.clone());
        }
        let head = &self.0[self.kv_at()..][..self.peek()?.head];
        let varints = &self.0[FIXED..self.event_at()];
        let kv_at = FIXED + varints.len() + 1 + encoded_len_varint(head.len() as u64);
        let mut stub = Vec::with_capacity(kv_at + head.len());
        stub.push(self.0[0] | STUB);
        stub.extend(u16::try_from(kv_at).map_err(|_| damaged())?.to_le_bytes());
        stub.extend(varints);
        stub.push(EVENT_KV);
        encode_varint(head.len() as u64, &mut stub);
        stub.extend(head);
        Ok(stub.into())
    }

    /// Bytes of its item in etcd's file. The record must be whole.
    pub(super) fn item_bytes(&self) -> Result<u64, Fault> {
        Ok(item_bytes(self.bucket_value()?.len(), self.is_tombstone()))
    }

    /// What it replaced, if it says that.
    pub(super) fn replaced(&self) -> Result<Option<Replaced>, Fault> {
        let mut varints = &self.0[FIXED..];
        if self.0[0] & REPLACED == 0 {
            return Ok(None);
        }
        let number = decode_varint(&mut varints).map_err(|_| damaged())?;
        Ok(Some(Replaced { item_bytes: number >> 1, superseded: number & 1 == 1 }))
    }

    /// The varints from the main revision on, and what is behind them.
    fn numbers(&self) -> Result<&[u8], Fault> {
        let mut varints = &self.0[FIXED..];
        if self.0[0] & REPLACED != 0 {
            decode_varint(&mut varints).map_err(|_| damaged())?;
        }
        Ok(varints)
    }

    fn kv_at(&self) -> usize {
        usize::from(u16::from_le_bytes([self.0[1], self.0[2]]))
    }

    /// Bytes of the event before its `KeyValue`.
    fn event_header(&self) -> usize {
        let tags = if self.is_tombstone() { EVENT_DELETE.len() + 1 } else { 1 };
        tags + encoded_len_varint((self.0.len() - self.kv_at()) as u64)
    }

    fn event_at(&self) -> usize {
        self.kv_at() - self.event_header()
    }

    /// Its main revision.
    pub(super) fn main(&self) -> Result<i64, Fault> {
        integer(&mut self.numbers()?)
    }

    /// Its revision.
    pub(super) fn revision(&self) -> Result<Revision, Fault> {
        let mut numbers = self.numbers()?;
        Ok(Revision { main: integer(&mut numbers)?, sub: integer(&mut numbers)? })
    }

    /// The encoded `mvccpb.Event` without `prev_kv`.
    pub(super) fn event(&self) -> Bytes {
        self.0.slice(self.event_at()..)
    }

    /// The encoded `mvccpb.KeyValue` of a version that is no tombstone.
    pub(super) fn key_value(&self) -> Bytes {
        self.0.slice(self.kv_at()..)
    }

    /// The same, given the record away.
    pub(super) fn into_key_value(mut self) -> Bytes {
        self.0.advance(self.kv_at());
        self.0
    }

    /// The value of its entry in etcd's bucket: a tombstone holds the key alone.
    pub(super) fn bucket_value(&self) -> Result<&[u8], Fault> {
        let kv = &self.0[self.kv_at()..];
        if self.is_tombstone() { Ok(&kv[..Peek::new(kv)?.key.end]) } else { Ok(kv) }
    }

    /// The fields of the encoded `KeyValue`; positions are counted from its start.
    pub(super) fn peek(&self) -> Result<Peek, Fault> {
        Peek::new(&self.0[self.kv_at()..])
    }

    /// The key, as a slice of the record.
    pub(super) fn key(&self) -> Result<Bytes, Fault> {
        let kv_at = self.kv_at();
        let key = self.peek()?.key;
        Ok(self.0.slice(kv_at + key.start..kv_at + key.end))
    }

    /// The value, as a slice of the record.
    pub(super) fn value(&self) -> Result<Bytes, Fault> {
        let kv_at = self.kv_at();
        let value = self.peek()?.value;
        Ok(self.0.slice(kv_at + value.start..kv_at + value.end))
    }

    fn chain(&self) -> Result<(Revision, u64, Ancestors<'_>), Fault> {
        let behind = self.0.len() - self.event_at();
        let numbers = self.numbers()?;
        let mut header = &numbers[..numbers.len().checked_sub(behind).ok_or_else(damaged)?];
        let revision = Revision { main: integer(&mut header)?, sub: integer(&mut header)? };
        let depth = decode_varint(&mut header).map_err(|_| damaged())?;
        Ok((revision, depth, Ancestors { rest: header, main: revision.main }))
    }

    /// Older versions of the key, newest first; the first is the direct predecessor.
    pub(super) fn ancestors(&self) -> Result<Ancestors<'_>, Fault> {
        Ok(self.chain()?.2)
    }

    /// The direct predecessor.
    pub(super) fn previous(&self) -> Result<Option<Revision>, Fault> {
        self.ancestors()?.next().transpose()
    }
}

/// See [`Record::ancestors`].
pub(super) struct Ancestors<'a> {
    rest: &'a [u8],
    main: i64,
}

impl Ancestors<'_> {
    fn read(&mut self) -> Result<Revision, Fault> {
        let step = decode_varint(&mut self.rest).map_err(|_| damaged())?;
        self.main -= (step >> 1).cast_signed();
        let sub = if step & 1 == 1 { integer(&mut self.rest)? } else { 0 };
        Ok(Revision { main: self.main, sub })
    }
}

impl Iterator for Ancestors<'_> {
    type Item = Result<Revision, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() { None } else { Some(self.read()) }
    }
}

/// Encodes new versions; keeps its scratch space.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoder {
    header: Vec<u8>,
}

impl Encoder {
    /// A put at `revision` on top of `previous`.
    pub(super) fn put(
        &mut self,
        revision: Revision,
        previous: Option<&Record>,
        compacted: i64,
        content: &Content<'_>,
    ) -> Result<Draft, Fault> {
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
    pub(super) fn encoded_put(
        &mut self,
        revision: Revision,
        previous: Option<&Record>,
        kv: &[u8],
    ) -> Result<Draft, Fault> {
        let flags = if Peek::new(kv)?.version == 1 { CREATION } else { 0 };
        self.header(flags, revision, previous, 0)?;
        self.header.push(EVENT_KV);
        encode_varint(kv.len() as u64, &mut self.header);
        let mut buffer = self.start(revision, kv.len())?;
        buffer.extend(kv);
        Ok(finish(buffer))
    }

    /// A delete at `revision` of what `previous` says.
    pub(super) fn delete(
        &mut self,
        revision: Revision,
        previous: Option<&Record>,
        compacted: i64,
        key: &[u8],
    ) -> Result<Draft, Fault> {
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

    /// A buffer of exactly the right size that holds all but the `KeyValue`.
    fn start(&mut self, revision: Revision, length: usize) -> Result<Vec<u8>, Fault> {
        let Ok(kv_at) = u16::try_from(self.header.len()) else { return Err(damaged()) };
        self.header[1..FIXED].copy_from_slice(&kv_at.to_le_bytes());
        let mut buffer = Vec::with_capacity(Revision::KEY_LENGTH + self.header.len() + length);
        buffer.extend(revision.to_key());
        buffer.extend(&self.header);
        Ok(buffer)
    }
}

fn finish(buffer: Vec<u8>) -> Draft {
    let mut record = Bytes::from(buffer);
    let log_key = record.split_to(Revision::KEY_LENGTH);
    Draft { log_key, record: Record(record) }
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

/// Where the fields of an encoded `mvccpb.KeyValue` are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Peek {
    pub(super) key: Range<usize>,
    pub(super) create: i64,
    pub(super) modified: i64,
    pub(super) version: i64,
    pub(super) value: Range<usize>,
    pub(super) lease: LeaseId,
    /// Length of the part before value and lease.
    pub(super) head: usize,
}

impl Peek {
    pub(super) fn new(kv: &[u8]) -> Result<Self, Fault> {
        let mut peek = Self::default();
        let mut rest = kv;
        while let [tag, tail @ ..] = rest {
            let at = kv.len() - rest.len();
            if *tag < VALUE {
                peek.head = kv.len();
            } else {
                peek.head = peek.head.min(at);
            }
            rest = tail;
            let number = decode_varint(&mut rest).map_err(|_| damaged())?;
            match *tag {
                KEY => peek.key = span(kv, &mut rest, number)?,
                VALUE => peek.value = span(kv, &mut rest, number)?,
                CREATE => peek.create = number.cast_signed(),
                MODIFIED => peek.modified = number.cast_signed(),
                VERSION => peek.version = number.cast_signed(),
                LEASE => peek.lease = number.cast_signed(),
                _ => return Err(damaged()),
            }
        }
        Ok(peek)
    }
}

fn span(kv: &[u8], rest: &mut &[u8], length: u64) -> Result<Range<usize>, Fault> {
    let start = kv.len() - rest.len();
    let length = usize::try_from(length).map_err(|_| damaged())?;
    if length > rest.len() {
        return Err(damaged());
    }
    rest.advance(length);
    Ok(start..start + length)
}

fn integer(from: &mut &[u8]) -> Result<i64, Fault> {
    decode_varint(from).map(u64::cast_signed).map_err(|_| damaged())
}

fn damaged() -> Fault {
    Fault::new("a stored version of a key cannot be read: the store is damaged")
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
