//! The bodies of responses: encoded events, joined and cut, shared by all watchers with the same filter and format.
//!
//! ```text
//!  run      ┌e1┬e2┬e3┬e4┬e5┐   the events of one group that pass one filter, encoded back to back
//!  chunks   └──────┴────┴──┘   cut between revisions: one response each, slices of the run
//!  bodies   └──┴───┘           a chunk too large for a watch with `fragment` is several
//! ```

use std::ops::Range;

use basalt_proto::encoded::{push_event, pushed_len};
use bytes::{Bytes, BytesMut};

use super::{Config, Filter};
use crate::mvcc::Event;

/// Upper bound of header, watch id and flags of a response.
const RESPONSE_OVERHEAD_BYTES: usize = 64;

/// A response with a smaller part of a run is a copy: a client that does not take it must not hold the whole run.
const SLICES_MAX: usize = 4;

/// One response, or the fragments of one.
pub(super) struct Chunk {
    /// Its first revision.
    pub(super) first: i64,
    /// Its last revision, which is complete.
    pub(super) last: i64,
    /// Several only for fragments.
    pub(super) bodies: Vec<Bytes>,
}

/// The events of a group that pass a filter.
struct Run {
    filter: Filter,
    bytes: Bytes,
    /// The end of each event in `bytes`.
    ends: Vec<usize>,
    /// The revision of each event.
    revisions: Vec<i64>,
}

/// The chunks of a run from one of its events on.
struct Cut {
    run: usize,
    from: usize,
    fragment: bool,
    chunks: Vec<Chunk>,
}

/// Builds the responses of one batch, group by group.
pub(super) struct Answers<'a> {
    config: Config,
    events: &'a [Event],
    /// Each event as a body of its own, without and with `prev_kv`; built when first wanted, since most responses
    /// contain one event, which many groups may share.
    single: Vec<[Option<Bytes>; 2]>,
    selected: Vec<u32>,
    runs: Vec<Run>,
    cuts: Vec<Cut>,
}

impl<'a> Answers<'a> {
    pub(super) fn new(events: &'a [Event], config: Config) -> Self {
        let single = Vec::new();
        Self { config, events, single, selected: Vec::new(), runs: Vec::new(), cuts: Vec::new() }
    }

    /// Selects the events of the next group.
    pub(super) fn turn_to(&mut self, selected: Vec<u32>) {
        self.selected = selected;
        self.runs.clear();
        self.cuts.clear();
    }

    /// The responses for a watcher that has been sent all events before `next`.
    pub(super) fn chunks(&mut self, filter: Filter, fragment: bool, next: i64) -> &[Chunk] {
        let run = match self.runs.iter().position(|run| run.filter == filter) {
            Some(run) => run,
            None => {
                let run = self.encode(filter);
                self.runs.push(run);
                self.runs.len() - 1
            }
        };
        let revisions = &self.runs[run].revisions;
        let from = match revisions.first() {
            Some(first) if *first < next => revisions.partition_point(|revision| *revision < next),
            _ => 0,
        };
        let same = |cut: &Cut| (cut.run, cut.from, cut.fragment) == (run, from, fragment);
        let cut = match self.cuts.iter().position(same) {
            Some(cut) => cut,
            None => {
                let chunks = self.runs[run].cut(from, fragment, self.config);
                self.cuts.push(Cut { run, from, fragment, chunks });
                self.cuts.len() - 1
            }
        };
        &self.cuts[cut].chunks
    }

    fn encode(&mut self, filter: Filter) -> Run {
        let passes = |event: &Event| if event.delete { !filter.no_delete } else { !filter.no_put };
        let events = self.events;
        let selected = std::mem::take(&mut self.selected);
        let passing = selected.iter().map(|at| *at as usize).filter(|at| passes(&events[*at]));
        let passing: Vec<usize> = passing.collect();
        self.selected = selected;
        let prev = |event: &'a Event| event.prev.as_deref().filter(|_| filter.prev_kv);
        let revisions = passing.iter().map(|at| events[*at].revision.main).collect();
        if let [at] = passing[..] {
            let bytes = self.single(at, prev(&events[at]).is_some());
            return Run { filter, ends: vec![bytes.len()], bytes, revisions };
        }
        let lengths = passing.iter().map(|at| pushed_len(&events[*at].encoded, prev(&events[*at])));
        let mut end = 0;
        let ends: Vec<usize> = lengths.map(|length| add(&mut end, length)).collect();
        let mut bytes = BytesMut::with_capacity(end);
        for at in passing {
            push_event(&mut bytes, &events[at].encoded, prev(&events[at]));
        }
        Run { filter, bytes: bytes.freeze(), ends, revisions }
    }

    fn single(&mut self, at: usize, with_prev: bool) -> Bytes {
        if self.single.is_empty() {
            self.single.resize(self.events.len(), [None, None]);
        }
        let event = &self.events[at];
        let encode = || {
            let prev = event.prev.as_deref().filter(|_| with_prev);
            let mut bytes = BytesMut::with_capacity(pushed_len(&event.encoded, prev));
            push_event(&mut bytes, &event.encoded, prev);
            bytes.freeze()
        };
        self.single[at][usize::from(with_prev)].get_or_insert_with(encode).clone()
    }
}

fn add(sum: &mut usize, length: usize) -> usize {
    *sum += length;
    *sum
}

impl Run {
    /// Cuts the events from `from` on between revisions, into as few responses as the bound allows. One revision is
    /// never cut, except into fragments.
    fn cut(&self, from: usize, fragment: bool, config: Config) -> Vec<Chunk> {
        let whole_max = config.response_bytes_max.min(config.fragment_bytes);
        let mut chunks = Vec::new();
        let mut first = from;
        while first < self.ends.len() {
            let mut end = self.revision_end(first);
            while end < self.ends.len() {
                let longer = self.revision_end(end);
                if self.length(first..longer) > whole_max {
                    break;
                }
                end = longer;
            }
            let bodies = match fragment {
                true => self.fragments(first..end, config.fragment_bytes),
                false => vec![self.slice(first..end)],
            };
            let (first_revision, last) = (self.revisions[first], self.revisions[end - 1]);
            chunks.push(Chunk { first: first_revision, last, bodies });
            first = end;
        }
        chunks
    }

    /// Fragments below `max` bytes where single events allow it.
    fn fragments(&self, events: Range<usize>, max: usize) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let mut first = events.start;
        for at in events.start + 1..events.end {
            if self.length(first..at + 1) + RESPONSE_OVERHEAD_BYTES >= max {
                pieces.push(self.slice(first..at));
                first = at;
            }
        }
        pieces.push(self.slice(first..events.end));
        pieces
    }

    /// The first event after `at` that is of another revision.
    fn revision_end(&self, at: usize) -> usize {
        let same =
            self.revisions[at..].iter().take_while(|revision| **revision == self.revisions[at]);
        at + same.count()
    }

    fn start_of(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn length(&self, events: Range<usize>) -> usize {
        self.start_of(events.end) - self.start_of(events.start)
    }

    fn slice(&self, events: Range<usize>) -> Bytes {
        let slice = self.start_of(events.start)..self.start_of(events.end);
        if slice.len() * SLICES_MAX < self.bytes.len() {
            return Bytes::copy_from_slice(&self.bytes[slice]);
        }
        self.bytes.slice(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_with_little_of_a_run_does_not_hold_all_of_it() {
        let run = Run {
            filter: Filter::default(),
            bytes: Bytes::from(vec![7; 1000]),
            ends: (1..=100).map(|event| event * 10).collect(),
            revisions: (1..=100).collect(),
        };
        let is_shared = |response_bytes_max| {
            let config = Config { response_bytes_max, ..Config::new(2000) };
            let chunks = run.cut(0, false, config);
            assert_eq!(chunks.len(), 1000 / response_bytes_max);
            run.bytes.as_ptr_range().contains(&chunks[0].bodies[0].as_ptr())
        };
        assert!(is_shared(1000));
        assert!(is_shared(500));
        assert!(!is_shared(20));
    }
}
