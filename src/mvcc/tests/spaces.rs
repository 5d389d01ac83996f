//! Content of the spaces: values once, revisions once, and the sums of all.

use std::collections::BTreeSet;
use std::ops::Bound::Unbounded;

use super::*;
use crate::mvcc::Usage;
use crate::mvcc::record::Record;
use crate::mvcc::versions::{newest, whole};
use crate::store::View;
use crate::types::Revision;
use crate::types::limits::INLINE_BYTES_MAX;

/// Flag of records that contain the fields of the replaced version, behind their fixed part.
const REPLACED: u8 = 8;

fn pairs(view: &MemoryView, space: Space) -> Vec<(Bytes, Bytes)> {
    view.scan(space, Unbounded, Unbounded).map(Result::unwrap).collect()
}

fn record(bytes: Bytes) -> Record {
    Record::new(bytes).unwrap()
}

/// Checks the invariants that hold at any moment, during compaction too. A store that `aged` may hold large values in
/// its history, and has not stored replaced values again.
pub(super) fn check(store: &Store, aged: bool) {
    let view = &store.read.view;
    let (mut usage, mut replaced) = (Usage::default(), BTreeSet::new());
    for (key, logged) in pairs(view, Space::Log) {
        let logged = record(logged);
        let whole = whole(view, logged.clone()).unwrap();
        assert_eq!(logged.item_bytes().unwrap(), whole.item_bytes().unwrap());
        usage.add(whole.item_bytes().unwrap());
        assert_eq!(logged.revision().unwrap().to_key()[..], key);
        assert_eq!(whole.revision().unwrap(), logged.revision().unwrap());
        assert_eq!(whole.ancestors().unwrap().count(), logged.ancestors().unwrap().count());
        assert_eq!(whole.replaced().unwrap(), logged.replaced().unwrap());
        assert_eq!(whole.key().unwrap(), logged.key().unwrap());
        let large = !whole.is_tombstone() && whole.value().unwrap().len() > INLINE_BYTES_MAX;
        assert!(logged.is_stub() == large || aged, "{key:?}");
        let newest = newest(view, &whole.key().unwrap()).unwrap().unwrap();
        if large && newest.revision() != whole.revision() {
            replaced.insert(key);
        }
    }
    assert_eq!(store.read.usage, usage);
    assert_eq!(Usage::sum(view).unwrap(), usage);
    let superseded: BTreeSet<_> =
        pairs(view, Space::Superseded).into_iter().map(|(key, _)| key).collect();
    if aged {
        assert!(superseded.is_subset(&replaced));
    } else {
        assert_eq!(superseded, replaced);
    }
}

/// Converts a store to an earlier version's format: every record whole in the history, without the fields of the
/// replaced version, and no sums.
pub(super) fn age(engine: &mut Memory) {
    let view = engine.view();
    let mut batch = Batch::default();
    for (key, logged) in pairs(&view, Space::Log) {
        let whole = whole(&view, record(logged)).unwrap();
        batch.writes.push((Space::Log, key, Some(without_replaced(&whole))));
    }
    for (key, newest) in pairs(&view, Space::Kv) {
        batch.writes.push((Space::Kv, key, Some(without_replaced(&record(newest)))));
    }
    for (key, _) in pairs(&view, Space::Superseded) {
        batch.writes.push((Space::Superseded, key, None));
    }
    batch.writes.push((Space::Meta, bytes("usage"), None));
    if let Some(progress) = view.get(Space::Meta, b"compactProgress").unwrap() {
        let next = progress.slice(..Revision::KEY_LENGTH);
        batch.writes.push((Space::Meta, bytes("compactProgress"), Some(next)));
    }
    engine.commit(batch).unwrap();
}

fn without_replaced(record: &Record) -> Bytes {
    let mut bytes = record.bytes().to_vec();
    if bytes[0] & REPLACED != 0 {
        let varint = 1 + bytes[3..].iter().position(|byte| byte & 0x80 == 0).unwrap();
        bytes.drain(3..3 + varint);
        bytes[0] &= !REPLACED;
        let kv_at = u16::from_le_bytes([bytes[1], bytes[2]]) - varint as u16;
        bytes[1..3].copy_from_slice(&kv_at.to_le_bytes());
    }
    bytes.into()
}

/// Compaction hashes large values without reading them; a hash at the same revision before it reads them.
#[test]
fn the_hash_of_a_compaction_is_that_of_the_revision_before_it() {
    let mut store = Store::new(0);
    for (key, letter) in [("a", "x"), ("b", "y"), ("a", "z"), ("b", ""), ("c", "v"), ("a", "w")] {
        store.quick_put(key, &letter.repeat(700));
    }
    store.commit();
    let before = store.hash(6).unwrap();
    store.compact(6).unwrap();
    store.compact_all();
    store.commit();
    assert_eq!(store.hash(6).unwrap(), before);
}

/// A disk that returns other bytes is detected by a hash of all members, in whichever space the value is.
#[test]
fn hashes_read_the_values_that_are_stored_apart() {
    let mut store = Store::new(0);
    store.quick_put("a", &"x".repeat(700));
    store.quick_put("a", &"y".repeat(700));
    store.commit();
    let genuine = store.hash(0).unwrap();
    for space in [Space::Kv, Space::Superseded] {
        let (key, stored) = pairs(&store.engine.view(), space).remove(0);
        let mut changed = stored.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        let of = |value| Batch { writes: vec![(space, key.clone(), Some(value))] };
        store.engine.commit(of(changed.into())).unwrap();
        store.read = store.mvcc.publish(store.engine.view());
        assert_ne!(store.hash(0).unwrap(), genuine, "{space:?}");
        store.engine.commit(of(stored)).unwrap();
    }
    store.read = store.mvcc.publish(store.engine.view());
    assert_eq!(store.hash(0).unwrap(), genuine);
}

fn held(store: &Store, space: Space) -> usize {
    pairs(&store.read.view, space).iter().map(|(_, value)| value.len()).sum()
}

#[test]
fn a_large_value_is_stored_once_and_goes_with_its_version() {
    const LENGTH: usize = 20_000;
    let mut store = Store::new(0);
    for letter in ["a", "b", "c"] {
        store.quick_put("key", &letter.repeat(LENGTH));
        store.commit();
    }
    let kilobytes = |store: &Store| {
        [Space::Kv, Space::Log, Space::Superseded].map(|space| held(store, space) / 1000)
    };
    assert_eq!(kilobytes(&store), [20, 0, 40]);
    let request = RangeRequest { key: bytes("key"), revision: 3, ..Default::default() };
    assert_eq!(first(&store.range(&request).unwrap()).value, "b".repeat(LENGTH));
    store.compact(4).unwrap();
    store.compact_all();
    store.commit();
    assert_eq!(kilobytes(&store), [20, 0, 0]);
    store.quick_delete("key");
    store.commit();
    assert_eq!(kilobytes(&store), [0, 0, 20]);
    store.compact(5).unwrap();
    store.compact_all();
    store.compact(store.mvcc.revision()).unwrap_err();
    store.quick_put("other", "");
    store.compact(6).unwrap();
    store.compact_all();
    store.commit();
    assert_eq!(kilobytes(&store), [0, 0, 0]);
    check(&store, false);
    assert_eq!(store.read.usage.logical, 16 + 17 + 7 + 6, "one small key is left");
}

/// etcd accepts such keys; an engine with lengths of 16 bits cannot store them.
#[test]
fn a_key_beyond_the_limit_is_refused_and_writes_nothing() {
    use basalt_proto::etcdserverpb::{RequestOp, request_op};
    let mut store = Store::new(0);
    let longest = "k".repeat(65_534);
    store.quick_put(&longest, "v");
    store.commit();
    let long = put(&(longest + "k"), "v");
    assert_eq!(store.put(&long), Err(Refusal::RequestTooLarge));
    let mut request = request_op::Request::RequestPut(long);
    for _ in 0..3 {
        let first = request_op::Request::RequestPut(put("first", ""));
        let success = [first, request].map(|it| RequestOp { request: Some(it) }).to_vec();
        let txn = TxnRequest { success, ..Default::default() };
        assert_eq!(store.txn(&txn), Err(Refusal::RequestTooLarge));
        assert_eq!(crate::mvcc::check_txn(&txn, 128), Err(Refusal::RequestTooLarge));
        request = request_op::Request::RequestTxn(TxnRequest {
            success: vec![txn.success[1].clone()],
            ..Default::default()
        });
    }
    assert!(store.tx.take().writes.is_empty());
    assert_eq!(store.mvcc.revision(), 2);
}

#[test]
fn a_key_beyond_the_limit_is_not_imported() {
    let mut tx = Overlay::new(Memory::default().view());
    let kv = KeyValue { key: bytes(&"k".repeat(65_535)), version: 1, ..Default::default() };
    let at = Revision { main: 3, sub: 0 }.to_key();
    let fault = crate::mvcc::Import::default().entry(&mut tx, &at, &kv.encode_to_vec());
    assert!(fault.unwrap_err().0.contains("65535 bytes at revision 3 cannot be stored"));
}
