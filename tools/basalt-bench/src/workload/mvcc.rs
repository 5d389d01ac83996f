//! The store alone: `mvcc put` puts into Basalt's own [`basalt::mvcc`] over its store on disk, in this
//! process, without a log, a network or a server.

use std::time::{Duration, Instant};

use basalt::io::LsmEngine;
use basalt::mvcc::Mvcc;
use basalt::store::{Engine, Overlay};
use basalt::types::CacheBytes;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use clap::{Args, Subcommand};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::clock;
use crate::error::Fatal;
use crate::generator::{Health, Rate};
use crate::options::Globals;
use crate::report::{Finished, Recorder, Report, Verified, Written};

/// Size of the cache of newest records, as in the server.
const CACHES: CacheBytes = CacheBytes { records: 64 << 20, lists: 0 };

/// Flags of `mvcc`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Interval of batching (milliseconds)
    #[arg(long, global = true, default_value_t = 100)]
    pub batch_interval: u64,
    /// A limit of batched transaction
    #[arg(long, global = true, default_value_t = 10_000)]
    pub batch_limit: u64,
    /// The measured load.
    #[command(subcommand)]
    pub load: Loads,
}

/// Loads of the store.
#[derive(Clone, Debug, Subcommand)]
pub enum Loads {
    /// Benchmark put performance of storage
    Put(PutFlags),
}

/// Flags of `mvcc put`.
#[derive(Args, Clone, Debug)]
pub struct PutFlags {
    /// a total number of keys to put
    #[arg(long, default_value_t = 100)]
    pub total: u64,
    /// a size of key (Byte)
    #[arg(long, default_value_t = 64)]
    pub key_size: usize,
    /// a size of value (Byte)
    #[arg(long, default_value_t = 64)]
    pub value_size: usize,
    /// put a key in transaction or not
    #[arg(long)]
    pub txn: bool,
    /// a number of keys to put per transaction
    #[arg(long, default_value_t = 1)]
    pub txn_ops: u64,
    /// the path of file for storing cpu profile result: refused, use perf
    #[arg(long)]
    pub cpuprofile: Option<String>,
    /// the path of file for storing heap profile result: refused, use heaptrack
    #[arg(long)]
    pub memprofile: Option<String>,
}

/// The store and the puts that are not committed yet.
struct Store {
    engine: LsmEngine,
    mvcc: Mvcc,
    overlay: Overlay<<LsmEngine as Engine>::View>,
    limit: u64,
    interval: Duration,
    waiting: u64,
    committed: Instant,
}

impl Store {
    fn open(path: &std::path::Path, flags: &Flags) -> Result<Self, Fatal> {
        let engine = LsmEngine::open(path).map_err(|fault| fault.to_string())?;
        let view = engine.view();
        let mvcc = Mvcc::open(&view, CACHES).map_err(|fault| fault.to_string())?;
        Ok(Self {
            overlay: Overlay::new(view),
            engine,
            mvcc,
            limit: flags.batch_limit.max(1),
            interval: Duration::from_millis(flags.batch_interval),
            waiting: 0,
            committed: clock::now(),
        })
    }

    /// One transaction of these puts; committed with others.
    fn apply(&mut self, mut puts: Vec<PutRequest>) -> Result<(), Fatal> {
        if puts.len() == 1
            && let Some(put) = puts.pop()
        {
            let put = self.mvcc.put(&mut self.overlay, &put, &|_| false);
            put.map_err(|error| format!("{error:?}"))?;
        } else {
            let op = |put| RequestOp { request: Some(Request::RequestPut(put)) };
            let success = puts.into_iter().map(op).collect();
            let request = TxnRequest { success, ..TxnRequest::default() };
            let txn = self.mvcc.txn(&mut self.overlay, &request, &|_| false);
            txn.map_err(|error| format!("{error:?}"))?;
        }
        // There are no watchers.
        drop((self.mvcc.take_events(), self.mvcc.take_attachments()));
        self.waiting += 1;
        let due = clock::now().saturating_duration_since(self.committed) >= self.interval;
        if due || self.waiting >= self.limit { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), Fatal> {
        self.mvcc.write_meta(&mut self.overlay);
        self.mvcc.write_meta(&mut self.overlay);
        self.engine.commit(self.overlay.take()).map_err(|fault| fault.to_string())?;
        let view = self.engine.view();
        self.mvcc.publish(view.clone());
        self.overlay.rebase(view);
        self.waiting = 0;
        self.committed = clock::now();
        Ok(())
    }
}

/// Puts, checks that the revision grew by the puts, and reports.
///
/// # Errors
/// The store fails, or a profile is asked for.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    let Loads::Put(put) = &flags.load;
    if put.cpuprofile.is_some() || put.memprofile.is_some() {
        let what = "profiles in Go's format are not written here: run this under `perf record` or \
                    `heaptrack` instead";
        return Err(what.into());
    }
    let directory = tempfile::tempdir_in(".")?;
    let mut store = Store::open(directory.path(), flags)?;
    let mut random = SmallRng::seed_from_u64(globals.seed);
    let mut bytes = |size| {
        let mut bytes = vec![0; size];
        random.fill_bytes(&mut bytes);
        bytes
    };
    let ops = if put.txn { put.txn_ops } else { 1 };
    let mut recorder = Recorder::new(globals.series());
    let before = store.mvcc.revision();
    let start = clock::now();
    for _ in 0..put.total {
        let one = |_| PutRequest {
            key: bytes(put.key_size).into(),
            value: bytes(put.value_size).into(),
            ..PutRequest::default()
        };
        let puts = (0..ops).map(one).collect();
        let began = clock::now();
        store.apply(puts)?;
        recorder.record(clock::nanos(began, clock::now()), clock::unix().as_secs());
    }
    store.commit()?;
    let total = clock::now().saturating_duration_since(start);
    let verified = {
        let written = Written { answered: put.total * ops.min(1), failed: 0 };
        Verified::new(before, store.mvcc.revision(), written)
    };
    let report = Report { name: "mvcc-put".to_owned(), heading: String::new(), total, recorder };
    let rate = report.rate() * ops as f64;
    let mut finished = Finished {
        reports: vec![report],
        health: Health::default(),
        verified: Some(verified),
        pace: Rate::default(),
        epilogue: format!("\nKeys/sec: {rate:.0}, {ops} in each operation\n"),
        ..Finished::default()
    };
    let details = &mut finished.details;
    details.insert("key_size".into(), put.key_size.into());
    details.insert("value_size".into(), put.value_size.into());
    details.insert("txn_ops".into(), ops.into());
    details.insert("batch_interval_ms".into(), flags.batch_interval.into());
    details.insert("batch_limit".into(), flags.batch_limit.into());
    Ok(finished)
}
