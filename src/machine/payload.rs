//! What an entry of the log asks for, read.

use basalt_proto::etcdserverpb::InternalRaftRequest;
use bytes::Bytes;
use prost::Message as _;

use crate::cluster::Version;
use crate::types::{ConfChange, EntryKind, Fault, LogIndex};

/// Whether a member of this version can apply an entry that holds this, in whatever state it is.
///
/// # Errors
/// What is wrong with it.
pub fn check_payload(kind: EntryKind, data: &Bytes) -> Result<(), Fault> {
    match kind {
        EntryKind::Normal if data.is_empty() => Ok(()),
        EntryKind::Normal => match request(data)?.cluster_version_set {
            Some(set) => set.ver.parse::<Version>()?.check_served(),
            None => Ok(()),
        },
        EntryKind::ConfChange => conf_change(data).map(drop),
        EntryKind::ConfChangeV2 => Err(unknown_change()),
    }
}

pub(super) fn request(data: &Bytes) -> Result<InternalRaftRequest, Fault> {
    let request = InternalRaftRequest::decode(data.clone());
    let request = request.map_err(|error| Fault::new(format!("it does not read: {error}")))?;
    match operation(&request) {
        "" => Err(Fault::new("it asks for something unknown")),
        _ => Ok(request),
    }
}

pub(super) fn conf_change(data: &Bytes) -> Result<ConfChange, Fault> {
    let change = ConfChange::decode(data.clone());
    change.map_err(|error| Fault::new(format!("it does not read: {error}")))
}

pub(super) fn unknown_change() -> Fault {
    Fault::new("it changes the members in a way that this version does not know")
}

/// Why this member stops at an entry, and where its operator learns what to do.
pub(super) fn stop(index: LogIndex, why: &Fault) -> Fault {
    Fault::new(format!(
        "entry {index} of the log cannot be applied: {why} (basaltutl verify --data-dir DIR tells what to do)"
    ))
}

/// etcd's name of what is asked for; empty for what this version does not know.
pub(super) fn operation(request: &InternalRaftRequest) -> &'static str {
    let asked = [
        (request.put.is_some(), "Put"),
        (request.txn.is_some(), "Txn"),
        (request.delete_range.is_some(), "DeleteRange"),
        (request.compaction.is_some(), "Compaction"),
        (request.lease_grant.is_some(), "LeaseGrant"),
        (request.lease_revoke.is_some() || request.lease_expire.is_some(), "LeaseRevoke"),
        (request.alarm.is_some(), "Alarm"),
        (request.cluster_member_attr_set.is_some(), "ClusterMemberAttrSet"),
        (request.cluster_version_set.is_some(), "ClusterVersionSet"),
    ];
    asked.iter().find(|(asked, _)| *asked).map_or("", |(_, name)| name)
}
