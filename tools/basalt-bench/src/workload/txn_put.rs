//! Transactions of a few puts each.

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use clap::Args;
use prost::Message;

use super::{Kind, Load};
use crate::distribution::Distribution;
use crate::error::Fatal;
use crate::generator::Workload;
use crate::keys::{KeySpec, Keys, Values};
use crate::options::Globals;
use crate::paths;
use crate::report::Finished;
use crate::session;

/// Flags of `txn-put`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Key size of txn put
    #[arg(long, default_value_t = 8)]
    pub key_size: usize,
    /// Value size of txn put
    #[arg(long, default_value_t = 8)]
    pub val_size: usize,
    /// Number of puts per txn
    #[arg(long, default_value_t = 1)]
    pub txn_ops: u64,
    /// Txns per second, each sent at its scheduled time whatever the server does (0 is no limit)
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Total number of txn requests
    #[arg(long, default_value_t = 10_000)]
    pub total: u64,
    /// Maximum possible keys
    #[arg(long, default_value_t = 1)]
    pub key_space_size: u64,
}

pub(super) struct TxnPut {
    keys: Keys,
    values: Values,
    ops: u64,
}

impl Workload for TxnPut {
    fn begin(&mut self, _: usize, index: u64, body: &mut Vec<u8>) -> &'static str {
        let put = |number| {
            let (key, value) = (self.keys.key(number), self.values.value());
            let put = PutRequest { key, value, ..PutRequest::default() };
            RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let first = index * self.ops;
        let success = (first..first + self.ops).map(put).collect();
        let request = TxnRequest { success, ..TxnRequest::default() };
        request.encode(body).expect("a Vec takes everything");
        paths::TXN
    }

    fn message(&mut self, _: usize, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// The kinds of operations. A transaction without operations makes no revision.
pub(super) fn kinds(flags: &Flags) -> Vec<Kind> {
    vec![Kind::new("txn-put", flags.txn_ops.min(1))]
}

/// Makes the load of a connection.
///
/// # Errors
/// The flags are wrong.
pub(super) fn maker(
    globals: &Globals,
    flags: &Flags,
) -> Result<impl Fn(usize) -> TxnPut + Sync + use<>, Fatal> {
    let spec = KeySpec {
        prefix: Vec::new(),
        size: flags.key_size,
        space: flags.key_space_size,
        distribution: Distribution::Sequential,
    };
    spec.check()?;
    if flags.txn_ops > flags.key_space_size {
        return Err(format!(
            "expected --txn-ops no larger than --key-space-size, got txn-ops({}) key-space-size({})",
            flags.txn_ops, flags.key_space_size
        )
        .into());
    }
    let (seed, size, ops) = (globals.seed, flags.val_size, flags.txn_ops);
    Ok(move |_| TxnPut {
        keys: Keys::new(spec.clone(), seed),
        values: Values::new(size, false, seed),
        ops,
    })
}

/// Puts in transactions, checks that each made one revision, and reports.
///
/// # Errors
/// The flags are wrong or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    let make = maker(globals, flags)?;
    let dialer = session::dialer(globals)?;
    let load = Load { globals, total: flags.total, rate: flags.rate, kinds: kinds(flags) };
    let (mut finished, _) = load.run(&dialer, make)?;
    let details = &mut finished.details;
    details.insert("txn_ops".into(), flags.txn_ops.into());
    details.insert("key_size".into(), flags.key_size.into());
    details.insert("val_size".into(), flags.val_size.into());
    details.insert("key_space_size".into(), flags.key_space_size.into());
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_puts_different_keys() {
        let spec = KeySpec {
            prefix: Vec::new(),
            size: 8,
            space: 4,
            distribution: Distribution::Sequential,
        };
        let mut txn = TxnPut { keys: Keys::new(spec, 1), values: Values::new(1, false, 1), ops: 3 };
        let mut body = Vec::new();
        txn.begin(0, 1, &mut body);
        let request = TxnRequest::decode(&body[..]).unwrap();
        let key = |op: &RequestOp| match &op.request {
            Some(Request::RequestPut(put)) => put.key[0],
            _ => panic!("only puts"),
        };
        assert_eq!(request.success.iter().map(key).collect::<Vec<_>>(), [6, 0, 2]);
    }
}
