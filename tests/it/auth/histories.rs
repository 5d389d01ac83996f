//! Histories of users, roles and keys on three members that apply one log each in its own way: one entry by entry, one in the
//! smallest steps, and one that crashes, begins anew from what was committed, and now and then gets the state of the first as
//! a snapshot. All must decide alike at each index, and hold the same. `BASALT_AUTH_HISTORIES=100000` makes the run long.

use std::ops::Bound;

use basalt::auth::Permissions;
use basalt::cluster::Member;
use basalt::command::{AuthCommand, Command};
use basalt::machine::{Applied, Config, Machine, StepLimits};
use basalt::snapshot::bolt::Reader;
use basalt::snapshot::{Export, ExportStep, Scope, install};
use basalt::store::{Engine as _, Memory, Space, View as _};
use basalt::types::{CacheBytes, Entry, EntryKind, FeatureLevel, LogIndex, Refusal};
use basalt_proto::authpb::{Permission, UserAddOptions};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, DeleteRangeRequest, FeatureLevelSetRequest, LeaseExpireRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestHeader, RequestOp,
    TxnRequest,
};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::compare::from_environment;

const HISTORIES: u64 = 40;
const ENTRIES: usize = 250;

fn config(at_once_records: usize) -> Config {
    Config {
        caches: CacheBytes { records: 1 << 16, lists: 1 << 16 },
        lease_ttl_min: 2,
        learners_max: 1,
        feature_level: FeatureLevel::NEWEST,
        steps: StepLimits { at_once_records, stage_writes: 4 },
    }
}

fn machine(at_once_records: usize) -> Machine<Memory> {
    let mut machine = Machine::open(Memory::default(), &config(at_once_records)).unwrap();
    machine.bootstrap(vec![Member { id: 10, ..Member::default() }]).unwrap();
    machine
}

fn pick<T: Clone>(random: &mut SmallRng, from: &[T]) -> T {
    from[random.random_range(0..from.len())].clone()
}

fn user(random: &mut SmallRng) -> String {
    pick(random, &["root", "root", "a", "b", "ghost", ""]).to_owned()
}

fn role(random: &mut SmallRng) -> String {
    pick(random, &["root", "r", "s", "basalt:operator", ""]).to_owned()
}

fn key(random: &mut SmallRng) -> Bytes {
    Bytes::from_static(pick(random, &["k", "l", "m", "n"]).as_bytes())
}

fn end(random: &mut SmallRng) -> Bytes {
    Bytes::from_static(pick(random, &["", "", "\0", "l", "n", "z"]).as_bytes())
}

fn put(random: &mut SmallRng) -> PutRequest {
    PutRequest {
        key: key(random),
        value: "v".into(),
        lease: pick(random, &[0, 0, 1, 2]),
        prev_kv: random.random(),
        ..PutRequest::default()
    }
}

fn delete(random: &mut SmallRng) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key(random), range_end: end(random), prev_kv: random.random() }
}

fn txn(random: &mut SmallRng, depth: usize) -> TxnRequest {
    let operation = |random: &mut SmallRng| {
        let request = match random.random_range(0..4) {
            0 => Request::RequestPut(put(random)),
            1 => Request::RequestDeleteRange(delete(random)),
            2 if depth > 0 => Request::RequestTxn(txn(random, depth - 1)),
            _ => {
                let (key, range_end) = (key(random), end(random));
                Request::RequestRange(RangeRequest { key, range_end, ..RangeRequest::default() })
            }
        };
        vec![RequestOp { request: Some(request) }]
    };
    TxnRequest { compare: Vec::new(), success: operation(random), failure: operation(random) }
}

fn keys_or_leases(random: &mut SmallRng) -> Command {
    let id = pick(random, &[1, 2]);
    match random.random_range(0..8) {
        0..3 => Command::Put(put(random)),
        3 => Command::DeleteRange(delete(random)),
        4 | 5 => Command::Txn(txn(random, 3)),
        6 => Command::LeaseGrant(LeaseGrantRequest { ttl: 60, id }),
        _ if random.random_range(0..4) == 0 => {
            Command::LeaseExpire(LeaseExpireRequest { id, granted_at: random.random_range(0..250) })
        }
        _ => Command::LeaseRevoke(LeaseRevokeRequest { id }),
    }
}

fn users_or_roles(random: &mut SmallRng) -> Command {
    let (name, role) = (user(random), role(random));
    let hashed_password = pick(random, &["aGFzaA==", "*", ""]).to_owned();
    match random.random_range(0..16) {
        0 | 1 => Command::Auth(AuthCommand::Enable(AuthEnableRequest {})),
        2 if random.random() => Command::Auth(AuthCommand::Disable(AuthDisableRequest {})),
        2..5 => {
            let options = Some(UserAddOptions { no_password: random.random() });
            let add = AuthUserAddRequest { name, hashed_password, options, ..Default::default() };
            Command::Auth(AuthCommand::UserAdd(add))
        }
        5 => Command::Auth(AuthCommand::UserDelete(AuthUserDeleteRequest { name })),
        6 => Command::Auth(AuthCommand::UserChangePassword(AuthUserChangePasswordRequest {
            name,
            hashed_password,
            ..Default::default()
        })),
        7..10 => {
            Command::Auth(AuthCommand::UserGrantRole(AuthUserGrantRoleRequest { user: name, role }))
        }
        10 => Command::Auth(AuthCommand::UserRevokeRole(AuthUserRevokeRoleRequest { name, role })),
        11 => Command::Auth(AuthCommand::RoleAdd(AuthRoleAddRequest { name: role })),
        12 => Command::Auth(AuthCommand::RoleDelete(AuthRoleDeleteRequest { role })),
        13 | 14 => {
            let (perm_type, key) = (random.random_range(0..3), key(random));
            let perm = Some(Permission { perm_type, key, range_end: end(random) });
            Command::Auth(AuthCommand::RoleGrantPermission(AuthRoleGrantPermissionRequest {
                name: role,
                perm,
            }))
        }
        _ => {
            let (key, range_end) = (key(random), end(random));
            let revoke = AuthRoleRevokePermissionRequest { role, key, range_end };
            Command::Auth(AuthCommand::RoleRevokePermission(revoke))
        }
    }
}

/// The next entry, mostly in the name of somebody who may make it at this revision.
fn entry(random: &mut SmallRng, index: LogIndex, permissions: &Permissions) -> Entry {
    let changes_users = random.random_range(0..10) < 4;
    let command = match changes_users {
        true => users_or_roles(random),
        false => keys_or_leases(random),
    };
    let revision = permissions.revision();
    let auth_revision =
        pick(random, &[revision, revision, revision, revision - 1, revision + 1, 0]);
    let username = match changes_users && random.random_range(0..4) > 0 {
        true => "root".to_owned(),
        false => user(random),
    };
    let header = RequestHeader { id: index, username, auth_revision };
    Entry { index, term: 3, kind: EntryKind::Normal, data: command.to_payload_with(header) }
}

/// The state of a member as another one gets it.
fn copied(from: &Machine<Memory>) -> Machine<Memory> {
    let mut export = Export::new(from.engine().view(), Scope::Member);
    let mut file = Vec::new();
    loop {
        match export.step(1 << 20).unwrap() {
            ExportStep::Working => (),
            ExportStep::Chunk(chunk) => file.extend_from_slice(&chunk),
            ExportStep::Done => break,
        }
    }
    let mut engine = Memory::default();
    install(&Reader::open(Bytes::from(file)).unwrap(), &mut engine).unwrap();
    Machine::open(engine, &config(usize::MAX)).unwrap()
}

/// All that a member holds, but for what depends on how its log was cut into batches.
fn contents(machine: &Machine<Memory>) -> Vec<(Space, Bytes, Bytes)> {
    let view = machine.engine().view();
    let spaces = Space::ALL.into_iter().filter(|space| *space != Space::Meta);
    let pairs = spaces.flat_map(|space| {
        let pairs = view.scan(space, Bound::Unbounded, Bound::Unbounded);
        pairs.map(move |pair| pair.map(|(key, value)| (space, key, value))).collect::<Vec<_>>()
    });
    pairs.collect::<Result<_, _>>().unwrap()
}

fn in_steps(machine: &mut Machine<Memory>, entry: &Entry) -> Applied {
    let mut applied = machine.begin(entry).unwrap();
    loop {
        if let Some(applied) = applied {
            return applied;
        }
        applied = machine.step(1).unwrap();
    }
}

/// How often something was refused for want of a permission, and how often it was done while auth was on.
#[derive(Default)]
struct Counts {
    denied: usize,
    done: usize,
}

fn history(seed: u64, counts: &mut Counts) {
    let random = &mut SmallRng::seed_from_u64(seed);
    let (mut first, mut stepping) = (machine(usize::MAX), machine(1));
    let mut crashing = machine(usize::MAX);
    crashing.commit().unwrap();
    let (mut log, mut replies) = (Vec::<Entry>::new(), Vec::new());
    let beginning = first.applied();
    let level = Command::FeatureLevelSet(FeatureLevelSetRequest { level: 3 });
    let raised_at = random.random_range(0..10);
    for at in 0..ENTRIES {
        let index = beginning + 1 + at as LogIndex;
        let next = match at == raised_at {
            true => {
                let data = level.to_payload(index);
                Entry { index, term: 3, kind: EntryKind::Normal, data }
            }
            false => entry(random, index, first.permissions()),
        };
        let is_on = first.permissions().is_enabled();
        let applied = first.apply(&next).unwrap();
        first.commit().unwrap();
        counts.denied += usize::from(applied.reply == Err(Refusal::PermissionDenied));
        counts.done += usize::from(is_on && applied.reply.is_ok());
        let told = in_steps(&mut stepping, &next);
        assert_eq!(told, applied, "seed {seed}, index {index}");
        if random.random() {
            stepping.commit().unwrap();
        }
        log.push(next);
        replies.push(applied);
        match random.random_range(0..40) {
            0 => crashing = copied(&first),
            1..4 => {
                let engine = crashing.engine().crashed();
                crashing = Machine::open(engine, &config(usize::MAX)).unwrap();
            }
            4..20 => drop(crashing.commit().unwrap()),
            // It lags.
            20..25 => continue,
            _ => (),
        }
        let from = (crashing.applied() - beginning) as usize;
        for (entry, expected) in log[from..].iter().zip(&replies[from..]) {
            let told = crashing.apply(entry).unwrap();
            assert_eq!(told, *expected, "seed {seed}, index {}", entry.index);
        }
    }
    for machine in [&mut stepping, &mut crashing] {
        let from = (machine.applied() - beginning) as usize;
        for entry in &log[from..] {
            machine.apply(entry).unwrap();
        }
        machine.commit().unwrap();
        assert_eq!(machine.permissions(), first.permissions(), "seed {seed}");
        assert_eq!(contents(machine), contents(&first), "seed {seed}");
    }
}

#[test]
fn members_decide_alike_at_each_index() {
    let mut counts = Counts::default();
    let histories = from_environment("BASALT_AUTH_HISTORIES", HISTORIES);
    (1..=histories).for_each(|seed| history(seed, &mut counts));
    let Counts { denied, done } = counts;
    assert!(denied as u64 > histories && done as u64 > histories, "{denied} denied, {done} done");
}
