//! Software transactions as etcd's client library makes them: read some keys, write some of them, retry
//! on a conflict; under a mutex if asked for. One operation is all of that.

use std::collections::BTreeSet;

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::response_op::Response;
use basalt_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use basalt_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use prost::Message;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::mutex::Mutex;
use super::{Kind, Load};
use crate::distribution::Distribution;
use crate::error::Fatal;
use crate::generator::Workload;
use crate::keys::{KeySpec, Keys, Values};
use crate::leases::Kept;
use crate::options::Globals;
use crate::paths;
use crate::report::Finished;
use crate::session;

/// Bytes of a key, as etcd's benchmark has them.
const KEY_BYTES: usize = 16;
const MUTEX: &str = "stmlock";
/// Seconds that a session of etcd's client library lives without renewal.
const SESSION_TTL: i64 = 60;

/// Flags of `stm`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Read Committed (c), Repeatable Reads (r), Serializable (s), or Snapshot (ss)
    #[arg(long, value_enum, default_value_t = Isolation::RepeatableReads)]
    pub isolation: Isolation,
    /// Total unique keys accessible by the benchmark
    #[arg(long, default_value_t = 1)]
    pub keys: u64,
    /// Total number of completed STM transactions
    #[arg(long, default_value_t = 10_000)]
    pub total: u64,
    /// Number of keys to access per transaction
    #[arg(long, default_value_t = 1)]
    pub keys_per_txn: u64,
    /// Percentage of keys to overwrite per transaction
    #[arg(long, default_value_t = 50, allow_negative_numbers = true)]
    pub txn_wr_percent: i64,
    /// Wrap STM transaction with a custom locking mechanism (stm, lock-client, lock-rpc)
    #[arg(long, value_enum, default_value_t = Locker::Stm)]
    pub stm_locker: Locker,
    /// Value size of each STM put request
    #[arg(long, default_value_t = 8)]
    pub val_size: usize,
    /// Transactions per second, each sent at its scheduled time whatever the server does (0 is no limit)
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
}

/// Isolation of a transaction from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// Any committed value.
    #[value(name = "c")]
    ReadCommitted,
    /// The same value each time.
    #[value(name = "r")]
    RepeatableReads,
    /// All values of one revision.
    #[value(name = "s")]
    Serializable,
    /// The same, and no other transaction wrote the keys that it read or wrote.
    #[value(name = "ss")]
    SerializableSnapshot,
}

/// The lock around a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Locker {
    /// Nothing
    Stm,
    /// The client library's mutex
    LockClient,
    /// The server's lock service
    LockRpc,
}

impl Isolation {
    /// True if all reads are of one revision.
    fn is_serializable(self) -> bool {
        matches!(self, Self::Serializable | Self::SerializableSnapshot)
    }
}

/// State of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Lock,
    /// The key of this number is being read.
    Read(usize),
    Commit,
    Unlock,
    Done,
}

/// A client's transaction.
#[derive(Clone, Debug)]
struct Slot {
    step: Step,
    keys: Vec<Bytes>,
    /// The mod revisions that were read, 0 for keys that were not there.
    read: Vec<i64>,
    /// The store's revision at the first read.
    first: i64,
    mutex: Option<Mutex>,
    lease: i64,
    /// The key that the lock service returned.
    lock_key: Bytes,
}

struct Stm {
    isolation: Isolation,
    locker: Locker,
    keys: Keys,
    key_count: u64,
    keys_per_txn: usize,
    writes: usize,
    values: Values,
    random: SmallRng,
    slots: Vec<Slot>,
}

impl Workload for Stm {
    fn begin(&mut self, number: usize, _: u64, body: &mut Vec<u8>) -> &'static str {
        let mut numbers = BTreeSet::new();
        while numbers.len() < self.keys_per_txn {
            numbers.insert(self.random.random_range(0..self.key_count));
        }
        let keys = numbers.into_iter().map(|number| self.keys.numbered(number)).collect();
        let slot = &mut self.slots[number];
        slot.keys = keys;
        if let Some(mutex) = &mut slot.mutex {
            mutex.begin();
        }
        slot.start();
        if self.locker != Locker::Stm {
            slot.step = Step::Lock;
        }
        self.request(number, body)
    }

    fn message(&mut self, number: usize, body: &[u8]) -> Result<(), String> {
        let wrong = |error: prost::DecodeError| error.to_string();
        let locks = self.locker != Locker::Stm;
        let slot = &mut self.slots[number];
        match (&slot.step, &mut slot.mutex) {
            (Step::Lock, Some(mutex)) => {
                mutex.message(body)?;
                if mutex.is_held() {
                    slot.start();
                }
            }
            (Step::Lock, None) => {
                slot.lock_key = LockResponse::decode(body).map_err(wrong)?.key;
                slot.start();
            }
            (&Step::Read(at), _) => {
                let answer = TxnResponse::decode(body).map_err(wrong)?;
                slot.take_reads(&answer);
                slot.step =
                    if at + 1 < slot.keys.len() { Step::Read(at + 1) } else { Step::Commit };
            }
            (Step::Commit, _) => {
                let answer = TxnResponse::decode(body).map_err(wrong)?;
                if answer.succeeded {
                    slot.step = if locks { Step::Unlock } else { Step::Done };
                } else {
                    slot.start();
                    if self.isolation.is_serializable() {
                        // The refusal contains the keys.
                        slot.take_reads(&answer);
                        slot.step = Step::Commit;
                    }
                }
            }
            (Step::Unlock, _) => slot.step = Step::Done,
            (Step::Done, _) => return Err("an answer to nothing".to_owned()),
        }
        Ok(())
    }

    fn next(&mut self, number: usize, body: &mut Vec<u8>) -> Result<Option<&'static str>, String> {
        match self.slots[number].step {
            Step::Done => Ok(None),
            Step::Lock | Step::Read(_) | Step::Commit | Step::Unlock => {
                Ok(Some(self.request(number, body)))
            }
        }
    }

    fn is_enough(&self, number: usize) -> bool {
        let slot = &self.slots[number];
        let mutex = slot.mutex.as_ref().filter(|_| slot.step == Step::Lock);
        mutex.is_some_and(Mutex::was_freed)
    }
}

impl Stm {
    /// The request of the present step.
    fn request(&mut self, number: usize, body: &mut Vec<u8>) -> &'static str {
        let slot = &self.slots[number];
        let (path, bytes) = match (&slot.step, &slot.mutex) {
            (Step::Lock | Step::Unlock, Some(mutex)) => return mutex.request(body),
            (Step::Lock, None) => {
                let request = LockRequest { name: MUTEX.into(), lease: slot.lease };
                (paths::LOCK, request.encode_to_vec())
            }
            (Step::Unlock | Step::Done, _) => {
                (paths::UNLOCK, UnlockRequest { key: slot.lock_key.clone() }.encode_to_vec())
            }
            (&Step::Read(at), _) => {
                let get = self.get(slot, at);
                (
                    paths::TXN,
                    TxnRequest { success: vec![get], ..TxnRequest::default() }.encode_to_vec(),
                )
            }
            (Step::Commit, _) => (paths::TXN, self.commit(number).encode_to_vec()),
        };
        body.extend_from_slice(&bytes);
        path
    }

    fn get(&self, slot: &Slot, at: usize) -> RequestOp {
        let first = slot.read.is_empty();
        // The first read of a serializable transaction fixes the revision of the others.
        let fixed = self.isolation.is_serializable() && !first;
        get(RangeRequest {
            key: slot.keys[at].clone(),
            revision: if fixed { slot.first } else { 0 },
            serializable: fixed || !self.isolation.is_serializable(),
            ..RangeRequest::default()
        })
    }

    fn commit(&mut self, number: usize) -> TxnRequest {
        let slot = &self.slots[number];
        let written = || slot.keys.iter().take(self.writes);
        let mut compare = Vec::new();
        if self.isolation != Isolation::ReadCommitted {
            let unchanged = |(key, &read)| modified(key, CompareResult::Equal, read);
            compare.extend(slot.keys.iter().zip(&slot.read).map(unchanged));
        }
        if self.isolation == Isolation::SerializableSnapshot {
            compare.extend(written().map(|key| modified(key, CompareResult::Less, slot.first + 1)));
        }
        let put = |key: &Bytes| {
            let (key, value) = (key.clone(), self.values.value());
            let put = PutRequest { key, value, ..PutRequest::default() };
            RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let again = |key: &Bytes| get(RangeRequest { key: key.clone(), ..RangeRequest::default() });
        TxnRequest {
            compare,
            failure: match self.isolation.is_serializable() {
                true => slot.keys.iter().map(again).collect(),
                false => Vec::new(),
            },
            success: slot.keys.iter().take(self.writes).map(put).collect(),
        }
    }
}

fn get(range: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(range)) }
}

fn modified(key: &Bytes, result: CompareResult, revision: i64) -> Compare {
    Compare {
        result: result.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Compare::default()
    }
}

impl Slot {
    fn new(lease: Option<i64>, locker: Locker) -> Self {
        let lease = lease.unwrap_or(0);
        Self {
            step: Step::Done,
            keys: Vec::new(),
            read: Vec::new(),
            first: i64::MAX,
            mutex: (locker == Locker::LockClient).then(|| Mutex::new(MUTEX, lease)),
            lease,
            lock_key: Bytes::new(),
        }
    }

    /// Starts over, with the lock held.
    fn start(&mut self) {
        self.read.clear();
        self.first = i64::MAX;
        self.step = if self.keys.is_empty() { Step::Commit } else { Step::Read(0) };
    }

    fn take_reads(&mut self, answer: &TxnResponse) {
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        self.first = self.first.min(revision);
        for response in &answer.responses {
            if let Some(Response::ResponseRange(range)) = &response.response {
                self.read.push(range.kvs.first().map_or(0, |kv| kv.mod_revision));
            }
        }
    }
}

/// Runs the transactions, checks the revisions that they made, and reports.
///
/// # Errors
/// The flags are wrong or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    check(flags)?;
    let dialer = session::dialer(globals)?;
    let writes = flags.keys_per_txn * flags.txn_wr_percent.unsigned_abs() / 100;
    // A mutex is a key that is put and deleted.
    let locked = if flags.stm_locker == Locker::Stm { 0 } else { 2 };
    let kinds = vec![Kind::new("stm", writes.min(1) + locked)];
    let load = Load { globals, total: flags.total, rate: flags.rate, kinds };
    let (conns, clients) = (load.conns(&dialer), globals.clients.max(1));
    let sessions = if locked > 0 { clients } else { 0 };
    let sessions = Kept::start(&dialer, sessions, SESSION_TTL)?;
    let spec = KeySpec {
        prefix: Vec::new(),
        size: KEY_BYTES,
        space: flags.keys,
        distribution: Distribution::Uniform,
    };
    let make = |conn: usize| {
        let seed = globals.seed.wrapping_add(conn as u64);
        let slot = |client| Slot::new(sessions.ids().get(client).copied(), flags.stm_locker);
        Stm {
            isolation: flags.isolation,
            locker: flags.stm_locker,
            keys: Keys::new(spec.clone(), seed),
            key_count: flags.keys,
            keys_per_txn: usize::try_from(flags.keys_per_txn).unwrap_or(usize::MAX),
            writes: usize::try_from(writes).unwrap_or(usize::MAX),
            values: Values::new(flags.val_size, true, seed),
            random: SmallRng::seed_from_u64(seed),
            slots: (conn..clients).step_by(conns).map(slot).collect(),
        }
    };
    let ran = load.run(&dialer, make);
    sessions.stop()?;
    let mut finished = ran?.0;
    finished.details.insert("isolation".into(), format!("{:?}", flags.isolation).into());
    finished.details.insert("locker".into(), format!("{:?}", flags.stm_locker).into());
    finished.details.insert("keys".into(), flags.keys.into());
    finished.details.insert("keys_per_txn".into(), flags.keys_per_txn.into());
    finished.details.insert("txn_wr_percent".into(), flags.txn_wr_percent.into());
    finished.details.insert("val_size".into(), flags.val_size.into());
    Ok(finished)
}

/// Checks the flags, with etcd's error texts.
fn check(flags: &Flags) -> Result<(), String> {
    if flags.keys == 0 {
        return Err("expected positive --keys, got (0)".to_owned());
    }
    if !(0..=100).contains(&flags.txn_wr_percent) {
        let percent = flags.txn_wr_percent;
        return Err(format!("expected [0, 100] --txn-wr-percent, got ({percent})"));
    }
    if flags.keys_per_txn > flags.keys {
        let (keys, each) = (flags.keys, flags.keys_per_txn);
        return Err(format!("expected --keys-per-txn between 0 and {keys}, got ({each})"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::{RangeResponse, ResponseHeader, ResponseOp};
    use basalt_proto::mvccpb::KeyValue;

    use super::*;

    fn stm(isolation: Isolation) -> Stm {
        let distribution = Distribution::Uniform;
        let spec = KeySpec { prefix: Vec::new(), size: KEY_BYTES, space: 9, distribution };
        Stm {
            isolation,
            locker: Locker::Stm,
            keys: Keys::new(spec, 1),
            key_count: 9,
            keys_per_txn: 2,
            writes: 1,
            values: Values::new(8, true, 1),
            random: SmallRng::seed_from_u64(1),
            slots: vec![Slot::new(None, Locker::Stm)],
        }
    }

    fn answer(succeeded: bool, revision: i64, reads: &[i64]) -> Vec<u8> {
        let read = |&mod_revision: &i64| {
            let kvs = vec![KeyValue { mod_revision, ..KeyValue::default() }];
            let range = RangeResponse { kvs, ..RangeResponse::default() };
            ResponseOp { response: Some(Response::ResponseRange(range)) }
        };
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        let responses = reads.iter().map(read).collect();
        TxnResponse { header, succeeded, responses }.encode_to_vec()
    }

    fn next(stm: &mut Stm) -> TxnRequest {
        let mut body = Vec::new();
        assert_eq!(stm.next(0, &mut body), Ok(Some(paths::TXN)));
        TxnRequest::decode(&body[..]).unwrap()
    }

    #[test]
    fn repeatable_reads_compare_what_was_read_and_begin_again_after_a_conflict() {
        let mut stm = stm(Isolation::RepeatableReads);
        stm.begin(0, 0, &mut Vec::new());
        stm.message(0, &answer(true, 20, &[11])).unwrap();
        next(&mut stm);
        stm.message(0, &answer(true, 21, &[12])).unwrap();
        let commit = next(&mut stm);
        let union = |compare: &Compare| compare.target_union.clone();
        let revisions: Vec<_> = commit.compare.iter().filter_map(union).collect();
        assert_eq!(revisions, [TargetUnion::ModRevision(11), TargetUnion::ModRevision(12)]);
        assert_eq!((commit.success.len(), commit.failure.len()), (1, 0));
        stm.message(0, &answer(false, 30, &[])).unwrap();
        assert_eq!(next(&mut stm).compare.len(), 0, "it reads again");
    }

    #[test]
    fn a_snapshot_reads_one_revision_and_takes_the_keys_from_a_refusal() {
        let mut stm = stm(Isolation::SerializableSnapshot);
        stm.begin(0, 0, &mut Vec::new());
        stm.message(0, &answer(true, 20, &[11])).unwrap();
        let second = next(&mut stm);
        let Some(Request::RequestRange(range)) = &second.success[0].request else {
            panic!("a read was due");
        };
        assert_eq!((range.revision, range.serializable), (20, true));
        stm.message(0, &answer(true, 25, &[12])).unwrap();
        let commit = next(&mut stm);
        assert_eq!((commit.compare.len(), commit.failure.len()), (3, 2));
        assert_eq!(commit.compare[2].target_union, Some(TargetUnion::ModRevision(21)));
        stm.message(0, &answer(false, 40, &[31, 32])).unwrap();
        let again = next(&mut stm);
        assert_eq!(again.compare[2].target_union, Some(TargetUnion::ModRevision(41)));
        stm.message(0, &answer(true, 41, &[])).unwrap();
        assert_eq!(stm.next(0, &mut Vec::new()), Ok(None));
    }
}
