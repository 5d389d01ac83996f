//! Replay of segments: from their bytes to the state of the log.

use bytes::Bytes;

use super::codec::{Frame, decode_frame, is_begun};
use super::{FrameHead, Record};
use crate::types::limits::WAL_BLOCK_BYTES;
use crate::types::{ConfState, Entry, Fault, HardState, LogIndex, MemberId, Term};

/// A segment that was read to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its records, in order.
    pub records: Vec<Record>,
    /// The position of the next frame.
    pub next: FrameHead,
    /// True if a frame starts there and is incomplete: a torn write. Frames of older segments in a recycled
    /// file do not count.
    pub torn: bool,
}

/// Decodes all frames of a segment. `previous` is the checksum of the last frame of the segment before it; `None` for
/// the oldest segment, whose predecessor is deleted.
///
/// # Errors
/// A frame is damaged although a later one is valid, or the first does not follow `previous`: the disk lost or changed
/// acknowledged data. The text names the offset.
pub fn replay_segment(bytes: &Bytes, number: u64, previous: Option<u32>) -> Result<Segment, Fault> {
    let mut next = FrameHead { segment: number, offset: 0, previous: previous.unwrap_or_default() };
    let mut records = Vec::new();
    let mut follows = previous;
    while let Some(frame) = decode_frame(bytes, number, next.offset, follows) {
        let Frame { records: held, crc, length } = frame;
        records.extend(held);
        next = FrameHead { offset: next.offset + length, previous: crc, ..next };
        follows = Some(crc);
    }
    if let Some(frame) = decode_frame(bytes, number, next.offset, None) {
        return Err(Fault::new(format!(
            "the frame at offset {} ({} records) does not follow the one before it",
            next.offset,
            frame.records.len()
        )));
    }
    let block = WAL_BLOCK_BYTES as u64;
    let blocks = (next.offset / block + 1)..(bytes.len() as u64 / block);
    let later =
        blocks.map(|at| at * block).find(|at| decode_frame(bytes, number, *at, None).is_some());
    if let Some(later) = later {
        return Err(Fault::new(format!(
            "the frame at offset {} is damaged, for the one at offset {later} is not",
            next.offset
        )));
    }
    let torn = is_begun(bytes, number, next.offset);
    Ok(Segment { records, next, torn })
}

/// The state of the log after all segments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replay {
    /// The cluster and member that own the log.
    pub owner: Option<(u64, MemberId)>,
    /// The newest hard state.
    pub hard_state: HardState,
    /// The log starts after this entry.
    pub log_start_index: LogIndex,
    /// The term of that entry.
    pub log_start_term: Term,
    /// The configuration as of that entry.
    pub conf_state: ConfState,
    /// The entries after the log start.
    pub entries: Vec<Entry>,
}

impl Replay {
    /// Applies the next record.
    ///
    /// The oldest segment begins with the log start of its time, and segments between that and its first entry may be
    /// deleted, as a later log start allowed: [`Replay::finish`] distinguishes that from a loss.
    ///
    /// # Errors
    /// The record does not follow from those before it.
    pub fn take(&mut self, record: Record) -> Result<(), Fault> {
        match record {
            Record::Metadata { cluster_id, member_id } => {
                let owner = (cluster_id, member_id);
                if self.owner.is_some_and(|before| before != owner) {
                    return Err(Fault::new("the log changes its owner"));
                }
                self.owner = Some(owner);
            }
            Record::HardState(state) => self.hard_state = state,
            Record::LogStart { index, term, conf_state } => self.log_start(index, term, conf_state),
            Record::Entry(entry) => self.entry(entry)?,
        }
        Ok(())
    }

    /// Ends the replay.
    ///
    /// # Errors
    /// Entries between the newest log start and the first entry are missing.
    pub fn finish(self) -> Result<Self, Fault> {
        match self.entries.first() {
            Some(first) if first.index > self.log_start_index + 1 => {
                Err(jump(self.log_start_index, first.index))
            }
            Some(_) | None => Ok(self),
        }
    }

    /// Checks that a store whose last applied entry is `applied` can continue with this log.
    ///
    /// # Errors
    /// The log begins later: the store is older than the log's start.
    pub fn check_store(&self, applied: LogIndex) -> Result<(), Fault> {
        if applied >= self.log_start_index {
            return Ok(());
        }
        Err(Fault::new(format!(
            "the store holds everything up to entry {applied}, and the write-ahead log begins after entry {}: put back \
             the store that belongs to the log, or remove the member, clear its data directory and add it anew",
            self.log_start_index
        )))
    }

    fn log_start(&mut self, index: LogIndex, term: Term, conf_state: ConfState) {
        // The replaced log, as after a snapshot, ends here: its later entries are not those of the new log.
        let at = self.entries.iter().find(|entry| entry.index == index);
        if at.is_some_and(|entry| entry.term != term) {
            self.entries.clear();
        }
        let passed = self.entries.iter().take_while(|entry| entry.index <= index).count();
        self.entries.drain(..passed);
        (self.log_start_index, self.log_start_term, self.conf_state) = (index, term, conf_state);
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Fault> {
        if entry.index <= self.log_start_index {
            return Ok(());
        }
        if let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) {
            if entry.index > last.index + 1 {
                return Err(jump(last.index, entry.index));
            }
            self.entries.truncate(entry.index.saturating_sub(first.index) as usize);
        }
        self.entries.push(entry);
        Ok(())
    }
}

fn jump(from: LogIndex, to: LogIndex) -> Fault {
    Fault::new(format!("the log jumps from entry {from} to {to}"))
}
