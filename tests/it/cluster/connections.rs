//! The connections of one client to all members: plain ones, which all clients share, or over TLS with a certificate or a
//! token of a user, which are made anew when the certificates were replaced.

use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use tonic::{Code, Status};

use super::members::Members;
use crate::secured::{ALICE, NAMELESS, Secured};
use crate::wire::Wire;

/// Connections to all members.
#[derive(Clone)]
pub(super) struct Connections {
    endpoints: Vec<String>,
    wires: Vec<Wire>,
    identity: Option<Identity>,
}

/// A user over TLS.
#[derive(Clone)]
struct Identity {
    secured: Arc<Secured>,
    /// The certificate to show.
    name: &'static str,
    token: Option<String>,
    /// The epoch of the certificates in use; a newer one makes new connections.
    epoch: u64,
}

impl Connections {
    /// Those of the kinds of clients that the members serve: one, or one with a certificate and one with a token.
    pub(super) fn all(members: &Members) -> Vec<Self> {
        let Some(secured) = members.secured() else {
            let wires = (0..members.0.len()).map(|at| members.wire(at)).collect();
            return vec![Self { endpoints: endpoints(members), wires, identity: None }];
        };
        let token = secured.token(&members.0[0], ALICE);
        vec![Self::of(members, ALICE, None), Self::of(members, NAMELESS, Some(token))]
    }

    /// Those of whoever shows this certificate, perhaps with a token.
    pub(super) fn of(members: &Members, name: &'static str, token: Option<String>) -> Self {
        let secured = Arc::clone(members.secured().expect("they demand certificates"));
        let identity = Some(Identity { secured, name, token, epoch: 0 });
        Self { endpoints: endpoints(members), wires: Vec::new(), identity }
    }

    /// The connection to a random member, for one try.
    pub(super) fn any(&mut self, random: &mut StdRng) -> &Wire {
        self.renew();
        let at = random.random_range(0..self.wires.len());
        &self.wires[at]
    }

    fn renew(&mut self) {
        let Some(identity) = &mut self.identity else { return };
        let epoch = identity.secured.epoch();
        if epoch == identity.epoch {
            return;
        }
        identity.epoch = epoch;
        let holder = identity.secured.holder(identity.name);
        let wire = |endpoint: &String| {
            let wire = holder.wire_to(endpoint);
            match &identity.token {
                Some(token) => wire.with_token(token),
                None => wire,
            }
        };
        self.wires = self.endpoints.iter().map(wire).collect();
    }
}

fn endpoints(members: &Members) -> Vec<String> {
    members.0.iter().map(|server| server.endpoint()).collect()
}

/// The answer to a request that its client may make: no fault of members or connections takes a permission.
pub(super) fn permitted<T>(answer: Result<T, Status>) -> Result<T, Status> {
    answer.inspect_err(|status| {
        let is_refusal = matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated)
            || status.message().contains("user name is empty");
        assert!(!is_refusal, "a permitted request is refused: {status:?}");
    })
}
