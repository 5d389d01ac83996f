//! Encoding and decoding of frames and records.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{decode_varint, encode_varint};

use super::Record;
use crate::types::limits::WAL_BLOCK_BYTES;
use crate::types::{ConfState, Entry, EntryKind, HardState};

const MAGIC: u32 = 0x4241_5341;
/// Bytes of a frame's header.
const HEADER: usize = 32;
const CRC_AT: usize = 8;

const METADATA: u8 = 1;
const ENTRY: u8 = 2;
const HARD_STATE: u8 = 3;
const LOG_START: u8 = 4;

/// Position of a frame, and the checksum of its predecessor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHead {
    /// The segment's number.
    pub segment: u64,
    /// The frame's offset in it; a multiple of the block size.
    pub offset: u64,
    /// Checksum of the frame before it, in this segment or at the end of the previous one; 0 for the first of all.
    pub previous: u32,
}

/// A decoded frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The records in it.
    pub records: Vec<Record>,
    /// Its checksum, for the next frame's head.
    pub crc: u32,
    /// Its length in bytes, a multiple of the block size.
    pub length: u64,
}

/// Appends a frame to `out`, padded to whole blocks; returns its checksum.
pub fn encode_frame(head: FrameHead, records: &[Record], out: &mut Vec<u8>) -> u32 {
    let start = out.len();
    out.put_bytes(0, HEADER);
    records.iter().for_each(|record| encode(record, out));
    let length = out.len() - start - HEADER;
    let mut header = &mut out[start..start + HEADER];
    header.put_u32_le(MAGIC);
    header.put_u32_le(0);
    header.put_u64_le(head.segment);
    header.put_u64_le(head.offset);
    header.put_u32_le(length as u32);
    header.put_u32_le(head.previous);
    let crc = crc32c::crc32c(&out[start + CRC_AT..]);
    out[start + 4..start + CRC_AT].copy_from_slice(&crc.to_le_bytes());
    let padded = (out.len() - start).next_multiple_of(WAL_BLOCK_BYTES);
    out.resize(start + padded, 0);
    crc
}

/// Decodes the frame at `head.offset` of a segment; `None` if there is none. `head.previous` is not checked when `None`.
pub(super) fn decode_frame(
    segment: &Bytes,
    number: u64,
    offset: u64,
    previous: Option<u32>,
) -> Option<Frame> {
    let bytes = segment.get(offset as usize..)?;
    let mut header = bytes.get(..HEADER)?;
    let magic = header.get_u32_le();
    let crc = header.get_u32_le();
    let belongs = header.get_u64_le() == number && header.get_u64_le() == offset;
    let length = header.get_u32_le() as usize;
    let follows = header.get_u32_le();
    if magic != MAGIC || !belongs || previous.is_some_and(|previous| previous != follows) {
        return None;
    }
    let end = HEADER.checked_add(length)?;
    if crc32c::crc32c(bytes.get(CRC_AT..end)?) != crc {
        return None;
    }
    let start = offset as usize;
    let mut body = segment.slice(start + HEADER..start + end);
    let mut records = Vec::new();
    while !body.is_empty() {
        records.push(decode(&mut body)?);
    }
    Some(Frame { records, crc, length: end.next_multiple_of(WAL_BLOCK_BYTES) as u64 })
}

/// True if a frame of this segment starts here, complete or not.
pub(super) fn is_begun(segment: &Bytes, number: u64, offset: u64) -> bool {
    let Some(mut header) = segment.get(offset as usize..).and_then(|it| it.get(..HEADER)) else {
        return false;
    };
    let magic = header.get_u32_le();
    header.advance(size_of::<u32>());
    magic == MAGIC && header.get_u64_le() == number && header.get_u64_le() == offset
}

fn encode(record: &Record, out: &mut Vec<u8>) {
    let varint = |value: u64, out: &mut Vec<u8>| encode_varint(value, out);
    match record {
        Record::Metadata { cluster_id, member_id } => {
            out.put_u8(METADATA);
            out.put_u64_le(*cluster_id);
            out.put_u64_le(*member_id);
        }
        Record::Entry(entry) => {
            out.put_u8(ENTRY);
            out.put_u8(match entry.kind {
                EntryKind::Normal => 0,
                EntryKind::ConfChange => 1,
                EntryKind::ConfChangeV2 => 2,
            });
            varint(entry.index, out);
            varint(entry.term, out);
            varint(entry.data.len() as u64, out);
            out.put_slice(&entry.data);
        }
        Record::HardState(state) => {
            out.put_u8(HARD_STATE);
            varint(state.term, out);
            varint(state.vote, out);
            varint(state.commit, out);
        }
        Record::LogStart { index, term, conf_state } => {
            out.put_u8(LOG_START);
            varint(*index, out);
            varint(*term, out);
            for ids in [
                &conf_state.voters,
                &conf_state.learners,
                &conf_state.voters_outgoing,
                &conf_state.learners_next,
            ] {
                varint(ids.len() as u64, out);
                ids.iter().for_each(|id| varint(*id, out));
            }
            out.put_u8(u8::from(conf_state.auto_leave));
        }
    }
}

fn decode(body: &mut Bytes) -> Option<Record> {
    let kind = body.try_get_u8().ok()?;
    Some(match kind {
        METADATA => Record::Metadata {
            cluster_id: body.try_get_u64_le().ok()?,
            member_id: body.try_get_u64_le().ok()?,
        },
        ENTRY => {
            let kind = match body.try_get_u8().ok()? {
                0 => EntryKind::Normal,
                1 => EntryKind::ConfChange,
                2 => EntryKind::ConfChangeV2,
                _ => return None,
            };
            let (index, term) = (number(body)?, number(body)?);
            let length = number(body)? as usize;
            let data = (length <= body.len()).then(|| body.split_to(length))?;
            Record::Entry(Entry { index, term, kind, data })
        }
        HARD_STATE => {
            let (term, vote, commit) = (number(body)?, number(body)?, number(body)?);
            Record::HardState(HardState { term, vote, commit })
        }
        LOG_START => Record::LogStart {
            index: number(body)?,
            term: number(body)?,
            conf_state: ConfState {
                voters: numbers(body)?,
                learners: numbers(body)?,
                voters_outgoing: numbers(body)?,
                learners_next: numbers(body)?,
                auto_leave: body.try_get_u8().ok()? != 0,
            },
        },
        _ => return None,
    })
}

fn number(body: &mut Bytes) -> Option<u64> {
    if body.is_empty() { None } else { decode_varint(body).ok() }
}

fn numbers(body: &mut Bytes) -> Option<Vec<u64>> {
    let count = number(body)?;
    (count <= body.len() as u64).then_some(())?;
    (0..count).map(|_| number(body)).collect()
}
