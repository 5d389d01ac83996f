//! Whether what clients saw of one key could have come from a single copy that does one thing at a time
//! (Wing and Gong's search, with Lowe's memory of what was tried). Revisions tell the order of writes, so that
//! there is little left to try. Keys are checked one by one, which is enough: a history is linearizable if that of
//! each key is.
//!
//! The histories of real processes are checked with the same search as those of simulated ones.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

/// Microseconds since something before the first request, by one clock for all clients.
pub type Micros = u64;

/// Places that a search may remember: far more than any history that is right has needed.
const TRIED_MAX: usize = 1 << 20;

/// A key's value as clients see it; values are never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kv {
    /// Which of all values ever written it is.
    pub value: u64,
    /// The revision that made the key.
    pub create: i64,
    /// The revision that wrote the value.
    pub modified: i64,
    /// How many times the key was written since it was made.
    pub version: i64,
}

/// What a client asked of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Write this value.
    Put {
        /// See [`Kv::value`].
        value: u64,
    },
    /// Read, by consensus.
    Get,
    /// Take it away if it is there.
    Delete,
    /// Put if it was last changed at this revision (0: if it is not there), else get.
    Swap {
        /// The revision.
        expected: i64,
        /// See [`Kv::value`].
        value: u64,
    },
}

/// What it heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The revision of the answer.
    pub revision: i64,
    /// What was there before (put, delete) or is there (get, a swap that failed).
    pub kv: Option<Kv>,
    /// Whether a swap was made; `true` for others.
    pub done: bool,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// When the client asked.
    pub asked: Micros,
    /// When it heard what. `None` if the client never heard: it may have happened at any time after, or not at all.
    pub answer: Option<(Micros, Seen)>,
    /// What it asked.
    pub deed: Effect,
}

type State = Option<Kv>;

impl Call {
    /// The state after it, if it can happen in this state. `log`: see [`check`].
    fn step(&self, state: State, log: &BTreeMap<u64, Kv>) -> Option<State> {
        let Some((_, seen)) = self.answer else { return self.step_unheard(state, log) };
        match self.deed {
            Effect::Get => (seen.kv == state).then_some(state),
            Effect::Delete => (seen.kv == state).then_some(None),
            Effect::Put { value } => {
                (seen.kv == state).then(|| Some(written(state, value, seen.revision)))
            }
            Effect::Swap { expected, value } if seen.done => {
                let is = state.map_or(0, |kv| kv.modified);
                (is == expected).then(|| Some(written(state, value, seen.revision)))
            }
            Effect::Swap { expected, .. } => {
                let is = state.map_or(0, |kv| kv.modified);
                (is != expected && seen.kv == state).then_some(state)
            }
        }
    }

    fn step_unheard(&self, state: State, log: &BTreeMap<u64, Kv>) -> Option<State> {
        match self.deed {
            // One that changes nothing explains nothing.
            Effect::Delete if state.is_some() => Some(None),
            Effect::Get | Effect::Delete => None,
            Effect::Swap { expected, .. } if state.map_or(0, |kv| kv.modified) != expected => None,
            Effect::Put { value } | Effect::Swap { value, .. } => {
                let kv = log.get(&value)?;
                (written(state, value, kv.modified) == *kv).then_some(Some(*kv))
            }
        }
    }

    /// The revision that it made, if it is known to have made one.
    fn revision(&self, log: &BTreeMap<u64, Kv>) -> Option<i64> {
        match (self.deed, self.answer) {
            (Effect::Put { .. } | Effect::Swap { .. }, Some((_, seen))) => {
                seen.done.then_some(seen.revision)
            }
            (Effect::Put { value } | Effect::Swap { value, .. }, None) => {
                log.get(&value).map(|kv| kv.modified)
            }
            (Effect::Delete, Some((_, seen))) => seen.kv.is_some().then_some(seen.revision),
            (Effect::Delete, None) | (Effect::Get, _) => None,
        }
    }
}

fn written(state: State, value: u64, revision: i64) -> Kv {
    let (create, version) = state.map_or((revision, 0), |kv| (kv.create, kv.version));
    Kv { value, create, modified: revision, version: version + 1 }
}

/// A request that nobody heard of and that is not in the log never happened.
fn matters(call: &Call, log: &BTreeMap<u64, Kv>) -> bool {
    match (call.deed, call.answer) {
        (_, Some(_)) | (Effect::Delete, None) => true,
        (Effect::Get, None) => false,
        (Effect::Put { value } | Effect::Swap { value, .. }, None) => log.contains_key(&value),
    }
}

/// Searches for an order. `log` holds what each value that was written became: it tells what a request did
/// whose client never heard, not when.
///
/// # Errors
/// There is none; the text shows how far the longest attempt came.
///
/// # Panics
/// There are more orders than it can remember to have tried. That happens with wrong histories only.
pub fn check(calls: &[Call], log: &BTreeMap<u64, Kv>) -> Result<(), String> {
    let mut calls: Vec<_> = calls.iter().filter(|call| matters(call, log)).copied().collect();
    calls.sort_by_key(|call| call.asked);
    let mut writes: Vec<_> = calls.iter().map(|call| call.revision(log)).enumerate().collect();
    writes.retain(|(_, revision)| revision.is_some());
    writes.sort_by_key(|(_, revision)| *revision);
    let writes: Vec<_> = writes.into_iter().map(|(at, _)| at).collect();
    let mut search = Search {
        taken: vec![0; calls.len().div_ceil(64)],
        calls: &calls,
        is_write: calls.iter().map(|call| call.revision(log).is_some()).collect(),
        writes: &writes,
        written: 0,
        log,
        tried: BTreeSet::new(),
        first: 0,
        path: Vec::new(),
        longest: Vec::new(),
        stuck: None,
    };
    if search.run() {
        return Ok(());
    }
    let (longest, state) = (search.longest, search.stuck);
    let stuck = calls.iter().enumerate().filter(|(at, call)| {
        call.answer.is_some() && !longest.iter().any(|(taken, _)| taken == at)
    });
    let stuck: Vec<_> = stuck.take(5).map(|(_, call)| format!("{call:?}")).collect();
    Err(format!(
        "no order explains it; after {} requests the key is {state:?}, and then none of these fits:\n  {}",
        longest.len(),
        stuck.join("\n  ")
    ))
}

struct Search<'a> {
    calls: &'a [Call],
    log: &'a BTreeMap<u64, Kv>,
    /// Requests that made a known revision, in the order of these, which is the order in which they happened.
    writes: &'a [usize],
    is_write: Vec<bool>,
    /// How many of them were taken.
    written: usize,
    taken: Vec<u64>,
    /// What was taken, without the words that are full, and the state that it led to.
    tried: BTreeSet<(usize, Vec<u64>, State)>,
    /// All before this one are taken.
    first: usize,
    /// What was taken, and the state before.
    path: Vec<(usize, State)>,
    /// The longest path, and the state that it led to.
    longest: Vec<(usize, State)>,
    stuck: State,
}

impl Search<'_> {
    fn is_taken(&self, at: usize) -> bool {
        self.taken[at / 64] >> (at % 64) & 1 == 1
    }

    /// Depth first, with the way back in `path` rather than on the stack.
    fn run(&mut self) -> bool {
        let mut state: State = None;
        let mut from = 0;
        loop {
            if let Some((at, after)) = self.next(state, from) {
                self.path.push((at, state));
                (state, from) = (after, 0);
                continue;
            }
            if self.is_done() {
                return true;
            }
            if self.path.len() > self.longest.len() {
                self.longest.clone_from(&self.path);
                self.stuck = state;
            }
            // What changed nothing could as well come then as later: there is no other way to try.
            loop {
                let Some((at, before)) = self.path.pop() else { return false };
                self.taken[at / 64] &= !(1 << (at % 64));
                self.written -= usize::from(self.is_write[at]);
                self.first = self.first.min(at);
                let changed = before != state;
                (state, from) = (before, at + 1);
                if changed {
                    break;
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        let is_optional = |at: usize| self.calls[at].answer.is_none() && !self.is_write[at];
        (self.first..self.calls.len()).all(|at| self.is_taken(at) || is_optional(at))
    }

    /// The next request from `from` on that may come now, and was not tried in this place before. One that
    /// changes nothing comes first.
    fn next(&mut self, state: State, from: usize) -> Option<(usize, State)> {
        while self.first < self.calls.len() && self.is_taken(self.first) {
            self.first += 1;
        }
        // None may come that was asked after another was answered that is still to come.
        let mut latest = Micros::MAX;
        let mut deleting = false;
        let mut changing = None;
        for at in self.first..self.calls.len() {
            let call = &self.calls[at];
            if call.asked > latest {
                break;
            }
            if self.is_taken(at) {
                continue;
            }
            latest = latest.min(call.answer.map_or(Micros::MAX, |(answered, _)| answered));
            // Deletes that nobody heard of are all alike once they were asked: the first stands for all.
            let is_quiet_delete = call.answer.is_none() && call.deed == Effect::Delete;
            let is_alike = is_quiet_delete && deleting;
            deleting |= is_quiet_delete;
            let is_early = self.is_write[at] && self.writes[self.written] != at;
            if is_alike || is_early {
                continue;
            }
            match call.step(state, self.log) {
                Some(after) if after == state && from == 0 => {
                    self.take(at);
                    return Some((at, after));
                }
                Some(after) if at >= from && changing.is_none() && self.is_new(at, after) => {
                    changing = Some((at, after));
                }
                Some(_) | None => (),
            }
        }
        changing.inspect(|(at, _)| self.take(*at))
    }

    fn take(&mut self, at: usize) {
        self.written += usize::from(self.is_write[at]);
        self.taken[at / 64] |= 1 << (at % 64);
    }

    /// Whether taking this one leads to where the search never was.
    fn is_new(&mut self, at: usize, state: State) -> bool {
        let mut taken = self.taken.clone();
        taken[at / 64] |= 1 << (at % 64);
        let full = taken.iter().take_while(|word| **word == u64::MAX).count();
        taken.drain(..full);
        let end = taken.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        taken.truncate(end);
        assert!(self.tried.len() < TRIED_MAX, "too many orders to try");
        self.tried.insert((full, taken, state))
    }
}
