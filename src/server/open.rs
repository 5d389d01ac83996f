//! What a member begins with: what is on disk, or what its flags and the other members say.
//!
//! ```text
//!  a log on disk ─────────────────────────► goes on; flags about the cluster have no say
//!  none, --initial-cluster-state new ─────► the first members and their ids, as every one of them computes
//!  none, --initial-cluster-state existing ► asks the others who is a member; the state comes as a snapshot
//! ```

use std::time::Duration;

use super::Config;
use crate::actors::State;
use crate::actors::apply::state_of;
use crate::actors::peer::{Identity, address_of};
use crate::cluster::{self, Member, cluster_id, member_id};
use crate::consensus::Restored;
use crate::io::{self, FjallEngine, WalFile, WalOptions};
use crate::lease::ttl_min;
use crate::machine::{self, Machine};
use crate::store::Engine as _;
use crate::types::limits::{RECORD_CACHE_BYTES, WAL_FREE_SEGMENTS_MAX, WAL_SEGMENT_BYTES};
use crate::types::{
    ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, Fault, HardState, MemberId,
};
use crate::wal::{Record, Replay};

/// How long another member may take to say who is a member.
const ASK_TIME: Duration = Duration::from_secs(2);

/// What was found on disk.
pub(super) struct Opened {
    pub(super) member: Member,
    pub(super) machine: Machine<FjallEngine>,
    pub(super) state: State,
    pub(super) wal: WalFile,
    pub(super) restored: Restored,
    pub(super) cluster_id: u64,
    pub(super) identity: Identity,
    /// Members that the state does not tell of yet.
    pub(super) others: Vec<Member>,
}

/// Who begins.
struct Beginning {
    cluster_id: u64,
    id: MemberId,
    members: Vec<Member>,
    joins: bool,
}

impl Beginning {
    /// What the log begins with: as if an entry of the first term had entered each first member.
    fn first(&self) -> [Record; 2] {
        let owner = Record::Metadata { cluster_id: self.cluster_id, member_id: self.id };
        let mut conf_state = ConfState::default();
        if self.joins {
            return [owner, Record::Mark { index: 0, term: 0, conf_state }];
        }
        conf_state.voters = self.members.iter().map(|member| member.id).collect();
        conf_state.voters.sort_unstable();
        [owner, Record::Mark { index: self.members.len() as u64, term: 1, conf_state }]
    }
}

pub(super) async fn open(config: &Config) -> Result<Opened, Fault> {
    let member_dir = config.data_dir.join("member");
    let wal_dir = config.wal_dir.clone().unwrap_or_else(|| member_dir.join("wal"));
    io::prepare_data_dir(&wal_dir)?;
    let asked = config.clone();
    let fresh = !io::has_log(&wal_dir);
    let beginning = io::blocking(move || begin(&asked, fresh)).await?;
    let options = WalOptions {
        dir: wal_dir,
        segment_bytes: WAL_SEGMENT_BYTES,
        free_max: config.max_wals.min(WAL_FREE_SEGMENTS_MAX),
        unsafe_no_fsync: config.unsafe_no_fsync,
    };
    let (mut wal, mut replay) = WalFile::open(options, beginning.first()).await?;
    let (cluster_id, id) = replay.owner.unwrap_or((beginning.cluster_id, beginning.id));
    let (store, snapshot) = io::find_store(&member_dir)?;
    let settings = machine::Config {
        cache_bytes: RECORD_CACHE_BYTES,
        lease_ttl_min: ttl_min(config.election.as_millis() as u64),
        learners_max: config.learners_max,
    };
    let opening = settings.clone();
    let machine = io::blocking(move || Machine::open(FjallEngine::open(&store)?, &opening));
    let mut machine = machine.await?;
    if let Some((index, term)) = snapshot
        && replay.mark_index < index
        && machine.position() == (index, term)
    {
        // The member stopped between making the snapshot its store and beginning its log there.
        let conf_state = machine.conf_state().clone();
        let mark = Record::Mark { index, term, conf_state };
        wal.append(std::slice::from_ref(&mark)).await?;
        replay.take(mark)?;
    }
    if machine.is_new() {
        begin_state(&mut machine, &replay, &beginning)?;
    }
    if config.force_new_cluster && !fresh {
        force(&mut wal, &mut replay, &machine, id).await?;
    }
    let read = machine.commit()?.read;
    let state = state_of(&machine, read, id, machine.engine().disk_bytes());
    let restored = Restored {
        hard_state: replay.hard_state,
        conf_state: machine.conf_state().clone(),
        mark_index: replay.mark_index,
        mark_term: replay.mark_term,
        entries: replay.entries,
        applied: machine.applied(),
    };
    let known = machine.member(id).or_else(|| beginning.members.iter().find(|it| it.id == id));
    let Some(member) = known.cloned() else {
        return Err(not_a_member(&machine, id));
    };
    let urls = member.peer_urls.clone();
    let identity =
        Identity { cluster: cluster_id, member: id, urls, member_dir, machine: settings };
    let others = match machine.cluster().members().next() {
        Some(_) => Vec::new(),
        None => beginning.members.into_iter().filter(|other| other.id != id).collect(),
    };
    Ok(Opened { member, machine, state, wal, restored, cluster_id, identity, others })
}

fn not_a_member(machine: &Machine<FjallEngine>, id: MemberId) -> Fault {
    if machine.cluster().is_removed(id) {
        return Fault::new("the member has been permanently removed from the cluster");
    }
    Fault::new(format!("the data directory belongs to another member than {id:x}"))
}

/// An empty store: of a new member, or of one that lost what was not synced and has all of it in the log.
fn begin_state(
    machine: &mut Machine<FjallEngine>,
    replay: &Replay,
    beginning: &Beginning,
) -> Result<(), Fault> {
    if replay.mark_index == 0 && replay.conf_state.voters.is_empty() {
        // Joins; the leader sends the state.
        return Ok(());
    }
    let mut ids: Vec<_> = beginning.members.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    let begins = (replay.mark_index, replay.mark_term) == (ids.len() as u64, 1);
    if (!begins && replay.mark_index > 0) || replay.conf_state.voters != ids {
        return Err(Fault::new(
            "the store is gone, and the write-ahead log alone cannot replace it",
        ));
    }
    machine.bootstrap(beginning.members.clone())
}

/// Who the members are when nothing is on disk; with a log, only what the flags say.
fn begin(config: &Config, fresh: bool) -> Result<Beginning, Fault> {
    let member = |(_, urls): (&String, &Vec<String>)| {
        let mut peer_urls = urls.clone();
        peer_urls.sort();
        let id = member_id(&peer_urls, &config.token, None);
        Member { id, peer_urls, ..Member::default() }
    };
    let members: Vec<_> = config.initial_cluster.iter().map(member).collect();
    let mut own_urls = config.advertise_peers.clone();
    own_urls.sort();
    let own = members.iter().find(|member| member.peer_urls == own_urls);
    let Some(own) = own.cloned() else {
        return Err(Fault::new("the member is not in its own initial cluster"));
    };
    let ids: Vec<_> = members.iter().map(|member| member.id).collect();
    let cluster_id = cluster_id(&ids);
    let joins = config.joins_existing;
    let beginning = Beginning { cluster_id, id: own.id, members, joins };
    match (joins, fresh) {
        (true, _) => match ask_others(&beginning) {
            Some((cluster_id, members)) => join(config, beginning, cluster_id, members),
            None if fresh => Err(Fault::new(
                "cannot fetch cluster info from peer urls: could not retrieve cluster information \
                 from the given URLs",
            )),
            None => Ok(beginning),
        },
        (false, true) if beginning.members.len() > 1 => {
            refuse_second_start(&config.name, &beginning)?;
            Ok(beginning)
        }
        (false, _) => Ok(beginning),
    }
}

/// Asks the other members who is one, and what their cluster's id is.
fn ask_others(beginning: &Beginning) -> Option<(u64, Vec<Member>)> {
    let others = beginning.members.iter().filter(|member| member.id != beginning.id);
    others.flat_map(|member| &member.peer_urls).find_map(|url| {
        let (head, body) = io::get(address_of(url), "/members", ASK_TIME).ok()?;
        let id = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_it = name.eq_ignore_ascii_case("x-etcd-cluster-id");
            is_it.then(|| u64::from_str_radix(value.trim(), 16).ok()).flatten()
        })?;
        let members: Vec<Member> = serde_json::from_str(&body).ok()?;
        (!members.is_empty()).then_some((id, members))
    })
}

/// Takes the ids over that the running cluster has given; the flags must name the same members.
fn join(
    config: &Config,
    beginning: Beginning,
    cluster_id: u64,
    members: Vec<Member>,
) -> Result<Beginning, Fault> {
    let wrong = |why: String| Fault::new(format!("error validating peerURLs: {why}"));
    if members.len() != beginning.members.len() {
        return Err(wrong("member count is unequal".to_owned()));
    }
    let sorted = |member: &Member| {
        let mut urls = member.peer_urls.clone();
        urls.sort();
        urls
    };
    for given in &beginning.members {
        if !members.iter().any(|member| sorted(member) == given.peer_urls) {
            let urls = given.peer_urls.join(",");
            return Err(wrong(format!("unmatched member while checking PeerURLs ({urls})")));
        }
    }
    let mut own_urls = config.advertise_peers.clone();
    own_urls.sort();
    let own = members.iter().find(|member| sorted(member) == own_urls).map(|member| member.id);
    let id = own.ok_or_else(|| wrong(format!("{} is not among them", config.name)))?;
    Ok(Beginning { cluster_id, id, members, joins: true })
}

/// A member that has served and lost its data must not vote again as if it never had.
fn refuse_second_start(name: &str, beginning: &Beginning) -> Result<(), Fault> {
    let Some((cluster_id, members)) = ask_others(beginning) else { return Ok(()) };
    let has_served = |member: &Member| member.id == beginning.id && !member.client_urls.is_empty();
    if cluster_id == beginning.cluster_id && members.iter().any(has_served) {
        return Err(Fault::new(format!("member {name} has already been bootstrapped")));
    }
    Ok(())
}

/// Makes this member the only one: what was not committed goes, and everybody else is removed by entries of
/// their own, as if they had been removed one after the other.
async fn force(
    wal: &mut WalFile,
    replay: &mut Replay,
    machine: &Machine<FjallEngine>,
    id: MemberId,
) -> Result<(), Fault> {
    let HardState { term, vote, commit } = replay.hard_state;
    let commit = commit.max(machine.applied()).max(replay.mark_index);
    let kept = |entry: &&Entry| entry.index <= commit;
    let mut others: Vec<_> = machine.cluster().members().map(|member| member.id).collect();
    for entry in replay.entries.iter().filter(kept) {
        if entry.kind == EntryKind::ConfChange
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
    let term = term.max(replay.mark_term).max(replay.entries.last().map_or(0, |last| last.term));
    let removals = others.iter().zip(commit + 1..).map(|(other, index)| {
        let data = prost::Message::encode_to_vec(&cluster::remove(0, *other)).into();
        Record::Entry(Entry { index, term, kind: EntryKind::ConfChange, data })
    });
    let mut records: Vec<_> = removals.collect();
    let commit = commit + records.len() as u64;
    records.push(Record::HardState(HardState { term, vote, commit }));
    wal.append(&records).await?;
    let others: Vec<_> = others.iter().map(|other| format!("{other:x}")).collect();
    tracing::warn!(removed = ?others, "forcing a new cluster with this member alone");
    records.into_iter().try_for_each(|record| replay.take(record))
}
