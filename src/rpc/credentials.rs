//! The identity of a request, and checks of its permissions: by a token in the request's headers, or by the name in the certificate of
//! its connection. The permissions are those of the published state, so that a check waits for nobody.
//!
//! ```text
//!  request ─► Credentials ─identify─► AuthInfo ─► a check here, or of the entry by all members, or both
//! ```

use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use tonic::{Extensions, Request, Status};

use super::status;
use crate::actors::{ReplicaClient, State};
use crate::auth::{
    AuthInfo, Capability, Identified, NoAttachedKeys, Permissions, Principal, Source,
};
use crate::command::Command;
use crate::io::PeerCertificate;
use crate::machine::{Reply, check_access};
use crate::token::fingerprint;
use crate::types::Refusal;

/// The metadata that etcd's gateway adds to the request of a client that sends `Accept`. In etcd such a request comes over the
/// connection of the gateway, whose certificate is not its client's, so that the name in it is no user's.
pub const FROM_GATEWAY: HeaderName = HeaderName::from_static("grpcgateway-accept");

/// Headers that carry a token, the one that counts first.
pub(super) const TOKEN_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("token"), header::AUTHORIZATION];
const BEARER: &str = "Bearer ";

/// The parts of a request that identify its user. Empty for most requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    token: Option<HeaderValue>,
    /// The certificate of the connection.
    certificate: Option<Arc<PeerCertificate>>,
}

impl Credentials {
    /// Those of a call.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self::new(request.metadata().as_ref(), request.extensions())
    }

    /// Those in these headers, and of the connection in these extensions.
    pub(super) fn new(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let token = TOKEN_HEADERS.into_iter().find_map(|name| headers.get(name)).cloned();
        Self { token, certificate: certificate(headers, extensions) }
    }

    /// The certificate of its connection, if it has one.
    pub(super) fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.as_deref()
    }

    /// The user that the certificate stands for.
    fn certificate_user(&self) -> Option<Arc<str>> {
        self.certificate()?.user().cloned()
    }

    /// The identity of the request: `None` without credentials, or while auth is off.
    ///
    /// # Errors
    /// The token is nobody's.
    pub(super) async fn identify(
        &self,
        replica: &ReplicaClient,
    ) -> Result<Option<AuthInfo>, Refusal> {
        let Some(revision) = replica.with_permissions(revision_to_check)? else { return Ok(None) };
        let Some(token) = &self.token else {
            let source = Source::CertificateName;
            return Ok(self.certificate_user().map(|user| AuthInfo { user, revision, source }));
        };
        let token = bare(token);
        let identity = match replica.identify_now(token) {
            Identified::Known(identity) => Ok(identity),
            Identified::Invalid => Err(Refusal::InvalidAuthToken),
            // Seldom waited for: its state is no part of each request's.
            Identified::NotApplied(_) => Box::pin(replica.identify(token)).await,
        };
        if identity == Err(Refusal::InvalidAuthToken) {
            tracing::warn!("token-fingerprint" = fingerprint(token), "invalid auth token");
        }
        identity.map(Some)
    }

    /// Whose request it is as far as that is known at this moment; for what is written down of it.
    pub(super) fn identify_now(&self, replica: &ReplicaClient) -> Option<AuthInfo> {
        let revision = replica.with_permissions(revision_to_check).ok()??;
        let Some(token) = &self.token else {
            let source = Source::CertificateName;
            return self.certificate_user().map(|user| AuthInfo { user, revision, source });
        };
        match replica.identify_now(bare(token)) {
            Identified::Known(identity) => Some(identity),
            Identified::Invalid | Identified::NotApplied(_) => None,
        }
    }

    /// The identity of the request, if the published permissions allow it.
    ///
    /// # Errors
    /// It may not.
    pub(super) async fn require(
        &self,
        replica: &ReplicaClient,
        check: impl Fn(&Permissions, Option<Principal<'_>>) -> Result<(), Refusal>,
    ) -> Result<Option<AuthInfo>, Refusal> {
        let who = self.identify(replica).await?;
        replica.with_permissions(|it| check_now(it, who.as_ref(), &check))?;
        Ok(who)
    }

    /// # Errors
    /// It is not root.
    pub(super) async fn require_root(
        &self,
        replica: &ReplicaClient,
    ) -> Result<Option<AuthInfo>, Status> {
        self.require(replica, Permissions::check_root).await.map_err(status)
    }

    /// # Errors
    /// It is neither root nor has a role for operators that grants this.
    pub(super) async fn require_capability(
        &self,
        replica: &ReplicaClient,
        capability: Capability,
    ) -> Result<(), Status> {
        let check = |permissions: &Permissions, who: Option<Principal<'_>>| {
            permissions.check_capability(who, capability)
        };
        self.require(replica, check).await.map(drop).map_err(status)
    }

    /// # Errors
    /// It is nobody.
    pub(super) async fn require_any_user(
        &self,
        replica: &ReplicaClient,
    ) -> Result<Option<AuthInfo>, Status> {
        self.require(replica, Permissions::check_any_user).await.map_err(status)
    }

    /// The same for what all members decide: what the state of now refuses is asked again of all that was acknowledged, since
    /// this member may lag.
    ///
    /// # Errors
    /// It may not, or no leader could be asked.
    pub(super) async fn require_linearizable(
        &self,
        replica: &ReplicaClient,
        check: impl Fn(&Permissions, Option<Principal<'_>>) -> Result<(), Refusal>,
    ) -> Result<Option<AuthInfo>, Refusal> {
        let who = self.identify(replica).await?;
        // Not logged yet: it may be allowed.
        if replica.with_permissions(|it| check(it, who.as_ref().map(AuthInfo::principal))).is_ok() {
            return Ok(who);
        }
        Box::pin(async {
            replica.read_index().await?;
            self.require(replica, check).await
        })
        .await
    }

    /// Checks a read of this state by `who`, which was identified before the state was taken.
    ///
    /// # Errors
    /// It may not, or it is of another auth revision.
    pub(super) fn check_read(
        state: &State,
        who: Option<&AuthInfo>,
        check: impl Fn(&Permissions, Option<Principal<'_>>) -> Result<(), Refusal>,
    ) -> Result<(), Status> {
        let permissions = &state.permissions;
        if revision_to_check(permissions).map_err(status)?.is_none() {
            return Ok(());
        }
        check_now(permissions, who, &check).map_err(status)?;
        match who {
            Some(who) if who.revision != permissions.revision() => {
                Err(status(Refusal::AuthOldRevision))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Appends a command to the log in the name of whom these credentials are, and waits until it is applied. A command that is sure to be
    /// refused there is refused here, so that the log does not fill with it.
    ///
    /// # Errors
    /// The request's own refusal, or why it could not be applied in time.
    pub(super) async fn propose(
        &self,
        replica: &ReplicaClient,
        command: Command,
    ) -> Result<Reply, Status> {
        let reply = match replica.with_permissions(revision_to_check) {
            Ok(None) => replica.propose(command).await,
            // A box: thousands of requests may wait here, of which none keeps more than it needs.
            Ok(Some(_)) => Box::pin(self.propose_checked(replica, command)).await,
            Err(refusal) => Err(refusal),
        };
        reply.map_err(status)
    }

    /// Checks that etcd makes before it asks for permissions: the size of an entry, and alarms.
    ///
    /// # Errors
    /// The refusal that counts instead of the missing permission.
    async fn check_before_access(
        &self,
        replica: &ReplicaClient,
        command: &Command,
    ) -> Result<(), Refusal> {
        let who = self.identify(replica).await?;
        if !replica.may_log(who.as_ref(), command) {
            return Err(Refusal::RequestTooLarge);
        }
        let alarms = &replica.state().alarms;
        command.check_alarms(|alarm| alarms.iter().any(|it| it.alarm() == alarm))
    }

    async fn propose_checked(
        &self,
        replica: &ReplicaClient,
        mut command: Command,
    ) -> Result<Reply, Refusal> {
        let mut who = match self.require_linearizable(replica, may(&command)).await {
            Ok(who) => who,
            Err(Refusal::InvalidAuthToken) => return Err(Refusal::InvalidAuthToken),
            Err(refusal) => {
                self.check_before_access(replica, &command).await?;
                return Err(refusal);
            }
        };
        loop {
            let entry = match replica.propose_again_as(who.as_ref(), command).await {
                Ok(reply) => return Ok(reply),
                Err((Refusal::AuthOldRevision, Some(entry))) => entry,
                Err((refusal, _)) => return Err(refusal),
            };
            // Users or roles changed in between. A simple token is of the newest revision, and the refused entry changed nothing.
            let Ok((_, same)) = Command::decode(entry) else {
                return Err(Refusal::AuthOldRevision);
            };
            command = same;
            replica.read_index().await?;
            let again = self.require(replica, may(&command)).await?;
            let revision = |who: &Option<AuthInfo>| who.as_ref().map_or(0, |who| who.revision);
            if revision(&again) <= revision(&who) {
                return Err(Refusal::AuthOldRevision);
            }
            who = again;
        }
    }
}

/// The check of a command against users and roles.
fn may(command: &Command) -> impl Fn(&Permissions, Option<Principal<'_>>) -> Result<(), Refusal> {
    move |permissions, who| check_access(permissions, who, command, &NoAttachedKeys)
}

/// A token as it was given out.
fn bare(token: &HeaderValue) -> &[u8] {
    let token = token.as_bytes();
    token.strip_prefix(BEARER.as_bytes()).unwrap_or(token)
}

/// The auth revision, if requests are checked.
///
/// # Errors
/// They should be, and some members cannot.
fn revision_to_check(permissions: &Permissions) -> Result<Option<u64>, Refusal> {
    if permissions.is_held_back() {
        return Err(Refusal::FeatureLevelTooLow);
    }
    Ok(permissions.is_enabled().then(|| permissions.revision()))
}

/// Checks, and logs what etcd logs of a refusal.
fn check_now(
    permissions: &Permissions,
    who: Option<&AuthInfo>,
    check: &impl Fn(&Permissions, Option<Principal<'_>>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let refusal = match check(permissions, who.map(AuthInfo::principal)) {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    if let Some(who) = who {
        let user = &*who.user;
        if refusal == Refusal::AuthOldRevision {
            tracing::warn!(
                "current node auth revision" = permissions.revision(),
                "request auth revision" = who.revision,
                "request auth revision is less than current node auth revision"
            );
        } else if permissions.user(user).is_none() {
            tracing::error!("user-name" = user, "cannot find a user for permission check");
        }
    }
    Err(refusal)
}

/// The certificate of a connection, for a request with these headers.
pub(super) fn certificate(
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Option<Arc<PeerCertificate>> {
    let certificate = extensions.get::<Arc<PeerCertificate>>()?;
    Some(match headers.contains_key(FROM_GATEWAY) {
        true => Arc::new(certificate.without_user()),
        false => Arc::clone(certificate),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_named_token_counts_before_the_other_one() {
        let mut headers = HeaderMap::new();
        let token = |headers: &HeaderMap| Credentials::new(headers, &Extensions::default()).token;
        assert_eq!(token(&headers), None);
        headers.append("authorization", HeaderValue::from_static("Bearer a"));
        headers.append("authorization", HeaderValue::from_static("b"));
        assert_eq!(token(&headers), Some(HeaderValue::from_static("Bearer a")));
        headers.append("token", HeaderValue::from_static("c"));
        assert_eq!(token(&headers), Some(HeaderValue::from_static("c")));
    }
}
