//! The initial state of a member: from disk, or from its flags and the other members.
//!
//! ```text
//!  a store on disk ───────────────────────► continues; flags about the cluster are ignored
//!  none, --initial-cluster-state new ─────► the first members and their ids, as every one of them computes
//!  none, --initial-cluster-state existing ► asks the others for the members; the state is received as a snapshot
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use gocompat::bytes;

use super::bootstrap::{Bootstrap, bootstrap};
use super::{Config, levels, tls};
use crate::actors::State;
use crate::actors::apply::state_of;
use crate::actors::bytes_in_use;
use crate::actors::mailbox::peer::{Identity, Times};
use crate::cluster::{self, Member};
use crate::consensus::Restored;
use crate::io::{self, Dialer, DiskMonitor, LsmEngine, Pool, WalFile, WalOptions, clock};
use crate::lease::ttl_min;
use crate::machine::{self, Machine};
use crate::replica::AppliedLog;
use crate::store::Engine as _;
use crate::types::limits::{
    DISK_SMALL_BYTES, LOG_BYTES_MAX, WAL_FREE_SEGMENTS_MAX, WAL_SEGMENT_BYTES,
};
use crate::types::{
    Budgets, ConfChange, ConfChangeKind, Entry, EntryKind, Fault, HardState, MemberId,
};
use crate::wal::{Record, Replay};

/// Least timeout for a connection to another member, whatever the election timeout is.
const DIAL_TIME_MIN: Duration = Duration::from_secs(1);
const DIAL_TIME_MAX: Duration = Duration::from_secs(5);

/// The state read from disk.
pub(super) struct Opened {
    pub(super) member: Member,
    pub(super) machine: Machine<LsmEngine>,
    pub(super) state: State,
    pub(super) wal: WalFile,
    pub(super) restored: Restored,
    pub(super) cluster_id: u64,
    pub(super) identity: Identity,
    /// Members that the state does not contain yet.
    pub(super) others: Vec<Member>,
    pub(super) disk: DiskMonitor,
    pub(super) budgets: Budgets,
}

pub(super) async fn open(
    config: &Config,
    credentials: &tls::Opened,
    budgets: Budgets,
) -> Result<Opened, Fault> {
    let dialer = Dialer::new(credentials.peer.clone());
    let member_dir = config.data_dir.join("member");
    let wal_dir = config.wal_dir.clone().unwrap_or_else(|| member_dir.join("wal"));
    io::prepare_data_dir(&wal_dir)?;
    let settings = machine_config(config, budgets);
    // Before the store, which may need the reserved space.
    let watched = member_dir.clone();
    let disk = Pool::Durable.run(move || DiskMonitor::start(&watched)).await?;
    let (mut machine, snapshot) = open_store(&member_dir, &settings).await?;
    let bootstrap = beginning_of(config, &dialer, &machine, &wal_dir).await?;
    let options = wal_options(config, wal_dir, &disk);
    let first = bootstrap.as_ref().map(Bootstrap::first);
    let (mut wal, mut replay) = WalFile::open(options, first).await?;
    let owner = replay.owner.or(bootstrap.as_ref().map(Bootstrap::owner));
    let Some((cluster_id, id)) = owner else {
        return Err(Fault::new("the write-ahead log does not say whose it is"));
    };
    finish_snapshot(snapshot, &machine, &mut wal, &mut replay).await?;
    let founds = bootstrap.as_ref().is_some_and(|_| replay.hard_state == HardState::default());
    if let Some(bootstrap) = &bootstrap {
        begin_state(&mut machine, &replay, bootstrap)?;
        // The flags of a member that has state are not used again.
        let engine = machine.engine().clone();
        Pool::Durable.run(move || engine.persist()).await?;
    }
    replay.check_store(machine.applied())?;
    shorten_log(&machine, &mut wal, &mut replay).await?;
    if config.force_new_cluster && !founds {
        force_new_cluster(&mut wal, &mut replay, &machine, id).await?;
    }
    let vote_lease_ticks = store_vote_lease(config, &member_dir).await?;
    defragment(&machine, config.bootstrap_defrag_bytes).await?;
    let read = machine.commit()?.read;
    let state = state_of(&machine, read, id, machine.engine().disk_bytes());
    let restored = Restored {
        hard_state: replay.hard_state,
        conf_state: machine.conf_state().clone(),
        log_start_index: replay.log_start_index,
        log_start_term: replay.log_start_term,
        entries: replay.entries,
        applied: machine.applied(),
        vote_lease_ticks,
    };
    let given = bootstrap.map(|bootstrap| bootstrap.members).unwrap_or_default();
    let known = machine.member(id).or_else(|| given.iter().find(|it| it.id == id));
    let Some(member) = known.cloned() else {
        return Err(not_a_member(&machine, id));
    };
    let identity = identity(config, dialer, cluster_id, &member, settings, budgets);
    let others = given.into_iter().filter(|other| other.id != id).collect();
    Ok(Opened {
        member,
        machine,
        state,
        wal,
        restored,
        cluster_id,
        identity,
        others,
        disk,
        budgets,
    })
}

fn machine_config(config: &Config, budgets: Budgets) -> machine::Config {
    machine::Config {
        caches: budgets.caches,
        lease_ttl_min: ttl_min(config.election.as_millis() as u64),
        learners_max: config.learners_max,
        feature_level: levels::supported(),
        steps: machine::StepLimits::DEFAULT,
    }
}

fn wal_options(config: &Config, dir: PathBuf, disk: &DiskMonitor) -> WalOptions {
    WalOptions {
        free_max: config.max_wals.min(free_segments_max(&dir)),
        fits: disk.fits_segment(&dir),
        dir,
        segment_bytes: WAL_SEGMENT_BYTES,
        unsafe_no_fsync: config.unsafe_no_fsync,
    }
}

/// The bootstrap of a member without state.
async fn beginning_of(
    config: &Config,
    dialer: &Dialer,
    machine: &Machine<LsmEngine>,
    wal_dir: &Path,
) -> Result<Option<Bootstrap>, Fault> {
    if !machine.is_new() {
        return Ok(None);
    }
    let (asked, dialer, has_log) = (config.clone(), dialer.clone(), io::has_log(wal_dir));
    Pool::Dns.run(move || bootstrap(&asked, &dialer, has_log)).await.map(Some)
}

/// Identity and settings of this member for its peers.
fn identity(
    config: &Config,
    dialer: Dialer,
    cluster: u64,
    member: &Member,
    machine: machine::Config,
    budgets: Budgets,
) -> Identity {
    let times = Times {
        dial: config.election.clamp(DIAL_TIME_MIN, DIAL_TIME_MAX),
        read: config.raft_read_timeout,
        write: config.raft_write_timeout,
    };
    let member_dir = config.data_dir.join("member");
    Identity {
        cluster,
        member: member.id,
        urls: member.peer_urls.clone(),
        dialer,
        times,
        member_dir,
        queue_bytes_max: budgets.peer_queue,
        machine,
    }
}

/// Upper bound of the log's segments that may wait to be recycled, beside the next one.
fn free_segments_max(wal_dir: &Path) -> usize {
    let is_small = io::disk_bytes(wal_dir).is_some_and(|bytes| bytes < DISK_SMALL_BYTES);
    if is_small { 0 } else { WAL_FREE_SEGMENTS_MAX }
}

/// Stores the vote lease of this run, and returns the ticks for which an earlier run may have given one. A shorter
/// lease is stored only after the earlier one has ended: until then another start must find the longer one.
async fn store_vote_lease(config: &Config, member_dir: &Path) -> Result<usize, Fault> {
    let (dir, own) = (member_dir.to_owned(), config.vote_lease());
    let own_ms = own.as_millis() as u64;
    let noting = move || {
        let before_ms = io::vote_lease_ms(&dir)?;
        if own_ms > before_ms {
            io::note_vote_lease(&dir, own_ms)?;
        }
        Ok::<_, Fault>(before_ms)
    };
    let before_ms = Pool::Durable.run(noting).await?;
    if before_ms == 0 {
        return Ok(0);
    }
    let before = Duration::from_millis(before_ms);
    if own < before {
        let dir = member_dir.to_owned();
        io::spawn(async move {
            clock::sleep(before).await;
            let noted = Pool::Durable.run(move || io::note_vote_lease(&dir, own_ms)).await;
            noted.unwrap_or_else(|fault| io::fatal(&fault));
        });
    }
    // The first tick may come at once.
    Ok(before.div_duration_f64(config.heartbeat).ceil() as usize + 1)
}

/// Merges all of the store's tables if their garbage exceeds the flag's threshold.
async fn defragment(machine: &Machine<LsmEngine>, threshold: u64) -> Result<(), Fault> {
    let engine = machine.engine().clone();
    let (size, in_use) = (engine.disk_bytes(), bytes_in_use(machine.usage()));
    if threshold == 0 {
        return Ok(());
    }
    if size < in_use.saturating_add(threshold) {
        tracing::info!(
            current_db_size_bytes = size,
            current_db_size = bytes::text(size),
            current_db_size_in_use_bytes = in_use,
            current_db_size_in_use = bytes::text(in_use),
            bootstrap_defrag_threshold_bytes = threshold,
            bootstrap_defrag_threshold = bytes::text(threshold),
            "Skipping defragmentation"
        );
        return Ok(());
    }
    Pool::Durable
        .run(move || {
            engine.note_usage(in_use);
            // If the merge failed, it is tried again later.
            let _ = engine.defragment().recv();
            tracing::info!(
                size_before_bytes = size,
                size_bytes = engine.disk_bytes(),
                "defragmented the store"
            );
            Ok(())
        })
        .await
}

/// The state machine, and the snapshot that its store began with.
async fn open_store(
    member_dir: &Path,
    settings: &machine::Config,
) -> Result<(Machine<LsmEngine>, Option<(u64, u64)>), Fault> {
    let (member_dir, settings) = (member_dir.to_owned(), settings.clone());
    let opening = move || {
        let (store, snapshot) = io::find_store(&member_dir)?;
        Ok((Machine::open(LsmEngine::open(&store)?, &settings)?, snapshot))
    };
    Pool::Durable.run(opening).await
}

/// The member may have stopped after it installed a snapshot's store and before it began the log for it.
async fn finish_snapshot(
    snapshot: Option<(u64, u64)>,
    machine: &Machine<LsmEngine>,
    wal: &mut WalFile,
    replay: &mut Replay,
) -> Result<(), Fault> {
    let Some((index, term)) = snapshot else { return Ok(()) };
    if replay.log_start_index >= index || machine.position() != (index, term) {
        return Ok(());
    }
    truncate_log(machine, wal, replay).await
}

/// A member that ends again and again before it has truncated its log would read a longer one at each start.
async fn shorten_log(
    machine: &Machine<LsmEngine>,
    wal: &mut WalFile,
    replay: &mut Replay,
) -> Result<(), Fault> {
    let log = AppliedLog::of(replay.log_start_index, &replay.entries, machine.applied());
    if log.bytes < LOG_BYTES_MAX {
        return Ok(());
    }
    truncate_log(machine, wal, replay).await?;
    tracing::info!(index = machine.applied(), bytes = log.bytes, "truncated the log");
    Ok(())
}

/// Truncates the log up to the state that was read from disk.
async fn truncate_log(
    machine: &Machine<LsmEngine>,
    wal: &mut WalFile,
    replay: &mut Replay,
) -> Result<(), Fault> {
    let ((index, term), conf_state) = (machine.position(), machine.conf_state().clone());
    let log_start = Record::LogStart { index, term, conf_state };
    wal.append(std::slice::from_ref(&log_start)).await?;
    replay.take(log_start)
}

fn not_a_member(machine: &Machine<LsmEngine>, id: MemberId) -> Fault {
    if machine.cluster().is_removed(id) {
        return Fault::new("the member has been permanently removed from the cluster");
    }
    Fault::new(format!("the data directory belongs to another member than {id:x}"))
}

/// Initializes an empty store: of a new member, or of one that lost unsynced writes and has all of them in the log.
fn begin_state(
    machine: &mut Machine<LsmEngine>,
    replay: &Replay,
    bootstrap: &Bootstrap,
) -> Result<(), Fault> {
    if replay.log_start_index == 0 && replay.conf_state.voters.is_empty() {
        // Joins a cluster; the leader sends the state.
        return Ok(());
    }
    let mut ids: Vec<_> = bootstrap.members.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    let begins = (replay.log_start_index, replay.log_start_term) == (ids.len() as u64, 1);
    if (!begins && replay.log_start_index > 0) || replay.conf_state.voters != ids {
        return Err(Fault::new(
            "the store is gone, and the write-ahead log alone cannot replace it",
        ));
    }
    machine.bootstrap(bootstrap.members.clone())
}

/// Makes this member the only one: all others are removed by entries, as if they had been removed one after the other.
/// Its whole log counts as committed. Part of it may never have been acknowledged, but no acknowledged entry is left
/// out, as might happen if only entries known to be committed were kept.
async fn force_new_cluster(
    wal: &mut WalFile,
    replay: &mut Replay,
    machine: &Machine<LsmEngine>,
    id: MemberId,
) -> Result<(), Fault> {
    let HardState { term, vote, .. } = replay.hard_state;
    let last = replay.log_start_index + replay.entries.len() as u64;
    let mut others: Vec<_> = machine.cluster().members().map(|member| member.id).collect();
    for entry in &replay.entries {
        if entry.index > machine.applied()
            && entry.kind == EntryKind::ConfChange
            && let Ok(change) = <ConfChange as prost::Message>::decode(entry.data.clone())
        {
            others.retain(|other| *other != change.member);
            if change.kind() != ConfChangeKind::Remove {
                others.push(change.member);
            }
        }
    }
    others.retain(|other| *other != id);
    if others.is_empty() {
        return Ok(());
    }
    let term =
        term.max(replay.log_start_term).max(replay.entries.last().map_or(0, |last| last.term));
    let removals = others.iter().zip(last + 1..).map(|(other, index)| {
        let data = prost::Message::encode_to_vec(&cluster::remove(0, *other)).into();
        Record::Entry(Entry { index, term, kind: EntryKind::ConfChange, data })
    });
    let mut records: Vec<_> = removals.collect();
    let commit = last + records.len() as u64;
    records.push(Record::HardState(HardState { term, vote, commit }));
    wal.append(&records).await?;
    let others: Vec<_> = others.iter().map(|other| format!("{other:x}")).collect();
    tracing::warn!(removed = ?others, "forcing a new cluster with this member alone");
    records.into_iter().try_for_each(|record| replay.take(record))
}
