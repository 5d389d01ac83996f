//! Tests of the room: golden scripts, a model with seeds, and facts.

mod facts;
mod lists;
mod model;
mod scripts;
mod spaces;

use std::collections::BTreeMap;

use basalt_proto::encoded::{DeleteRangeResponse, PutResponse, RangeResponse, TxnResponse};
use basalt_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};
use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message;

use super::{Attachment, Event, KvHash, Mvcc, ReadView};
use crate::store::{Batch, Engine, Memory, MemoryView, Overlay, Space};
use crate::types::{CacheBytes, Error, Refusal};

/// A store in memory, with the steps that the machine performs around this room.
struct Store {
    engine: Memory,
    tx: Overlay<MemoryView>,
    mvcc: Mvcc,
    read: ReadView<MemoryView>,
    events: Vec<Event>,
    attachments: Vec<Attachment>,
    /// Every revision that was written to a space of revisions, and a flag for those that were deleted.
    revisions: BTreeMap<(Space, Bytes), bool>,
}

/// True for the leases that exist in these tests: 1 to 9.
fn lease_exists(lease: i64) -> bool {
    (1..10).contains(&lease)
}

impl Store {
    fn new(cache_bytes: u64) -> Self {
        Self::open(Memory::default(), cache_bytes)
    }

    fn open(engine: Memory, cache_bytes: u64) -> Self {
        let caches = CacheBytes { records: cache_bytes, lists: cache_bytes };
        let mut mvcc = Mvcc::open(&engine.view(), caches).unwrap();
        let read = mvcc.publish(engine.view());
        let tx = Overlay::new(engine.view());
        let (events, attachments, revisions) = Default::default();
        Self { engine, tx, mvcc, read, events, attachments, revisions }
    }

    /// Loses uncommitted writes and all state in memory.
    fn restart(self, cache_bytes: u64) -> Self {
        Self { revisions: self.revisions, ..Self::open(self.engine, cache_bytes) }
    }

    fn commit(&mut self) {
        self.mvcc.write_meta(&mut self.tx);
        let batch = self.tx.take();
        self.check_revisions(&batch);
        self.engine.commit(batch).unwrap();
        self.tx.rebase(self.engine.view());
        self.read = self.mvcc.publish(self.engine.view());
        self.events.extend(self.mvcc.take_events());
        self.attachments.extend(self.mvcc.take_attachments());
    }

    /// Checks the rule on which an engine relies that deletes revisions by a tombstone for one write.
    fn check_revisions(&mut self, batch: &Batch) {
        for (space, key, value) in &batch.writes {
            if matches!(space, Space::Log | Space::Superseded) {
                let before = self.revisions.insert((*space, key.clone()), value.is_none());
                let allowed = before.is_none() || (before == Some(false) && value.is_none());
                assert!(allowed, "{space:?} {key:?} is written or deleted twice");
            }
        }
    }

    fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Refusal> {
        answer(self.mvcc.put(&mut self.tx, request, &lease_exists))
    }

    fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        answer(self.mvcc.delete_range(&mut self.tx, request)).unwrap()
    }

    fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        answer(self.mvcc.txn(&mut self.tx, request, &lease_exists))
    }

    fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        answer(self.mvcc.compact(&mut self.tx, revision))
    }

    fn compact_all(&mut self) {
        while !self.mvcc.compact_step(&mut self.tx, 3).unwrap() {}
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        answer(self.read.range(request))
    }

    fn hash(&self, revision: i64) -> Result<KvHash, Refusal> {
        let mut cursor = answer(self.read.hash_kv(revision))?;
        loop {
            if let Some(hash) = cursor.step(&self.read.view, 3).unwrap() {
                return Ok(hash);
            }
        }
    }

    fn quick_put(&mut self, key: &str, value: &str) {
        self.put(&put(key, value)).unwrap();
    }

    fn quick_delete(&mut self, key: &str) {
        self.delete_range(&DeleteRangeRequest { key: bytes(key), ..Default::default() });
    }
}

fn answer<T>(outcome: Result<T, Error>) -> Result<T, Refusal> {
    Error::refusal(outcome).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

fn decode(kv: &Bytes) -> KeyValue {
    KeyValue::decode(kv.clone()).unwrap()
}

fn decode_all(kvs: impl Iterator<Item = Bytes>) -> Vec<KeyValue> {
    kvs.map(|kv| decode(&kv)).collect()
}

/// The first key of a range.
fn first(response: &RangeResponse) -> KeyValue {
    decode(&response.kvs.iter().next().unwrap())
}
