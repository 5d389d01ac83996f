//! `Auth.Authenticate`: a password for a token. The password is checked by this member alone; what the log holds is the
//! user's name and the hash of the token.
//!
//! ```text
//!  read index ─► Permissions ─► bcrypt, off the executors ─► TokenIssue ─► token, or again if users or roles changed
//! ```

use std::sync::Arc;

use basalt_proto::etcdserverpb::{AuthenticateRequest, TokenIssueRequest};
use bytes::Bytes;
use tonic::Status;

use super::status;
use crate::actors::ReplicaClient;
use crate::actors::tokens::TokenFormat;
use crate::auth::Permissions;
use crate::command::Command;
use crate::io::{Attempt, PasswordError, random_u64};
use crate::machine::Reply;
use crate::token;
use crate::types::Refusal;
use crate::types::limits::LOGIN_ROUNDS_MAX;

/// The address of a request's client, as one of the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct ClientAddress(pub(super) Arc<str>);

/// The address without its port.
pub(super) fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// The user as known when its password is checked.
struct Account {
    /// The bcrypt hash; none of who is not there.
    hash: Option<String>,
    has_no_password: bool,
    revision: u64,
}

impl Account {
    fn find(permissions: &Permissions, name: &str) -> Result<Self, Refusal> {
        if !permissions.is_enabled() {
            return Err(Refusal::AuthNotEnabled);
        }
        let user = permissions.user(name);
        let hash = user.map(|user| String::from_utf8_lossy(user.password_hash()).into_owned());
        let has_no_password = user.is_some_and(|user| user.has_no_password());
        Ok(Self { hash, has_no_password, revision: permissions.revision() })
    }
}

/// A token for whoever gives the right password.
pub(super) async fn authenticate(
    replica: &ReplicaClient,
    request: &AuthenticateRequest,
    address: &str,
) -> Result<String, Status> {
    replica.read_index().await.map_err(status)?;
    for _ in 0..LOGIN_ROUNDS_MAX {
        let account = replica.with_permissions(|it| Account::find(it, &request.name));
        let account = account.map_err(status)?;
        check_password(replica, request, &account, address).await.map_err(status)?;
        match make_token(replica, &request.name, account.revision).await? {
            Some(token) => return Ok(token),
            // Users or roles changed in between: the password may be another one.
            None => replica.read_index().await.map_err(status)?,
        }
    }
    Err(status(Refusal::AuthOldRevision))
}

async fn check_password(
    replica: &ReplicaClient,
    request: &AuthenticateRequest,
    account: &Account,
    address: &str,
) -> Result<(), Refusal> {
    let (user, password) = (request.name.as_str(), request.password.as_str());
    // A user without a password takes as long as one with it.
    let hash = account.hash.as_deref().filter(|_| !account.has_no_password);
    let attempt = Attempt { user, address, hash, password };
    let refusal = match replica.passwords().verify(&attempt).await {
        Ok(true) => return Ok(()),
        Err(PasswordError::Busy | PasswordError::TooLong) => return Err(Refusal::TooManyAnswers),
        Ok(false) if account.has_no_password => Refusal::PasswordForNoPasswordUser,
        Ok(false) => Refusal::AuthFailed,
    };
    if hash.is_some() {
        tracing::info!("user-name" = user, "invalid password");
    }
    let error = refusal.text().replace("etcdserver: ", "auth: ");
    tracing::warn!(user, error, "invalid authentication was requested");
    Err(refusal)
}

/// A token of the member's kind; nothing if users or roles are not what they were at this revision.
async fn make_token(
    replica: &ReplicaClient,
    user: &str,
    revision: u64,
) -> Result<Option<String>, Status> {
    match replica.tokens().kind() {
        TokenFormat::Nop => Err(status(Refusal::AuthFailed)),
        TokenFormat::Jwt(jwt) => {
            if replica.with_permissions(Permissions::revision) != revision {
                return Ok(None);
            }
            let signed = jwt.sign(user, revision).await;
            signed.map(Some).map_err(|error| Status::unknown(error.text()))
        }
        TokenFormat::Simple { .. } => simple_token(replica, user, revision).await.map_err(status),
    }
}

async fn simple_token(
    replica: &ReplicaClient,
    user: &str,
    auth_revision: u64,
) -> Result<Option<String>, Refusal> {
    let mut random = [0; 32];
    random.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&random_u64().to_ne_bytes()));
    let letters = token::letters(&random);
    let issue = TokenIssueRequest {
        user: user.to_owned(),
        hash: Bytes::copy_from_slice(&token::hash(letters.as_bytes())),
        expires_ms: replica.tokens().expires_ms(),
        auth_revision,
    };
    match replica.propose(Command::TokenIssue(issue)).await {
        Ok(Reply::Token { index }) => Ok(Some(token::token(&letters, index))),
        Ok(_) => Err(Refusal::AuthFailed),
        Err(Refusal::AuthOldRevision) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}
