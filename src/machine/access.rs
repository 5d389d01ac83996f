//! Checks of permissions: where an entry is applied, against the state at its index, so that all members decide
//! alike; and before, where it is proposed, so that the log holds little that is refused.

use basalt_proto::etcdserverpb::RequestHeader;

use super::Machine;
use crate::auth::{Action, AttachedKeys, Permissions, Principal};
use crate::command::Command;
use crate::lease::Leases;
use crate::store::Engine;
use crate::types::{LeaseId, Refusal};

impl AttachedKeys for Leases {
    fn next(&self, lease: LeaseId, from: &[u8]) -> Option<&[u8]> {
        self.next_key(lease, from).map(AsRef::as_ref)
    }
}

/// Checks that a user may make this change. Commands that are not checked here are checked by the member that serves the request
/// alone, or is done by members in no client's name.
///
/// # Errors
/// etcd's refusals, in its order.
pub fn check_access(
    permissions: &Permissions,
    who: Option<Principal<'_>>,
    command: &Command,
    attached: &impl AttachedKeys,
) -> Result<(), Refusal> {
    match command {
        Command::Put(put) => permissions.check_put(who, put, attached),
        Command::DeleteRange(delete) => permissions.check_delete_range(who, delete),
        Command::Txn(txn) => permissions.check_txn(who, txn, attached),
        Command::LeaseRevoke(revoke) => {
            permissions.check_lease(who, Action::Write, revoke.id, attached)
        }
        Command::Auth(_) => permissions.check_root(who),
        Command::Compaction(_)
        | Command::LeaseGrant(_)
        | Command::LeaseExpire(_)
        | Command::Alarm(_)
        | Command::ClusterVersionSet(_)
        | Command::ClusterMemberAttrSet(_)
        | Command::FeatureLevelSet(_)
        | Command::TokenIssue(_)
        | Command::TokenRenew(_)
        | Command::TokenSweep(_) => Ok(()),
    }
}

impl<E: Engine> Machine<E> {
    pub(super) fn check_access(
        &self,
        header: &RequestHeader,
        command: &Command,
    ) -> Result<(), Refusal> {
        let permissions = self.auth.permissions();
        if !permissions.is_enabled() {
            return Ok(());
        }
        check_access(permissions, Principal::of(header), command, &self.leases)
    }

    /// Checks that this user may do this to all keys of a lease.
    ///
    /// # Errors
    /// The first refusal.
    pub fn check_lease(
        &self,
        who: Option<Principal<'_>>,
        action: Action,
        lease: LeaseId,
    ) -> Result<(), Refusal> {
        self.auth.permissions().check_lease(who, action, lease, &self.leases)
    }
}
