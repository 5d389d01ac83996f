//! Members that demand certificates and users, of each other and of clients, under the faults of the other tests, while
//! certificates, authorities and revocations change, and permissions too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use basalt_proto::authpb::Permission;
use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
};
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::connections::Connections;
use super::load::CALL_TIME;
use super::members::Members;
use super::network::wires_are_bad;
use super::{election_ms, leaders_die, runtime, setup, setup_with};
use crate::compare::from_environment;
use crate::process::PATIENCE;
use crate::secured::{ALICE, ROOT, STRANGER, Secured};
use crate::wire::Wire;

/// The role whose permissions change.
const ROLE: &str = "changing";

#[test]
fn nothing_acknowledged_is_lost_when_secured_leaders_die_and_certificates_change() {
    let kills = from_environment("CLUSTER_KILLS", 3);
    let secured = Arc::new(Secured::new());
    runtime().block_on(leaders_die(setup_with(election_ms()).secured(&secured), kills));
}

#[test]
fn nothing_acknowledged_is_lost_when_secured_wires_are_bad_and_certificates_change() {
    let storms = from_environment("CLUSTER_STORMS", 3);
    let secured = Arc::new(Secured::new());
    runtime().block_on(wires_are_bad(setup().secured(&secured), storms));
}

/// Replaces certificates, and changes permissions, until it is finished. Does nothing where there are none.
pub(super) struct Rotation(Option<Running>);

struct Running {
    secured: Arc<Secured>,
    over: Arc<AtomicBool>,
    rotating: JoinHandle<u64>,
    changing: JoinHandle<u64>,
}

impl Rotation {
    pub(super) fn begin(members: &Members) -> Self {
        let Some(secured) = members.secured() else { return Self(None) };
        let (secured, over) = (Arc::clone(secured), Arc::new(AtomicBool::new(false)));
        let rotating = tokio::spawn(rotate(Arc::clone(&secured), Arc::clone(&over)));
        let root = Connections::of(members, ROOT, None);
        let token = secured.token(&members.0[0], STRANGER);
        let strangers = [
            Connections::of(members, STRANGER, None),
            Connections::of(members, crate::secured::NAMELESS, Some(token)),
        ];
        let changing = tokio::spawn(change(root, strangers, Arc::clone(&over)));
        Self(Some(Running { secured, over, rotating, changing }))
    }

    /// Ends it. All members use the newest certificates, and refuse those of an authority that was dropped.
    pub(super) async fn finish(self, members: &Members) {
        let Some(running) = self.0 else { return };
        running.over.store(true, Ordering::Relaxed);
        let rotations = running.rotating.await.expect("certificates are replaced");
        let changes = running.changing.await.expect("permissions were kept");
        println!("certificates were replaced {rotations} times, permissions {changes} times");
        assert!(rotations > 0 && changes > 0, "{rotations} rotations, {changes} changes");
        // Held by somebody who did not take part in the next change.
        let old = running.secured.holder(ALICE);
        replace_authority(&running.secured).await;
        for server in &members.0 {
            let fresh = running.secured.wire(&server.endpoint(), ALICE);
            let got = timeout(PATIENCE, fresh.get("writer-0/00000001")).await;
            got.expect("in time").expect("the newest certificates are used");
            let late = old.wire_to(&server.endpoint()).get("writer-0/00000001").await;
            let code = late.expect_err("its authority is not trusted").code();
            assert_ne!(code, Code::PermissionDenied, "it is the connection that is refused");
        }
        same_users(members).await;
    }
}

/// All members have applied the same changes of users and roles.
async fn same_users(members: &Members) {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut revisions = Vec::new();
        for at in 0..members.0.len() {
            let path = "/etcdserverpb.Auth/AuthStatus";
            let wire = members.wire(at);
            let status = wire.ask::<_, AuthStatusResponse>(path, &AuthStatusRequest {}).await;
            let status = status.expect("it answers");
            assert!(status.enabled);
            revisions.push(status.auth_revision);
        }
        if revisions.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        assert!(Instant::now() < until, "{revisions:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Longer than members take to use what was replaced.
fn step() -> Duration {
    Duration::from_millis(from_environment("CLUSTER_ROTATION_MS", 1200))
}

/// Trusts a new authority, has it issue all certificates, and drops the old one: each when all members use the step before.
async fn replace_authority(secured: &Secured) {
    secured.add_authority();
    sleep(step()).await;
    secured.reissue();
    sleep(step()).await;
    secured.drop_old_authorities();
    sleep(step()).await;
}

async fn rotate(secured: Arc<Secured>, over: Arc<AtomicBool>) -> u64 {
    let mut rotations = 0;
    while !over.load(Ordering::Relaxed) {
        sleep(step()).await;
        secured.reissue();
        sleep(step()).await;
        replace_authority(&secured).await;
        rotations += 2;
    }
    rotations
}

/// Grants a permission and takes it back, for one key after the other. Each holds on every member once it is acknowledged.
async fn change(mut root: Connections, strangers: [Connections; 2], over: Arc<AtomicBool>) -> u64 {
    let mut random = StdRng::seed_from_u64(1);
    let (mut changes, mut number) = (0, 0_u64);
    prepare(&mut root, &mut random).await;
    while !over.load(Ordering::Relaxed) || changes == 0 {
        number += 1;
        let mut stranger = strangers[number as usize % strangers.len()].clone();
        let key = format!("changing/{number:08}");
        if grant(root.any(&mut random), &key).await.is_ok() {
            let may = timeout(CALL_TIME, stranger.any(&mut random).put(&key, "x")).await;
            assert!(!may.is_ok_and(is_denied), "{key} was granted");
            if revoke(root.any(&mut random), &key).await.is_ok() {
                for _ in 0..2 {
                    let wire = stranger.any(&mut random);
                    let put = timeout(CALL_TIME, wire.put(&key, "x")).await;
                    assert!(!put.is_ok_and(|put| put.is_ok()), "{key} was taken back: a put");
                    let got = timeout(CALL_TIME, wire.get(&key)).await;
                    assert!(!got.is_ok_and(|got| got.is_ok()), "{key} was taken back: a range");
                }
                changes += 1;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    changes
}

fn is_denied<T>(outcome: Result<T, Status>) -> bool {
    outcome.is_err_and(|status| status.code() == Code::PermissionDenied)
}

/// A role for the stranger.
async fn prepare(root: &mut Connections, random: &mut StdRng) {
    let until = Instant::now() + PATIENCE;
    loop {
        let wire = root.any(random);
        let name = ROLE.to_owned();
        let add = AuthRoleAddRequest { name };
        let _: Result<AuthRoleAddResponse, _> = ask(wire, "/etcdserverpb.Auth/RoleAdd", &add).await;
        let give = AuthUserGrantRoleRequest { user: STRANGER.to_owned(), role: ROLE.to_owned() };
        let path = "/etcdserverpb.Auth/UserGrantRole";
        if ask::<_, AuthUserGrantRoleResponse>(wire, path, &give).await.is_ok() {
            return;
        }
        assert!(Instant::now() < until, "there is no role");
    }
}

async fn ask<Q: Message, A: Message + Default>(
    wire: &Wire,
    path: &'static str,
    request: &Q,
) -> Result<A, Status> {
    let answer = timeout(CALL_TIME, wire.ask(path, request)).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

async fn grant(wire: &Wire, key: &str) -> Result<AuthRoleGrantPermissionResponse, Status> {
    let perm_type = Type::Readwrite as i32;
    let perm = Some(Permission { perm_type, key: key.to_owned().into(), ..Default::default() });
    let grant = AuthRoleGrantPermissionRequest { name: ROLE.to_owned(), perm };
    ask(wire, "/etcdserverpb.Auth/RoleGrantPermission", &grant).await
}

async fn revoke(wire: &Wire, key: &str) -> Result<AuthRoleRevokePermissionResponse, Status> {
    let (role, key) = (ROLE.to_owned(), key.to_owned().into());
    let revoke = AuthRoleRevokePermissionRequest { role, key, ..Default::default() };
    ask(wire, "/etcdserverpb.Auth/RoleRevokePermission", &revoke).await
}
