//! The identities of tokens, and checks of permissions.

use std::time::Duration;

use super::ReplicaClient;
use crate::actors::tokens::Tokens;
use crate::auth::{Action, AuthInfo, Identified, Permissions};
use crate::io::{Passwords, clock};
use crate::types::limits::{COMMITTED_UNAPPLIED_MAX, TOKEN_WAIT_MAX};
use crate::types::{LeaseId, LogIndex, Refusal};

/// The time between two looks at what is applied.
const LOOK: Duration = Duration::from_millis(2);

impl ReplicaClient {
    /// Looks at users and roles as published last; never waits.
    pub fn with_permissions<T>(&self, look: impl FnOnce(&Permissions) -> T) -> T {
        self.shared.with_permissions(look)
    }

    /// The identity of this token. One that was made by an entry that is not applied here yet is waited for, for a bounded time: anybody
    /// can name an index that never comes.
    ///
    /// # Errors
    /// `InvalidAuthToken`.
    pub async fn identify(&self, token: &[u8]) -> Result<AuthInfo, Refusal> {
        let until_ms = clock::now_ms() + TOKEN_WAIT_MAX.as_millis() as u64;
        loop {
            match self.identify_now(token) {
                Identified::Known(identity) => return Ok(identity),
                Identified::NotApplied(index) if self.may_come(index) => {
                    self.wait_for(index, until_ms).await?;
                }
                Identified::NotApplied(_) | Identified::Invalid => {
                    return Err(Refusal::InvalidAuthToken);
                }
            }
        }
    }

    /// The identity of this token as far as it is known at this moment.
    pub fn identify_now(&self, token: &[u8]) -> Identified {
        let (tokens, known) = (&self.handles.tokens, &self.handles.known_tokens);
        self.with_permissions(|permissions| tokens.identify(known, token, permissions))
    }

    /// True if an entry of this index may be in progress.
    fn may_come(&self, index: LogIndex) -> bool {
        index <= self.status().committed.saturating_add(COMMITTED_UNAPPLIED_MAX)
    }

    async fn wait_for(&self, index: LogIndex, until_ms: u64) -> Result<(), Refusal> {
        while self.status().applied < index {
            if clock::now_ms() >= until_ms {
                return Err(Refusal::InvalidAuthToken);
            }
            clock::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Makes tokens, and tells whose they are.
    pub fn tokens(&self) -> &Tokens {
        &self.handles.tokens
    }

    /// Checks and hashes passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.handles.passwords
    }

    /// Checks that a user may do this to all keys of these leases.
    ///
    /// # Errors
    /// The first refusal, or the member is stopping.
    pub async fn check_leases(
        &self,
        who: Option<&AuthInfo>,
        action: Action,
        leases: &[LeaseId],
    ) -> Result<(), Refusal> {
        self.handles.apply.check_leases(who, action, leases).await
    }
}
