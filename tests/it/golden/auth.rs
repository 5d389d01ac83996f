//! Users, roles and tokens: the commands about them, an entry that names its proposer, and the records of the store.

use std::ops::Bound;

use basalt::command::{AuthCommand, Command};
use basalt::machine::Machine;
use basalt::store::{Batch, Engine as _, Memory, Space, View as _};
use basalt::types::{Entry, EntryKind};
use basalt_proto::authpb::{Permission, UserAddOptions};
use basalt_proto::etcdserverpb::token_renew_request::Renewal;
use basalt_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, FeatureLevelSetRequest, RequestHeader, TokenIssueRequest,
    TokenRenewRequest, TokenSweepRequest,
};
use bytes::Bytes;

use super::store::{CONFIG, member, space};
use super::{Golden, hex, unhex};

const HEADER_ID: u64 = 0x0102_0304_0506_0708;

fn header() -> RequestHeader {
    RequestHeader { id: HEADER_ID, username: "root".into(), auth_revision: 0x1234 }
}

fn add(name: &str, no_password: bool) -> Command {
    let options = Some(UserAddOptions { no_password });
    let hashed_password = if no_password { "" } else { "aGFzaA==" }.to_owned();
    let name = name.to_owned();
    Command::Auth(AuthCommand::UserAdd(AuthUserAddRequest {
        name,
        options,
        hashed_password,
        ..Default::default()
    }))
}

fn give(user: &str, role: &str) -> Command {
    let (user, role) = (user.to_owned(), role.to_owned());
    Command::Auth(AuthCommand::UserGrantRole(AuthUserGrantRoleRequest { user, role }))
}

fn grant(role: &str) -> Command {
    let perm = Some(Permission { perm_type: 2, key: "a".into(), range_end: "b".into() });
    let name = role.to_owned();
    Command::Auth(AuthCommand::RoleGrantPermission(AuthRoleGrantPermissionRequest { name, perm }))
}

fn role(name: &str) -> Command {
    Command::Auth(AuthCommand::RoleAdd(AuthRoleAddRequest { name: name.to_owned() }))
}

fn issue(auth_revision: u64) -> Command {
    Command::TokenIssue(TokenIssueRequest {
        user: "root".into(),
        hash: Bytes::from_static(&[7; 32]),
        auth_revision,
        expires_ms: 1_800_000_000_000,
    })
}

/// One command of each kind, with all that it can say.
fn commands() -> Vec<(&'static str, Command)> {
    let name = || "name".to_owned();
    let change = AuthUserChangePasswordRequest {
        name: name(),
        hashed_password: "aGFzaA==".into(),
        ..Default::default()
    };
    let take = AuthUserRevokeRoleRequest { name: name(), role: name() };
    let (key, range_end) = ("a".into(), "b".into());
    let revoke = AuthRoleRevokePermissionRequest { role: name(), key, range_end };
    let renewals = vec![Renewal { index: 300, expires_ms: 1_800_000_000_000 }];
    let renew = TokenRenewRequest { renewals };
    vec![
        ("enable", Command::Auth(AuthCommand::Enable(AuthEnableRequest {}))),
        ("disable", Command::Auth(AuthCommand::Disable(AuthDisableRequest {}))),
        ("user add", add("name", true)),
        (
            "user delete",
            Command::Auth(AuthCommand::UserDelete(AuthUserDeleteRequest { name: name() })),
        ),
        ("user change password", Command::Auth(AuthCommand::UserChangePassword(change))),
        ("user grant role", give("name", "role")),
        ("user revoke role", Command::Auth(AuthCommand::UserRevokeRole(take))),
        ("role add", role("role")),
        (
            "role delete",
            Command::Auth(AuthCommand::RoleDelete(AuthRoleDeleteRequest { role: name() })),
        ),
        ("role grant permission", grant("role")),
        ("role revoke permission", Command::Auth(AuthCommand::RoleRevokePermission(revoke))),
        ("token issue", issue(5)),
        ("token renew", Command::TokenRenew(renew)),
        ("token sweep", Command::TokenSweep(TokenSweepRequest { before_ms: 1_800_000_000_000 })),
    ]
}

#[test]
fn entries_about_users_are_written_and_read_as_ever() {
    let mut golden = Golden::default();
    for (name, command) in commands() {
        golden.add(name, command.to_payload_with(header()));
    }
    let kept = golden.check("auth-entries.hex");
    for (name, command) in commands() {
        let read = Command::decode(kept[name].clone().into()).expect("it reads");
        assert_eq!(read, (header(), command), "{name}");
    }
}

const SPACES: [Space; 4] = [Space::Auth, Space::AuthUsers, Space::AuthRoles, Space::Tokens];

/// Two users, two roles, auth on, and a token.
fn state() -> Machine<Memory> {
    let mut machine = Machine::open(Memory::default(), &CONFIG).unwrap();
    machine.bootstrap(vec![member(0x1f, false)]).unwrap();
    let level = Command::FeatureLevelSet(FeatureLevelSetRequest { level: 3 });
    let enable = Command::Auth(AuthCommand::Enable(AuthEnableRequest {}));
    let history = [
        level,
        add("root", false),
        role("root"),
        give("root", "root"),
        add("somebody", true),
        role("role"),
        grant("role"),
        give("somebody", "role"),
        give("somebody", "basalt:backup"),
        enable,
        issue(9),
    ];
    for (at, command) in history.iter().enumerate() {
        let (index, data) = (at as u64 + 2, command.to_payload(0));
        let entry = Entry { index, term: 300, kind: EntryKind::Normal, data };
        machine.apply(&entry).unwrap().reply.expect("nothing is refused");
        machine.commit().unwrap();
    }
    machine
}

#[test]
fn users_are_stored_and_read_as_ever() {
    let machine = state();
    let view = machine.engine().view();
    let mut golden = Golden::default();
    for space in SPACES {
        for pair in view.scan(space, Bound::Unbounded, Bound::Unbounded) {
            let (key, value) = pair.expect("it is in memory");
            golden.add(format!("{} {} {}", space as u8, space.name(), hex(&key)), value);
        }
    }
    let mut batch = Batch::default();
    for (name, value) in golden.check("auth-store.hex") {
        let [_, name, key] = name.split(' ').collect::<Vec<_>>()[..] else { panic!("{name}") };
        batch.writes.push((space(name), unhex(key).into(), Some(value.into())));
    }
    for space in SPACES {
        assert!(batch.writes.iter().any(|(used, ..)| *used == space), "{space:?} is not used");
    }
    batch.writes.push((Space::Cluster, "featureLevel".into(), Some("3".into())));
    let mut engine = Memory::default();
    engine.commit(batch).unwrap();
    let read = Machine::open(engine, &CONFIG).expect("it reads");
    assert_eq!(read.permissions(), machine.permissions());
    assert!(read.permissions().is_enabled());
}
