//! One version of a key as it is stored, the same bytes in `kv` and in `log`.
//!
//! ```text
//!  flags(1)  kv offset(2)  [replaced] [outline] main sub depth ancestors…   event header   encoded KeyValue
//!                                               └─────── varints ───────┘   └─ mvccpb.Event of this change ─┘
//! ```
//!
//! **A large value is stored once.** `log` holds a stub of such a record: the same header with an outline of the
//! `KeyValue`, and the fields of the `KeyValue` before value and lease. `kv` holds the record whole while it is its
//! key's newest, then `superseded` does. With the outline, length and checksum, compaction and the sizes of snapshots
//! need not read the value; checks for corruption read it.
//!
//! **Replaced** is the size of the predecessor as [`Usage`](super::Usage) counts it and a flag that it is in
//! `superseded`, so that compaction removes it without reading it. Records of earlier versions lack it, and never have
//! a predecessor in `superseded`.
//!
//! Answers, events and hashes are slices of this buffer: nothing is encoded twice, nothing is copied.
//!
//! **Ancestors** lead back through the key's history. The version of depth `n` names those whose depths
//! are `n-1` with its lowest set bits cleared one after the other. That list follows from the
//! predecessor's list alone, so a put reads nothing extra, and any older version is found in a logarithmic
//! number of steps. Ancestors that were compacted are left out, except the first.

mod encoder;

use std::ops::Range;

use bytes::{Buf, Bytes};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

pub(super) use self::encoder::{Content, EncodedRecord, Encoder};
use crate::types::limits::INLINE_BYTES_MAX;
use crate::types::{Fault, LeaseId, Revision};

const TOMBSTONE: u8 = 1;
const CREATION: u8 = 2;
const STUB: u8 = 4;
/// Flag: the header begins with the fields of the replaced version.
const REPLACED: u8 = 8;
/// Bytes before the varints.
const FIXED: usize = 3;
/// Bytes by which a stub is longer than the record's header, at most: the outline, and longer varints.
const OUTLINE_BYTES_MAX: usize = 16;

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

/// The version that a newer one replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    /// Its [`Record::item_bytes`].
    pub(super) item_bytes: u64,
    /// True if `superseded` holds it.
    pub(super) superseded: bool,
}

/// Length and checksum of a `KeyValue`, as a stub contains them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) length: usize,
    pub(super) crc: u32,
}

/// The parts of a record before its `KeyValue`.
struct Header<'a> {
    replaced: Option<Replaced>,
    outline: Option<Outline>,
    /// The varints from the main revision on, and the `KeyValue`.
    numbers: &'a [u8],
}

/// Header bytes of an item in a page of etcd's file.
const ITEM_HEADER_BYTES: u64 = 16;

/// Bytes of an item of etcd's bucket: its header, the revision (marked for a tombstone), the value.
pub(super) fn item_bytes(value_bytes: usize, tombstone: bool) -> u64 {
    ITEM_HEADER_BYTES + (Revision::KEY_LENGTH + usize::from(tombstone)) as u64 + value_bytes as u64
}

impl Record {
    /// Wraps bytes that were read from the store.
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

    /// True if the record is a deletion.
    pub(super) fn is_tombstone(&self) -> bool {
        self.0[0] & TOMBSTONE != 0
    }

    /// True if the record created the key.
    pub(super) fn is_creation(&self) -> bool {
        self.0[0] & CREATION != 0
    }

    /// True if value and lease are missing: the content has to be read by [`versions::whole`](super::versions::whole).
    pub(super) fn is_stub(&self) -> bool {
        self.0[0] & STUB != 0
    }

    /// True if `log` holds a stub of it.
    pub(super) fn is_large(&self) -> Result<bool, Fault> {
        if self.0.len() <= INLINE_BYTES_MAX || self.is_tombstone() {
            return Ok(false);
        }
        Ok(self.peek()?.value.len() > INLINE_BYTES_MAX)
    }

    /// The form of the record in `log`: itself, or a stub.
    pub(super) fn logged(&self) -> Result<Bytes, Fault> {
        if !self.is_large()? {
            return Ok(self.0.clone());
        }
        let kv = &self.0[self.kv_at()..];
        let head = &kv[..self.peek()?.head];
        let numbers = self.0.len() - self.header()?.numbers.len();
        let mut stub = Vec::with_capacity(self.kv_at() + head.len() + OUTLINE_BYTES_MAX);
        stub.extend(&self.0[..numbers]);
        stub[0] |= STUB;
        encode_varint(kv.len() as u64, &mut stub);
        stub.extend(crc32c::crc32c(kv).to_le_bytes());
        stub.extend(&self.0[numbers..self.event_at()]);
        stub.push(EVENT_KV);
        encode_varint(head.len() as u64, &mut stub);
        let kv_at = u16::try_from(stub.len()).map_err(|_| damaged())?;
        stub[1..FIXED].copy_from_slice(&kv_at.to_le_bytes());
        stub.extend(head);
        Ok(stub.into())
    }

    /// Bytes of its item in etcd's file.
    pub(super) fn item_bytes(&self) -> Result<u64, Fault> {
        let length = match self.outline()? {
            Some(outline) => outline.length,
            None => self.bucket_value()?.len(),
        };
        Ok(item_bytes(length, self.is_tombstone()))
    }

    /// The version that it replaced, if recorded.
    pub(super) fn replaced(&self) -> Result<Option<Replaced>, Fault> {
        Ok(self.header()?.replaced)
    }

    /// The outline of a stub; `None` if the record is whole.
    pub(super) fn outline(&self) -> Result<Option<Outline>, Fault> {
        Ok(self.header()?.outline)
    }

    fn header(&self) -> Result<Header<'_>, Fault> {
        let mut header = Header { replaced: None, outline: None, numbers: &self.0[FIXED..] };
        let rest = &mut header.numbers;
        if self.0[0] & REPLACED != 0 {
            let number = decode_varint(rest).map_err(|_| damaged())?;
            header.replaced =
                Some(Replaced { item_bytes: number >> 1, superseded: number & 1 == 1 });
        }
        if self.is_stub() {
            let length = decode_varint(rest).map_err(|_| damaged())?;
            let length = usize::try_from(length).map_err(|_| damaged())?;
            let (crc, behind) = rest.split_first_chunk().ok_or_else(damaged)?;
            header.outline = Some(Outline { length, crc: u32::from_le_bytes(*crc) });
            *rest = behind;
        }
        Ok(header)
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
        integer(&mut self.header()?.numbers)
    }

    /// Its revision.
    pub(super) fn revision(&self) -> Result<Revision, Fault> {
        let mut numbers = self.header()?.numbers;
        Ok(Revision { main: integer(&mut numbers)?, sub: integer(&mut numbers)? })
    }

    /// The encoded `mvccpb.Event` without `prev_kv`.
    pub(super) fn event(&self) -> Bytes {
        self.0.slice(self.event_at()..)
    }

    /// The encoded `mvccpb.KeyValue` of a version that is not a tombstone.
    pub(super) fn key_value(&self) -> Bytes {
        self.0.slice(self.kv_at()..)
    }

    /// As [`Record::key_value`], and consumes the record.
    pub(super) fn into_key_value(mut self) -> Bytes {
        self.0.advance(self.kv_at());
        self.0
    }

    /// The value of its entry in etcd's bucket: of a tombstone the key alone.
    pub(super) fn bucket_value(&self) -> Result<&[u8], Fault> {
        let kv = &self.0[self.kv_at()..];
        if self.is_tombstone() { Ok(&kv[..RecordHeader::new(kv)?.key.end]) } else { Ok(kv) }
    }

    /// The fields of the encoded `KeyValue`; positions are counted from its start.
    pub(super) fn peek(&self) -> Result<RecordHeader, Fault> {
        RecordHeader::new(&self.0[self.kv_at()..])
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
        let numbers = self.header()?.numbers;
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

/// Positions of the fields of an encoded `mvccpb.KeyValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) key: Range<usize>,
    pub(super) create: i64,
    pub(super) modified: i64,
    pub(super) version: i64,
    pub(super) value: Range<usize>,
    pub(super) lease: LeaseId,
    /// Length of the part before value and lease.
    pub(super) head: usize,
}

impl RecordHeader {
    pub(super) fn new(kv: &[u8]) -> Result<Self, Fault> {
        let mut header = Self::default();
        let mut rest = kv;
        while let [tag, tail @ ..] = rest {
            let at = kv.len() - rest.len();
            if *tag < VALUE {
                header.head = kv.len();
            } else {
                header.head = header.head.min(at);
            }
            rest = tail;
            let number = decode_varint(&mut rest).map_err(|_| damaged())?;
            match *tag {
                KEY => header.key = span(kv, &mut rest, number)?,
                VALUE => header.value = span(kv, &mut rest, number)?,
                CREATE => header.create = number.cast_signed(),
                MODIFIED => header.modified = number.cast_signed(),
                VERSION => header.version = number.cast_signed(),
                LEASE => header.lease = number.cast_signed(),
                _ => return Err(damaged()),
            }
        }
        Ok(header)
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
