//! Lists in front of the store: their answers are those of the store, for readers of any state.

use std::collections::VecDeque;

use basalt_proto::encoded::KeyValues;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::mvcc::Chunk;
use crate::types::limits::{FENCE_RECORDS_MAX, LIST_BYTES_MAX};

/// Reads a range to its end by a cursor. Also returns the number of chunks.
fn list(
    view: &ReadView<MemoryView>,
    request: &RangeRequest,
    mut bounds: impl FnMut() -> (usize, usize),
) -> Result<(RangeResponse, usize), Refusal> {
    let mut cursor = answer(view.range_cursor(request))?;
    let mut kvs = KeyValues::default();
    for chunks in 1.. {
        let (keys_max, bytes_max) = bounds();
        let before = kvs.iter().count();
        let chunk = cursor.next(view, keys_max, bytes_max, &mut kvs).unwrap();
        let Chunk { keys, done, more, count, .. } = chunk;
        assert!(keys <= keys_max.max(1));
        assert_eq!(kvs.iter().count(), before + keys);
        if done {
            return Ok((RangeResponse { header: None, kvs, more, count }, chunks));
        }
    }
    unreachable!("cursors end")
}

fn name(number: usize) -> String {
    format!("{number:05}")
}

fn random_request(random: &mut StdRng, view: &ReadView<MemoryView>, keys: usize) -> RangeRequest {
    let [from, to] = [(); 2].map(|()| random.random_range(0..keys));
    let oldest = view.compacted.max(0);
    RangeRequest {
        key: if random.random_bool(0.3) { bytes("\0") } else { bytes(&name(from)) },
        range_end: if random.random_bool(0.3) { bytes("\0") } else { bytes(&name(to)) },
        limit: match random.random_range(0..4) {
            0 => random.random_range(1..2000),
            1 => random.random_range(1..20),
            _ => 0,
        },
        revision: match random.random_bool(0.5) {
            true => random.random_range(oldest..=view.revision),
            false => 0,
        },
        keys_only: random.random_bool(0.1),
        ..Default::default()
    }
}

/// Keys come, change and go, so that fences do; some histories have values that make lists too long.
#[test]
fn cached_lists_are_what_the_store_holds_at_each_revision() {
    const KEYS: usize = 4000;
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut store = Store::new(4 << 20);
        let mut views = VecDeque::new();
        for round in 0..60 {
            let grows = if round / 15 % 2 == 0 { 0.9 } else { 0.3 };
            // Many changes in few places, or few anywhere.
            let (changes, keys) = match random.random_bool(0.3) {
                true => (400, 0..KEYS),
                false => (random.random_range(0..8), 0..KEYS),
            };
            let long = if seed == 3 { LIST_BYTES_MAX / FENCE_RECORDS_MAX * 2 } else { 40 };
            for _ in 0..changes {
                let key = name(random.random_range(keys.clone()));
                match random.random_bool(grows) {
                    true => store.quick_put(&key, &"v".repeat(random.random_range(0..long))),
                    false => store.quick_delete(&key),
                }
            }
            if random.random_bool(0.1) && store.mvcc.compacted() < store.mvcc.revision() {
                store.compact(store.mvcc.revision()).unwrap();
            }
            if random.random_bool(0.5) {
                store.mvcc.compact_step(&mut store.tx, 100).unwrap();
            }
            store.commit();
            views.push_back(store.read.clone());
            if views.len() > 3 {
                views.pop_front();
            }
            for _ in 0..8 {
                let view = &views[random.random_range(0..views.len())];
                let request = random_request(&mut random, view, KEYS);
                let expected = answer(view.range(&request));
                let keys_max = random.random_range(1..1000);
                let found = list(view, &request, || (keys_max, 100_000));
                assert!(
                    found.map(|it| it.0) == expected,
                    "seed {seed}, round {round}: {request:?}"
                );
            }
        }
    }
}

/// A store of so many keys.
fn filled(keys: usize) -> Store {
    let mut store = Store::new(64 << 20);
    (0..keys).for_each(|key| store.quick_put(&name(key), "value"));
    store.commit();
    store
}

fn all() -> RangeRequest {
    RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() }
}

/// Bytes of the response that are the same in memory as in another one.
fn shared(one: &RangeResponse, other: &RangeResponse) -> usize {
    let places = other.kvs.iter().map(|kv| kv.as_ptr()).collect::<std::collections::HashSet<_>>();
    one.kvs.iter().filter(|kv| places.contains(&kv.as_ptr())).count()
}

#[test]
fn a_write_changes_one_list_and_readers_before_it_keep_the_old_one() {
    const KEYS: usize = 10 * FENCE_RECORDS_MAX;
    let mut store = filled(KEYS);
    let before = store.read.clone();
    let read =
        |view: &ReadView<MemoryView>| list(view, &all(), || (usize::MAX, usize::MAX)).unwrap().0;
    let first = read(&before);
    assert!(first.kvs.has_runs());
    assert_eq!(shared(&first, &read(&before)), KEYS, "the cache is used");

    store.quick_put(&name(KEYS / 2), "new");
    store.commit();
    let second = read(&store.read);
    assert_eq!(first.kvs.iter().zip(second.kvs.iter()).filter(|(old, new)| old != new).count(), 1);
    let same = shared(&first, &second);
    assert!((KEYS - FENCE_RECORDS_MAX..KEYS).contains(&same), "{same} keys are shared");
    assert_eq!(shared(&second, &read(&store.read)), KEYS);
    // The changed section is read from the store, since its fence tells of the later change.
    let again = read(&before);
    assert!(again == first);
    assert_eq!(shared(&first, &again), same);
    // The same of a reader of the past, and a limit cuts no more lists than one.
    let past = RangeRequest { revision: before.revision, ..all() };
    assert!(list(&store.read, &past, || (usize::MAX, usize::MAX)).unwrap().0 == first);
    let limited = RangeRequest { limit: 3 * FENCE_RECORDS_MAX as i64 - 10, ..all() };
    let limited = list(&store.read, &limited, || (usize::MAX, usize::MAX)).unwrap().0;
    let cut = limited.kvs.iter().count() - shared(&limited, &second);
    assert!(cut <= FENCE_RECORDS_MAX, "{cut} keys were copied");
    assert_eq!((limited.more, limited.count), (true, KEYS as i64));
}

#[test]
fn steps_end_where_lists_do() {
    const KEYS: usize = 4 * FENCE_RECORDS_MAX;
    let mut store = filled(KEYS);
    let step = || (FENCE_RECORDS_MAX, usize::MAX);
    // Sections of more than half a step, of which two do not fit into one.
    for key in (0..KEYS).filter(|key| key % 4 != 0) {
        store.quick_put(&format!("{}+", name(key)), "value");
    }
    store.commit();
    let (first, chunks) = list(&store.read, &all(), step).unwrap();
    assert!((4..=12).contains(&chunks), "{chunks} chunks");
    let (second, _) = list(&store.read, &all(), step).unwrap();
    let keys = first.count as usize;
    assert!(second == first && first.kvs.has_runs());
    assert_eq!(shared(&first, &second), keys);
    // Shorter ones are cut: none is skipped or repeated.
    assert!(list(&store.read, &all(), || (7, usize::MAX)).unwrap().0 == first);
}
