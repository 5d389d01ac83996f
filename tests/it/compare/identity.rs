//! In whose name requests are made: nobody's, or over mutual TLS and with auth on, those of root by certificate or by token, or
//! of a user who may use a part of the keys.

use std::sync::Arc;

use basalt_proto::authpb::Permission;
use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, Compare, DeleteRangeRequest,
    RangeRequest, TxnRequest, WatchCreateRequest, request_op,
};
use bytes::Bytes;

use super::request::{Call, Step};
use crate::process::{Server, Setup};
use crate::secured::{NAMELESS, ROOT, STRANGER, Secured};
use crate::wire::Wire;

/// The user in whose name the requests are made.
#[derive(Clone)]
pub(super) enum Identity {
    Anyone,
    /// The name in the certificate.
    RootByCertificate(Arc<Secured>),
    RootByToken(Arc<Secured>),
    /// A user whose role may read and write `a…`, read `b…` and write `c…`.
    Limited(Arc<Secured>),
}

const ROLE: &str = "limited";
/// Ranges of keys for the role. The last ones are what the comparison itself needs.
const PERMISSIONS: [(Type, &[u8], &[u8]); 5] = [
    (Type::Readwrite, b"a", b"b"),
    (Type::Read, b"b", b"c"),
    (Type::Write, b"c", b"d"),
    (Type::Readwrite, b"\xfe settled", b""),
    (Type::Read, b"\xfd nobody writes this", b""),
];
/// A range that the role may use and may not use in turn.
const CHANGING: (Type, &[u8], &[u8]) = (Type::Readwrite, b"/", b"0");
/// Steps between two changes.
const CHANGE_STEPS: u64 = 120;

impl Identity {
    pub(super) fn secured(seed: u64) -> Self {
        let secured = Arc::new(Secured::new());
        match seed % 3 {
            0 => Self::RootByCertificate(secured),
            1 => Self::RootByToken(secured),
            _ => Self::Limited(secured),
        }
    }

    pub(super) fn setup(&self, setup: Setup) -> Setup {
        match self {
            Self::Anyone => setup,
            Self::RootByCertificate(secured)
            | Self::RootByToken(secured)
            | Self::Limited(secured) => setup.secured(secured),
        }
    }

    /// Users, where there are some, and the connection of this identity.
    pub(super) async fn connect(&self, server: &Server) -> Wire {
        let (Self::RootByCertificate(secured)
        | Self::RootByToken(secured)
        | Self::Limited(secured)) = self
        else {
            return server.wire();
        };
        secured.enable_auth(server);
        let with_token = |user| {
            let token = secured.token(server, user);
            secured.wire(&server.endpoint(), NAMELESS).with_token(&token)
        };
        match self {
            Self::Anyone => unreachable!("it has no certificates"),
            Self::RootByCertificate(_) => secured.wire(&server.endpoint(), ROOT),
            Self::RootByToken(_) => with_token(ROOT),
            Self::Limited(_) => {
                for arguments in
                    [&["role", "add", ROLE][..], &["user", "grant-role", STRANGER, ROLE]]
                {
                    let told = secured.ctl(&server.endpoint(), ROOT, arguments);
                    assert_eq!(told.code, Some(0), "{arguments:?}: {}", told.stderr);
                }
                for permission in PERMISSIONS {
                    grant(&server.wire(), permission).await;
                }
                with_token(STRANGER)
            }
        }
    }

    pub(super) fn is_limited(&self) -> bool {
        matches!(self, Self::Limited(_))
    }

    /// True for steps that are left out, as `README.md` says: etcd's answer to an upside-down range of somebody who is
    /// not root depends on the form of its tree of permissions.
    pub(super) fn leaves_out(&self, step: &Step) -> bool {
        self.is_limited()
            && match step {
                Step::Call(Call::Range(it) | Call::RangeStream(it)) => is_reversed(it),
                Step::Call(Call::DeleteRange(it)) => is_reversed(it),
                Step::Call(Call::Txn(it)) => has_reversed(it),
                // It may decode to any of them.
                Step::Call(Call::Garbage(..)) => true,
                Step::Watch { request, .. } | Step::WatchLost { request } => is_reversed(request),
                Step::Call(_)
                | Step::GrantAnyId { .. }
                | Step::CancelWatch { .. }
                | Step::Settle { .. } => false,
            }
    }

    /// Changes the role now and then.
    pub(super) async fn change(&self, server: &Server, number: u64) {
        if !self.is_limited() || !number.is_multiple_of(CHANGE_STEPS) {
            return;
        }
        let root = server.wire();
        if (number / CHANGE_STEPS).is_multiple_of(2) {
            let (_, key, range_end) = CHANGING;
            let (key, range_end) = (Bytes::from_static(key), Bytes::from_static(range_end));
            let revoke = AuthRoleRevokePermissionRequest { role: ROLE.to_owned(), key, range_end };
            let path = "/etcdserverpb.Auth/RoleRevokePermission";
            let revoked = root.ask::<_, AuthRoleRevokePermissionResponse>(path, &revoke).await;
            revoked.expect("root may");
        } else {
            grant(&root, CHANGING).await;
        }
    }
}

async fn grant(root: &Wire, (kind, key, range_end): (Type, &'static [u8], &'static [u8])) {
    let (key, range_end) = (Bytes::from_static(key), Bytes::from_static(range_end));
    let perm = Some(Permission { perm_type: kind as i32, key, range_end });
    let grant = AuthRoleGrantPermissionRequest { name: ROLE.to_owned(), perm };
    let path = "/etcdserverpb.Auth/RoleGrantPermission";
    let granted = root.ask::<_, AuthRoleGrantPermissionResponse>(path, &grant).await;
    granted.expect("root may");
}

/// A range of keys.
trait Ranged {
    fn bounds(&self) -> (&Bytes, &Bytes);
}

impl Ranged for RangeRequest {
    fn bounds(&self) -> (&Bytes, &Bytes) {
        (&self.key, &self.range_end)
    }
}

impl Ranged for DeleteRangeRequest {
    fn bounds(&self) -> (&Bytes, &Bytes) {
        (&self.key, &self.range_end)
    }
}

impl Ranged for WatchCreateRequest {
    fn bounds(&self) -> (&Bytes, &Bytes) {
        (&self.key, &self.range_end)
    }
}

impl Ranged for Compare {
    fn bounds(&self) -> (&Bytes, &Bytes) {
        (&self.key, &self.range_end)
    }
}

fn is_reversed(request: &impl Ranged) -> bool {
    let (key, end) = request.bounds();
    !end.is_empty() && end != "\0" && end <= key
}

fn has_reversed(request: &TxnRequest) -> bool {
    let operations = request.success.iter().chain(&request.failure);
    request.compare.iter().any(is_reversed)
        || operations.filter_map(|it| it.request.as_ref()).any(|it| match it {
            request_op::Request::RequestRange(it) => is_reversed(it),
            request_op::Request::RequestDeleteRange(it) => is_reversed(it),
            request_op::Request::RequestTxn(it) => has_reversed(it),
            request_op::Request::RequestPut(_) => false,
        })
}
