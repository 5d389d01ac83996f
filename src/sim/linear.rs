//! Whether what clients saw of one key could have come from a single copy that does one thing at a time
//! (Wing and Gong's search, with Lowe's memory of what was tried).

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Micros;

/// A key's value as clients see it; values are never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Kv {
    pub(super) value: u64,
    pub(super) create: i64,
    pub(super) modified: i64,
    pub(super) version: i64,
}

/// What a client asked of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deed {
    Put {
        value: u64,
    },
    Get,
    Delete,
    /// Put if it was last changed at this revision (0: if it is not there), else get.
    Swap {
        expected: i64,
        value: u64,
    },
}

/// What it heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// The revision of the answer.
    pub(super) revision: i64,
    /// What was there before (put, delete) or is there (get, a swap that failed).
    pub(super) kv: Option<Kv>,
    /// Whether a swap was made; `true` for others.
    pub(super) done: bool,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) asked: Micros,
    /// `None` if the client never heard: it may have happened at any time after, or not at all.
    pub(super) answer: Option<(Micros, Seen)>,
    pub(super) deed: Deed,
}

type State = Option<Kv>;

impl Call {
    /// The state after it, if it can happen in this state. `observed` holds every value that anybody saw.
    fn step(&self, state: State, observed: &BTreeMap<u64, Kv>) -> Option<State> {
        let Some((_, seen)) = self.answer else { return self.step_unheard(state, observed) };
        match self.deed {
            Deed::Get => (seen.kv == state).then_some(state),
            Deed::Delete => (seen.kv == state).then_some(None),
            Deed::Put { value } => {
                (seen.kv == state).then(|| Some(written(state, value, seen.revision)))
            }
            Deed::Swap { expected, value } if seen.done => {
                let is = state.map_or(0, |kv| kv.modified);
                (is == expected).then(|| Some(written(state, value, seen.revision)))
            }
            Deed::Swap { expected, .. } => {
                let is = state.map_or(0, |kv| kv.modified);
                (is != expected && seen.kv == state).then_some(state)
            }
        }
    }

    fn step_unheard(&self, state: State, observed: &BTreeMap<u64, Kv>) -> Option<State> {
        let write = |value| {
            let kv = observed.get(&value)?;
            (written(state, value, kv.modified) == *kv).then_some(Some(*kv))
        };
        match self.deed {
            Deed::Get => None,
            Deed::Delete => Some(None),
            Deed::Put { value } => write(value),
            Deed::Swap { expected, .. } if state.map_or(0, |kv| kv.modified) != expected => None,
            Deed::Swap { value, .. } => write(value),
        }
    }
}

fn written(state: State, value: u64, revision: i64) -> Kv {
    let (create, version) = state.map_or((revision, 0), |kv| (kv.create, kv.version));
    Kv { value, create, modified: revision, version: version + 1 }
}

/// Values that were seen, each as one change: a value that was written once has one revision.
fn observations(calls: &[Call]) -> Result<BTreeMap<u64, Kv>, String> {
    let mut observed = BTreeMap::new();
    for kv in calls.iter().filter_map(|call| call.answer?.1.kv) {
        let first = *observed.entry(kv.value).or_insert(kv);
        if first != kv {
            return Err(format!("a value was written twice: {first:?}, {kv:?}"));
        }
    }
    Ok(observed)
}

/// A request that may have happened without anybody noticing cannot explain anything.
fn matters(call: &Call, observed: &BTreeMap<u64, Kv>) -> bool {
    match (call.deed, call.answer) {
        (_, Some(_)) | (Deed::Delete, None) => true,
        (Deed::Get, None) => false,
        (Deed::Put { value } | Deed::Swap { value, .. }, None) => observed.contains_key(&value),
    }
}

/// Searches for an order.
///
/// # Errors
/// There is none; the text shows how far the longest attempt came.
pub(super) fn check(calls: &[Call]) -> Result<(), String> {
    let observed = observations(calls)?;
    let mut calls: Vec<_> = calls.iter().filter(|call| matters(call, &observed)).copied().collect();
    calls.sort_by_key(|call| call.asked);
    let mut search = Search {
        taken: vec![0; calls.len().div_ceil(64)],
        calls: &calls,
        observed: &observed,
        tried: BTreeSet::new(),
        first: 0,
        path: Vec::new(),
        longest: Vec::new(),
    };
    if search.run() {
        return Ok(());
    }
    let longest = search.longest.clone();
    let stuck = calls.iter().enumerate().filter(|(at, call)| {
        call.answer.is_some() && !longest.iter().any(|(taken, _)| taken == at)
    });
    let stuck: Vec<_> = stuck.take(5).map(|(_, call)| format!("{call:?}")).collect();
    let state = longest.last().and_then(|(_, state)| *state);
    Err(format!(
        "no order explains it; after {} requests the key is {state:?}, and then none of these fits:\n  {}",
        longest.len(),
        stuck.join("\n  ")
    ))
}

struct Search<'a> {
    calls: &'a [Call],
    observed: &'a BTreeMap<u64, Kv>,
    taken: Vec<u64>,
    tried: BTreeSet<(Vec<u64>, State)>,
    /// All before this one are taken.
    first: usize,
    /// What was taken, and the state before.
    path: Vec<(usize, State)>,
    /// What was taken, and the state after.
    longest: Vec<(usize, State)>,
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
            let Some(next) = self.next(state, from) else {
                if self.is_done() {
                    return true;
                }
                let Some((at, before)) = self.path.pop() else { return false };
                self.taken[at / 64] &= !(1 << (at % 64));
                self.first = self.first.min(at);
                (state, from) = (before, at + 1);
                continue;
            };
            let (at, after) = next;
            self.path.push((at, state));
            (state, from) = (after, 0);
            if self.path.len() > self.longest.len() {
                let states = self.path.iter().skip(1).map(|(_, state)| *state).chain([state]);
                self.longest = self.path.iter().map(|(at, _)| *at).zip(states).collect();
            }
        }
    }

    fn is_done(&self) -> bool {
        (self.first..self.calls.len())
            .all(|at| self.is_taken(at) || self.calls[at].answer.is_none())
    }

    /// The next request from `from` on that may come now, and was not tried in this place before.
    fn next(&mut self, state: State, from: usize) -> Option<(usize, State)> {
        while self.first < self.calls.len() && self.is_taken(self.first) {
            self.first += 1;
        }
        // None may come that was asked after another was answered that is still to come.
        let mut latest = Micros::MAX;
        for at in self.first..self.calls.len() {
            let call = &self.calls[at];
            if call.asked > latest {
                break;
            }
            if self.is_taken(at) {
                continue;
            }
            latest = latest.min(call.answer.map_or(Micros::MAX, |(answered, _)| answered));
            if at < from {
                continue;
            }
            let Some(after) = call.step(state, self.observed) else { continue };
            self.taken[at / 64] |= 1 << (at % 64);
            if self.tried.insert((self.taken.clone(), after)) {
                return Some((at, after));
            }
            self.taken[at / 64] &= !(1 << (at % 64));
        }
        None
    }
}
