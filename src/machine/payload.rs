//! Decoding of a log entry's payload.

use bytes::Bytes;
use prost::Message as _;

use crate::cluster::{Version, check_change, unknown_change};
use crate::command::Command;
use crate::types::{ConfChange, EntryKind, Fault, FeatureLevel, LogIndex};

/// Checks that a member that supports this feature level can apply an entry with this payload, independent of the
/// replicated state.
///
/// # Errors
/// The reason why it cannot.
pub fn check_payload(kind: EntryKind, data: &Bytes, supported: FeatureLevel) -> Result<(), Fault> {
    match kind {
        EntryKind::Normal if data.is_empty() => Ok(()),
        EntryKind::Normal => {
            let (_, command) = Command::decode(data.clone())?;
            command.check_supported(supported)?;
            match command {
                Command::ClusterVersionSet(set) => set.ver.parse::<Version>()?.check_served(),
                Command::Put(_)
                | Command::DeleteRange(_)
                | Command::Txn(_)
                | Command::Compaction(_)
                | Command::LeaseGrant(_)
                | Command::LeaseRevoke(_)
                | Command::LeaseExpire(_)
                | Command::Alarm(_)
                | Command::Auth(_)
                | Command::ClusterMemberAttrSet(_)
                | Command::FeatureLevelSet(_)
                | Command::TokenIssue(_)
                | Command::TokenRenew(_)
                | Command::TokenSweep(_) => Ok(()),
            }
        }
        EntryKind::ConfChange => check_change(&conf_change(data)?),
        EntryKind::ConfChangeV2 => Err(unknown_change()),
    }
}

pub(super) fn conf_change(data: &Bytes) -> Result<ConfChange, Fault> {
    let change = ConfChange::decode(data.clone());
    change.map_err(|error| Fault::new(format!("it does not read: {error}")))
}

/// The fault with which this member stops at an entry, with advice for the operator.
pub(super) fn stop(index: LogIndex, why: &Fault) -> Fault {
    Fault::new(format!(
        "entry {index} of the log cannot be applied: {why} (basaltutl verify --data-dir DIR tells what to do)"
    ))
}
