//! Linearizability: searches for an order of requests in which one copy of a key that handles one request at a time
//! gives the observed answers (Wing and Gong's search, with Lowe's cache of visited states). Revisions determine the
//! order of writes, so that few orders are left. Keys are checked one by one, which is enough: a history is
//! linearizable if that of each key is.
//!
//! The histories of real processes are checked with the same search as those of simulated ones.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

/// Microseconds since some moment before the first request, on one clock for all clients.
pub type Micros = u64;

/// Upper bound of visited states: far more than any correct history has needed.
const TRIED_MAX: usize = 1 << 20;

/// A key's value as clients see it; values are never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kv {
    /// Unique number of the value.
    pub value: u64,
    /// The revision that created the key.
    pub create: i64,
    /// The revision that wrote the value.
    pub modified: i64,
    /// Number of writes of the key since it was created.
    pub version: i64,
}

/// The operation of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Write this value.
    Put {
        /// See [`Kv::value`].
        value: u64,
    },
    /// Read, by consensus.
    Get,
    /// Delete the key if it exists.
    Delete,
    /// Put if the key was last changed at this revision (0: does not exist), else get.
    Swap {
        /// The revision.
        expected: i64,
        /// See [`Kv::value`].
        value: u64,
    },
}

/// The answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The revision of the answer.
    pub revision: i64,
    /// The previous version (put, delete) or the present one (get, a swap that failed).
    pub kv: Option<Kv>,
    /// True if a swap succeeded; `true` for others.
    pub done: bool,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Time of the request.
    pub asked: Micros,
    /// Time and content of the answer. `None` without one: the request may be applied at any time after, or not at all.
    pub answer: Option<(Micros, Seen)>,
    /// The operation.
    pub deed: Effect,
}

type State = Option<Kv>;

impl Call {
    /// The state after the request, if it is possible in this state. `log`: see [`check`].
    fn step(&self, state: State, log: &BTreeMap<u64, Kv>) -> Option<State> {
        let Some((_, seen)) = self.answer else { return self.step_unanswered(state, log) };
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

    fn step_unanswered(&self, state: State, log: &BTreeMap<u64, Kv>) -> Option<State> {
        match self.deed {
            // A request without effect explains nothing.
            Effect::Delete if state.is_some() => Some(None),
            Effect::Get | Effect::Delete => None,
            Effect::Swap { expected, .. } if state.map_or(0, |kv| kv.modified) != expected => None,
            Effect::Put { value } | Effect::Swap { value, .. } => {
                let kv = log.get(&value)?;
                (written(state, value, kv.modified) == *kv).then_some(Some(*kv))
            }
        }
    }

    /// The revision that it created, if it is known to have created one.
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

/// False for a request without an answer that is not in the log: it was never applied.
fn matters(call: &Call, log: &BTreeMap<u64, Kv>) -> bool {
    match (call.deed, call.answer) {
        (_, Some(_)) | (Effect::Delete, None) => true,
        (Effect::Get, None) => false,
        (Effect::Put { value } | Effect::Swap { value, .. }, None) => log.contains_key(&value),
    }
}

/// Searches for an order. `log` maps each value that was written to its version: this shows the effect of a request
/// without an answer, not its time.
///
/// # Errors
/// There is no order; the text shows the longest attempt.
///
/// # Panics
/// There are too many states to remember. That happens with wrong histories only.
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
    /// Requests that created a known revision, in the order of revisions, which is the order of their effects.
    writes: &'a [usize],
    is_write: Vec<bool>,
    /// Number of them that were taken.
    written: usize,
    taken: Vec<u64>,
    /// Visited combinations: the requests taken, without full words, and the resulting state.
    tried: BTreeSet<(usize, Vec<u64>, State)>,
    /// All requests before this one are taken.
    first: usize,
    /// The requests taken, and the state before each.
    path: Vec<(usize, State)>,
    /// The longest path, and the state before each of its steps.
    longest: Vec<(usize, State)>,
    stuck: State,
}

impl Search<'_> {
    fn is_taken(&self, at: usize) -> bool {
        self.taken[at / 64] >> (at % 64) & 1 == 1
    }

    /// Depth first, with the path in `path` rather than on the stack.
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
            // A request without effect could come later as well: there is no other order to try.
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

    /// The next request from `from` on that is possible now, and was not tried in this state before. One without
    /// effect comes first.
    fn next(&mut self, state: State, from: usize) -> Option<(usize, State)> {
        while self.first < self.calls.len() && self.is_taken(self.first) {
            self.first += 1;
        }
        // A request may not precede one that was answered before it was made.
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
            // Deletes without an answer are equivalent once they were made: the first represents all.
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

    /// True if taking this request leads to an unvisited state.
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
