//! Who is a member, what version all members speak, and the ids of both, computed as etcd does.

mod agreement;
mod hashes;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::store::{Overlay, Space, View};
use crate::types::{ConfChange, ConfChangeKind, ConfState, Fault, LogIndex, MemberId, Refusal};

pub use self::agreement::{Fit, Versions, decide, may_join};
pub use self::hashes::{Hashed, corrupt_member, minority};
pub use self::version::Version;

/// Key of the cluster version in etcd's `cluster` bucket.
const VERSION: &[u8] = b"clusterVersion";

/// A member as etcd stores it: JSON under its id in 16 hex digits.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Where other members reach it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Follows without a vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Empty until it has started once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it.
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

/// What the context of a [`ConfChange`] holds: the member, and whether it is a learner that gets a vote.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Context {
    #[serde(flatten)]
    member: Member,
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
}

/// The change that brings a member in.
pub fn add(request: u64, member: &Member) -> ConfChange {
    let kind =
        if member.is_learner { ConfChangeKind::AddLearner } else { ConfChangeKind::AddVoter };
    change(request, kind, member, false)
}

/// The change that gives a learner a vote.
pub fn promote(request: u64, id: MemberId) -> ConfChange {
    let member = Member { id, ..Member::default() };
    change(request, ConfChangeKind::AddVoter, &member, true)
}

/// The change of where a member is reached.
pub fn update(request: u64, id: MemberId, peer_urls: Vec<String>) -> ConfChange {
    let member = Member { id, peer_urls, ..Member::default() };
    change(request, ConfChangeKind::Update, &member, false)
}

/// The change that takes a member away.
pub fn remove(request: u64, id: MemberId) -> ConfChange {
    ConfChange { request, kind: ConfChangeKind::Remove as i32, member: id, context: Bytes::new() }
}

fn change(request: u64, kind: ConfChangeKind, member: &Member, is_promote: bool) -> ConfChange {
    let context = Context { member: member.clone(), is_promote };
    let context = serde_json::to_vec(&context).unwrap_or_default().into();
    ConfChange { request, kind: kind as i32, member: member.id, context }
}

/// Whether enough members have started for one more voter, who has not, to leave a quorum of those that have.
/// A lone member may always get a second one.
pub fn is_ready_to_add(members: &[Member]) -> bool {
    let (started, voters) = started(members.iter());
    (started == 1 && voters == 1) || started > voters.div_ceil(2)
}

/// Whether those that have started, without this one, would be a quorum without it.
pub fn is_ready_to_remove(members: &[Member], id: MemberId) -> bool {
    let (started, voters) = started(members.iter().filter(|member| member.id != id));
    // The last one stays.
    voters > 0 && started > voters / 2
}

/// Whether a learner's log, which matches up to `matched`, is close enough to the leader's, which ends at `last`, for a vote:
/// etcd's rule is nine tenths (`server/etcdserver/server.go`, `readyPercentThreshold`).
pub fn is_caught_up(matched: LogIndex, last: LogIndex) -> bool {
    matched as f64 >= last as f64 * 0.9
}

/// Whether those that have started, and this learner, would be a quorum with it.
pub fn is_ready_to_promote(members: &[Member]) -> bool {
    let (started, voters) = started(members.iter());
    started + 1 > voters.div_ceil(2)
}

/// How many voters have started, and how many there are.
fn started<'a>(members: impl Iterator<Item = &'a Member>) -> (usize, usize) {
    let voters = members.filter(|member| !member.is_learner);
    voters.fold((0, 0), |(started, all), member| {
        (started + usize::from(!member.name.is_empty()), all + 1)
    })
}

/// A member's id: the beginning of the SHA-1 of its sorted peer URLs and the cluster's token, and for one
/// that was added to a running cluster the time in seconds.
pub fn member_id(peer_urls: &[String], token: &str, added_s: Option<i64>) -> MemberId {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let mut hash = Sha1::new();
    hash.update(urls.concat());
    hash.update(token);
    if let Some(seconds) = added_s {
        hash.update(seconds.to_string());
    }
    first_8(&hash.finalize())
}

/// The cluster's id: the beginning of the SHA-1 of its first members' sorted ids.
pub fn cluster_id(members: &[MemberId]) -> u64 {
    let sorted: BTreeSet<_> = members.iter().collect();
    let mut hash = Sha1::new();
    for id in sorted {
        hash.update(id.to_be_bytes());
    }
    first_8(&hash.finalize())
}

fn first_8(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// The replicated membership.
#[derive(Debug, Default)]
pub struct Cluster {
    members: BTreeMap<MemberId, Member>,
    removed: BTreeSet<MemberId>,
    version: Option<Version>,
}

impl Cluster {
    /// Reads the membership.
    ///
    /// # Errors
    /// The store cannot be read, or holds what is no member or a version that this server cannot serve.
    pub fn open(view: &impl View) -> Result<Self, Fault> {
        let mut cluster = Self::default();
        for pair in view.scan(Space::Members, Bound::Unbounded, Bound::Unbounded) {
            let member: Member = serde_json::from_slice(&pair?.1).map_err(|error| {
                Fault::new(format!("a member in the store does not read: {error}"))
            })?;
            cluster.members.insert(member.id, member);
        }
        for pair in view.scan(Space::MembersRemoved, Bound::Unbounded, Bound::Unbounded) {
            let key = pair?.0;
            let id =
                std::str::from_utf8(&key).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
            cluster.removed.extend(id);
        }
        cluster.version = spoken(view)?;
        cluster.version.map_or(Ok(()), Version::check_served)?;
        Ok(cluster)
    }

    /// Adds a member, or replaces what is known of it.
    pub fn put<V: View>(&mut self, tx: &mut Overlay<V>, member: Member) {
        // A struct of strings and numbers always has a JSON form.
        let json = serde_json::to_vec(&member).unwrap_or_default();
        tx.put(Space::Members, key(member.id), json.into());
        self.members.insert(member.id, member);
    }

    /// Removes a member for good: its id may not come back.
    pub fn remove<V: View>(&mut self, tx: &mut Overlay<V>, id: MemberId) {
        tx.delete(Space::Members, key(id));
        tx.put(Space::MembersRemoved, key(id), Bytes::from_static(b"removed"));
        self.members.remove(&id);
        self.removed.insert(id);
    }

    /// Takes a change over, unless it makes no sense any more; `conf_state` follows.
    ///
    /// # Errors
    /// etcd's refusals.
    pub fn change<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        change: &ConfChange,
        learners_max: usize,
        conf_state: &mut ConfState,
    ) -> Result<(), Refusal> {
        let id = change.member;
        let kind = ConfChangeKind::try_from(change.kind).map_err(|_| Refusal::MemberNotFound)?;
        if self.removed.contains(&id) {
            return Err(Refusal::MemberNotFound);
        }
        let known = self.members.get(&id).cloned();
        let context: Context = serde_json::from_slice(&change.context).unwrap_or_default();
        match kind {
            ConfChangeKind::AddVoter if context.is_promote => {
                let member = known.ok_or(Refusal::MemberNotFound)?;
                if !member.is_learner {
                    return Err(Refusal::MemberNotLearner);
                }
                self.put(tx, Member { is_learner: false, ..member });
            }
            ConfChangeKind::AddVoter | ConfChangeKind::AddLearner => {
                self.check_new(&context.member, learners_max)?;
                self.put(tx, context.member);
            }
            ConfChangeKind::Remove => {
                known.ok_or(Refusal::MemberNotFound)?;
                if conf_state.voters == [id] {
                    return Err(Refusal::MemberNotEnoughStarted);
                }
                self.remove(tx, id);
            }
            ConfChangeKind::Update => {
                let member = known.ok_or(Refusal::MemberNotFound)?;
                self.check_urls(id, &context.member.peer_urls)?;
                self.put(tx, Member { peer_urls: context.member.peer_urls, ..member });
            }
        }
        follow(conf_state, kind, id);
        Ok(())
    }

    fn check_new(&self, member: &Member, learners_max: usize) -> Result<(), Refusal> {
        if self.members.contains_key(&member.id) {
            return Err(Refusal::MemberExist);
        }
        self.check_urls(member.id, &member.peer_urls)?;
        let learners = self.members.values().filter(|member| member.is_learner).count();
        if member.is_learner && learners >= learners_max {
            return Err(Refusal::TooManyLearners);
        }
        Ok(())
    }

    fn check_urls(&self, id: MemberId, urls: &[String]) -> Result<(), Refusal> {
        let others = self.members.values().filter(|member| member.id != id);
        let mut taken = others.flat_map(|member| &member.peer_urls);
        if taken.any(|url| urls.contains(url)) { Err(Refusal::PeerURLExist) } else { Ok(()) }
    }

    /// Members that were removed for good.
    pub fn removed(&self) -> impl Iterator<Item = MemberId> {
        self.removed.iter().copied()
    }

    /// What a member tells of itself; one that is not there any more is passed over.
    pub fn set_attributes<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        id: MemberId,
        name: String,
        client_urls: Vec<String>,
    ) {
        if let Some(member) = self.members.get(&id).cloned() {
            self.put(tx, Member { name, client_urls, ..member });
        }
    }

    /// The version that all members speak from now on.
    ///
    /// # Errors
    /// This server is too old for it, or it is none.
    pub fn set_version<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        version: &str,
    ) -> Result<(), Fault> {
        let version: Version = version.parse()?;
        version.check_served()?;
        tx.put(Space::Cluster, Bytes::from_static(VERSION), version.to_string().into());
        self.version = Some(version);
        Ok(())
    }

    /// The version that all members speak; `None` until it is decided.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// All members by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Whether a member was removed for good.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }
}

/// The version that all members speak, as a view of the store has it; `None` until it is decided.
///
/// # Errors
/// The store cannot be read, or what it holds is no version.
pub fn spoken(view: &impl View) -> Result<Option<Version>, Fault> {
    let version = view.get(Space::Cluster, VERSION)?;
    version.map(|bytes| String::from_utf8_lossy(&bytes).parse()).transpose()
}

/// The same change as raft sees it.
fn follow(conf_state: &mut ConfState, kind: ConfChangeKind, id: MemberId) {
    if kind == ConfChangeKind::Update {
        return;
    }
    conf_state.voters.retain(|voter| *voter != id);
    conf_state.learners.retain(|learner| *learner != id);
    match kind {
        ConfChangeKind::AddVoter => conf_state.voters.push(id),
        ConfChangeKind::AddLearner => conf_state.learners.push(id),
        ConfChangeKind::Remove | ConfChangeKind::Update => (),
    }
    conf_state.voters.sort_unstable();
    conf_state.learners.sort_unstable();
}

fn key(id: MemberId) -> Bytes {
    format!("{id:016x}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_computes() {
        // etcd 3.7.1 started with its defaults reports these.
        let id = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster", None);
        assert_eq!(format!("{id:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[id])), "cdf818194e3a8c32");
        // Three of them, with `--initial-cluster-token tok`.
        let url = |port: u16| vec![format!("http://127.0.0.1:{port}")];
        let ids = [24001, 24002, 24003].map(|port| member_id(&url(port), "tok", None));
        let told = ids.map(|id| format!("{id:x}"));
        assert_eq!(told, ["299871dd77aa1817", "ee6aaa71eeb8edfa", "95f0b88805db323f"]);
        assert_eq!(format!("{:x}", cluster_id(&ids)), "f22dcb560fa773c3");
    }
}
