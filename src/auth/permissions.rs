//! The published form: all users and roles as of one auth revision, and the checks that need nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_proto::authpb;
use basalt_proto::authpb::permission::Type;
use bytes::Bytes;

use super::builtin::{Capabilities, Capability};
use super::intervals::{cover, furthest};
use super::{Intervals, Principal, ROOT};
use crate::types::Refusal;

/// A kind of access to keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// They are read.
    Read,
    /// They are written or deleted.
    Write,
}

/// A user.
#[derive(Clone, PartialEq, Debug)]
pub struct User {
    stored: authpb::User,
    is_root: bool,
    capabilities: Capabilities,
}

impl User {
    pub(super) fn new(stored: authpb::User) -> Self {
        let is_root = stored.roles.iter().any(|role| role == ROOT);
        let capabilities = Capabilities::of(stored.roles.iter().map(String::as_str));
        Self { stored, is_root, capabilities }
    }

    /// The record.
    pub(super) fn stored(&self) -> &authpb::User {
        &self.stored
    }

    /// The bcrypt hash of the password, as text. Nothing that was hashed matches one that is no hash.
    pub fn password_hash(&self) -> &Bytes {
        &self.stored.password
    }

    /// True if no password identifies this user; only certificates and signed tokens do.
    pub fn has_no_password(&self) -> bool {
        self.stored.options.is_some_and(|options| options.no_password)
    }

    /// The roles, sorted.
    pub fn roles(&self) -> &[String] {
        &self.stored.roles
    }

    /// True if this user may do everything.
    pub fn is_root(&self) -> bool {
        self.is_root
    }
}

/// A role.
#[derive(Clone, PartialEq, Debug)]
pub struct AuthRole {
    stored: authpb::Role,
    read: Intervals,
    write: Intervals,
}

impl AuthRole {
    pub(super) fn new(stored: authpb::Role) -> Self {
        let of = |wanted: Type| {
            let granted = stored.key_permission.iter().filter(|it| {
                let kind = it.perm_type();
                kind == wanted || kind == Type::Readwrite
            });
            Intervals::new(granted.map(|it| (&it.key, &it.range_end)))
        };
        Self { read: of(Type::Read), write: of(Type::Write), stored }
    }

    /// The record.
    pub(super) fn stored(&self) -> &authpb::Role {
        &self.stored
    }

    /// The granted permissions, sorted by key.
    pub fn permissions(&self) -> &[authpb::Permission] {
        &self.stored.key_permission
    }

    fn ranges(&self, action: Action) -> &Intervals {
        match action {
            Action::Read => &self.read,
            Action::Write => &self.write,
        }
    }
}

/// All users and roles as of one auth revision. A copy shares them with the one it was made of.
#[derive(Clone, PartialEq, Debug)]
pub struct Permissions {
    pub(super) enabled: bool,
    /// All members know what auth is.
    pub(super) supported: bool,
    pub(super) revision: u64,
    pub(super) users: BTreeMap<Arc<str>, Arc<User>>,
    pub(super) roles: BTreeMap<Arc<str>, Arc<AuthRole>>,
}

impl Default for Permissions {
    fn default() -> Self {
        let (users, roles) = (BTreeMap::new(), BTreeMap::new());
        Self { enabled: false, supported: true, revision: 1, users, roles }
    }
}

impl Permissions {
    /// True if requests are checked.
    pub fn is_enabled(&self) -> bool {
        self.enabled && self.supported
    }

    /// True if requests should be checked and are not yet: the store came from elsewhere with auth enabled, and a member of
    /// the cluster does not check anything. Clients must not be served meanwhile.
    pub fn is_held_back(&self) -> bool {
        self.enabled && !self.supported
    }

    /// The auth revision; never 0.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(Arc::as_ref)
    }

    /// A role that was made.
    pub fn role(&self, name: &str) -> Option<&AuthRole> {
        self.roles.get(name).map(Arc::as_ref)
    }

    /// The names of all users, in the order of their bytes.
    pub fn user_names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(Arc::as_ref)
    }

    /// The names of all roles that were made, in the order of their bytes.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(Arc::as_ref)
    }

    /// The user that keys are checked against.
    ///
    /// # Errors
    /// In etcd's order: nobody asks, the identity is older than the last change, there is no such user.
    pub(super) fn subject(&self, who: Option<Principal<'_>>) -> Result<Subject<'_>, Refusal> {
        if !self.is_enabled() {
            return Ok(Subject { permissions: self, restricted: None });
        }
        let who = who.ok_or(Refusal::UserEmpty)?;
        if who.revision < self.revision {
            return Err(Refusal::AuthOldRevision);
        }
        let user = self.user(who.user).ok_or(Refusal::PermissionDenied)?;
        Ok(Subject { permissions: self, restricted: (!user.is_root).then_some(user) })
    }

    /// Checks that this user may do this to all keys from `key` to `range_end`, which are as in requests.
    ///
    /// # Errors
    /// Those of etcd, in its order.
    pub fn check_range(
        &self,
        who: Option<Principal<'_>>,
        action: Action,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Refusal> {
        self.subject(who)?.check(action, key, range_end)
    }

    /// True if this user may do this to all keys.
    pub fn covers_all(&self, who: Option<Principal<'_>>, action: Action) -> bool {
        // No key is before this one.
        self.check_range(who, action, b"\0", b"\0").is_ok()
    }

    /// Checks that the request has a user. One that is known by a certificate need not be in the store.
    ///
    /// # Errors
    /// It is nobody.
    pub fn check_any_user(&self, who: Option<Principal<'_>>) -> Result<(), Refusal> {
        if self.is_enabled() && who.is_none() { Err(Refusal::UserEmpty) } else { Ok(()) }
    }

    /// Checks that this user has the role root. The revision of the identity does not count.
    ///
    /// # Errors
    /// It is nobody, is not in the store, or has not.
    pub fn check_root(&self, who: Option<Principal<'_>>) -> Result<(), Refusal> {
        let user = self.administrator(who)?;
        if user.is_none_or(User::is_root) { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    /// Checks that this user has the role root, or a built-in role with this right.
    ///
    /// # Errors
    /// As [`Permissions::check_root`].
    pub fn check_capability(
        &self,
        who: Option<Principal<'_>>,
        capability: Capability,
    ) -> Result<(), Refusal> {
        let user = self.administrator(who)?;
        let may = |user: &User| user.is_root || user.capabilities.has(capability);
        if user.is_none_or(may) { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    /// Checks that this user may see this role: root may, and users who have it.
    ///
    /// # Errors
    /// As [`Permissions::check_root`].
    pub fn check_role_get(&self, who: Option<Principal<'_>>, role: &str) -> Result<(), Refusal> {
        let refused = self.check_capability(who, Capability::ReadAuth);
        let user = who.and_then(|who| self.user(who.user));
        match refused {
            Err(_) if user.is_some_and(|user| user.roles().iter().any(|own| own == role)) => Ok(()),
            other => other,
        }
    }

    /// Checks that this user may see that user: root may, and the user itself.
    ///
    /// # Errors
    /// As [`Permissions::check_root`].
    pub fn check_user_get(&self, who: Option<Principal<'_>>, user: &str) -> Result<(), Refusal> {
        match self.check_capability(who, Capability::ReadAuth) {
            // As by etcd, nobody is the user without a name, whom there is not.
            Err(_) if who.map_or("", |who| who.user) == user => Ok(()),
            other => other,
        }
    }

    /// The user who wants to do what not everybody may; none while nothing is checked.
    fn administrator(&self, who: Option<Principal<'_>>) -> Result<Option<&User>, Refusal> {
        if !self.is_enabled() {
            return Ok(None);
        }
        let who = who.filter(|who| !who.user.is_empty()).ok_or(Refusal::UserEmpty)?;
        self.user(who.user).ok_or(Refusal::UserNotFound).map(Some)
    }
}

/// The user that keys are checked against.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    permissions: &'a Permissions,
    /// None for who may do everything.
    restricted: Option<&'a User>,
}

impl<'a> Subject<'a> {
    pub(super) fn check(self, action: Action, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        let Some(user) = self.restricted else { return Ok(()) };
        match cover(self.ranges(user, action), key, range_end) {
            true => Ok(()),
            false => Err(Refusal::PermissionDenied),
        }
    }

    /// How far the keys go from this one on that the subject may use; `None` for all of them.
    pub(super) fn reach(self, action: Action, key: &[u8]) -> Result<Option<&'a [u8]>, Refusal> {
        let Some(user) = self.restricted else { return Ok(None) };
        furthest(self.ranges(user, action), key).ok_or(Refusal::PermissionDenied)
    }

    fn ranges(self, user: &'a User, action: Action) -> impl Iterator<Item = &'a Intervals> + Clone {
        let roles = user.roles().iter().filter_map(move |role| self.permissions.role(role));
        roles.map(move |role| role.ranges(action))
    }

    pub(super) fn is_unrestricted(self) -> bool {
        self.restricted.is_none()
    }
}
