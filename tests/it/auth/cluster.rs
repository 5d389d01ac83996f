//! Three members with users: what one of them was told holds at all of them at once, though they lag.

use std::time::{Duration, Instant};

use basalt_proto::authpb::Permission;
use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, LeaseGrantRequest,
    LeaseGrantResponse, MemberPromoteRequest, MemberPromoteResponse, PutRequest, PutResponse,
};
use tonic::{Code, Status};

use super::{Administrator, PATIENCE, ROLE_GRANT_PERMISSION, login};
use crate::cluster::members::Members;
use crate::compare::runtime;
use crate::process::{self, Setup};
use crate::wire::{LEASE_GRANT, PUT, Wire};

const ROUNDS: usize = 40;
const MEMBERS: usize = 3;

/// Elections that a busy machine does not set off.
fn setup() -> Setup {
    Setup::new(process::basalt())
        .flag("bcrypt-cost", "4")
        .flag("heartbeat-interval", "100")
        .flag("election-timeout", "1000")
}

fn wire(members: &Members, at: usize) -> Wire {
    Wire::new(&members.0[at % MEMBERS].endpoint())
}

/// Members with root and a user `u`, who has the role `r`; the tokens of both.
async fn found() -> (Members, String, String) {
    let members = Members::found(&setup(), MEMBERS);
    let administrator = Administrator(wire(&members, 0));
    administrator.user("u", "pw").await;
    administrator.role("r", &[(Type::Read, "own", "")]).await;
    administrator.give("u", "r").await;
    administrator.enable("pw").await;
    let root = login(&wire(&members, 1), "root", "pw").await.expect("the password is right");
    let user = login(&wire(&members, 2), "u", "pw").await.expect("the password is right");
    (members, root, user)
}

async fn grant(root: &Wire, key: &str) {
    let perm_type = Type::Readwrite as i32;
    let perm = Some(Permission { perm_type, key: key.to_owned().into(), ..Default::default() });
    let grant = AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm };
    let path = ROLE_GRANT_PERMISSION;
    let granted = root.ask::<_, AuthRoleGrantPermissionResponse>(path, &grant).await;
    granted.expect("root may");
}

async fn revoke(root: &Wire, key: &str) {
    let (role, key) = ("r".to_owned(), key.to_owned().into());
    let revoke = AuthRoleRevokePermissionRequest { role, key, ..Default::default() };
    let path = "/etcdserverpb.Auth/RoleRevokePermission";
    let revoked = root.ask::<_, AuthRoleRevokePermissionResponse>(path, &revoke).await;
    revoked.expect("root may");
}

fn is_denied<T>(outcome: Result<T, Status>) -> bool {
    let denied = |status: Status| {
        status.code() == Code::PermissionDenied
            && status.message() == "etcdserver: permission denied"
    };
    outcome.err().is_some_and(denied)
}

#[test]
fn what_one_member_granted_all_allow_at_once_and_what_it_took_none() {
    runtime().block_on(async {
        let (members, root, user) = found().await;
        for round in 0..ROUNDS {
            let key = format!("k{round}");
            let as_root = wire(&members, round).with_token(&root);
            let others = [1, 2].map(|more| wire(&members, round + more).with_token(&user));
            grant(&as_root, &key).await;
            others[0].put(&key, "v").await.expect("it was granted before");
            grant(&as_root, &key).await;
            others[1].get(&key).await.expect("it was granted before");
            revoke(&as_root, &key).await;
            assert!(is_denied(others[0].put(&key, "w").await), "round {round}: a put");
            assert!(is_denied(others[1].get(&key).await), "round {round}: a range");
        }
    });
}

#[test]
fn promotions_are_checked_by_whoever_is_asked() {
    runtime().block_on(async {
        let (members, root, user) = found().await;
        let promote = MemberPromoteRequest { id: 77 };
        for at in 0..MEMBERS {
            let asked = async |token: &str| {
                let path = "/etcdserverpb.Cluster/MemberPromote";
                let wire = wire(&members, at).with_token(token);
                let asked = wire.ask::<_, MemberPromoteResponse>(path, &promote).await;
                asked.expect_err("there is no such member")
            };
            assert_eq!(asked(&root).await.message(), "etcdserver: member not found");
            assert!(is_denied::<()>(Err(asked(&user).await)));
        }
    });
}

#[test]
fn leases_end_in_time_with_auth_on_whoever_leads() {
    runtime().block_on(async {
        let (mut members, root, _) = found().await;
        let leader = members.leader_with_token(&root).await;
        let as_root = wire(&members, leader + 1).with_token(&root);
        let grant = LeaseGrantRequest { ttl: 2, id: 5 };
        let granted = as_root.ask::<_, LeaseGrantResponse>(LEASE_GRANT, &grant).await;
        granted.expect("root may");
        let put = PutRequest { key: "leased".into(), lease: 5, ..Default::default() };
        as_root.ask::<_, PutResponse>(PUT, &put).await.expect("root may");
        members.0[leader].kill();
        let until = Instant::now() + PATIENCE;
        loop {
            let found = as_root.get("leased").await;
            if found.is_ok_and(|found| found.kvs.is_empty()) {
                break;
            }
            assert!(Instant::now() < until, "the lease lives on");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}
