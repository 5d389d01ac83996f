//! The objects of a cluster, and values that resemble theirs.

use basalt_proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};
use bytes::Bytes;
use prost::Message;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime;

use super::Flags;
use crate::error::Fatal;
use crate::generator::Workload;
use crate::keys::prefix_end;
use crate::options::Globals;
use crate::paths;
use crate::spectators::{STAMP_BYTES, stamp};
use crate::wire::Dialer;
use crate::workload::{Kind, Load};

const LEASE_BYTES: usize = 500;
const EVENT_BYTES: usize = 700;
const POD_BYTES: usize = 4_000;
const NODE_BYTES: usize = 8_000;
const PAGE_KEYS: i64 = 10_000;
/// Operations in flight while the cluster is filled.
const FILL_CLIENTS: usize = 64;
/// The first bytes of a value in Kubernetes' protobuf encoding.
const MAGIC: &[u8] = b"k8s\0\n";
/// Objects repeat the same words, and compress accordingly.
const WORDS: [&str; 12] = [
    "metadata",
    "namespace",
    "default",
    "kube-system",
    "containerStatuses",
    "lastTransitionTime",
    "node.kubernetes.io/not-ready",
    "app.kubernetes.io/name",
    "uid",
    "f:status",
    "True",
    "kubelet",
];

/// A key, and its mod revision, 0 if it does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) key: Bytes,
    pub(super) revision: i64,
}

/// The objects that exist before the load starts.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) leases: Vec<Object>,
    pub(super) nodes: Vec<Object>,
    pub(super) pods: Vec<Object>,
}

/// Takes a random object out.
pub(super) fn take(objects: &mut Vec<Object>, random: &mut impl Rng) -> Option<Object> {
    if objects.is_empty() {
        return None;
    }
    let at = random.random_range(0..objects.len());
    Some(objects.swap_remove(at))
}

impl Objects {
    /// Creates the missing objects of the cluster, and finds all of them. Objects of earlier runs stay.
    ///
    /// # Errors
    /// The server refuses a request or cannot be reached.
    pub(super) fn fill(globals: &Globals, dialer: &Dialer, flags: &Flags) -> Result<Self, Fatal> {
        let prefix = &flags.prefix;
        let below = |resource: &str| format!("{prefix}{resource}");
        let resources =
            [below("leases/kube-node-lease/"), below("minions/"), below("pods/default/")];
        let pods = flags.nodes * flags.pods_per_node;
        let sizes = [LEASE_BYTES, NODE_BYTES, POD_BYTES];
        let mut missing = Vec::new();
        for ((resource, wanted), size) in
            resources.iter().zip([flags.nodes, flags.nodes, pods]).zip(sizes)
        {
            let there = list(dialer, resource)?.len();
            let key = |number: usize| Bytes::from(format!("{resource}node-{number:06}"));
            missing.extend((there.min(wanted)..wanted).map(|number| (key(number), size)));
        }
        if !missing.is_empty() {
            fill(globals, dialer, missing)?;
        }
        let [leases, nodes, pods] = resources;
        let found = |resource: &str| list(dialer, resource);
        Ok(Self { leases: found(&leases)?, nodes: found(&nodes)?, pods: found(&pods)? })
    }
}

/// Puts objects of these sizes.
struct Fill {
    missing: std::sync::Arc<Vec<(Bytes, usize)>>,
    sizes: Sizes,
}

impl Workload for Fill {
    fn begin(&mut self, _: usize, index: u64, body: &mut Vec<u8>) -> &'static str {
        let (key, size) = self.missing[index as usize].clone();
        let request = PutRequest { key, value: self.sizes.value(size), ..PutRequest::default() };
        request.encode(body).expect("a Vec takes everything");
        paths::PUT
    }

    fn message(&mut self, _: usize, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

fn fill(globals: &Globals, dialer: &Dialer, missing: Vec<(Bytes, usize)>) -> Result<(), Fatal> {
    let quick = Globals {
        clients: FILL_CLIENTS,
        conns: globals.conns,
        duration: std::time::Duration::ZERO,
        ramp: std::time::Duration::ZERO,
        ..globals.clone()
    };
    let total = missing.len() as u64;
    let missing = std::sync::Arc::new(missing);
    let load = Load { globals: &quick, total, rate: 0, kinds: vec![Kind::new("fill", 1)] };
    let make = |conn| Fill { missing: missing.clone(), sizes: Sizes::new(conn as u64) };
    let (filled, _) = load.run(dialer, make)?;
    let recorder = &filled.reports[0].recorder;
    match recorder.errors().first_key_value() {
        Some((what, count)) => Err(format!("{count} objects could not be put: {what}").into()),
        None => Ok(()),
    }
}

/// Every key below a prefix, with its revision.
fn list(dialer: &Dialer, prefix: &str) -> Result<Vec<Object>, Fatal> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut channel = dialer.dial(0).await?;
        let mut objects = Vec::new();
        let mut key = prefix.as_bytes().to_vec();
        loop {
            let request = RangeRequest {
                key: key.into(),
                range_end: prefix_end(prefix.as_bytes()).into(),
                limit: PAGE_KEYS,
                keys_only: true,
                ..RangeRequest::default()
            };
            let page: RangeResponse = channel.call(paths::RANGE, &request).await?;
            let found = page.kvs.into_iter();
            objects.extend(found.map(|kv| Object { key: kv.key, revision: kv.mod_revision }));
            let Some(last) = objects.last().filter(|_| page.more) else { return Ok(objects) };
            key = [&last.key[..], b"\0"].concat();
        }
    })
}

/// Makes values.
#[derive(Debug)]
pub(super) struct Sizes {
    /// Text from which values are cut.
    pool: Vec<u8>,
    random: SmallRng,
}

impl Sizes {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut pool = Vec::new();
        while pool.len() < 4 * NODE_BYTES {
            pool.extend_from_slice(WORDS[random.random_range(0..WORDS.len())].as_bytes());
            // A quarter of an object is ids and times, which do not compress.
            pool.extend_from_slice(&random.random::<u32>().to_be_bytes());
        }
        Self { pool, random }
    }

    pub(super) fn lease(&mut self) -> Bytes {
        self.value(LEASE_BYTES)
    }

    pub(super) fn event(&mut self) -> Bytes {
        self.value(EVENT_BYTES)
    }

    pub(super) fn pod(&mut self) -> Bytes {
        self.value(POD_BYTES)
    }

    pub(super) fn node(&mut self) -> Bytes {
        self.value(NODE_BYTES)
    }

    /// A value of this size that contains the current time.
    fn value(&mut self, size: usize) -> Bytes {
        let middle = size.saturating_sub(MAGIC.len() + STAMP_BYTES);
        let at = self.random.random_range(0..self.pool.len() - middle);
        [MAGIC, &self.pool[at..at + middle], &stamp()].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_kubernetes_magic() {
        let mut sizes = Sizes::new(1);
        for (value, size) in [(sizes.lease(), 500), (sizes.pod(), 4_000), (sizes.node(), 8_000)] {
            assert_eq!(value.len(), size);
            assert!(value.starts_with(b"k8s\0"));
        }
        assert_ne!(sizes.pod(), sizes.pod());
    }

    #[test]
    fn taken_objects_are_removed() {
        let object = |key: &'static str| Object { key: key.into(), revision: 1 };
        let mut objects = vec![object("a"), object("b")];
        let mut random = SmallRng::seed_from_u64(1);
        let first = take(&mut objects, &mut random).unwrap();
        let second = take(&mut objects, &mut random).unwrap();
        assert_ne!(first, second);
        assert_eq!(take(&mut objects, &mut random), None);
    }
}
