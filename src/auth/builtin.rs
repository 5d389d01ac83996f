//! Roles for operators, which nobody has to make and which grant no keys. etcd passes over roles that it does not know, so
//! that a snapshot with them is no different to it.

/// Names that begin so are not given to other roles.
pub(super) const RESERVED: &str = "basalt:";

/// A right to an RPC that otherwise needs root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Capability {
    /// Take a snapshot.
    Snapshot,
    /// Hash the keys.
    HashKv,
    /// Hand the leadership over.
    MoveLeader,
    /// Defragment.
    Defragment,
    /// Compact.
    Compact,
    /// Raise and disarm alarms.
    Alarm,
    /// Read users and roles.
    ReadAuth,
}

impl Capability {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Several of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Capabilities(u8);

impl Capabilities {
    /// Those of users with these roles.
    pub(super) fn of<'a>(roles: impl Iterator<Item = &'a str>) -> Self {
        Self(roles.filter_map(granted_by).fold(0, |all, one| all | one.0))
    }

    pub(super) fn has(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }
}

/// The rights that a built-in role of this name grants; `None` if there is no such built-in role. Status, members and the list of
/// alarms are open to every user, and so to these.
pub(super) fn granted_by(role: &str) -> Option<Capabilities> {
    use Capability::{Alarm, Compact, Defragment, HashKv, MoveLeader, ReadAuth, Snapshot};
    let granted: &[Capability] = match role.strip_prefix(RESERVED)? {
        "backup" => &[Snapshot, HashKv],
        "monitor" => &[HashKv],
        "operator" => &[HashKv, MoveLeader, Defragment, Compact, Alarm],
        "auditor" => &[ReadAuth],
        _ => return None,
    };
    Some(Capabilities(granted.iter().fold(0, |all, one| all | one.bit())))
}
