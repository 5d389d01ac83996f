//! Which requests are logged: the value of `--audit-log-rules`.
//!
//! ```text
//!  skip rpc=reads; log user=alice prefix=/registry/secrets/; skip prefix=/registry/leases/
//! ```
//!
//! The first rule whose conditions all hold decides; a request that no rule is about is logged. Whatever the rules say,
//! refusals for lack of permission and what administers the cluster are logged.

use std::cell::LazyCell;

use crate::types::Code;
use basalt_proto::rpc::{METHODS, Rpc, Streaming, Unary};

use super::target::Target;

/// A kind of RPC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Reads keys.
    Reads,
    /// Writes keys.
    Writes,
    /// Watches keys.
    Watches,
    /// Grants, renews, reads and revokes leases.
    Leases,
    /// Locks and elections.
    Locks,
    /// Users, roles, members, maintenance: always logged.
    Admin,
    /// Health, status: what is asked by machines all the time and tells nothing of keys.
    Status,
}

impl Class {
    const NAMES: [(&str, Self); 7] = [
        ("reads", Self::Reads),
        ("writes", Self::Writes),
        ("watches", Self::Watches),
        ("leases", Self::Leases),
        ("locks", Self::Locks),
        ("admin", Self::Admin),
        ("status", Self::Status),
    ];

    /// The class of an RPC.
    pub fn of(rpc: Rpc) -> Self {
        match rpc {
            Rpc::Unary(rpc) => match rpc {
                Unary::KVRange => Self::Reads,
                Unary::KVPut | Unary::KVDeleteRange | Unary::KVTxn => Self::Writes,
                Unary::LeaseGrant
                | Unary::LeaseRevoke
                | Unary::LeaseTimeToLive
                | Unary::LeaseLeases => Self::Leases,
                Unary::Lock
                | Unary::LockUnlock
                | Unary::ElectionCampaign
                | Unary::ElectionLeader
                | Unary::ElectionProclaim
                | Unary::ElectionResign => Self::Locks,
                Unary::ClusterMemberList
                | Unary::MaintenanceStatus
                | Unary::MaintenanceHash
                | Unary::MaintenanceHashKV
                | Unary::AuthStatus
                | Unary::HealthCheck
                | Unary::HealthList => Self::Status,
                Unary::KVCompact
                | Unary::ClusterMemberAdd
                | Unary::ClusterMemberRemove
                | Unary::ClusterMemberUpdate
                | Unary::ClusterMemberPromote
                | Unary::MaintenanceAlarm
                | Unary::MaintenanceDefragment
                | Unary::MaintenanceMoveLeader
                | Unary::MaintenanceDowngrade
                | Unary::AuthEnable
                | Unary::AuthDisable
                | Unary::Authenticate
                | Unary::AuthUserAdd
                | Unary::AuthUserGet
                | Unary::AuthUserList
                | Unary::AuthUserDelete
                | Unary::AuthUserChangePassword
                | Unary::AuthUserGrantRole
                | Unary::AuthUserRevokeRole
                | Unary::AuthRoleAdd
                | Unary::AuthRoleGet
                | Unary::AuthRoleList
                | Unary::AuthRoleDelete
                | Unary::AuthRoleGrantPermission
                | Unary::AuthRoleRevokePermission => Self::Admin,
            },
            Rpc::Streaming(rpc) => match rpc {
                Streaming::KVRangeStream => Self::Reads,
                Streaming::Watch => Self::Watches,
                Streaming::LeaseKeepAlive => Self::Leases,
                Streaming::ElectionObserve => Self::Locks,
                Streaming::MaintenanceSnapshot => Self::Admin,
                Streaming::HealthWatch | Streaming::ServerReflectionInfo => Self::Status,
            },
        }
    }
}

/// The rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Rule {
    skips: bool,
    class: Option<Class>,
    rpc: Option<Rpc>,
    user: Option<String>,
    prefix: Option<String>,
}

impl Rules {
    /// Reads rules.
    ///
    /// # Errors
    /// The text names the mistake.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty());
        rules.map(Rule::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Tells if a request is logged, before it is known what comes of it. Its keys are looked at only if rules name prefixes.
    pub fn admits(&self, rpc: Rpc, user: Option<&str>, message: &[u8]) -> bool {
        if Class::of(rpc) == Class::Admin {
            return true;
        }
        let target = LazyCell::new(|| Target::of(rpc, message));
        let touches = |prefix: &str| target.touches(prefix.as_bytes());
        let rule = self.0.iter().find(|rule| rule.holds(rpc, user, touches));
        rule.is_none_or(|rule| !rule.skips)
    }

    /// Tells if a request is logged for what came of it.
    pub fn is_denial(code: i32) -> bool {
        code == Code::PermissionDenied as i32 || code == Code::Unauthenticated as i32
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let skips = match words.next() {
            Some("skip") => true,
            Some("log") => false,
            _ => return Err(format!("the rule {text:?} does not begin with log or skip")),
        };
        let mut rule = Self { skips, ..Self::default() };
        for word in words {
            match word.split_once('=') {
                Some(("rpc", name)) => rule.set_rpc(name)?,
                Some(("user", user)) => rule.user = Some(user.to_owned()),
                Some(("prefix", prefix)) => rule.prefix = Some(prefix.to_owned()),
                _ => {
                    return Err(format!(
                        "{word:?} in the rule {text:?} is none of rpc=, user= and prefix="
                    ));
                }
            }
        }
        Ok(rule)
    }

    fn set_rpc(&mut self, name: &str) -> Result<(), String> {
        if let Some((_, class)) = Class::NAMES.iter().find(|(known, _)| *known == name) {
            self.class = Some(*class);
            return Ok(());
        }
        let is_named = |path: &str| path == name || path.rsplit('/').next() == Some(name);
        let method = METHODS.iter().find(|method| is_named(method.path));
        let method = method.ok_or_else(|| format!("{name:?} is no RPC and no kind of them"))?;
        self.rpc = Some(method.rpc);
        Ok(())
    }

    fn holds(&self, rpc: Rpc, user: Option<&str>, touches: impl Fn(&str) -> bool) -> bool {
        self.class.is_none_or(|class| class == Class::of(rpc))
            && self.rpc.is_none_or(|wanted| wanted == rpc)
            && self.user.as_deref().is_none_or(|wanted| user == Some(wanted))
            && self.prefix.as_deref().is_none_or(touches)
    }
}
