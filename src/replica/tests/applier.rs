//! The apply side: its notifications and their order.

use std::time::Duration;

use basalt_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest, PutRequest,
    RequestHeader,
};
use bytes::Bytes;
use prost::Message as _;

use crate::cluster;
use crate::machine::{self, Machine};
use crate::replica::{
    AppliedLog, Applier, ApplierOutput as Output, LeaseChange, Progress, Settings,
};
use crate::store::{Memory, MemoryView};
use crate::types::limits::APPLY_AT_ONCE_RECORDS_MAX;
use crate::types::{CacheBytes, Entry, EntryKind, FeatureLevel};

const NONCE: u32 = 9;
const PAUSE: Duration = Duration::from_millis(10);

fn machine() -> Machine<Memory> {
    let config = machine::Config {
        caches: CacheBytes { records: 10_000, ..CacheBytes::NONE },
        lease_ttl_min: 1,
        learners_max: 1,
        feature_level: FeatureLevel::NEWEST,
        steps: crate::machine::StepLimits::DEFAULT,
    };
    let mut machine = Machine::open(Memory::default(), &config).expect("an empty store opens");
    let member = cluster::Member { id: 1, ..cluster::Member::default() };
    machine.bootstrap(vec![member]).expect("memory takes it");
    machine
}

fn applier(snapshot_count: u64) -> Applier<Memory> {
    let settings = Settings {
        executors: 2,
        boot_nonce: NONCE,
        snapshot_count,
        slice_records: 2,
        compaction_batch: 4,
        compaction_pause: PAUSE,
    };
    let machine = machine();
    let log = AppliedLog { start: machine.applied(), bytes: 0 };
    let mut applier = Applier::new(machine, &settings, log);
    // There is no unfinished compaction of an earlier run.
    applier.compact(Duration::ZERO, &mut Vec::new()).expect("memory takes it");
    assert!(!applier.is_compacting());
    applier
}

/// A request of the first executor, or of the second.
fn request(executor: u64) -> InternalRaftRequest {
    let id = u64::from(NONCE) << 32 | executor << 24 | 1;
    let header = Some(RequestHeader { id, ..RequestHeader::default() });
    InternalRaftRequest { header, ..InternalRaftRequest::default() }
}

fn put(executor: u64) -> InternalRaftRequest {
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    InternalRaftRequest { put: Some(put), ..request(executor) }
}

fn entry(index: u64, request: &InternalRaftRequest) -> Entry {
    Entry { index, term: 1, kind: EntryKind::Normal, data: request.encode_to_vec().into() }
}

fn conf_change(index: u64) -> Entry {
    let member = cluster::Member {
        id: 2,
        peer_urls: vec!["http://b:1".to_owned()],
        is_learner: true,
        ..cluster::Member::default()
    };
    let data: Bytes = cluster::add(0, &member, 1).encode_to_vec().into();
    Entry { index, term: 1, kind: EntryKind::ConfChange, data }
}

fn apply(applier: &mut Applier<Memory>, entries: &[Entry]) {
    for entry in entries {
        let mut progress = applier.begin(entry, |_| ());
        while progress.expect("it applies") == Progress::Large {
            progress = applier.step(1, |_| ());
        }
    }
}

fn commit(applier: &mut Applier<Memory>, entries: &[Entry]) -> Vec<Output<MemoryView>> {
    apply(applier, entries);
    let mut out = Vec::new();
    applier.commit(Duration::ZERO, false, &mut out).expect("memory takes it");
    out
}

/// A short form of the outputs.
fn brief(out: &[Output<MemoryView>]) -> Vec<String> {
    out.iter()
        .map(|output| match output {
            Output::Persist => "persist".to_owned(),
            Output::Publish(published) => format!("publish {}", published.read.revision),
            Output::Lease(LeaseChange::Granted(grant)) => format!("granted {}", grant.id),
            Output::Lease(LeaseChange::Revoked(id)) => format!("revoked {id}"),
            Output::Replaced(leases) => format!("replaced {}", leases.len()),
            Output::AuthChanged(change) => format!("auth {change:?}"),
            Output::MembersChanged => "members".to_owned(),
            Output::Applied { index, conf_changes } => {
                format!("applied {index} changes {}", conf_changes.len())
            }
            Output::Deliver(executor, delivery) => format!(
                "deliver {executor} replies {} reads {:?}",
                delivery.replies.len(),
                delivery.reads
            ),
            Output::TruncateLog(start) => format!("truncate {}", start.index),
            Output::CompactionBegun => "compaction".to_owned(),
            Output::Compacted => "compacted".to_owned(),
        })
        .collect()
}

#[test]
fn a_batch_is_published_before_it_is_acknowledged_and_answered() {
    let mut applier = applier(1000);
    let grant = LeaseGrantRequest { id: 5, ttl: 10 };
    let grant = InternalRaftRequest { lease_grant: Some(grant), ..request(1) };
    let out = commit(&mut applier, &[entry(2, &put(0)), entry(3, &grant)]);
    assert_eq!(
        brief(&out),
        [
            "publish 2",
            "granted 5",
            "applied 3 changes 0",
            "deliver 0 replies 1 reads []",
            "deliver 1 replies 1 reads []",
        ]
    );
}

#[test]
fn changed_members_are_durable_before_anybody_learns_of_them() {
    let out = commit(&mut applier(1000), &[conf_change(2)]);
    assert_eq!(brief(&out), ["persist", "publish 1", "members", "applied 2 changes 1"]);
}

#[test]
fn entries_of_another_start_are_answered_to_nobody() {
    let mut other = put(0);
    other.header = Some(RequestHeader { id: 1 << 32 | 1, ..RequestHeader::default() });
    let out = commit(&mut applier(1000), &[entry(2, &other)]);
    assert_eq!(brief(&out), ["publish 2", "applied 2 changes 0"]);
}

#[test]
fn reads_wait_until_their_index_is_published() {
    let mut applier = applier(1000);
    let mut out = Vec::new();
    applier.read_at(1, 30, 1, &mut out);
    applier.read_at(1, 31, 2, &mut out);
    assert_eq!(brief(&out), ["deliver 1 replies 0 reads [30]"]);
    apply(&mut applier, &[entry(2, &put(0))]);
    out.clear();
    applier.commit(Duration::ZERO, false, &mut out).expect("memory takes it");
    let brief = brief(&out);
    assert_eq!(brief.last().map(String::as_str), Some("deliver 1 replies 0 reads [31]"));
}

#[test]
fn the_log_is_truncated_after_what_is_applied() {
    let mut applier = applier(2);
    assert!(!brief(&commit(&mut applier, &[entry(2, &put(0))])).contains(&"truncate 2".to_owned()));
    let out = brief(&commit(&mut applier, &[entry(3, &put(0))]));
    assert_eq!(out.last().map(String::as_str), Some("truncate 3"));
}

#[test]
fn a_compaction_goes_on_under_load() {
    let mut applier = applier(100_000);
    let puts: Vec<_> = (2..40).map(|index| entry(index, &put(0))).collect();
    commit(&mut applier, &puts);
    let compaction = Some(CompactionRequest { revision: 30, physical: false });
    let compact = InternalRaftRequest { compaction, ..request(0) };
    let out = commit(&mut applier, &[entry(40, &compact)]);
    assert!(brief(&out).contains(&"compaction".to_owned()));
    let (mut slices, mut index, mut now) = (0, 41, Duration::ZERO);
    while applier.is_compacting() && index < 100_000 {
        now += PAUSE / 100;
        if applier.is_compaction_due(now, false) {
            let mut out = Vec::new();
            applier.compact(now, &mut out).expect("memory takes it");
            slices += 1;
            continue;
        }
        commit(&mut applier, &[entry(index, &put(0))]);
        index += 1;
    }
    assert!(!applier.is_compacting(), "it ends though something always waits");
    assert!(slices > 1 && index > 41, "{slices} slices between {index} entries");
}

#[test]
fn a_compaction_pauses_after_each_batch() {
    let mut applier = applier(100_000);
    let puts: Vec<_> = (2..40).map(|index| entry(index, &put(0))).collect();
    commit(&mut applier, &puts);
    assert_eq!(applier.compaction_due_in(Duration::ZERO), None);
    let compaction = Some(CompactionRequest { revision: 30, physical: false });
    commit(&mut applier, &[entry(40, &InternalRaftRequest { compaction, ..request(0) })]);
    assert_eq!(applier.compaction_due_in(PAUSE), Some(Duration::ZERO));
    let mut slices = 0;
    while applier.is_compaction_due(PAUSE, true) && slices < 10 {
        applier.compact(PAUSE, &mut Vec::new()).expect("memory takes it");
        slices += 1;
    }
    assert!((1..=2).contains(&slices), "{slices} slices of two records in a batch of four");
    assert_eq!(applier.compaction_due_in(PAUSE), Some(PAUSE));
    assert!(applier.is_compaction_due(2 * PAUSE, true));
}

#[test]
fn a_snapshot_replaces_the_state_and_never_takes_it_back() {
    let mut newer = applier(1000);
    commit(&mut newer, &[entry(2, &put(0)), entry(3, &put(0))]);
    let config = machine::Config {
        caches: CacheBytes { records: 10_000, ..CacheBytes::NONE },
        lease_ttl_min: 1,
        learners_max: 1,
        feature_level: FeatureLevel::NEWEST,
        steps: crate::machine::StepLimits::DEFAULT,
    };
    let open = || Machine::open(newer.machine().engine().clone(), &config).expect("it opens");
    let mut applier = applier(1000);
    let mut out = Vec::new();
    applier.read_at(0, 8, 3, &mut out);
    let old = applier.install(open(), &mut out).expect("it is newer");
    assert_eq!(old.applied(), 1);
    assert_eq!(
        brief(&out),
        ["publish 3", "replaced 0", "members", "deliver 0 replies 0 reads [8]"]
    );
    let refused = applier.install(open(), &mut out).err().expect("it is not newer");
    assert!(refused.to_string().contains("would take this member back from 3"), "{refused}");
}

/// Reads that wait while an entry of many keys is applied know their index, and are served after it.
#[test]
fn a_large_entry_is_published_as_a_whole_and_hides_no_read_index() {
    let mut applier = applier(100_000);
    let keys = APPLY_AT_ONCE_RECORDS_MAX as u64 + 100;
    let put = |index: u64| {
        let key = index.to_be_bytes().to_vec().into();
        let put = PutRequest { key, ..PutRequest::default() };
        entry(index, &InternalRaftRequest { put: Some(put), ..request(0) })
    };
    let puts: Vec<_> = (2..2 + keys).map(put).collect();
    commit(&mut applier, &puts);
    let (last, revision) = (applier.machine().applied() + 1, keys + 1);
    let delete = DeleteRangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..DeleteRangeRequest::default()
    };
    let delete = InternalRaftRequest { delete_range: Some(delete), ..request(1) };
    let mut out = Vec::new();
    applier.read_at(0, 7, last, &mut out);
    assert_eq!(applier.begin(&entry(last, &delete), |_| ()).ok(), Some(Progress::Large));
    applier.commit(Duration::ZERO, false, &mut out).expect("memory takes it");
    let before = [format!("publish {revision}"), format!("applied {} changes 0", last - 1)];
    assert_eq!(brief(&out)[..2], before, "what came before does not wait");
    let mut deliveries = indexed(&out);
    let mut steps = 0;
    while applier.step(1, |_| ()).expect("memory takes it") == Progress::Large {
        steps += 1;
        if steps == 3 {
            out.clear();
            applier.read_at(1, 8, last, &mut out);
            deliveries.extend(indexed(&out));
        }
    }
    assert!(steps > keys / 2, "{steps} steps");
    assert_eq!(deliveries, [(0, 7), (1, 8)]);
    out.clear();
    applier.commit(Duration::ZERO, false, &mut out).expect("memory takes it");
    let after = [
        format!("publish {}", revision + 1),
        format!("applied {last} changes 0"),
        "deliver 0 replies 0 reads [7]".to_owned(),
        "deliver 1 replies 1 reads [8]".to_owned(),
    ];
    assert_eq!(brief(&out), after);
}

/// Executors and batches of reads whose index is known before it is applied.
fn indexed(out: &[Output<MemoryView>]) -> Vec<(usize, u64)> {
    let batches = |output: &Output<MemoryView>| {
        let Output::Deliver(executor, delivery) = output else { return Vec::new() };
        delivery.indexed.iter().map(|batch| (*executor, *batch)).collect()
    };
    out.iter().flat_map(batches).collect()
}
