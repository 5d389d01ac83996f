//! Changes by entries: of users, roles, and of the switch that enables auth. Each change writes the records that etcd would, and raises the auth
//! revision by one unless its comment says otherwise.

use std::ops::Bound;
use std::sync::Arc;

use basalt_proto::authpb;
use basalt_proto::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;

use super::builtin::{RESERVED, granted_by};
use super::{AuthRole, Permissions, ROOT, User};
use crate::store::{Overlay, Space, View};
use crate::types::limits::{
    AUTH_BYTES_MAX, AUTH_NAME_BYTES_MAX, AUTH_PERMISSIONS_MAX, AUTH_RECORD_BYTES_MAX,
    AUTH_ROLES_MAX, AUTH_USERS_MAX,
};
use crate::types::{Fault, Refusal};

/// etcd's keys.
const ENABLED: &[u8] = b"authEnabled";
const REVISION: &[u8] = b"authRevision";

/// True if this pair of etcd's bucket `auth` says that auth is on.
pub fn is_enabled(key: &[u8], value: &[u8]) -> bool {
    key == ENABLED && value == [1]
}

/// The effect of an entry. Tokens follow it: all of them go when auth is disabled, and a user's when it is deleted or its password
/// is another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Auth is on.
    Enabled,
    /// Auth is off.
    Disabled,
    /// There is a new user.
    UserAdded(String),
    /// A user is gone.
    UserDeleted(String),
    /// A user has another password.
    PasswordChanged(String),
    /// A user has another role.
    RoleGranted {
        /// The user.
        user: String,
        /// All its roles.
        roles: Vec<String>,
        /// The one that is new.
        added: String,
    },
    /// A user has lost a role.
    RoleRevoked {
        /// The user.
        user: String,
        /// The roles that it had.
        old: Vec<String>,
        /// Those that are left.
        new: Vec<String>,
        /// The one that is gone.
        revoked: String,
    },
    /// There is a new role.
    RoleAdded(String),
    /// A role is gone, from all users, too.
    RoleDeleted(String),
    /// A role grants a permission.
    PermissionGranted(String),
    /// A role does not grant a permission any more.
    PermissionRevoked {
        /// The role.
        role: String,
        /// The key.
        key: Bytes,
        /// The end of the range.
        range_end: Bytes,
    },
}

/// The result of a change: `None` if nothing had to change.
type Changed = Result<Option<Change>, Refusal>;

/// The replicated users and roles.
#[derive(Debug)]
pub struct Auth {
    permissions: Arc<Permissions>,
    /// Permissions of all roles, and bytes of all records.
    granted: usize,
    bytes: usize,
}

impl Auth {
    /// Reads users and roles. While not all members know of auth (`supported`), nothing is checked: those that do not know of it
    /// check nothing either, and all must decide alike.
    ///
    /// # Errors
    /// The store cannot be read, or holds what is no user or role.
    pub fn open(view: &impl View, supported: bool) -> Result<Self, Fault> {
        let mut permissions = Permissions { supported, ..Permissions::default() };
        permissions.enabled =
            view.get(Space::Auth, ENABLED)?.is_some_and(|it| is_enabled(ENABLED, &it));
        if let Some(revision) = view.get(Space::Auth, REVISION)? {
            let bytes = revision[..].try_into();
            let bytes = bytes
                .map_err(|_| Fault::new("the auth revision in the store does not read back"))?;
            permissions.revision = u64::from_be_bytes(bytes).max(1);
        }
        let mut bytes = 0;
        for pair in view.scan(Space::AuthUsers, Bound::Unbounded, Bound::Unbounded) {
            let (key, record) = pair?;
            bytes += record.len();
            let user = authpb::User::decode(record)
                .map_err(|_| Fault::new("a user in the store does not read back"))?;
            permissions.users.insert(name(&key)?, Arc::new(User::new(user)));
        }
        for pair in view.scan(Space::AuthRoles, Bound::Unbounded, Bound::Unbounded) {
            let (key, record) = pair?;
            bytes += record.len();
            let role = authpb::Role::decode(record)
                .map_err(|_| Fault::new("a role in the store does not read back"))?;
            permissions.roles.insert(name(&key)?, Arc::new(AuthRole::new(role)));
        }
        let granted = permissions.roles.values().map(|role| role.permissions().len()).sum();
        Ok(Self { permissions: Arc::new(permissions), granted, bytes })
    }

    /// The present permissions. A copy of the pointer does not change.
    pub fn permissions(&self) -> &Arc<Permissions> {
        &self.permissions
    }

    /// All members know of auth from now on.
    pub fn set_supported(&mut self) {
        if !self.permissions.supported {
            self.next().supported = true;
        }
    }

    /// The permissions to change: those that others hold stay as they are.
    fn next(&mut self) -> &mut Permissions {
        Arc::make_mut(&mut self.permissions)
    }

    fn raise_revision<V: View>(&mut self, tx: &mut Overlay<V>) {
        let next = self.next();
        next.revision += 1;
        let revision = Bytes::copy_from_slice(&next.revision.to_be_bytes());
        tx.put(Space::Auth, Bytes::from_static(REVISION), revision);
    }

    fn set_enabled<V: View>(&mut self, tx: &mut Overlay<V>, enabled: bool) {
        self.next().enabled = enabled;
        let byte = Bytes::copy_from_slice(&[u8::from(enabled)]);
        tx.put(Space::Auth, Bytes::from_static(ENABLED), byte);
    }

    /// Turns checks on. The revision stays.
    ///
    /// # Errors
    /// There is no user root with the role root.
    pub fn enable<V: View>(&mut self, tx: &mut Overlay<V>) -> Changed {
        if self.permissions.enabled {
            return Ok(None);
        }
        let root = self.permissions.user(ROOT).ok_or(Refusal::RootUserNotExist)?;
        if !root.is_root() {
            return Err(Refusal::RootRoleNotExist);
        }
        self.set_enabled(tx, true);
        // etcd's file has a revision from the beginning on.
        let revision = Bytes::copy_from_slice(&self.permissions.revision.to_be_bytes());
        tx.put(Space::Auth, Bytes::from_static(REVISION), revision);
        Ok(Some(Change::Enabled))
    }

    /// Turns checks off.
    ///
    /// # Errors
    /// None.
    pub fn disable<V: View>(&mut self, tx: &mut Overlay<V>) -> Changed {
        if !self.permissions.enabled {
            return Ok(None);
        }
        self.set_enabled(tx, false);
        self.raise_revision(tx);
        Ok(Some(Change::Disabled))
    }

    /// Adds a user, whose password comes as a hash in base64.
    ///
    /// # Errors
    /// The name is empty, too long or taken, the hash no base64, or there are too many users.
    pub fn user_add<V: View>(&mut self, tx: &mut Overlay<V>, add: &AuthUserAddRequest) -> Changed {
        if add.name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        if self.permissions.user(&add.name).is_some() {
            return Err(Refusal::UserAlreadyExist);
        }
        check_name(&add.name)?;
        if self.permissions.users.len() >= AUTH_USERS_MAX {
            return Err(Refusal::TooManyUsers);
        }
        let options = add.options.unwrap_or_default();
        let password = match options.no_password {
            true => Bytes::new(),
            false => hash_of(&add.hashed_password)?,
        };
        self.put_user(
            tx,
            authpb::User {
                name: Bytes::copy_from_slice(add.name.as_bytes()),
                password,
                roles: Vec::new(),
                options: Some(options),
            },
        )?;
        self.raise_revision(tx);
        Ok(Some(Change::UserAdded(add.name.clone())))
    }

    /// Deletes a user.
    ///
    /// # Errors
    /// It is root while auth is on, or is not there.
    pub fn user_delete<V: View>(&mut self, tx: &mut Overlay<V>, name: &str) -> Changed {
        if self.permissions.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthMgmt);
        }
        let user = self.permissions.user(name).ok_or(Refusal::UserNotFound)?;
        self.bytes -= user.stored().encoded_len();
        self.next().users.remove(name);
        tx.delete(Space::AuthUsers, Bytes::copy_from_slice(name.as_bytes()));
        self.raise_revision(tx);
        Ok(Some(Change::UserDeleted(name.to_owned())))
    }

    /// Gives a user another password. One that has none goes on without.
    ///
    /// # Errors
    /// It is not there, or the hash is no base64.
    pub fn user_change_password<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        change: &AuthUserChangePasswordRequest,
    ) -> Changed {
        let user = self.permissions.user(&change.name).ok_or(Refusal::UserNotFound)?;
        let mut stored = user.stored().clone();
        stored.password = match user.has_no_password() {
            true => Bytes::new(),
            false => hash_of(&change.hashed_password)?,
        };
        self.put_user(tx, stored)?;
        self.raise_revision(tx);
        Ok(Some(Change::PasswordChanged(change.name.clone())))
    }

    /// Gives a user a role. One that it has already changes nothing.
    ///
    /// # Errors
    /// The user or the role is not there.
    pub fn user_grant_role<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        user: &str,
        role: &str,
    ) -> Changed {
        let stored = self.permissions.user(user).ok_or(Refusal::UserNotFound)?.stored();
        let exists =
            role == ROOT || granted_by(role).is_some() || self.permissions.role(role).is_some();
        if !exists {
            return Err(Refusal::RoleNotFound);
        }
        let Err(at) = stored.roles.binary_search_by(|own| own.as_str().cmp(role)) else {
            return Ok(None);
        };
        let mut stored = stored.clone();
        stored.roles.insert(at, role.to_owned());
        let roles = stored.roles.clone();
        self.put_user(tx, stored)?;
        self.raise_revision(tx);
        let (user, added) = (user.to_owned(), role.to_owned());
        Ok(Some(Change::RoleGranted { user, roles, added }))
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    /// It is root's while auth is on, the user is not there or has no such role.
    pub fn user_revoke_role<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        user: &str,
        role: &str,
    ) -> Changed {
        if self.permissions.enabled && user == ROOT && role == ROOT {
            return Err(Refusal::InvalidAuthMgmt);
        }
        let old = self.permissions.user(user).ok_or(Refusal::UserNotFound)?.stored().clone();
        let mut stored = old.clone();
        stored.roles.retain(|own| own != role);
        if stored.roles.len() == old.roles.len() {
            return Err(Refusal::RoleNotGranted);
        }
        let new = stored.roles.clone();
        self.put_user(tx, stored)?;
        self.raise_revision(tx);
        let (user, revoked) = (user.to_owned(), role.to_owned());
        Ok(Some(Change::RoleRevoked { user, old: old.roles, new, revoked }))
    }

    /// Adds a role that grants nothing.
    ///
    /// # Errors
    /// The name is empty, too long, taken or kept for others, or there are too many roles.
    pub fn role_add<V: View>(&mut self, tx: &mut Overlay<V>, name: &str) -> Changed {
        if name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        if self.permissions.role(name).is_some() || granted_by(name).is_some() {
            return Err(Refusal::RoleAlreadyExist);
        }
        if name.starts_with(RESERVED) {
            return Err(Refusal::InvalidAuthMgmt);
        }
        check_name(name)?;
        if self.permissions.roles.len() >= AUTH_ROLES_MAX {
            return Err(Refusal::TooManyUsers);
        }
        let key_permission = Vec::new();
        self.put_role(
            tx,
            authpb::Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission },
        )?;
        self.raise_revision(tx);
        Ok(Some(Change::RoleAdded(name.to_owned())))
    }

    /// Deletes a role, and takes it from all users.
    ///
    /// # Errors
    /// It is root while auth is on, or is not there.
    pub fn role_delete<V: View>(&mut self, tx: &mut Overlay<V>, name: &str) -> Changed {
        if self.permissions.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthMgmt);
        }
        let role = self.permissions.role(name).ok_or(Refusal::RoleNotFound)?;
        self.bytes -= role.stored().encoded_len();
        self.granted -= role.permissions().len();
        self.next().roles.remove(name);
        tx.delete(Space::AuthRoles, Bytes::copy_from_slice(name.as_bytes()));
        let has = |user: &&Arc<User>| user.roles().iter().any(|own| own == name);
        let users: Vec<_> = self.permissions.users.values().filter(has).cloned().collect();
        for user in users {
            let mut stored = user.stored().clone();
            stored.roles.retain(|own| own != name);
            self.put_user(tx, stored)?;
        }
        self.raise_revision(tx);
        Ok(Some(Change::RoleDeleted(name.to_owned())))
    }

    /// Has a role grant a permission; one for the same keys is replaced.
    ///
    /// # Errors
    /// There is none, its range makes no sense, the role is not there, or grants too much to be kept.
    pub fn role_grant_permission<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        grant: &AuthRoleGrantPermissionRequest,
    ) -> Changed {
        let new = grant.perm.as_ref().ok_or(Refusal::PermissionNotGiven)?;
        if !is_range(&new.key, &new.range_end) {
            return Err(Refusal::InvalidAuthMgmt);
        }
        let role = self.permissions.role(&grant.name).ok_or(Refusal::RoleNotFound)?;
        let mut stored = role.stored().clone();
        let is_same =
            |it: &&mut authpb::Permission| it.key == new.key && it.range_end == new.range_end;
        match stored.key_permission.iter_mut().find(is_same) {
            Some(old) => old.perm_type = new.perm_type,
            None if self.granted >= AUTH_PERMISSIONS_MAX => return Err(Refusal::TooManyUsers),
            None => {
                let at = stored.key_permission.partition_point(|it| it.key <= new.key);
                stored.key_permission.insert(at, new.clone());
            }
        }
        self.put_role(tx, stored)?;
        self.raise_revision(tx);
        Ok(Some(Change::PermissionGranted(grant.name.clone())))
    }

    /// Takes a permission from a role.
    ///
    /// # Errors
    /// The role is not there, or does not grant exactly this.
    pub fn role_revoke_permission<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        revoke: &AuthRoleRevokePermissionRequest,
    ) -> Changed {
        let role = self.permissions.role(&revoke.role).ok_or(Refusal::RoleNotFound)?;
        let mut stored = role.stored().clone();
        let is_other =
            |it: &authpb::Permission| it.key != revoke.key || it.range_end != revoke.range_end;
        stored.key_permission.retain(is_other);
        if stored.key_permission.len() == role.permissions().len() {
            return Err(Refusal::PermissionNotGranted);
        }
        self.put_role(tx, stored)?;
        self.raise_revision(tx);
        let (role, key, range_end) =
            (revoke.role.clone(), revoke.key.clone(), revoke.range_end.clone());
        Ok(Some(Change::PermissionRevoked { role, key, range_end }))
    }

    fn put_user<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        stored: authpb::User,
    ) -> Result<(), Refusal> {
        let name = name(&stored.name).map_err(|_| Refusal::UserEmpty)?;
        let old = self.permissions.user(&name).map_or(0, |old| old.stored().encoded_len());
        self.put_record(tx, Space::AuthUsers, &stored.name, old, &stored)?;
        self.next().users.insert(name, Arc::new(User::new(stored)));
        Ok(())
    }

    fn put_role<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        stored: authpb::Role,
    ) -> Result<(), Refusal> {
        let name = name(&stored.name).map_err(|_| Refusal::RoleEmpty)?;
        let old = self.permissions.role(&name);
        let granted = old.map_or(0, |old| old.permissions().len());
        let old = old.map_or(0, |old| old.stored().encoded_len());
        self.put_record(tx, Space::AuthRoles, &stored.name, old, &stored)?;
        self.granted = self.granted - granted + stored.key_permission.len();
        self.next().roles.insert(name, Arc::new(AuthRole::new(stored)));
        Ok(())
    }

    /// Writes a record in the place of one of `old` bytes.
    fn put_record<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        space: Space,
        name: &Bytes,
        old: usize,
        record: &impl Message,
    ) -> Result<(), Refusal> {
        let record = record.encode_to_vec();
        let bytes = self.bytes - old + record.len();
        // A record that becomes smaller is never refused.
        let grows = record.len() > old;
        if grows && (record.len() > AUTH_RECORD_BYTES_MAX || bytes > AUTH_BYTES_MAX) {
            return Err(Refusal::TooManyUsers);
        }
        self.bytes = bytes;
        tx.put(space, name.clone(), record.into());
        Ok(())
    }
}

/// The name of a user or role, as it is stored.
fn name(key: &[u8]) -> Result<Arc<str>, Fault> {
    let name = std::str::from_utf8(key);
    let name =
        name.map_err(|_| Fault::new("the name of a user or role in the store is no text"))?;
    Ok(Arc::from(name))
}

/// A name is a key of the store, and of etcd's file.
fn check_name(name: &str) -> Result<(), Refusal> {
    if name.len() > AUTH_NAME_BYTES_MAX { Err(Refusal::RequestTooLarge) } else { Ok(()) }
}

/// The hash of a password, as it came. Nothing but a hash is ever in an entry.
fn hash_of(base64: &str) -> Result<Bytes, Refusal> {
    STANDARD.decode(base64).map(Bytes::from).map_err(|_| Refusal::PasswordForNoPasswordUser)
}

/// True if a permission may have this range.
fn is_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || range_end > key)
}
