//! Commands that change users, roles and permissions.

use basalt_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
};

use super::{Command, Large, Operation};

/// A change of users, roles and permissions. The tags are those of the fields of `InternalRaftRequest`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum AuthCommand {
    /// Turns auth on.
    #[prost(message, tag = "1000")]
    Enable(AuthEnableRequest),
    /// Turns auth off.
    #[prost(message, tag = "1011")]
    Disable(AuthDisableRequest),
    /// Adds a user. The password is a hash, always.
    #[prost(message, tag = "1100")]
    UserAdd(AuthUserAddRequest),
    /// Deletes a user.
    #[prost(message, tag = "1101")]
    UserDelete(AuthUserDeleteRequest),
    /// Gives a user another password, which is a hash.
    #[prost(message, tag = "1103")]
    UserChangePassword(AuthUserChangePasswordRequest),
    /// Gives a user a role.
    #[prost(message, tag = "1104")]
    UserGrantRole(AuthUserGrantRoleRequest),
    /// Takes a role from a user.
    #[prost(message, tag = "1105")]
    UserRevokeRole(AuthUserRevokeRoleRequest),
    /// Adds a role.
    #[prost(message, tag = "1200")]
    RoleAdd(AuthRoleAddRequest),
    /// Deletes a role.
    #[prost(message, tag = "1201")]
    RoleDelete(AuthRoleDeleteRequest),
    /// Has a role grant a permission.
    #[prost(message, tag = "1203")]
    RoleGrantPermission(AuthRoleGrantPermissionRequest),
    /// Takes a permission from a role.
    #[prost(message, tag = "1204")]
    RoleRevokePermission(AuthRoleRevokePermissionRequest),
}

impl From<AuthCommand> for Command {
    fn from(auth: AuthCommand) -> Self {
        Self::Auth(auth)
    }
}

impl AuthCommand {
    pub(super) const fn operation(&self) -> Operation {
        match self {
            Self::Enable(_) => Operation::AuthEnable,
            Self::Disable(_) => Operation::AuthDisable,
            Self::UserAdd(_) => Operation::AuthUserAdd,
            Self::UserDelete(_) => Operation::AuthUserDelete,
            Self::UserChangePassword(_) => Operation::AuthUserChangePassword,
            Self::UserGrantRole(_) => Operation::AuthUserGrantRole,
            Self::UserRevokeRole(_) => Operation::AuthUserRevokeRole,
            Self::RoleAdd(_) => Operation::AuthRoleAdd,
            Self::RoleDelete(_) => Operation::AuthRoleDelete,
            Self::RoleGrantPermission(_) => Operation::AuthRoleGrantPermission,
            Self::RoleRevokePermission(_) => Operation::AuthRoleRevokePermission,
        }
    }

    pub(super) const fn large(&self) -> Option<Large<'_>> {
        match self {
            Self::Disable(_) => Some(Large::AllTokens),
            Self::UserDelete(delete) => Some(Large::TokensOf(delete.name.as_str())),
            Self::UserChangePassword(it) => Some(Large::TokensOf(it.name.as_str())),
            Self::Enable(_)
            | Self::UserAdd(_)
            | Self::UserGrantRole(_)
            | Self::UserRevokeRole(_)
            | Self::RoleAdd(_)
            | Self::RoleDelete(_)
            | Self::RoleGrantPermission(_)
            | Self::RoleRevokePermission(_) => None,
        }
    }
}
