//! The log on a disk that can lose power: the counterpart of [`crate::io::WalFile`] on bytes instead of files.
//!
//! An append is a few steps in order: naming a new segment, writing its opening, writing the frame. A crash interrupts
//! that anywhere, and any sectors of the interrupted write may have arrived.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::bugs::Bug;
use super::random::Random;
use crate::types::limits::WAL_BLOCK_BYTES;
use crate::types::{Entry, Fault, HardState, LogIndex};
use crate::wal::{FrameHead, Record, Replay, encode_frame, replay_segment};

const SECTOR: usize = 512;

/// Upper bound of files with zeros or old content of a recycled segment.
const FREE_MAX: usize = 1;

#[derive(Clone, Debug)]
enum Step {
    /// The next segment gets its name, on one of the free files or a new one.
    Name(u64),
    Write {
        segment: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
}

/// The durable content, and the write in progress.
pub(super) struct Disk {
    segment_bytes: usize,
    segments: BTreeMap<u64, Vec<u8>>,
    free: Vec<Vec<u8>>,
    steps: VecDeque<Step>,
    /// Position of the last acknowledged write.
    last_write: Option<(u64, usize, usize)>,
}

/// The log, open for appending.
pub(super) struct Log {
    head: FrameHead,
    /// Segments that are full, and the newest entry in each.
    full: Vec<(u64, LogIndex)>,
    last: LogIndex,
    owner: Record,
    hard_state: HardState,
    log_start: Record,
    /// Segments whose entries all lie below this are recycled when the write in progress is done.
    log_start_index: Option<LogIndex>,
}

impl Disk {
    pub(super) fn new(segment_blocks: usize) -> Self {
        Self {
            segment_bytes: segment_blocks * WAL_BLOCK_BYTES,
            segments: BTreeMap::new(),
            free: Vec::new(),
            steps: VecDeque::new(),
            last_write: None,
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Name(segment) => {
                let file = self.free.pop().unwrap_or_else(|| vec![0; self.segment_bytes]);
                self.segments.insert(segment, file);
            }
            Step::Write { segment, offset, bytes } => {
                let file = self.segments.get_mut(&segment).expect("it is named before");
                file[offset..offset + bytes.len()].copy_from_slice(&bytes);
                self.last_write = Some((segment, offset, bytes.len()));
            }
        }
    }

    /// The append in progress is durable.
    pub(super) fn finish(&mut self, log: &mut Log) {
        while let Some(step) = self.steps.pop_front() {
            self.run(step);
        }
        let Some(log_start) = log.log_start_index.take() else { return };
        let count = log.full.iter().take_while(|(_, last)| *last <= log_start).count();
        for (segment, _) in log.full.drain(..count) {
            let file = self.segments.remove(&segment).expect("it is there until now");
            if self.free.len() < FREE_MAX {
                self.free.push(file);
            }
        }
    }

    /// The power fails. True if a write was torn.
    pub(super) fn crash(&mut self, random: &mut Random, bug: Option<Bug>) -> bool {
        let steps = std::mem::take(&mut self.steps);
        let whole = random.below(steps.len() as u64 + 1) as usize;
        let mut torn = false;
        for (at, step) in steps.into_iter().enumerate() {
            if at < whole {
                self.run(step);
            } else if at == whole {
                torn = self.tear(step, random);
            }
        }
        if bug == Some(Bug::LostTailAccepted)
            && let Some((segment, offset, length)) = self.last_write.take()
            && let Some(file) = self.segments.get_mut(&segment)
        {
            file[offset..offset + length].fill(0);
        }
        torn
    }

    fn tear(&mut self, step: Step, random: &mut Random) -> bool {
        let Step::Write { segment, offset, bytes } = step else { return false };
        let file = self.segments.get_mut(&segment).expect("it is named before");
        let sectors = bytes.len().div_ceil(SECTOR) as u64;
        // A prefix of the sectors arrived, or a suffix, or any.
        let (kind, limit) = (random.below(3), random.below(sectors + 1));
        let mut torn = false;
        for sector in 0..sectors {
            let arrived = match kind {
                0 => sector < limit,
                1 => sector >= limit,
                _ => random.chance(500),
            };
            torn |= arrived;
            if arrived {
                let from = sector as usize * SECTOR;
                let to = (from + SECTOR).min(bytes.len());
                file[offset + from..offset + to].copy_from_slice(&bytes[from..to]);
            }
        }
        torn
    }

    /// Reads the log, as after a start; on an empty disk a log is created with `first`.
    pub(super) fn open(
        &mut self,
        first: [Record; 2],
        bug: Option<Bug>,
    ) -> Result<(Log, Replay), Fault> {
        let mut replay = Replay::default();
        let mut heads: Vec<(FrameHead, LogIndex)> = Vec::new();
        let count = self.segments.len();
        for (at, (number, bytes)) in self.segments.iter().enumerate() {
            let previous = heads.last().map(|(head, _)| *head);
            if previous.is_some_and(|head| head.segment + 1 != *number) {
                return Err(Fault::new(format!("the segment before {number} is missing")));
            }
            let bytes = Bytes::from(bytes.clone());
            let segment = replay_segment(&bytes, *number, previous.map(|head| head.previous))?;
            if segment.torn && at + 1 < count {
                return Err(Fault::new(format!("segment {number} is damaged")));
            }
            let mut last = heads.last().map_or(0, |(_, last)| *last);
            for record in segment.records {
                last = index_of(&record).unwrap_or(last);
                take(&mut replay, record, bug)?;
            }
            heads.push((segment.next, last));
        }
        let mut replay = replay.finish()?;
        let [owner, log_start] = if replay.owner.is_some() { known(&replay) } else { first };
        let fresh = heads.is_empty();
        let (head, last) =
            heads.pop().unwrap_or((FrameHead { segment: 1, offset: 0, previous: 0 }, 0));
        if fresh {
            self.run(Step::Name(1));
        }
        let full = heads.into_iter().map(|(head, last)| (head.segment, last)).collect();
        let hard_state = replay.hard_state;
        let mut log = Log { head, full, last, owner, hard_state, log_start, log_start_index: None };
        if head.offset == 0 {
            let opening = log.opening();
            self.write(&mut log, &opening);
            self.finish(&mut log);
        }
        if fresh {
            replay = Replay::default();
            log.opening().into_iter().try_for_each(|record| replay.take(record))?;
        }
        self.last_write = None;
        Ok((log, replay))
    }

    /// Begins to write records, in as many frames as they need; [`Disk::finish`] ends it.
    pub(super) fn append(&mut self, log: &mut Log, records: &[Record]) {
        let mut rest = records;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|record| {
                bytes += record.size_hint();
                bytes <= self.segment_bytes / 4
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            self.append_frame(log, now);
            rest = later;
        }
    }

    fn append_frame(&mut self, log: &mut Log, records: &[Record]) {
        let bytes: usize = records.iter().map(Record::size_hint).sum();
        if bytes + 2 * WAL_BLOCK_BYTES > self.segment_bytes - log.head.offset as usize {
            let segment = log.head.segment + 1;
            self.steps.push_back(Step::Name(segment));
            log.full.push((log.head.segment, log.last));
            log.head = FrameHead { segment, offset: 0, previous: log.head.previous };
            let opening = log.opening();
            self.write(log, &opening);
        }
        self.write(log, records);
        // Not before: a segment that begins with a commit index must not exist without the entry.
        for record in records {
            match record {
                Record::HardState(state) => log.hard_state = *state,
                Record::LogStart { index, .. } => {
                    log.log_start = record.clone();
                    log.log_start_index = Some(*index);
                }
                Record::Entry(_) | Record::Metadata { .. } => (),
            }
        }
        log.last = records.iter().rev().find_map(index_of).unwrap_or(log.last);
    }

    fn write(&mut self, log: &mut Log, records: &[Record]) {
        let mut bytes = Vec::new();
        let crc = encode_frame(log.head, records, &mut bytes);
        let (segment, offset) = (log.head.segment, log.head.offset as usize);
        assert!(offset + bytes.len() <= self.segment_bytes, "a frame beyond its segment");
        log.head.offset += bytes.len() as u64;
        log.head.previous = crc;
        self.steps.push_back(Step::Write { segment, offset, bytes });
    }
}

impl Log {
    fn opening(&self) -> Vec<Record> {
        vec![self.owner.clone(), self.log_start.clone(), Record::HardState(self.hard_state)]
    }
}

fn index_of(record: &Record) -> Option<LogIndex> {
    match record {
        Record::Entry(entry) => Some(entry.index),
        Record::Metadata { .. } | Record::HardState(_) | Record::LogStart { .. } => None,
    }
}

fn known(replay: &Replay) -> [Record; 2] {
    let (cluster_id, member_id) = replay.owner.unwrap_or_default();
    let (index, term) = (replay.log_start_index, replay.log_start_term);
    let conf_state = replay.conf_state.clone();
    [Record::Metadata { cluster_id, member_id }, Record::LogStart { index, term, conf_state }]
}

fn take(replay: &mut Replay, record: Record, bug: Option<Bug>) -> Result<(), Fault> {
    let mut tail: Vec<Entry> = Vec::new();
    if let (Some(Bug::WrongTruncation), Record::Entry(entry)) = (bug, &record) {
        tail.extend(replay.entries.iter().filter(|it| it.index > entry.index).cloned());
    }
    replay.take(record)?;
    replay.entries.extend(tail);
    Ok(())
}
