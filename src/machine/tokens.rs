//! Effects of entries on simple tokens.

use std::sync::Arc;

use basalt_proto::etcdserverpb::TokenIssueRequest;

use super::{Machine, Reply};
use crate::auth::Change;
use crate::store::Engine;
use crate::token::TokenTable;
use crate::types::Refusal;

impl<E: Engine> Machine<E> {
    /// The table that all cores look tokens up in.
    pub fn tokens(&self) -> &Arc<TokenTable> {
        self.tokens.table()
    }

    /// Keeps a token, if its user's password is what it was when it was checked. Any change of users and roles since counts as
    /// one: the member that proposed this looks again.
    pub(super) fn token_issue(&mut self, issue: &TokenIssueRequest) -> Result<Reply, Refusal> {
        let permissions = self.auth.permissions();
        if !permissions.is_enabled() {
            return Err(Refusal::AuthNotEnabled);
        }
        if permissions.revision() != issue.auth_revision {
            return Err(Refusal::AuthOldRevision);
        }
        if permissions.user(&issue.user).is_none() {
            return Err(Refusal::AuthFailed);
        }
        self.tokens.issue(&mut self.tx, self.applied, issue);
        Ok(Reply::Token { index: self.applied })
    }

    /// Tokens go with their users, passwords and authentication: as many as `budget` at a time. Returns true at the end.
    pub(super) fn tokens_follow(&mut self, change: &Change, budget: usize) -> bool {
        let (tokens, tx) = (&mut self.tokens, &mut self.tx);
        match change {
            Change::Disabled => tokens.clear(tx, budget),
            Change::UserAdded(user) | Change::PasswordChanged(user) => {
                let is_over = tokens.drop_user(tx, user, budget);
                if is_over {
                    let revision = self.auth.permissions().revision();
                    tokens.password_changed(tx, user, revision);
                }
                is_over
            }
            Change::UserDeleted(user) => {
                let is_over = tokens.drop_user(tx, user, budget);
                if is_over {
                    tokens.user_deleted(tx, user);
                }
                is_over
            }
            Change::Enabled
            | Change::RoleGranted { .. }
            | Change::RoleRevoked { .. }
            | Change::RoleAdded(_)
            | Change::RoleDeleted(_)
            | Change::PermissionGranted(_)
            | Change::PermissionRevoked { .. } => true,
        }
    }
}
