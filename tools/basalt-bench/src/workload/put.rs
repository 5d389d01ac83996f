//! Puts of keys from a key space.

use std::time::Duration;

use basalt_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, HashKvRequest, HashKvResponse, PutRequest,
    StatusRequest, StatusResponse,
};
use clap::Args;
use prost::Message;
use serde_json::{Map, Value};

use super::{Kind, Load};
use crate::error::Fatal;
use crate::generator::Workload;
use crate::keys::{KeySpec, Keys, Values};
use crate::options::Globals;
use crate::report::Finished;
use crate::session;
use crate::wire::Dialer;
use crate::{clock, distribution, paths};

/// Flags of `put`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Key size of put request
    #[arg(long, default_value_t = 8)]
    pub key_size: usize,
    /// Value size of put request
    #[arg(long, default_value_t = 8)]
    pub val_size: usize,
    /// Puts per second, each sent at its scheduled time whatever the server does (0 is no limit)
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Total number of put requests
    #[arg(long, default_value_t = 10_000)]
    pub total: u64,
    /// Maximum possible keys
    #[arg(long, default_value_t = 1)]
    pub key_space_size: u64,
    /// How keys are chosen
    #[command(flatten)]
    pub choice: distribution::Flags,
    /// Prefix of every key, not counted in the key size
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// A different value for each put, which compresses as badly as one value alone
    #[arg(long)]
    pub different_values: bool,
    /// Interval to compact database (do not duplicate this with etcd's 'auto-compaction-retention' flag)
    #[arg(long, default_value = "0", value_parser = gocompat::duration::parse)]
    pub compact_interval: Duration,
    /// Delta between current revision and compact revision (e.g. current revision 10000, compact at 9000)
    #[arg(long, default_value_t = 1000)]
    pub compact_index_delta: i64,
    /// 'true' to check hashkv
    #[arg(long)]
    pub check_hashkv: bool,
}

pub(super) struct Put {
    keys: Keys,
    values: Values,
}

impl Workload for Put {
    fn begin(&mut self, _: usize, index: u64, body: &mut Vec<u8>) -> &'static str {
        let (key, value) = (self.keys.key(index), self.values.value());
        let request = PutRequest { key, value, ..PutRequest::default() };
        request.encode(body).expect("a Vec takes everything");
        paths::PUT
    }

    fn message(&mut self, _: usize, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// The kinds of operations.
pub(super) fn kinds() -> Vec<Kind> {
    vec![Kind::new("put", 1)]
}

/// Makes the load of a connection.
///
/// # Errors
/// The flags are wrong.
pub(super) fn maker(
    globals: &Globals,
    flags: &Flags,
) -> Result<impl Fn(usize) -> Put + Sync + use<>, Fatal> {
    let spec = KeySpec {
        prefix: flags.prefix.clone().into_bytes(),
        size: flags.key_size,
        space: flags.key_space_size,
        distribution: flags.choice.distribution(flags.key_space_size)?,
    };
    spec.check()?;
    let (first, size, different) = (globals.seed, flags.val_size, flags.different_values);
    Ok(move |conn: usize| {
        let seed = first.wrapping_add(conn as u64);
        // The same seed everywhere: one value in the whole run unless each is to differ.
        let values = Values::new(size, different, if different { seed } else { first });
        Put { keys: Keys::new(spec.clone(), seed), values }
    })
}

/// Puts, checks that the revision grew by the puts, and reports.
///
/// # Errors
/// The flags are wrong or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    let make = maker(globals, flags)?;
    let dialer = session::dialer(globals)?;
    let load = Load { globals, total: flags.total, rate: flags.rate, kinds: kinds() };
    let compactor = Compactor::start(&dialer, flags);
    let ran = load.run(&dialer, make);
    compactor.stop()?;
    let (mut finished, _) = ran?;
    insert(&mut finished.details, flags);
    if flags.check_hashkv {
        finished.epilogue = hash_kv(&dialer)?;
    }
    Ok(finished)
}

fn insert(details: &mut Map<String, Value>, flags: &Flags) {
    details.insert("key_size".into(), flags.key_size.into());
    details.insert("val_size".into(), flags.val_size.into());
    details.insert("key_space_size".into(), flags.key_space_size.into());
    details.insert("keys".into(), flags.choice.name().into());
    details.insert("different_values".into(), flags.different_values.into());
}

/// Compacts at intervals while the load runs.
struct Compactor(Option<(std::sync::mpsc::SyncSender<()>, Compacting)>);

/// The thread that compacts, until its sender is dropped.
type Compacting = std::thread::JoinHandle<Result<(), Fatal>>;

impl Compactor {
    fn start(dialer: &Dialer, flags: &Flags) -> Self {
        if flags.compact_interval.is_zero() {
            return Self(None);
        }
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
        let (dialer, every, delta) =
            (dialer.clone(), flags.compact_interval, flags.compact_index_delta);
        let thread = std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError;
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let revision = (session::revision(&dialer)? - delta).max(0);
                let request = CompactionRequest { revision, ..CompactionRequest::default() };
                let _: CompactionResponse = session::call(&dialer, paths::COMPACT, &request)?;
            }
            Ok(())
        });
        Self(Some((stop, thread)))
    }

    fn stop(self) -> Result<(), Fatal> {
        let Some((stop, thread)) = self.0 else { return Ok(()) };
        drop(stop);
        thread.join().map_err(|_| "the compaction thread panicked")?
    }
}

/// The hash of each endpoint, as etcd's benchmark prints the first one's.
fn hash_kv(dialer: &Dialer) -> Result<String, Fatal> {
    let mut text = String::new();
    for endpoint in &dialer.endpoints {
        let one = Dialer { endpoints: vec![endpoint.clone()], ..dialer.clone() };
        let start = clock::now();
        let hash: HashKvResponse = session::call(&one, paths::HASH_KV, &HashKvRequest::default())?;
        let status: StatusResponse = session::call(&one, paths::STATUS, &StatusRequest::default())?;
        text.push_str(&format!(
            "HashKV Summary:\n\tHashKV: {}\n\tEndpoint: {endpoint}\n\tTime taken to get hashkv: {:?}\n\tDB size: {}\n",
            hash.hash,
            clock::now().duration_since(start),
            humanized(u64::try_from(status.db_size).unwrap_or(0)),
        ));
    }
    Ok(text)
}

/// Bytes in powers of a thousand with two digits, as etcd's tools print them.
fn humanized(bytes: u64) -> String {
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let value = (value * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 {
        format!("{value:.1} {}", units[unit])
    } else {
        format!("{value:.0} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_carries_key_and_value() {
        let distribution = distribution::Distribution::Uniform;
        let spec = KeySpec { prefix: Vec::new(), size: 8, space: 1, distribution };
        let mut put = Put { keys: Keys::new(spec, 1), values: Values::new(16, false, 1) };
        let mut body = Vec::new();
        assert_eq!(put.begin(0, 0, &mut body), paths::PUT);
        let request = PutRequest::decode(&body[..]).unwrap();
        assert_eq!((request.key.len(), request.value.len()), (8, 16));
    }

    #[test]
    fn sizes_read_as_etcds() {
        assert_eq!(humanized(5), "5 B");
        assert_eq!(humanized(25_000), "25 kB");
        assert_eq!(humanized(2_540_000), "2.5 MB");
    }
}
