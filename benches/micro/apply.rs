//! A put, applied and committed to a store in memory as a batch of its own.

use std::hint::black_box;

use basalt::cluster::Member;
use basalt::command::Command;
use basalt::machine::{Config, Machine, StepLimits};
use basalt::store::Memory;
use basalt::types::{CacheBytes, Entry, EntryKind, FeatureLevel};

use super::Operation;
use super::codec::put_request;

/// Keys in the store; a put replaces one of them.
pub(crate) const KEYS: u64 = 1_000;

/// A state machine that holds [`KEYS`] keys, and the index of the next entry.
pub(crate) fn machine() -> (Machine<Memory>, u64) {
    let config = Config {
        caches: CacheBytes { records: 1 << 20, lists: 1 << 20 },
        lease_ttl_min: 1,
        learners_max: 1,
        feature_level: FeatureLevel::NEWEST,
        steps: StepLimits::DEFAULT,
    };
    let mut machine = Machine::open(Memory::default(), &config).expect("an empty store opens");
    machine.bootstrap(vec![Member { id: 1, ..Member::default() }]).expect("memory takes it");
    let mut index = machine.applied();
    for key in 0..KEYS {
        index += 1;
        machine.apply(&entry(index, key)).expect("memory takes it");
    }
    machine.commit().expect("memory takes it");
    (machine, index + 1)
}

pub(crate) fn entry(index: u64, key: u64) -> Entry {
    let data = Command::Put(put_request(key)).to_payload(index);
    Entry { index, term: 1, kind: EntryKind::Normal, data }
}

pub(crate) fn put() -> Operation {
    let (mut machine, mut index) = machine();
    Box::new(move || {
        black_box(machine.apply(&entry(index, index * 7 % KEYS)).expect("memory takes it"));
        black_box(machine.commit().expect("memory takes it"));
        index += 1;
    })
}
