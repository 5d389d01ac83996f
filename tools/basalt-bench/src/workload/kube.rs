//! The requests of one kube-apiserver for a cluster of N nodes: the mix, the keys, the sizes and
//! the transactions of Kubernetes, and its watches beside them.
//!
//! ```text
//!  per node and second   0.1    Lease renewals           update   0.5 KB  /registry/leases/…
//!                        0.15   Events                   create   0.7 KB  /registry/events/…   with a lease
//!                        0.1    Pod status               update   4 KB    /registry/pods/…
//!                        0.033  Pods new, 0.033 deleted  create, delete
//!                        0.1    quorum reads of a Pod    get
//!                        0.01   Node status              update   8 KB    /registry/minions/…
//!                        0.002  Pods counted, 0.001 listed in pages of 500
//! ```
//!
//! The rates: a kubelet renews its Lease every ten seconds and reports its Node every few minutes or when
//! it changes; thirty Pods a node that live a quarter of an hour are 0.033 Pods a second, each with three
//! updates of its status and some five Events.

mod objects;
mod requests;

use basalt_proto::etcdserverpb::WatchCreateRequest;
use bytes::Bytes;
use clap::Args;
use rand::SeedableRng;
use rand::distr::Distribution as _;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::SmallRng;

use self::objects::{Object, Objects, Sizes};
use super::{Kind, Load};
use crate::error::Fatal;
use crate::generator::Workload;
use crate::options::Globals;
use crate::report::{Finished, Report};
use crate::session;
use crate::spectators::Spectators;
use crate::{clock, keys};

/// Seconds of a run that was given neither a total nor a duration.
const SECONDS_DEFAULT: u64 = 30;
/// Seconds that Events live.
const EVENT_TTL: i64 = 3_600;
/// An apiserver takes a new lease for Events after so many of them, or so many seconds.
const EVENTS_PER_LEASE: u64 = 1_000;
const LEASE_SECONDS: u64 = 60;

/// Flags of `k8s`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Nodes of the cluster
    #[arg(long, default_value_t = 100)]
    pub nodes: usize,
    /// Pods on each node
    #[arg(long, default_value_t = 30)]
    pub pods_per_node: usize,
    /// Apiservers that watch everything
    #[arg(long, default_value_t = 1)]
    pub apiservers: usize,
    /// Operations per second (by default what so many nodes make; 0 is no limit)
    #[arg(long)]
    pub rate: Option<u64>,
    /// Total number of operations (by default as many as --duration holds, 30s if it is not given)
    #[arg(long)]
    pub total: Option<u64>,
    /// Prefix of every key
    #[arg(long, default_value = "/registry/")]
    pub prefix: String,
}

/// The operations: name, number per node and second, revisions.
const MIX: [(&str, f64, u64); 9] = [
    ("k8s-lease-renew", 0.1, 1),
    ("k8s-event-create", 0.15, 1),
    ("k8s-pod-update", 0.1, 1),
    ("k8s-pod-create", 0.033, 1),
    ("k8s-pod-delete", 0.033, 1),
    ("k8s-get", 0.1, 0),
    ("k8s-node-update", 0.01, 1),
    ("k8s-count", 0.002, 0),
    ("k8s-list", 0.001, 0),
];

/// Indices into [`MIX`].
mod kind {
    pub(super) const LEASE_RENEW: usize = 0;
    pub(super) const EVENT_CREATE: usize = 1;
    pub(super) const POD_UPDATE: usize = 2;
    pub(super) const POD_CREATE: usize = 3;
    pub(super) const POD_DELETE: usize = 4;
    pub(super) const GET: usize = 5;
    pub(super) const NODE_UPDATE: usize = 6;
    pub(super) const COUNT: usize = 7;
    pub(super) const LIST: usize = 8;
}

/// State of a client.
#[derive(Clone, Debug)]
struct Slot {
    kind: usize,
    /// The object that it changes or reads; no other client has it meanwhile.
    object: Option<Object>,
    /// The next page of a list: where it starts, and at which revision.
    page: Option<(Bytes, i64)>,
    /// A lease for Events is being taken before the Event.
    granting: bool,
    /// Revision of the answer.
    revision: i64,
}

/// One connection's share of the cluster.
struct Kube {
    prefix: String,
    weights: WeightedIndex<f64>,
    random: SmallRng,
    leases: Vec<Object>,
    nodes: Vec<Object>,
    pods: Vec<Object>,
    sizes: Sizes,
    /// Part of the names of the objects that this run creates.
    run: String,
    created: u64,
    event_lease: i64,
    event_lease_uses: u64,
    event_lease_since: std::time::Duration,
    slots: Vec<Slot>,
}

impl Workload for Kube {
    fn begin(&mut self, number: usize, _: u64, body: &mut Vec<u8>) -> &'static str {
        if self.slots.len() <= number {
            let idle =
                Slot { kind: kind::GET, object: None, page: None, granting: false, revision: 0 };
            self.slots.resize(number + 1, idle);
        }
        let (kind, object) = self.choose();
        let granting = kind == kind::EVENT_CREATE && self.needs_lease();
        self.slots[number] = Slot { kind, object, page: None, granting, revision: 0 };
        if granting {
            return requests::grant(EVENT_TTL, body);
        }
        self.request(number, body)
    }

    fn message(&mut self, number: usize, body: &[u8]) -> Result<(), String> {
        let slot = &mut self.slots[number];
        if slot.granting {
            self.event_lease = requests::granted(body)?;
            self.event_lease_uses = 0;
            self.event_lease_since = clock::unix();
            return Ok(());
        }
        match slot.kind {
            kind::LIST => {
                slot.page = requests::listed(body)?;
                Ok(())
            }
            kind::GET => requests::found(body),
            kind::COUNT => Ok(()),
            _ => {
                slot.revision = requests::committed(body)?;
                Ok(())
            }
        }
    }

    fn next(&mut self, number: usize, body: &mut Vec<u8>) -> Result<Option<&'static str>, String> {
        let slot = &mut self.slots[number];
        if std::mem::take(&mut slot.granting) {
            return Ok(Some(self.request(number, body)));
        }
        if let Some((from, revision)) = slot.page.take() {
            return Ok(Some(requests::list(&pods(&self.prefix), Some((from, revision)), body)));
        }
        let (kind, revision, object) = (slot.kind, slot.revision, slot.object.take());
        if let Some(object) = object {
            let object = match kind {
                kind::GET => object,
                _ => Object { revision, ..object },
            };
            match kind {
                kind::LEASE_RENEW => self.leases.push(object),
                kind::NODE_UPDATE => self.nodes.push(object),
                kind::POD_UPDATE | kind::POD_CREATE | kind::GET => self.pods.push(object),
                // Deleted, or an Event that no client uses again.
                _ => {}
            }
        }
        Ok(None)
    }

    fn kind(&self, slot: usize) -> usize {
        self.slots[slot].kind
    }
}

impl Kube {
    /// The next operation, with its object. An operation without an idle object becomes a count.
    fn choose(&mut self) -> (usize, Option<Object>) {
        let kind = self.weights.sample(&mut self.random);
        let random = &mut self.random;
        let taken = match kind {
            kind::LEASE_RENEW => objects::take(&mut self.leases, random),
            kind::NODE_UPDATE => objects::take(&mut self.nodes, random),
            kind::POD_UPDATE | kind::POD_DELETE | kind::GET => {
                objects::take(&mut self.pods, random)
            }
            kind::POD_CREATE => Some(self.new_object("pods/default/bench-")),
            kind::EVENT_CREATE => Some(self.new_object("events/default/bench-")),
            _ => return (kind, None),
        };
        if taken.is_none() { (kind::COUNT, None) } else { (kind, taken) }
    }

    fn new_object(&mut self, below: &str) -> Object {
        self.created += 1;
        let key = format!("{}{below}{}-{}", self.prefix, self.run, self.created);
        Object { key: key.into(), revision: 0 }
    }

    fn needs_lease(&mut self) -> bool {
        self.event_lease_uses += 1;
        let age = clock::unix().saturating_sub(self.event_lease_since).as_secs();
        self.event_lease == 0 || self.event_lease_uses > EVENTS_PER_LEASE || age > LEASE_SECONDS
    }

    fn request(&mut self, number: usize, body: &mut Vec<u8>) -> &'static str {
        let slot = &self.slots[number];
        let Some(object) = &slot.object else {
            let pods = pods(&self.prefix);
            return match slot.kind {
                kind::LIST => requests::list(&pods, None, body),
                _ => requests::count(&pods, body),
            };
        };
        let lease = if slot.kind == kind::EVENT_CREATE { self.event_lease } else { 0 };
        match slot.kind {
            kind::GET => requests::get(object, body),
            kind::POD_DELETE => requests::delete(object, body),
            kind::LEASE_RENEW => requests::write(object, self.sizes.lease(), 0, body),
            kind::NODE_UPDATE => requests::write(object, self.sizes.node(), 0, body),
            kind::EVENT_CREATE => requests::write(object, self.sizes.event(), lease, body),
            _ => requests::write(object, self.sizes.pod(), 0, body),
        }
    }
}

fn pods(prefix: &str) -> Vec<u8> {
    format!("{prefix}pods/").into_bytes()
}

/// Fills the cluster, runs the load, and reports each kind of operation and the events of the watches.
///
/// # Errors
/// The flags are wrong, a watcher fails or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    if flags.nodes == 0 {
        return Err("expected positive --nodes, got (0)".into());
    }
    let dialer = session::dialer(globals)?;
    let mut globals = globals.clone();
    if flags.total.is_none() && globals.duration.is_zero() {
        globals.duration = std::time::Duration::from_secs(SECONDS_DEFAULT);
    }
    let per_node: f64 = MIX.iter().map(|(_, rate, _)| rate).sum();
    let rate = flags.rate.unwrap_or(((flags.nodes as f64 * per_node).round() as u64).max(1));
    let kinds = MIX.iter().map(|&(name, _, writes)| Kind::new(name, writes)).collect();
    let load = Load { globals: &globals, total: flags.total.unwrap_or(u64::MAX), rate, kinds };
    let conns = load.conns(&dialer);
    let objects = Objects::fill(&globals, &dialer, flags)?;
    let run = format!("{:x}", clock::unix().as_millis());
    let make = |conn: usize| {
        let seed = globals.seed.wrapping_add(conn as u64);
        let share = |all: &[Object]| all.iter().skip(conn).step_by(conns).cloned().collect();
        Kube {
            prefix: flags.prefix.clone(),
            weights: WeightedIndex::new(MIX.map(|(_, rate, _)| rate))
                .expect("the mix is a constant"),
            random: SmallRng::seed_from_u64(seed),
            leases: share(&objects.leases),
            nodes: share(&objects.nodes),
            pods: share(&objects.pods),
            sizes: Sizes::new(seed),
            run: format!("{run}-{conn}"),
            created: 0,
            event_lease: 0,
            event_lease_uses: 0,
            event_lease_since: std::time::Duration::ZERO,
            slots: Vec::new(),
        }
    };
    let revision = session::revision(&dialer)?;
    let streams =
        (0..flags.apiservers).flat_map(|_| watches(&flags.prefix, revision + 1)).collect();
    let spectators = Spectators::start(&dialer, flags.apiservers, streams, globals.series());
    spectators.wait_created();
    let (mut finished, _) = load.run(&dialer, make)?;
    let written =
        |(report, (_, _, writes)): (&Report, &(&str, f64, u64))| report.recorder.count() * writes;
    let writes: u64 = finished.reports.iter().zip(&MIX).map(written).sum();
    let seen = spectators.finish(writes * flags.apiservers as u64)?;
    finished.health.merge(&seen.health);
    finished.reports.push(Report {
        name: "k8s-watch-event".to_owned(),
        heading: String::new(),
        total: seen.events_total,
        recorder: seen.events,
    });
    for report in &mut finished.reports {
        report.heading = format!("\n{}:\n", report.name);
    }
    let details = &mut finished.details;
    details.insert("nodes".into(), flags.nodes.into());
    details.insert("pods".into(), objects.pods.len().into());
    details.insert("apiservers".into(), flags.apiservers.into());
    details.insert("watch_events".into(), seen.event_count.into());
    Ok(finished)
}

/// One stream for each resource, as an apiserver's caches have them.
fn watches(prefix: &str, start_revision: i64) -> Vec<Vec<WatchCreateRequest>> {
    let watch = |resource: &str| {
        let key = format!("{prefix}{resource}/");
        vec![WatchCreateRequest {
            range_end: keys::prefix_end(key.as_bytes()).into(),
            key: key.into(),
            start_revision,
            progress_notify: true,
            prev_kv: true,
            ..WatchCreateRequest::default()
        }]
    };
    ["leases", "minions", "pods", "events"].map(watch).into()
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::{ResponseHeader, TxnRequest, TxnResponse};
    use prost::Message;

    use super::*;

    fn kube(pods: usize) -> Kube {
        let object = |number| Object { key: format!("pod-{number}").into(), revision: 5 };
        Kube {
            prefix: "/registry/".to_owned(),
            weights: WeightedIndex::new(MIX.map(|(_, rate, _)| rate)).unwrap(),
            random: SmallRng::seed_from_u64(1),
            leases: Vec::new(),
            nodes: Vec::new(),
            pods: (0..pods).map(object).collect(),
            sizes: Sizes::new(1),
            run: "r".to_owned(),
            created: 0,
            event_lease: 7,
            event_lease_uses: 0,
            event_lease_since: clock::unix(),
            slots: Vec::new(),
        }
    }

    fn begin(kube: &mut Kube, wanted: usize) -> Vec<u8> {
        for index in 0..100_000 {
            let mut body = Vec::new();
            kube.begin(0, index, &mut body);
            if kube.kind(0) == wanted {
                return body;
            }
            // Return the object of this operation.
            let _ = kube.next(0, &mut Vec::new());
        }
        panic!("{} never came", MIX[wanted].0);
    }

    #[test]
    fn an_update_compares_the_revision_and_keeps_the_new_one() {
        let mut kube = kube(1);
        let body = begin(&mut kube, kind::POD_UPDATE);
        assert!(kube.pods.is_empty(), "nobody else may change it meanwhile");
        let txn = TxnRequest::decode(&body[..]).unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (1, 1, 1));
        let header = Some(ResponseHeader { revision: 9, ..ResponseHeader::default() });
        let answer = TxnResponse { header, succeeded: true, ..TxnResponse::default() };
        kube.message(0, &answer.encode_to_vec()).unwrap();
        assert_eq!(kube.next(0, &mut Vec::new()), Ok(None));
        assert_eq!(kube.pods.iter().map(|pod| pod.revision).collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn a_conflict_that_nobody_made_is_an_error() {
        let mut kube = kube(1);
        begin(&mut kube, kind::POD_DELETE);
        assert!(kube.message(0, &TxnResponse::default().encode_to_vec()).is_err());
    }

    #[test]
    fn events_share_a_lease_until_it_is_used_up() {
        let mut kube = kube(0);
        assert!(!kube.needs_lease());
        kube.event_lease_uses = EVENTS_PER_LEASE;
        assert!(kube.needs_lease());
    }

    #[test]
    fn the_mix_has_the_rates_of_the_table() {
        let mut kube = kube(0);
        let mut seen = [0_u32; MIX.len()];
        for _ in 0..50_000 {
            seen[kube.weights.sample(&mut kube.random)] += 1;
        }
        let total: f64 = MIX.iter().map(|(_, rate, _)| rate).sum();
        for ((name, rate, _), seen) in MIX.iter().zip(seen) {
            let expected = rate / total * 50_000.0;
            assert!((f64::from(seen) - expected).abs() < expected * 0.1 + 30.0, "{name}: {seen}");
        }
    }
}
