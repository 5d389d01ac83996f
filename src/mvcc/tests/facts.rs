//! Cases beyond scripts and models: long histories, many keys, readers of old views, damage.

use std::cell::Cell;
use std::ops::Bound;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::mvcc::versions::{self, newest};
use crate::mvcc::{Import, bucket, is_read_only, is_serializable, leased_keys};
use crate::store::{Batch, Pair, Space, View};
use crate::types::limits::BATCH_EVENTS_BYTES_MAX;
use crate::types::{Fault, KeyRange};

/// A view that counts its lookups.
struct Counting<'a> {
    view: &'a MemoryView,
    gets: Cell<usize>,
}

impl View for Counting<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.gets.set(self.gets.get() + 1);
        self.view.get(space, key)
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<Pair, Fault>> + 'a {
        self.view.scan(space, from, to)
    }
}

#[test]
fn any_of_200_000_versions_is_found_in_logarithmic_time() {
    const VERSIONS: i64 = 200_000;
    let mut store = Store::new(0);
    for _ in 0..VERSIONS {
        store.quick_put("hot", "");
    }
    store.commit();
    let view = Counting { view: &store.read.view, gets: Cell::new(0) };
    let mut random = StdRng::seed_from_u64(1);
    let near = (0..40).flat_map(|at| [2 + at, VERSIONS + 1 - at]);
    let far = (0..200).map(|_| random.random_range(2..VERSIONS + 2));
    for at in near.chain(far).collect::<Vec<_>>() {
        let newest = newest(&view, b"hot").unwrap().unwrap();
        view.gets.set(0);
        let found = versions::version_at(&view, newest, at).unwrap().unwrap();
        assert_eq!(found.main().unwrap(), at);
        assert!(view.gets.get() <= 36, "{} look-ups for revision {at}", view.gets.get());
    }
    let newest = newest(&view, b"hot").unwrap().unwrap();
    assert!(versions::version_at(&view, newest.clone(), 1).unwrap().is_none());
    assert!(newest.bytes().len() < 150, "the record takes {} bytes", newest.bytes().len());
}

#[test]
fn compaction_shortens_the_ancestors_of_later_versions() {
    let mut store = Store::new(0);
    for round in 1..=10 {
        for _ in 0..1000 {
            store.quick_put("hot", "");
        }
        store.compact(round * 1000).unwrap();
        store.compact_all();
        store.commit();
    }
    let record = newest(&store.read.view, b"hot").unwrap().unwrap();
    for ancestor in record.ancestors().unwrap().skip(1) {
        assert!(ancestor.unwrap().main >= 9000);
    }
    for at in 10_000..10_002 {
        let request = RangeRequest { key: bytes("hot"), revision: at, ..Default::default() };
        assert_eq!(first(&store.range(&request).unwrap()).mod_revision, at);
    }
}

fn span(from: u32, to: u32) -> KeyRange {
    KeyRange::Span(bytes(&format!("{from:06}")), bytes(&format!("{to:06}")))
}

#[test]
fn fences_count_what_a_scan_counts_while_keys_come_and_go() {
    const KEYS: u32 = 30_000;
    let mut random = StdRng::seed_from_u64(2);
    let mut store = Store::new(0);
    let mut alive = std::collections::BTreeSet::new();
    // Phases: growth, churn, shrinking.
    for (round, put_share) in [0.9, 0.9, 0.5, 0.1, 0.1, 0.0, 0.7].into_iter().enumerate() {
        for _ in 0..8000 {
            let key = random.random_range(0..KEYS);
            if random.random_bool(put_share) {
                store.quick_put(&format!("{key:06}"), "");
                alive.insert(key);
            } else {
                store.quick_delete(&format!("{key:06}"));
                alive.remove(&key);
            }
        }
        if put_share == 0.0 {
            let low = DeleteRangeRequest {
                key: bytes("000000"),
                range_end: bytes("020000"),
                prev_kv: false,
            };
            store.delete_range(&low);
            alive = alive.split_off(&20_000);
        }
        if round % 2 == 1 {
            store.compact(store.mvcc.revision()).unwrap();
            store.mvcc.compact_step(&mut store.tx, 1 << 20).unwrap();
        }
        store.commit();
        assert_eq!(store.read.keys(), alive.len() as i64);
        for _ in 0..30 {
            let (from, to) = (random.random_range(0..KEYS), random.random_range(0..KEYS));
            let expected = if from < to { alive.range(from..to).count() } else { 0 } as i64;
            let count = store.read.count_index.count(&store.read.view, &span(from, to)).unwrap();
            assert_eq!(count, expected, "{from} to {to} in round {round}");
            assert!(store.read.count_index.records_max(&span(from, to)) >= expected);
        }
        let all =
            store.read.count_index.count(&store.read.view, &KeyRange::From(bytes("\0"))).unwrap();
        assert_eq!(all, alive.len() as i64);
        let reopened = crate::mvcc::CountIndex::open(&store.read.view, 0).unwrap();
        assert_eq!(reopened.total(), alive.len() as i64);
    }
}

#[test]
fn a_count_in_the_past_follows_the_log_or_the_range() {
    let mut store = Store::new(0);
    for key in 0..2000 {
        store.quick_put(&format!("{key:06}"), "");
    }
    let past = store.mvcc.revision();
    for key in 0..100 {
        store.quick_delete(&format!("{:06}", key * 3));
        store.quick_put(&format!("new{key}"), "");
    }
    store.commit();
    let count = |from: &str, to: &str, revision| {
        let (key, range_end) = (bytes(from), bytes(to));
        let request =
            RangeRequest { key, range_end, revision, count_only: true, ..Default::default() };
        store.range(&request).unwrap().count
    };
    assert_eq!(count("000000", "002000", past), 2000);
    assert_eq!(count("000000", "002000", 0), 1900);
    assert_eq!(count("000000", "000010", past), 10);
    assert_eq!(count("000000", "000010", past + 2), 9);
    assert_eq!(count("new", "nex", past), 0);
    assert_eq!(count("new", "nex", 0), 100);
}

#[test]
fn a_reader_of_an_old_view_is_not_answered_from_the_newer_cache() {
    let mut store = Store::new(1 << 20);
    store.quick_put("a", "old");
    store.commit();
    let old = store.read.clone();
    store.quick_put("a", "new");
    store.commit();
    store.quick_delete("a");
    store.commit();
    let request = RangeRequest { key: bytes("a"), ..Default::default() };
    assert_eq!(first(&old.range(&request).unwrap()).value, "old");
    assert!(store.range(&request).unwrap().kvs.is_empty());
}

#[test]
fn readers_race_with_apply_and_see_their_own_revision() {
    let mut store = Store::new(4000);
    let (sender, receiver) = std::sync::mpsc::channel::<ReadView<MemoryView>>();
    let reader = std::thread::spawn(move || {
        let mut checked = 0;
        for view in receiver {
            for key in 0..8 {
                let request = RangeRequest { key: bytes(&format!("k{key}")), ..Default::default() };
                let kvs = decode_all(view.range(&request).unwrap().kvs.iter());
                // The writer puts key r % 8 at revision r.
                let newest =
                    (view.revision - 7..=view.revision).find(|at| at % 8 == key && *at > 1);
                assert_eq!(kvs.first().map(|kv| kv.mod_revision), newest);
                checked += 1;
            }
        }
        checked
    });
    for _ in 0..3000 {
        let key = (store.mvcc.revision() + 1) % 8;
        store.quick_put(&format!("k{key}"), "");
        store.commit();
        sender.send(store.read.clone()).unwrap();
    }
    drop(sender);
    assert_eq!(reader.join().unwrap(), 3000 * 8);
}

#[test]
fn history_beyond_the_committed_revision_is_refused() {
    let mut store = Store::new(0);
    store.quick_put("a", "1");
    store.commit();
    let back = Bytes::copy_from_slice(&1i64.to_be_bytes());
    let batch = Batch { writes: vec![(Space::Meta, Bytes::from_static(b"revision"), Some(back))] };
    store.engine.commit(batch).unwrap();
    let fault = Mvcc::open(&store.engine.view(), CacheBytes::NONE).map(|_| ()).unwrap_err();
    assert!(fault.0.contains("damaged"), "{fault}");
}

#[test]
fn damaged_records_are_faults() {
    let mut store = Store::new(0);
    store.quick_put("a", "1");
    store.commit();
    let request = RangeRequest { key: bytes("a"), min_mod_revision: 1, ..Default::default() };
    for damage in [&b""[..], &[0], &[0, 200, 1], &[0, 3, 0, 0x0a, 99, 1], &[0, 3, 0, 0xff, 1]] {
        let record = Bytes::copy_from_slice(damage);
        let batch = Batch { writes: vec![(Space::Kv, bytes("a"), Some(record))] };
        store.engine.commit(batch).unwrap();
        let mut view = store.read.clone();
        view.view = store.engine.view();
        assert!(matches!(view.range(&request), Err(Error::Faulty(_))), "{damage:?}");
    }
}

#[test]
fn leased_keys_are_those_alive_with_a_lease() {
    let mut store = Store::new(0);
    for (key, lease) in [("a", 1), ("b", 0), ("c", 2), ("d", 3)] {
        store.put(&PutRequest { lease, ..put(key, "x") }).unwrap();
    }
    store.quick_delete("d");
    store.commit();
    let leased: Vec<_> = leased_keys(&store.read.view).map(Result::unwrap).collect();
    assert_eq!(leased, [(bytes("a"), 1), (bytes("c"), 2)]);
}

#[test]
fn requests_are_classified_and_priced_as_in_etcd() {
    use basalt_proto::etcdserverpb::RequestOp;
    use basalt_proto::etcdserverpb::request_op::Request;
    let operation = |request| RequestOp { request: Some(request) };
    let range = |serializable| {
        operation(Request::RequestRange(RangeRequest { serializable, ..Default::default() }))
    };
    let empty = TxnRequest::default();
    assert!(is_read_only(&empty) && is_serializable(&empty));
    let reads =
        TxnRequest { success: vec![range(true)], failure: vec![range(false)], ..empty.clone() };
    assert!(is_read_only(&reads) && !is_serializable(&reads));
    let nested =
        TxnRequest { success: vec![operation(Request::RequestTxn(reads))], ..empty.clone() };
    assert!(!is_read_only(&nested));
}

#[test]
fn an_exported_history_imports_as_it_was() {
    let mut random = StdRng::seed_from_u64(3);
    let mut store = Store::new(0);
    for round in 0..6 {
        for _ in 0..50 {
            let key = format!("k{}", random.random_range(0..20));
            if random.random_bool(0.7) {
                store.quick_put(&key, "v")
            } else {
                store.quick_delete(&key)
            }
        }
        if round % 2 == 1 {
            store.compact(store.mvcc.revision() - 20).unwrap();
            store.compact_all();
        }
    }
    store.commit();
    let mut engine = crate::store::Memory::default();
    let mut tx = Overlay::new(engine.view());
    let mut import = Import::default();
    for (at, entry) in bucket(&store.read.view, &[]).enumerate() {
        let (key, value) = entry.unwrap();
        import.entry(&mut tx, &key, &value).unwrap();
        if at % 7 == 0 {
            engine.commit(tx.take()).unwrap();
            tx.rebase(engine.view());
        }
    }
    for meta in ["scheduledCompactRev", "finishedCompactRev"] {
        let value = store.read.view.get(Space::Meta, meta.as_bytes()).unwrap().unwrap();
        tx.put(Space::Meta, bytes(meta), value);
    }
    import.finish(&mut tx, store.mvcc.compacted());
    engine.commit(tx.take()).unwrap();
    let imported = Store::open(engine, 0);
    assert_eq!(imported.mvcc.revision(), store.mvcc.revision());
    assert_eq!(imported.mvcc.compacted(), store.mvcc.compacted());
    assert!(bucket(&imported.read.view, &[]).eq(bucket(&store.read.view, &[])));
    // The original still has the hash of its newest compaction, so later revisions are compared.
    for revision in store.mvcc.compacted() + 1..=store.mvcc.revision() {
        assert_eq!(imported.hash(revision).unwrap(), store.hash(revision).unwrap());
        let request =
            RangeRequest { key: bytes("k"), range_end: bytes("l"), revision, ..Default::default() };
        assert_eq!(imported.range(&request).unwrap(), store.range(&request).unwrap());
    }
    let from = store.mvcc.compacted();
    let told = |store: &Store| store.read.history(from, 1000, 1 << 20).unwrap().events;
    assert_eq!(told(&imported), told(&store));
}

#[test]
fn invalid_bucket_entries_are_not_imported() {
    let view = crate::store::Memory::default().view();
    let mut tx = Overlay::new(view);
    let mut import = Import::default();
    let kv = KeyValue { key: bytes("a"), ..Default::default() }.encode_to_vec();
    let at = |main| crate::types::Revision { main, sub: 0 }.to_key();
    assert!(import.entry(&mut tx, b"short", &kv).is_err());
    assert!(import.entry(&mut tx, &at(3), b"\xff").is_err());
    let mut import = Import::default();
    import.entry(&mut tx, &at(3), &kv).unwrap();
    assert!(import.entry(&mut tx, &at(3), &kv).is_err());
}

#[test]
fn views_may_be_read_on_every_core() {
    fn assert_shareable<T: Clone + Send + Sync + 'static>() {}
    assert_shareable::<ReadView<MemoryView>>();
}

#[test]
fn events_of_a_batch_are_kept_up_to_their_bound() {
    let mut store = Store::new(0);
    let large = "v".repeat(1 << 20);
    for number in 0..BATCH_EVENTS_BYTES_MAX >> 20 {
        assert!(!store.mvcc.has_left_out_events(), "after {number} events");
        store.quick_put(&number.to_string(), &large);
    }
    assert!(store.mvcc.has_left_out_events());
    assert!(store.mvcc.take_events().is_empty());
    assert_eq!(store.mvcc.take_changes().puts, 16);
    assert!(!store.mvcc.has_left_out_events(), "the next batch is another one");
}
