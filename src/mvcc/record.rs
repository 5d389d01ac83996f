//! The bytes of a version.
//!
//! ```text
//!  kind     1 byte      bit 0: tombstone
//!  sub      varint      position in its transaction
//!  depth    varint      how many versions came before
//!  links    (main, sub) varints: the previous version (if depth > 0), then the older ones
//!  event    the encoded mvccpb.Event
//! ```
//!
//! Version number `n` links to those numbers that one gets from `n` by clearing its lowest set bit, again
//! and again: 13 = 0b1101 links to 12, 8 and 0. The links of `n + 1` are among those of `n` and `n` itself,
//! so writing reads nothing; and from the newest of n versions any other is O(log n) records away, as in a
//! Fenwick tree (Fenwick 1994), so that a key with 200,000 versions is read in the past at once.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use crate::types::{Fault, LeaseId, Revision};

const TOMBSTONE: u8 = 1;

/// Tag and wire type of the fields of `mvccpb.Event` and `mvccpb.KeyValue` that are written here.
mod tag {
    pub(super) const EVENT_TYPE: u8 = 0x08;
    pub(super) const EVENT_KV: u8 = 0x12;
    pub(super) const KEY: u8 = 0x0a;
    pub(super) const CREATE: u8 = 0x10;
    pub(super) const MOD: u8 = 0x18;
    pub(super) const VERSION: u8 = 0x20;
    pub(super) const VALUE: u8 = 0x2a;
    pub(super) const LEASE: u8 = 0x30;
}

/// A version of a key, read from its bytes; the bytes are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// As stored.
    pub(super) bytes: Bytes,
    /// Whether it says that the key was deleted.
    pub(super) tombstone: bool,
    /// Position in the transaction that wrote it.
    sub: i64,
    /// How many versions came before, tombstones too.
    depth: u32,
    /// Where the links and the event begin.
    links_at: usize,
    event_at: usize,
    kv_at: usize,
    /// The version before this one.
    pub(super) previous: Option<Revision>,
    /// The revision at which the key came into being; 0 for a tombstone.
    pub(super) create: i64,
    /// The revision of this version.
    pub(super) modified: i64,
    /// 1 at creation; 0 for a tombstone.
    pub(super) version: i64,
    /// The attached lease.
    pub(super) lease: LeaseId,
    value_at: usize,
    value_end: usize,
    key_at: usize,
    key_end: usize,
}

/// What a new version says.
pub(super) struct Draft<'a> {
    pub(super) key: &'a [u8],
    /// `None` for a tombstone.
    pub(super) value: Option<&'a [u8]>,
    pub(super) create: i64,
    pub(super) modified: i64,
    pub(super) version: i64,
    pub(super) lease: LeaseId,
}

impl Record {
    /// Reads a stored version.
    pub(super) fn parse(bytes: Bytes) -> Result<Self, Fault> {
        let damaged = || Fault::new("a record in the store does not read back");
        let mut rest = &bytes[..];
        let at = |rest: &[u8]| bytes.len() - rest.len();
        let mut record = Self {
            tombstone: take_byte(&mut rest).ok_or_else(damaged)? & TOMBSTONE != 0,
            bytes: Bytes::new(),
            sub: take(&mut rest).ok_or_else(damaged)? as i64,
            depth: take(&mut rest).ok_or_else(damaged)? as u32,
            links_at: 0,
            event_at: 0,
            kv_at: 0,
            previous: None,
            create: 0,
            modified: 0,
            version: 0,
            lease: 0,
            value_at: 0,
            value_end: 0,
            key_at: 0,
            key_end: 0,
        };
        record.links_at = at(rest);
        for link in 0..links(record.depth) {
            let revision = take_revision(&mut rest).ok_or_else(damaged)?;
            if link == 0 {
                record.previous = Some(revision);
            }
        }
        record.event_at = at(rest);
        if record.tombstone {
            rest = rest.get(2..).ok_or_else(damaged)?;
        }
        rest = rest.get(1..).ok_or_else(damaged)?;
        take(&mut rest).ok_or_else(damaged)?;
        record.kv_at = at(rest);
        while !rest.is_empty() {
            let field = take_byte(&mut rest).ok_or_else(damaged)?;
            let number = take(&mut rest).ok_or_else(damaged)?;
            match field {
                tag::KEY | tag::VALUE => {
                    let (start, length) = (at(rest), number as usize);
                    rest = rest.get(length..).ok_or_else(damaged)?;
                    if field == tag::KEY {
                        (record.key_at, record.key_end) = (start, start + length);
                    } else {
                        (record.value_at, record.value_end) = (start, start + length);
                    }
                }
                tag::CREATE => record.create = number as i64,
                tag::MOD => record.modified = number as i64,
                tag::VERSION => record.version = number as i64,
                tag::LEASE => record.lease = number as i64,
                _ => return Err(damaged()),
            }
        }
        record.bytes = bytes;
        Ok(record)
    }

    /// A new version that follows `before`, at position `sub` of its transaction.
    pub(super) fn write(draft: &Draft<'_>, before: Option<&Self>, sub: i64) -> Bytes {
        let chain = before.map(Self::chain).unwrap_or_default();
        let depth = before.map_or(0, |record| record.depth + 1);
        let kv = draft.kv_length();
        let mut out = BytesMut::with_capacity(32 + chain.len() * 20 + kv);
        out.put_u8(if draft.value.is_none() { TOMBSTONE } else { 0 });
        encode_varint(sub as u64, &mut out);
        encode_varint(u64::from(depth), &mut out);
        for link in chain {
            encode_varint(link.main as u64, &mut out);
            encode_varint(link.sub as u64, &mut out);
        }
        if draft.value.is_none() {
            out.put_slice(&[tag::EVENT_TYPE, 1]);
        }
        out.put_u8(tag::EVENT_KV);
        encode_varint(kv as u64, &mut out);
        draft.encode_kv(&mut out);
        out.freeze()
    }

    /// Where it stands in history.
    pub(super) fn at(&self) -> Revision {
        Revision { main: self.modified, sub: self.sub }
    }

    /// The links of the version that follows this one: this one first.
    fn chain(&self) -> Vec<Revision> {
        let next = self.depth + 1;
        let mut older = Vec::with_capacity(1 + links(next));
        older.push(self.at());
        // What this one links to, without the previous version where that is no link of the scheme.
        let own = self.older();
        match next.trailing_zeros() as usize {
            0 => older.extend(own),
            cleared => older.extend(own.into_iter().skip(cleared - 1)),
        }
        older
    }

    /// The versions that clearing bits of the depth leads to, newest first.
    fn older(&self) -> Vec<Revision> {
        let mut rest = &self.bytes[self.links_at..];
        let all = (0..links(self.depth)).filter_map(|_| take_revision(&mut rest));
        // With an odd depth the previous version is the first of the scheme.
        all.skip(usize::from(self.depth.is_multiple_of(2) && self.depth > 0)).collect()
    }

    /// The version to look at next on the way to the newest one that is not after `revision`.
    pub(super) fn toward(&self, revision: i64) -> Option<Revision> {
        let previous = self.previous?;
        if previous.main <= revision {
            return Some(previous);
        }
        let farther = self.older().into_iter().take_while(|link| link.main > revision).last();
        Some(farther.unwrap_or(previous))
    }

    /// The encoded `mvccpb.Event`.
    pub(super) fn event(&self) -> Bytes {
        self.bytes.slice(self.event_at..)
    }

    /// The encoded `mvccpb.KeyValue`.
    pub(super) fn kv(&self) -> Bytes {
        self.bytes.slice(self.kv_at..)
    }

    /// The key.
    pub(super) fn key(&self) -> Bytes {
        self.bytes.slice(self.key_at..self.key_end)
    }

    /// The value.
    pub(super) fn value(&self) -> &[u8] {
        &self.bytes[self.value_at..self.value_end]
    }

    /// The encoded `KeyValue` without value and lease, as etcd answers `keys_only` from its index.
    pub(super) fn kv_without_value(&self) -> Bytes {
        let draft = Draft {
            key: &self.bytes[self.key_at..self.key_end],
            value: Some(&[]),
            create: self.create,
            modified: self.modified,
            version: self.version,
            lease: 0,
        };
        draft.encoded_kv()
    }

    /// The same, but with the lease, as etcd answers when it had to read the records.
    pub(super) fn kv_without_value_but_lease(&self) -> Bytes {
        let draft = Draft {
            key: &self.bytes[self.key_at..self.key_end],
            value: Some(&[]),
            create: self.create,
            modified: self.modified,
            version: self.version,
            lease: self.lease,
        };
        draft.encoded_kv()
    }
}

impl Draft<'_> {
    fn numbers(&self) -> [(u8, i64); 3] {
        [(tag::CREATE, self.create), (tag::MOD, self.modified), (tag::VERSION, self.version)]
    }

    fn kv_length(&self) -> usize {
        let number = |value: i64| if value == 0 { 0 } else { 1 + encoded_len_varint(value as u64) };
        let text = |text: &[u8]| match text.len() {
            0 => 0,
            length => 1 + encoded_len_varint(length as u64) + length,
        };
        text(self.key)
            + self.numbers().iter().map(|(_, value)| number(*value)).sum::<usize>()
            + text(self.value.unwrap_or_default())
            + number(self.lease)
    }

    fn encode_kv(&self, out: &mut BytesMut) {
        let text = |tag: u8, text: &[u8], out: &mut BytesMut| {
            if !text.is_empty() {
                out.put_u8(tag);
                encode_varint(text.len() as u64, out);
                out.put_slice(text);
            }
        };
        let number = |tag: u8, value: i64, out: &mut BytesMut| {
            if value != 0 {
                out.put_u8(tag);
                encode_varint(value as u64, out);
            }
        };
        text(tag::KEY, self.key, out);
        for (tag, value) in self.numbers() {
            number(tag, value, out);
        }
        text(tag::VALUE, self.value.unwrap_or_default(), out);
        number(tag::LEASE, self.lease, out);
    }

    fn encoded_kv(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.kv_length());
        self.encode_kv(&mut out);
        out.freeze()
    }
}

/// The value that etcd's bucket holds for a tombstone: the key alone.
pub(super) fn tombstone_value(key: &[u8]) -> Bytes {
    Draft { key, value: None, create: 0, modified: 0, version: 0, lease: 0 }.encoded_kv()
}

/// How many links a version of this depth holds: the previous version, and one for each set bit except
/// that the lowest bit of an odd depth leads to the previous version again.
fn links(depth: u32) -> usize {
    match depth {
        0 => 0,
        odd if odd % 2 == 1 => odd.count_ones() as usize,
        even => 1 + even.count_ones() as usize,
    }
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    if !rest.has_remaining() {
        return None;
    }
    decode_varint(rest).ok()
}

fn take_revision(rest: &mut &[u8]) -> Option<Revision> {
    Some(Revision { main: take(rest)? as i64, sub: take(rest)? as i64 })
}
