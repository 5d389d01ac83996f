//! Changes of users and roles in the log, in etcd's words.

use crate::auth::Change;

/// Logs the change that an entry made.
pub(super) fn log_change(change: &Change) {
    match change {
        Change::Enabled => tracing::info!("enabled authentication"),
        Change::Disabled => tracing::info!("disabled authentication"),
        Change::UserAdded(user) => tracing::info!("user-name" = user, "added a user"),
        Change::UserDeleted(user) => tracing::info!("user-name" = user, "deleted a user"),
        Change::PasswordChanged(user) => {
            tracing::info!("user-name" = user, "changed a password of a user");
        }
        Change::RoleGranted { user, roles, added } => tracing::info!(
            "user-name" = user,
            "user-roles" = ?roles,
            "added-role-name" = added,
            "granted a role to a user"
        ),
        Change::RoleRevoked { user, old, new, revoked } => tracing::info!(
            "user-name" = user,
            "old-user-roles" = ?old,
            "new-user-roles" = ?new,
            "revoked-role-name" = revoked,
            "revoked a role from a user"
        ),
        Change::RoleAdded(role) => tracing::info!("role-name" = role, "created a role"),
        Change::RoleDeleted(role) => tracing::info!("role-name" = role, "deleted a role"),
        Change::PermissionGranted(role) => {
            tracing::info!("role-name" = role, "granted/updated a permission to a user");
        }
        Change::PermissionRevoked { role, key, range_end } => tracing::info!(
            "role-name" = role,
            key = %key.escape_ascii(),
            "range-end" = %range_end.escape_ascii(),
            "revoked a permission on range"
        ),
    }
}
