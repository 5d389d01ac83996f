//! Seeded random operations against a naive twin: every version of every key in a map, and etcd's bucket as it would
//! be, compacted and hashed by etcd's own rules.

use std::collections::BTreeSet;

use basalt_proto::encoded::KeyValues;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{Compare, RequestOp, compare};
use basalt_proto::mvccpb;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::mvcc::{self, Chunk};
use crate::types::KeyRange;

type Key = Bytes;
type At = (i64, i64);

/// State of a naive etcd.
#[derive(Clone, Default)]
struct Model {
    revision: i64,
    compacted: i64,
    /// Every version; `None` for a tombstone.
    versions: BTreeMap<Key, BTreeMap<At, Option<KeyValue>>>,
    /// etcd's bucket.
    bucket: BTreeMap<At, (Key, Option<KeyValue>)>,
}

impl Model {
    fn new() -> Self {
        Self { revision: 1, compacted: -1, ..Self::default() }
    }

    fn at(&self, key: &Key, revision: i64) -> Option<KeyValue> {
        let versions = self.versions.get(key)?;
        versions.range(..(revision + 1, 0)).next_back().and_then(|(_, kv)| kv.clone())
    }

    fn keys(&self, range: &KeyRange, revision: i64) -> Vec<KeyValue> {
        let keys = self.versions.keys().filter(|key| range.contains(key));
        keys.filter_map(|key| self.at(key, revision)).collect()
    }

    fn write(&mut self, at: At, key: &Key, kv: Option<KeyValue>) {
        self.versions.entry(key.clone()).or_default().insert(at, kv.clone());
        self.bucket.insert(at, (key.clone(), kv));
    }

    /// Completes a compaction as etcd does.
    fn compact(&mut self, revision: i64) {
        self.compacted = revision;
        let newest = self.newest(revision);
        let gone: Vec<At> = self
            .bucket
            .iter()
            .filter(|(at, (_, kv))| {
                at.0 <= revision && (!newest.contains(at) || (kv.is_none() && at.0 < revision))
            })
            .map(|(at, _)| *at)
            .collect();
        for at in gone {
            self.bucket.remove(&at);
        }
    }

    /// Each key's newest version up to a revision.
    fn newest(&self, revision: i64) -> BTreeSet<At> {
        let newest = self.versions.values().filter_map(|versions| {
            versions.range(..(revision + 1, 0)).next_back().map(|(at, _)| *at)
        });
        newest.collect()
    }

    fn hash(&self, revision: i64) -> u32 {
        let newest = self.newest(revision);
        let keep: BTreeSet<At> = newest
            .into_iter()
            .filter(|at| {
                self.versions.values().any(|versions| matches!(versions.get(at), Some(Some(_))))
            })
            .collect();
        let mut sum = crc32c::crc32c(b"key");
        for (at, (key, kv)) in self.bucket.range(..(revision + 1, 0)) {
            let early = at.0 <= self.compacted;
            if early && !keep.is_empty() && !keep.contains(at) {
                continue;
            }
            if kv.is_none() && at.0 == self.compacted {
                continue;
            }
            let mut name = [&at.0.to_be_bytes()[..], b"_", &at.1.to_be_bytes()[..]].concat();
            let value = kv.clone().unwrap_or_else(|| {
                name.push(b't');
                KeyValue { key: key.clone(), ..Default::default() }
            });
            sum = crc32c::crc32c_append(sum, &name);
            sum = crc32c::crc32c_append(sum, &value.encode_to_vec());
        }
        sum
    }
}

/// The model and the store under test.
struct Pair {
    random: StdRng,
    model: Model,
    /// The model as of the last commit.
    published: Model,
    store: Store,
    cache_bytes: u64,
    /// True if all requested compactions are complete.
    settled: bool,
    values: u64,
    /// Configuration to convert the store to an earlier version's format at times, and a flag that this happened.
    ages: bool,
    aged: bool,
}

impl Pair {
    fn new(seed: u64, cache_bytes: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            model: Model::new(),
            published: Model::new(),
            store: Store::new(cache_bytes),
            cache_bytes,
            settled: true,
            values: 0,
            ages: false,
            aged: false,
        }
    }

    fn key(&mut self) -> Key {
        const KEYS: [&str; 12] = [
            "\0",
            "a",
            "a\0",
            "aa",
            "ab",
            "b",
            "b1",
            "b2",
            "c",
            "cc",
            "d",
            "\u{7f}long key of some bytes",
        ];
        bytes(KEYS[self.random.random_range(0..KEYS.len())])
    }

    fn range_end(&mut self) -> Bytes {
        match self.random.random_range(0..6) {
            0 | 1 => Bytes::new(),
            2 => bytes("\0"),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        match self.random.random_range(0..12) {
            0..3 => {
                let length = self.random.random_range(600..3000);
                return bytes(&format!("{:0length$}", self.values));
            }
            // Lengths around the inline limit.
            3 => return bytes(&"y".repeat(505 + self.values as usize % 16)),
            _ => (),
        }
        let length = self.random.random_range(0..4);
        bytes(&"x".repeat(if length == 0 { 0 } else { length * 30 + self.values as usize % 7 }))
    }

    fn put_request(&mut self) -> PutRequest {
        let ignore_value = self.random.random_bool(0.1);
        let ignore_lease = self.random.random_bool(0.1);
        let lease = if self.random.random_bool(0.3) { self.random.random_range(1..11) } else { 0 };
        PutRequest {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv: self.random.random(),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete_request(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            prev_kv: self.random.random(),
        }
    }

    fn range_request(&mut self) -> RangeRequest {
        let newest = self.model.revision;
        let some = |random: &mut StdRng, chance: f64| {
            if random.random_bool(chance) { random.random_range(1..newest + 2) } else { 0 }
        };
        let random = &mut self.random;
        let mut request = RangeRequest {
            limit: if random.random() { random.random_range(0..6) } else { 0 },
            revision: some(random, 0.5),
            sort_order: if random.random() { random.random_range(0..3) } else { 0 },
            sort_target: if random.random() { random.random_range(0..5) } else { 0 },
            keys_only: random.random_bool(0.2),
            count_only: random.random_bool(0.2),
            min_mod_revision: some(random, 0.1),
            max_mod_revision: some(random, 0.1),
            min_create_revision: some(random, 0.1),
            max_create_revision: some(random, 0.1),
            ..Default::default()
        };
        request.key = self.key();
        request.range_end = self.range_end();
        request
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..40 => self.put(),
            40..52 => self.delete(),
            52..64 => self.txn(),
            64..67 => self.delete_keys(),
            67..71 => self.compact(),
            71..78 => self.compact_step(),
            78..80 => self.restart(),
            _ => {
                self.commit();
                self.check();
            }
        }
    }

    fn put(&mut self) {
        let request = self.put_request();
        let expected = self.model_put(&request, (self.model.revision + 1, 0));
        let response = self.store.put(&request);
        assert_eq!(
            response.clone().map(|response| response.prev_kv.as_ref().map(decode)),
            expected
        );
        if let Ok(response) = response {
            self.model.revision += 1;
            assert_eq!(response.header.unwrap().revision, self.model.revision);
        }
    }

    fn model_check_put(&self, request: &PutRequest, revision: i64) -> Result<(), Refusal> {
        if request.lease != 0 && !lease_exists(request.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && self.model.at(&request.key, revision).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn model_put(&mut self, request: &PutRequest, at: At) -> Result<Option<KeyValue>, Refusal> {
        self.model_check_put(request, at.0)?;
        let old = self.model.at(&request.key, at.0);
        let kv = KeyValue {
            key: request.key.clone(),
            value: match &old {
                Some(old) if request.ignore_value => old.value.clone(),
                _ => request.value.clone(),
            },
            create_revision: old.as_ref().map_or(at.0, |old| old.create_revision),
            mod_revision: at.0,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            lease: match &old {
                Some(old) if request.ignore_lease => old.lease,
                _ => request.lease,
            },
        };
        self.model.write(at, &request.key, Some(kv));
        Ok(old.filter(|_| request.prev_kv))
    }

    fn model_delete(&mut self, request: &DeleteRangeRequest, at: At) -> Vec<KeyValue> {
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let found = self.model.keys(&range, at.0);
        for (sub, kv) in found.iter().enumerate() {
            self.model.write((at.0, at.1 + sub as i64), &kv.key, None);
        }
        found
    }

    fn check_deleted(
        request: &DeleteRangeRequest,
        response: &DeleteRangeResponse,
        found: &[KeyValue],
    ) {
        assert_eq!(response.deleted, found.len() as i64);
        let expected = if request.prev_kv { found } else { &[] };
        assert_eq!(decode_all(response.prev_kvs.iter().cloned()), expected);
    }

    fn delete(&mut self) {
        let request = self.delete_request();
        let found = self.model_delete(&request, (self.model.revision + 1, 0));
        let response = self.store.delete_range(&request);
        self.model.revision += i64::from(!found.is_empty());
        Self::check_deleted(&request, &response, &found);
        assert_eq!(response.header.unwrap().revision, self.model.revision);
    }

    fn delete_keys(&mut self) {
        let keys: BTreeSet<Key> = (0..self.random.random_range(0..5)).map(|_| self.key()).collect();
        let main = self.model.revision + 1;
        let mut deleted = 0;
        for key in &keys {
            if self.model.at(key, main).is_some() {
                self.model.write((main, deleted), key, None);
                deleted += 1;
            }
        }
        self.model.revision += i64::from(deleted > 0);
        let store = &mut self.store;
        let mut steps = store.mvcc.begin_delete_keys(keys);
        let count = loop {
            match store.mvcc.step(&mut store.tx, &mut steps, 1, &|_| false).unwrap() {
                Some(mvcc::Outcome::Keys(count)) => break count,
                Some(_) => panic!("a deletion has another outcome"),
                None => (),
            }
        };
        assert_eq!(count, deleted);
        assert_eq!(store.mvcc.revision(), self.model.revision);
    }

    fn compare(&mut self) -> Compare {
        let number = self.random.random_range(0..self.model.revision + 1);
        let target = self.random.random_range(0..5);
        let union = match target {
            0 => compare::TargetUnion::Version(number % 4),
            1 => compare::TargetUnion::CreateRevision(number),
            2 => compare::TargetUnion::ModRevision(number),
            3 => compare::TargetUnion::Value(self.value()),
            _ => compare::TargetUnion::Lease(number % 10),
        };
        Compare {
            result: self.random.random_range(0..4),
            target,
            key: self.key(),
            range_end: self.range_end(),
            target_union: Some(union).filter(|_| self.random.random_bool(0.9)),
        }
    }

    fn txn_request(&mut self, depth: usize) -> TxnRequest {
        let compares = self.random.random_range(0..3);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.operations(depth),
            failure: self.operations(depth),
        }
    }

    fn operations(&mut self, depth: usize) -> Vec<RequestOp> {
        let count = self.random.random_range(0..4);
        let operation = |pair: &mut Self| match pair.random.random_range(0..7) {
            0..3 => Request::RequestPut(pair.put_request()),
            3 => Request::RequestDeleteRange(pair.delete_request()),
            4 if depth > 0 => Request::RequestTxn(pair.txn_request(depth - 1)),
            _ => Request::RequestRange(pair.range_request()),
        };
        (0..count).map(|_| RequestOp { request: Some(operation(self)) }).collect()
    }

    fn txn(&mut self) {
        let request = self.txn_request(2);
        // Transactions that would change one key twice are mostly refused before this point.
        if mvcc::check_txn(&request, 128).is_err() || deletes_open_end(&request) {
            return;
        }
        let before = self.model.clone();
        let expected = self.model_check_txn(&request).and_then(|()| {
            let mut subs = 0;
            let response = self.model_txn(&request, &before, &mut subs)?;
            Ok((response, subs))
        });
        let response = self.store.txn(&request);
        match expected {
            Err(refusal) => {
                assert_eq!(response, Err(refusal));
                self.model = before;
            }
            Ok((mut expected, subs)) => {
                self.model.revision = before.revision + i64::from(subs > 0);
                expected.header.as_mut().unwrap().revision = self.model.revision;
                assert_eq!(response.unwrap(), expected, "{request:?}");
            }
        }
    }

    fn model_holds(&self, compare: &Compare) -> bool {
        let range = KeyRange::new(compare.key.clone(), compare.range_end.clone());
        let mut kvs = self.model.keys(&range, self.model.revision);
        if kvs.is_empty() {
            if compare.target == 3 {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        let wanted = &compare.target_union;
        let number = match wanted {
            Some(
                compare::TargetUnion::Version(number)
                | compare::TargetUnion::CreateRevision(number)
                | compare::TargetUnion::ModRevision(number)
                | compare::TargetUnion::Lease(number),
            ) => *number,
            _ => 0,
        };
        let value = match wanted {
            Some(compare::TargetUnion::Value(value)) => value.clone(),
            _ => Bytes::new(),
        };
        kvs.iter().all(|kv| {
            let order = match compare.target {
                0 => kv.version.cmp(&number),
                1 => kv.create_revision.cmp(&number),
                2 => kv.mod_revision.cmp(&number),
                3 => kv.value.cmp(&value),
                _ => kv.lease.cmp(&number),
            };
            match compare.result {
                0 => order.is_eq(),
                1 => order.is_gt(),
                2 => order.is_lt(),
                _ => order.is_ne(),
            }
        })
    }

    fn taken<'r>(&self, request: &'r TxnRequest) -> (bool, &'r [RequestOp]) {
        let holds = request.compare.iter().all(|compare| self.model_holds(compare));
        (holds, if holds { &request.success } else { &request.failure })
    }

    fn model_check_txn(&self, request: &TxnRequest) -> Result<(), Refusal> {
        for operation in self.taken(request).1 {
            match operation.request.as_ref().unwrap() {
                Request::RequestRange(range) if range.revision > self.model.revision => {
                    return Err(Refusal::FutureRev);
                }
                Request::RequestRange(range)
                    if range.revision != 0 && range.revision < self.model.compacted =>
                {
                    return Err(Refusal::Compacted);
                }
                Request::RequestPut(put) => self.model_check_put(put, self.model.revision)?,
                Request::RequestTxn(nested) => self.model_check_txn(nested)?,
                Request::RequestRange(_) | Request::RequestDeleteRange(_) => {}
            }
        }
        Ok(())
    }

    /// Runs the branches chosen by the state `before`.
    fn model_txn(
        &mut self,
        request: &TxnRequest,
        before: &Model,
        subs: &mut i64,
    ) -> Result<TxnResponse, Refusal> {
        use basalt_proto::encoded::{Response, ResponseOp};
        use basalt_proto::etcdserverpb::ResponseHeader;
        let now = std::mem::replace(&mut self.model, before.clone());
        let (succeeded, operations) = self.taken(request);
        self.model = now;
        let main = before.revision + 1;
        let mut responses = Vec::new();
        for operation in operations {
            let at = (main, *subs);
            let header = |subs: i64| {
                let revision = if subs > 0 { main } else { main - 1 };
                Some(ResponseHeader { revision, ..Default::default() })
            };
            let response = match operation.request.as_ref().unwrap() {
                Request::RequestPut(put) => {
                    let prev_kv = self.model_put(put, at)?;
                    *subs += 1;
                    let prev_kv = prev_kv.map(|kv| kv.encode_to_vec().into());
                    Response::ResponsePut(PutResponse { header: header(*subs), prev_kv })
                }
                Request::RequestDeleteRange(delete) => {
                    let found = self.model_delete(delete, at);
                    *subs += found.len() as i64;
                    let kept = if delete.prev_kv { &found[..] } else { &[] };
                    Response::ResponseDeleteRange(DeleteRangeResponse {
                        header: header(*subs),
                        deleted: found.len() as i64,
                        prev_kvs: kept.iter().map(|kv| kv.encode_to_vec().into()).collect(),
                    })
                }
                Request::RequestRange(range) => {
                    let revision = if *subs > 0 { main } else { main - 1 };
                    let mut response = model_range(&self.model, revision, range)?;
                    response.header = header(*subs);
                    Response::ResponseRange(response)
                }
                Request::RequestTxn(nested) => {
                    Response::ResponseTxn(self.model_txn(nested, before, subs)?)
                }
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
    }

    fn compact(&mut self) {
        let revision = self.random.random_range(0..self.model.revision + 2);
        let expected = if revision <= self.model.compacted {
            Err(Refusal::Compacted)
        } else if revision > self.model.revision {
            Err(Refusal::FutureRev)
        } else {
            Ok(())
        };
        assert_eq!(self.store.compact(revision), expected);
        if expected.is_ok() {
            self.model.compact(revision);
            self.settled = false;
        }
    }

    fn compact_step(&mut self) {
        let budget = self.random.random_range(1..9);
        self.settled = self.store.mvcc.compact_step(&mut self.store.tx, budget).unwrap();
    }

    fn commit(&mut self) {
        self.store.commit();
        self.published = self.model.clone();
    }

    fn restart(&mut self) {
        self.commit();
        if self.ages && self.random.random() {
            spaces::age(&mut self.store.engine);
            self.aged = true;
        }
        let store = std::mem::replace(&mut self.store, Store::new(0));
        self.store = store.restart(self.cache_bytes);
        assert_eq!(self.store.mvcc.revision(), self.model.revision);
        assert_eq!(self.store.mvcc.compacted(), self.model.compacted);
    }

    fn check(&mut self) {
        for _ in 0..4 {
            let request = self.range_request();
            let expected = model_range(&self.model, self.model.revision, &request);
            assert_eq!(self.store.range(&request), expected, "{request:?}");
            self.check_cursor(request);
        }
        self.check_history();
        let revision = self.random.random_range(self.model.compacted.max(0)..=self.model.revision);
        // The hash at the newest compaction's own revision is computed by another rule.
        if revision != self.model.compacted && revision != 0 {
            let expected = self.model.hash(revision);
            let hash = self.store.hash(revision).unwrap();
            assert_eq!((hash.hash, hash.compact_revision), (expected, self.model.compacted));
        }
        spaces::check(&self.store, self.aged);
        if self.settled {
            self.check_settled();
        }
    }

    fn check_cursor(&mut self, mut request: RangeRequest) {
        request.sort_order = 0;
        request.sort_target = 0;
        request.min_mod_revision = 0;
        request.max_mod_revision = 0;
        request.min_create_revision = 0;
        request.max_create_revision = 0;
        let expected = model_range(&self.model, self.model.revision, &request);
        let cursor = answer(self.store.read.range_cursor(&request));
        let (Ok(expected), Ok(mut cursor)) = (&expected, cursor.clone()) else {
            assert_eq!(cursor.map(|_| ()), expected.map(|_| ()));
            return;
        };
        let mut kvs = KeyValues::default();
        loop {
            let (keys_max, bytes_max) =
                (self.random.random_range(0..4), self.random.random_range(0..100));
            let Chunk { done, more, count, .. } =
                cursor.next(&self.store.read, keys_max, bytes_max, &mut kvs).unwrap();
            if done {
                let all = (kvs, more, count);
                assert_eq!(all, (expected.kvs.clone(), expected.more, expected.count));
                return;
            }
        }
    }

    fn check_history(&mut self) {
        let from = self.random.random_range(-1..self.model.revision + 3);
        let history = answer(self.store.read.history(from, 3, 500));
        if from < self.model.compacted {
            assert_eq!(history.map(|_| ()), Err(Refusal::Compacted));
            return;
        }
        let history = history.unwrap();
        let mut expected = Vec::new();
        for (at, (key, kv)) in self.model.bucket.range((from, 0)..(history.next, 0)) {
            let prev =
                (at.0 > self.model.compacted).then(|| self.model.at(key, at.0 - 1)).flatten();
            let prev = prev.filter(|_| kv.as_ref().is_none_or(|kv| kv.version > 1));
            let deleted = KeyValue { key: key.clone(), mod_revision: at.0, ..Default::default() };
            let event = mvccpb::Event {
                r#type: i32::from(kv.is_none()),
                kv: Some(kv.clone().unwrap_or(deleted)),
                prev_kv: None,
            };
            expected.push((*at, key.clone(), event.encode_to_vec(), prev));
        }
        let found = history.events.into_iter().map(|event| {
            let at = (event.revision.main, event.revision.sub);
            assert_eq!(event.delete, event.encoded[0] == 8);
            (at, event.key, event.encoded.to_vec(), event.prev.as_ref().map(decode))
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "from {from}");
        assert!(history.next > from || from > self.model.revision);
    }

    /// With no compaction pending the store holds exactly the pairs that it needs.
    fn check_settled(&self) {
        use crate::store::{Space, View};
        use std::ops::Bound::Unbounded;
        let view = self.store.engine.view();
        let log: Vec<At> = view
            .scan(Space::Log, Unbounded, Unbounded)
            .map(|pair| mvcc::log_revision(&pair.unwrap().0).unwrap())
            .map(|revision| (revision.main, revision.sub))
            .collect();
        assert_eq!(log, self.model.bucket.keys().copied().collect::<Vec<_>>());
        let mut usage = mvcc::Usage::default();
        for (key, kv) in self.model.bucket.values() {
            let tombstone = KeyValue { key: key.clone(), ..Default::default() };
            let value = kv.as_ref().unwrap_or(&tombstone);
            usage.add((16 + if kv.is_none() { 18 } else { 17 } + value.encoded_len()) as u64);
        }
        assert_eq!(self.store.read.usage, usage);
        let kv = view.scan(Space::Kv, Unbounded, Unbounded).map(|pair| pair.unwrap().0);
        let named: BTreeSet<Key> = self.model.bucket.values().map(|(key, _)| key.clone()).collect();
        assert_eq!(kv.collect::<BTreeSet<_>>(), named);
        let recounted = mvcc::CountIndex::open(&view, 0).unwrap().total();
        assert_eq!(self.store.mvcc.keys(), recounted);
    }
}

/// True for deletes with an open end, which may delete and put one key in one transaction; that breaks etcd's own index.
fn deletes_open_end(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|operation| {
        match operation.request.as_ref().unwrap() {
            Request::RequestDeleteRange(delete) => delete.range_end == bytes("\0"),
            Request::RequestTxn(nested) => deletes_open_end(nested),
            Request::RequestRange(_) | Request::RequestPut(_) => false,
        }
    })
}

fn model_range(
    model: &Model,
    newest: i64,
    request: &RangeRequest,
) -> Result<RangeResponse, Refusal> {
    let revision = if request.revision == 0 { newest } else { request.revision };
    if revision > newest {
        return Err(Refusal::FutureRev);
    }
    if revision < model.compacted {
        return Err(Refusal::Compacted);
    }
    let range = KeyRange::new(request.key.clone(), request.range_end.clone());
    let mut kvs = if range.is_empty() { Vec::new() } else { model.keys(&range, revision) };
    let count = kvs.len() as i64;
    if request.count_only {
        return Ok(RangeResponse { count, ..Default::default() });
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    let natural = request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
    let limit = request.limit as usize;
    if limit > 0 && natural && filters == [0; 4] {
        kvs.truncate(limit + 1);
    }
    let within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    kvs.retain(|kv| {
        within(kv.mod_revision, filters[0], filters[1])
            && within(kv.create_revision, filters[2], filters[3])
    });
    match request.sort_target {
        0 => {}
        1 => kvs.sort_by_key(|kv| kv.version),
        2 => kvs.sort_by_key(|kv| kv.create_revision),
        3 => kvs.sort_by_key(|kv| kv.mod_revision),
        _ => kvs.sort_by_key(|kv| kv.value.clone()),
    }
    if request.sort_order == 2 {
        kvs.reverse();
        // Ties stay in the order of keys, whatever the direction.
        match request.sort_target {
            0 => {}
            1 => kvs.sort_by_key(|kv| (std::cmp::Reverse(kv.version), kv.key.clone())),
            2 => kvs.sort_by_key(|kv| (std::cmp::Reverse(kv.create_revision), kv.key.clone())),
            3 => kvs.sort_by_key(|kv| (std::cmp::Reverse(kv.mod_revision), kv.key.clone())),
            _ => kvs.sort_by_key(|kv| (std::cmp::Reverse(kv.value.clone()), kv.key.clone())),
        }
    }
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            if request.sort_target != 4 {
                kv.lease = 0;
            }
        }
    }
    let kvs: Vec<_> = kvs.iter().map(|kv| kv.encode_to_vec().into()).collect();
    let kvs = kvs.into();
    Ok(RangeResponse { header: None, kvs, more, count })
}

fn run(seeds: std::ops::Range<u64>, cache_bytes: u64) {
    run_aging(seeds, cache_bytes, false);
}

fn run_aging(seeds: std::ops::Range<u64>, cache_bytes: u64, ages: bool) {
    for seed in seeds {
        let mut pair = Pair { ages, ..Pair::new(seed, cache_bytes) };
        eprintln!("seed {seed}, cache of {cache_bytes} bytes");
        for _ in 0..400 {
            pair.step();
        }
    }
}

#[test]
fn agrees_with_the_model_without_a_cache() {
    run(0..20, 0);
}

#[test]
fn agrees_with_the_model_with_a_cache_of_one_byte() {
    run(20..30, 1);
}

#[test]
fn agrees_with_the_model_with_a_small_cache() {
    run(30..50, 3000);
}

#[test]
fn agrees_with_the_model_with_a_large_cache() {
    run(50..70, 1 << 20);
}

#[test]
fn agrees_with_the_model_when_stores_of_earlier_versions_are_opened() {
    run_aging(70..90, 3000, true);
}
