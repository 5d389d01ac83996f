//! Transactions that read a range, and transactions that put one key, in a given ratio.

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use clap::Args;
use prost::Message;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::range::prologue;
use super::{Kind, Load};
use crate::distribution::Distribution;
use crate::error::Fatal;
use crate::generator::Workload;
use crate::keys::{KeySpec, Keys, Values};
use crate::options::Globals;
use crate::paths;
use crate::report::Finished;
use crate::session;

/// Flags of `txn-mixed`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Accepted and ignored, as etcd's benchmark does: all keys up to --end-key are read
    #[arg(num_args = 0..=2, value_name = "KEY [END]")]
    pub keys: Vec<String>,
    /// Key size of mixed txn
    #[arg(long, default_value_t = 8)]
    pub key_size: usize,
    /// Value size of mixed txn
    #[arg(long, default_value_t = 8)]
    pub val_size: usize,
    /// Txns per second, each sent at its scheduled time whatever the server does (0 is no limit)
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Total number of txn requests
    #[arg(long, default_value_t = 10_000)]
    pub total: u64,
    /// Read operation range end key (by default all keys)
    #[arg(long, default_value = "")]
    pub end_key: String,
    /// Read operation range result limit
    #[arg(long, default_value_t = 1000)]
    pub limit: i64,
    /// Maximum possible keys
    #[arg(long, default_value_t = 1)]
    pub key_space_size: u64,
    /// Linearizable(l) or Serializable(s)
    #[arg(long, default_value = "l", value_parser = ["l", "s"])]
    pub consistency: String,
    /// Read/write ops ratio
    #[arg(long, default_value_t = 1.0)]
    pub rw_ratio: f64,
}

const READ: usize = 0;
const WRITE: usize = 1;

pub(super) struct TxnMixed {
    /// The transaction that reads, encoded.
    read: Vec<u8>,
    /// The share of reads.
    reads: f64,
    keys: Keys,
    values: Values,
    random: SmallRng,
    /// By client.
    kinds: Vec<usize>,
}

impl Workload for TxnMixed {
    fn begin(&mut self, slot: usize, index: u64, body: &mut Vec<u8>) -> &'static str {
        let kind = if self.random.random_bool(self.reads) { READ } else { WRITE };
        if self.kinds.len() <= slot {
            self.kinds.resize(slot + 1, READ);
        }
        self.kinds[slot] = kind;
        if kind == READ {
            body.extend_from_slice(&self.read);
        } else {
            let (key, value) = (self.keys.key(index), self.values.value());
            let put = PutRequest { key, value, ..PutRequest::default() };
            txn_of(Request::RequestPut(put)).encode(body).expect("a Vec takes everything");
        }
        paths::TXN
    }

    fn message(&mut self, _: usize, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn kind(&self, slot: usize) -> usize {
        self.kinds[slot]
    }
}

fn txn_of(request: Request) -> TxnRequest {
    TxnRequest { success: vec![RequestOp { request: Some(request) }], ..TxnRequest::default() }
}

/// The kinds of operations.
pub(super) fn kinds() -> Vec<Kind> {
    vec![Kind::new("txn-mixed-read", 0), Kind::new("txn-mixed-write", 1)]
}

/// Makes the load of a connection.
///
/// # Errors
/// The flags are wrong.
pub(super) fn maker(
    globals: &Globals,
    flags: &Flags,
) -> Result<impl Fn(usize) -> TxnMixed + Sync + use<>, Fatal> {
    let spec = KeySpec {
        prefix: Vec::new(),
        size: flags.key_size,
        space: flags.key_space_size,
        distribution: Distribution::Sequential,
    };
    spec.check()?;
    if flags.rw_ratio.is_nan() || flags.rw_ratio < 0.0 {
        return Err(format!("expected --rw-ratio from 0 up, got ({})", flags.rw_ratio).into());
    }
    let read = txn_of(Request::RequestRange(range(flags))).encode_to_vec();
    let (seed, size, reads) = (globals.seed, flags.val_size, reads(flags.rw_ratio));
    Ok(move |conn: usize| TxnMixed {
        read: read.clone(),
        reads,
        keys: Keys::new(spec.clone(), seed),
        values: Values::new(size, false, seed),
        random: SmallRng::seed_from_u64(seed.wrapping_add(conn as u64)),
        kinds: Vec::new(),
    })
}

/// Reads and writes, checks that each write made one revision, and reports both.
///
/// # Errors
/// The flags are wrong or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    let make = maker(globals, flags)?;
    let dialer = session::dialer(globals)?;
    let load = Load { globals, total: flags.total, rate: flags.rate, kinds: kinds() };
    let (mut finished, _) = load.run(&dialer, make)?;
    finished.prologue = prologue(&flags.consistency);
    for (report, word) in finished.reports.iter_mut().zip(["Read", "Write"]) {
        let done = report.recorder.count() + report.recorder.error_count();
        report.heading = format!("Total {word} Ops: {done}\nDetails:");
    }
    finished.details.insert("rw_ratio".into(), flags.rw_ratio.into());
    finished.details.insert("val_size".into(), flags.val_size.into());
    finished.details.insert("limit".into(), flags.limit.into());
    Ok(finished)
}

fn reads(ratio: f64) -> f64 {
    if ratio.is_infinite() { 1.0 } else { ratio / (1.0 + ratio) }
}

/// Everything from the smallest key up to the end key, or to the last.
fn range(flags: &Flags) -> RangeRequest {
    let end = if flags.end_key.is_empty() { "\0" } else { &flags.end_key };
    RangeRequest {
        key: vec![0].into(),
        range_end: end.as_bytes().to_vec().into(),
        limit: flags.limit,
        serializable: flags.consistency == "s",
        ..RangeRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_come_in_their_ratio() {
        let distribution = Distribution::Sequential;
        let spec = KeySpec { prefix: Vec::new(), size: 8, space: 10, distribution };
        let mut load = TxnMixed {
            read: b"r".to_vec(),
            reads: reads(3.0),
            keys: Keys::new(spec, 1),
            values: Values::new(8, false, 1),
            random: SmallRng::seed_from_u64(1),
            kinds: Vec::new(),
        };
        let mut seen = [0, 0];
        let mut body = Vec::new();
        for index in 0..10_000 {
            body.clear();
            load.begin(0, index, &mut body);
            assert_eq!(load.kind(0) == READ, body == b"r");
            seen[load.kind(0)] += 1;
        }
        assert!((7_300..7_700).contains(&seen[READ]), "{seen:?}");
    }

    #[test]
    fn extreme_ratios_are_all_of_one_kind() {
        assert_eq!((reads(0.0), reads(f64::INFINITY)), (0.0, 1.0));
    }
}
