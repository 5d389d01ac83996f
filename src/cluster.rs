//! The membership: members, cluster version and feature level, and ids computed as etcd does. Never dials anybody.

mod agreement;
mod change;
mod hashes;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::store::{Overlay, Space, View};
use crate::types::{
    ConfChange, ConfChangeKind, ConfState, Error, Fault, FeatureLevel, LogIndex, MemberId, Refusal,
};

use self::change::{Change, json};

pub use self::agreement::{Fit, Versions, decide, level_to_set, may_join};
pub use self::change::{add, check_change, promote, remove, unknown_change, update};
pub use self::hashes::{HashKvReply, corrupt_member, minority};
pub use self::version::Version;

/// Key of the cluster version in etcd's `cluster` bucket.
const VERSION: &[u8] = b"clusterVersion";
/// Key of the feature level in that bucket; not etcd's, which ignores it.
pub const FEATURE_LEVEL: &[u8] = b"featureLevel";

/// A member as etcd stores it: JSON under its id in 16 hex digits.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// URLs for other members.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// True for a member without a vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// The member's name; empty until it has started once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// URLs for clients.
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

/// True if enough members have started for one more voter, which has not started yet, to leave a quorum of started
/// ones. A single member may always get a second one.
pub fn is_ready_to_add(members: &[Member]) -> bool {
    let (started, voters) = started(members.iter());
    (started == 1 && voters == 1) || started > voters.div_ceil(2)
}

/// True if the started members, without this one, would be a quorum of the members without it.
pub fn is_ready_to_remove(members: &[Member], id: MemberId) -> bool {
    let (started, voters) = started(members.iter().filter(|member| member.id != id));
    // The last member stays.
    voters > 0 && started > voters / 2
}

/// True if a learner's log, which matches up to `matched`, is close enough to the leader's, which ends at `last`, for a
/// vote: etcd's rule is nine tenths (`server/etcdserver/server.go`, `readyPercentThreshold`).
pub fn is_caught_up(matched: LogIndex, last: LogIndex) -> bool {
    matched as f64 >= last as f64 * 0.9
}

/// True if the started members, and this learner, would be a quorum of the members with it.
pub fn is_ready_to_promote(members: &[Member]) -> bool {
    let (started, voters) = started(members.iter());
    started + 1 > voters.div_ceil(2)
}

/// Number of started voters, and of all voters.
fn started<'a>(members: impl Iterator<Item = &'a Member>) -> (usize, usize) {
    let voters = members.filter(|member| !member.is_learner);
    voters.fold((0, 0), |(started, all), member| {
        (started + usize::from(!member.name.is_empty()), all + 1)
    })
}

/// A member's id: the first eight bytes of the SHA-1 of its sorted peer URLs and the cluster's token, and for one that
/// was added to a running cluster the time in seconds.
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

/// The cluster's id: the first eight bytes of the SHA-1 of its first members' sorted ids.
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
#[derive(Debug)]
pub struct Cluster {
    members: BTreeMap<MemberId, Member>,
    removed: BTreeSet<MemberId>,
    version: Option<Version>,
    feature_level: FeatureLevel,
}

impl Default for Cluster {
    fn default() -> Self {
        let (members, removed) = (BTreeMap::new(), BTreeSet::new());
        Self { members, removed, version: None, feature_level: FeatureLevel::INITIAL }
    }
}

impl Cluster {
    /// Reads the membership.
    ///
    /// # Errors
    /// The store cannot be read, or holds a damaged member, or a version or a feature level that this server
    /// does not support.
    pub fn open(view: &impl View, supported: FeatureLevel) -> Result<Self, Fault> {
        let mut cluster = Self::default();
        for pair in view.scan(Space::Members, Bound::Unbounded, Bound::Unbounded) {
            let member: Member = serde_json::from_slice(&pair?.1).map_err(|error| {
                Fault::new(format!("a member in the store does not read: {error}"))
            })?;
            cluster.members.insert(member.id, member);
        }
        for pair in view.scan(Space::MembersRemoved, Bound::Unbounded, Bound::Unbounded) {
            cluster.removed.insert(id_of(&pair?.0)?);
        }
        cluster.version = cluster_version(view)?;
        cluster.version.map_or(Ok(()), Version::check_served)?;
        cluster.feature_level = feature_level(view)?;
        check_feature_level(cluster.feature_level, supported)?;
        Ok(cluster)
    }

    /// Adds a member, or replaces its stored state.
    pub fn put<V: View>(&mut self, tx: &mut Overlay<V>, member: Member) {
        tx.put(Space::Members, key(member.id), json(&member));
        self.members.insert(member.id, member);
    }

    /// Removes a member for good: its id may not be added again.
    pub fn remove<V: View>(&mut self, tx: &mut Overlay<V>, id: MemberId) {
        tx.delete(Space::Members, key(id));
        tx.put(Space::MembersRemoved, key(id), Bytes::from_static(b"removed"));
        self.members.remove(&id);
        self.removed.insert(id);
    }

    /// Applies a change, unless it contradicts the present members; `conf_state` is changed alike. `learners_max` is this
    /// member's own limit, which counts only for proposals without one, from clusters below the level that added it.
    ///
    /// # Errors
    /// etcd's refusals; a fault if this version does not know the kind of change.
    pub fn change<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        change: &ConfChange,
        learners_max: usize,
        conf_state: &mut ConfState,
    ) -> Result<(), Error> {
        let id = change.member;
        let asked = change::read(change)?;
        if self.removed.contains(&id) {
            return Err(Refusal::MemberNotFound.into());
        }
        let known = self.members.get(&id).cloned().ok_or(Refusal::MemberNotFound);
        match asked {
            Change::Promote(_) => {
                let member = known?;
                if !member.is_learner {
                    return Err(Refusal::MemberNotLearner.into());
                }
                self.put(tx, Member { is_learner: false, ..member });
            }
            Change::Add(member, proposed) => {
                let max = change::learners_max(self.feature_level, proposed, learners_max);
                self.check_new(&member, max)?;
                self.put(tx, member);
            }
            Change::Remove(_) => {
                known?;
                if conf_state.voters == [id] {
                    return Err(Refusal::MemberNotEnoughStarted.into());
                }
                self.remove(tx, id);
            }
            Change::Update(_, peer_urls) => {
                let member = known?;
                self.check_urls(id, &peer_urls)?;
                self.put(tx, Member { peer_urls, ..member });
            }
        }
        follow(conf_state, change.kind(), id);
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

    /// Ids of members that were removed for good.
    pub fn removed(&self) -> impl Iterator<Item = MemberId> {
        self.removed.iter().copied()
    }

    /// Sets the name and client URLs that a member published; ignored if it is no member any more.
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

    /// Sets the cluster version.
    ///
    /// # Errors
    /// This server is too old for it, or the text is not a version.
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

    /// The cluster version; `None` until it is decided.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Raises the feature level of the cluster, which never falls.
    ///
    /// # Errors
    /// This member does not support it.
    pub fn set_feature_level<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        level: FeatureLevel,
        supported: FeatureLevel,
    ) -> Result<(), Fault> {
        check_feature_level(level, supported)?;
        if level > self.feature_level {
            let text = level.to_string();
            tx.put(Space::Cluster, Bytes::from_static(FEATURE_LEVEL), text.into());
            self.feature_level = level;
        }
        Ok(())
    }

    /// The feature level that all members support.
    pub fn feature_level(&self) -> FeatureLevel {
        self.feature_level
    }

    /// All members by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// True if a member was removed for good.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }
}

/// The cluster version in a view of the store; `None` until it is decided.
///
/// # Errors
/// The store cannot be read, or the value is not a version.
pub fn cluster_version(view: &impl View) -> Result<Option<Version>, Fault> {
    let version = view.get(Space::Cluster, VERSION)?;
    version.map(|bytes| String::from_utf8_lossy(&bytes).parse()).transpose()
}

/// The feature level of the cluster in a view of the store.
///
/// # Errors
/// The store cannot be read, or the value is not a level.
pub fn feature_level(view: &impl View) -> Result<FeatureLevel, Fault> {
    let text = view.get(Space::Cluster, FEATURE_LEVEL)?;
    text.map_or(Ok(FeatureLevel::INITIAL), |text| read_feature_level(&text))
}

/// Parses the stored feature level of a cluster.
///
/// # Errors
/// The text is not a level.
pub fn read_feature_level(text: &[u8]) -> Result<FeatureLevel, Fault> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let number = number.filter(|number| *number > 0);
    number
        .map(FeatureLevel::new)
        .ok_or_else(|| Fault::new("the feature level in the store does not read back"))
}

/// Checks that a member that supports level `supported` can belong to a cluster that agreed on level `agreed`.
///
/// # Errors
/// The cluster's level is the higher one.
pub fn check_feature_level(agreed: FeatureLevel, supported: FeatureLevel) -> Result<(), Fault> {
    if agreed <= supported {
        return Ok(());
    }
    Err(Fault::new(format!(
        "the cluster has agreed on feature level {agreed}, and this version supports {supported}: start the member \
         with a version that supports level {agreed}"
    )))
}

/// Applies the change to raft's configuration.
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

/// The inverse of [`key`].
fn id_of(key: &[u8]) -> Result<MemberId, Fault> {
    let id = std::str::from_utf8(key).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
    id.ok_or_else(|| {
        let text = String::from_utf8_lossy(key);
        Fault::new(format!("the store holds {text:?} where it lists the ids of removed members"))
    })
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
