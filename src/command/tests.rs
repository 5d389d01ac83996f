//! The bytes are etcd's, no field of an entry is skipped, and each command has its level, class and cost.

use basalt_proto::authpb::{Permission, UserAddOptions};
use basalt_proto::etcdserverpb::token_renew_request::Renewal;
use basalt_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, InternalRaftRequest, RequestOp, request_op::Request,
};
use prost::encoding::decode_key;

use super::*;

fn put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: "value".into(), ..PutRequest::default() }
}

fn txn(requests: Vec<Request>) -> TxnRequest {
    let success = requests.into_iter().map(|request| RequestOp { request: Some(request) });
    TxnRequest { success: success.collect(), ..TxnRequest::default() }
}

/// The commands about users and roles, and the same as whole `InternalRaftRequest`s.
fn auth() -> Vec<(Command, InternalRaftRequest)> {
    let none = InternalRaftRequest::default;
    let name = || "a".to_owned();
    let options = Some(UserAddOptions { no_password: true });
    let add = AuthUserAddRequest { name: name(), options, ..Default::default() };
    let delete = AuthUserDeleteRequest { name: name() };
    let change = AuthUserChangePasswordRequest { name: name(), ..Default::default() };
    let give = AuthUserGrantRoleRequest { user: name(), role: name() };
    let take = AuthUserRevokeRoleRequest { name: name(), role: name() };
    let role = AuthRoleAddRequest { name: name() };
    let delete_role = AuthRoleDeleteRequest { role: name() };
    let perm = Some(Permission { perm_type: 2, key: "k".into(), range_end: "l".into() });
    let grant = AuthRoleGrantPermissionRequest { name: name(), perm };
    let (key, range_end) = ("k".into(), "l".into());
    let revoke = AuthRoleRevokePermissionRequest { role: name(), key, range_end };
    let issue =
        TokenIssueRequest { user: name(), hash: "h".into(), expires_ms: 7, auth_revision: 2 };
    let renewals = vec![Renewal { index: 9, expires_ms: 7 }];
    let renew = TokenRenewRequest { renewals };
    macro_rules! pairs {
        ($($command:path, $field:ident $value:expr;)*) => {
            vec![$((
                Command::from($command($value.clone())),
                InternalRaftRequest { $field: Some($value), ..none() },
            ),)*]
        };
    }
    pairs! {
        AuthCommand::Enable, auth_enable AuthEnableRequest {};
        AuthCommand::Disable, auth_disable AuthDisableRequest {};
        AuthCommand::UserAdd, auth_user_add add;
        AuthCommand::UserDelete, auth_user_delete delete;
        AuthCommand::UserChangePassword, auth_user_change_password change;
        AuthCommand::UserGrantRole, auth_user_grant_role give;
        AuthCommand::UserRevokeRole, auth_user_revoke_role take;
        AuthCommand::RoleAdd, auth_role_add role;
        AuthCommand::RoleDelete, auth_role_delete delete_role;
        AuthCommand::RoleGrantPermission, auth_role_grant_permission grant;
        AuthCommand::RoleRevokePermission, auth_role_revoke_permission revoke;
        Command::TokenIssue, token_issue issue;
        Command::TokenRenew, token_renew renew;
        Command::TokenSweep, token_sweep TokenSweepRequest { before_ms: 7 };
    }
}

/// One command of each kind, and the same as a whole `InternalRaftRequest`.
fn each() -> Vec<(Command, InternalRaftRequest)> {
    let none = InternalRaftRequest::default;
    let transaction = txn(vec![Request::RequestPut(put("b"))]);
    let delete = DeleteRangeRequest { key: "a".into(), ..Default::default() };
    let compaction = CompactionRequest { revision: 7, physical: true };
    let grant = LeaseGrantRequest { ttl: 60, id: 5 };
    let revoke = LeaseRevokeRequest { id: 5 };
    let expire = LeaseExpireRequest { id: 5, granted_at: 9 };
    let alarm = AlarmRequest { action: 1, member_id: 3, alarm: 1 };
    let version = ClusterVersionSetRequest { ver: "3.7.0".to_owned() };
    let set = ClusterMemberAttrSetRequest { member_id: 3, member_attributes: None };
    let level = FeatureLevelSetRequest { level: 2 };
    let mut each = vec![
        (Command::Put(put("a")), InternalRaftRequest { put: Some(put("a")), ..none() }),
        (
            Command::DeleteRange(delete.clone()),
            InternalRaftRequest { delete_range: Some(delete), ..none() },
        ),
        (
            Command::Txn(transaction.clone()),
            InternalRaftRequest { txn: Some(transaction), ..none() },
        ),
        (
            Command::Compaction(compaction),
            InternalRaftRequest { compaction: Some(compaction), ..none() },
        ),
        (Command::LeaseGrant(grant), InternalRaftRequest { lease_grant: Some(grant), ..none() }),
        (
            Command::LeaseRevoke(revoke),
            InternalRaftRequest { lease_revoke: Some(revoke), ..none() },
        ),
        (
            Command::LeaseExpire(expire),
            InternalRaftRequest { lease_expire: Some(expire), ..none() },
        ),
        (Command::Alarm(alarm), InternalRaftRequest { alarm: Some(alarm), ..none() }),
        (
            Command::ClusterVersionSet(version.clone()),
            InternalRaftRequest { cluster_version_set: Some(version), ..none() },
        ),
        (
            Command::ClusterMemberAttrSet(set.clone()),
            InternalRaftRequest { cluster_member_attr_set: Some(set), ..none() },
        ),
        (
            Command::FeatureLevelSet(level),
            InternalRaftRequest { feature_level_set: Some(level), ..none() },
        ),
    ];
    each.extend(auth());
    each
}

#[test]
fn the_bytes_are_those_of_an_internal_raft_request() {
    let mut fields = Vec::new();
    for (command, whole) in each() {
        assert_eq!(command.to_payload(0), whole.encode_to_vec(), "{command:?}");
        let header = RequestHeader { id: u64::MAX, ..RequestHeader::default() };
        let whole = InternalRaftRequest { header: Some(header.clone()), ..whole };
        let payload = command.to_payload(u64::MAX);
        assert_eq!(InternalRaftRequest::decode(payload.clone()), Ok(whole.clone()));
        let read = Some((header, command.clone()));
        assert_eq!(Command::decode(payload.clone()).ok(), read);
        // The fields are also in the order in which etcd writes them.
        assert_eq!(Command::decode(whole.encode_to_vec().into()).ok(), read);
        assert!(payload.len() <= command.encoded_len() + HEADER_BYTES_MAX);
        fields.push(decode_key(&mut &payload[..]).unwrap().0);
    }
    fields.sort_unstable();
    assert_eq!(fields, fields::COMMANDS, "each command that is known has its field in the list");
}

#[test]
fn a_header_names_who_asks_within_its_bound() {
    for username in ["", "a", &"x".repeat(300)] {
        let (id, auth_revision, username) = (u64::MAX, u64::MAX, username.to_owned());
        let header = RequestHeader { id, username, auth_revision };
        let command = Command::Put(put("a"));
        let payload = command.to_payload_with(header.clone());
        let bound = command.encoded_len() + header_bytes_max(&header.username);
        assert!(payload.len() <= bound, "{} of {bound}", payload.len());
        assert_eq!(Command::decode(payload).ok(), Some((header, command)));
    }
}

#[test]
fn the_id_may_stand_beside_the_command_as_in_old_logs_of_etcd() {
    let whole = InternalRaftRequest { id: 9, put: Some(put("a")), ..Default::default() };
    let (header, command) = Command::decode(whole.encode_to_vec().into()).unwrap();
    assert_eq!((header.id, command), (9, Command::Put(put("a"))));
}

#[test]
fn nothing_in_an_entry_is_passed_over() {
    let payload = Command::Put(put("a")).to_payload(7);
    let refused = |more: &[u8]| {
        let whole = [&payload[..], more].concat();
        Command::decode(whole.into()).expect_err("it holds more than a put").to_string()
    };
    let unknown = "it holds a command that this version does not know (field 2047)";
    assert_eq!(refused(b"\xf8\x7f\x01"), unknown);
    assert_eq!(refused(b"\x2a\x00"), "it holds two commands");
    assert!(refused(b"\x1a\x00").ends_with("does not know (field 3)"), "a range is never logged");
    assert!(refused(b"\xff").starts_with("it does not read: "));
    let header = RequestHeader { id: 1, ..RequestHeader::default() };
    let alone = InternalRaftRequest { header: Some(header), ..Default::default() };
    let told = Command::decode(alone.encode_to_vec().into()).expect_err("no command").to_string();
    assert_eq!(told, "it holds no command");
    for end in 1..payload.len() {
        // The header comes last: without it, the rest is the same command without an id.
        match Command::decode(payload.slice(..end)) {
            Ok((header, command)) => {
                assert_eq!((header.id, command), (0, Command::Put(put("a"))), "cut at {end}");
            }
            Err(fault) => assert!(fault.to_string().starts_with("it "), "{fault}"),
        }
    }
}

#[test]
fn kinds_levels_classes_and_costs() {
    use AlarmClass::{Control, Growth, Keys};
    let told: Vec<_> = each()
        .into_iter()
        .map(|(it, _)| (it.operation().name(), it.level().number(), it.alarm_class(), it.cost()))
        .collect();
    let expected = [
        ("Put", 1, Growth, 262),
        ("DeleteRange", 1, Keys, 0),
        ("Txn", 1, Growth, 262),
        ("Compaction", 1, Keys, 0),
        ("LeaseGrant", 1, Growth, 64),
        ("LeaseRevoke", 1, Keys, 0),
        ("LeaseRevoke", 1, Keys, 0),
        ("Alarm", 1, Control, 0),
        ("ClusterVersionSet", 1, Control, 0),
        ("ClusterMemberAttrSet", 1, Control, 0),
        ("FeatureLevelSet", 2, Control, 0),
        ("AuthEnable", 3, Control, 0),
        ("AuthDisable", 3, Control, 0),
        ("AuthUserAdd", 3, Control, 0),
        ("AuthUserDelete", 3, Control, 0),
        ("AuthUserChangePassword", 3, Control, 0),
        ("AuthUserGrantRole", 3, Control, 0),
        ("AuthUserRevokeRole", 3, Control, 0),
        ("AuthRoleAdd", 3, Control, 0),
        ("AuthRoleDelete", 3, Control, 0),
        ("AuthRoleGrantPermission", 3, Control, 0),
        ("AuthRoleRevokePermission", 3, Control, 0),
        ("Authenticate", 3, Control, 0),
        ("Authenticate", 3, Control, 0),
        ("Authenticate", 3, Control, 0),
    ];
    assert_eq!(told, expected);
    for (at, operation) in Operation::ALL.into_iter().enumerate() {
        assert_eq!(operation as usize, at, "{operation:?}");
    }
    let reads = Command::Txn(txn(vec![Request::RequestDeleteRange(Default::default())]));
    assert_eq!((reads.cost(), reads.alarm_class()), (0, Keys));
}

#[test]
fn a_transaction_costs_as_much_as_its_dearer_branch() {
    let write = || RequestOp { request: Some(Request::RequestPut(put("key"))) };
    assert_eq!(put_cost(&put("key")), 264);
    let two = TxnRequest {
        success: vec![write()],
        failure: vec![write(), write()],
        ..TxnRequest::default()
    };
    assert_eq!(txn_cost(&txn(vec![Request::RequestTxn(two)])), 528);
}

#[test]
fn alarms_refuse_by_class() {
    let (none, space, corrupt) = (AlarmType::None, AlarmType::Nospace, AlarmType::Corrupt);
    for (class, refused) in [
        (AlarmClass::Control, [false, false, false]),
        (AlarmClass::Keys, [false, false, true]),
        (AlarmClass::Growth, [false, true, true]),
    ] {
        let told = [none, space, corrupt].map(|alarm| class.is_refused_under(alarm));
        assert_eq!(told, refused, "{class:?}");
    }
}

#[test]
fn a_command_above_the_agreed_level_is_refused_but_for_the_one_that_raises_it() {
    let level = FeatureLevel::new;
    assert_eq!(check_level(level(3), level(3)), Ok(()));
    assert_eq!(check_level(level(2), level(3)), Ok(()));
    assert_eq!(check_level(level(3), level(2)), Err(Refusal::FeatureLevelTooLow));
    let above: Vec<_> = auth().into_iter().map(|(command, _)| command).collect();
    for (command, _) in each() {
        let expected = match above.contains(&command) {
            true => Err(Refusal::FeatureLevelTooLow),
            false => Ok(()),
        };
        assert_eq!(command.check_level(level(2)), expected, "{command:?}");
        assert_eq!(command.check_level(level(3)), Ok(()), "{command:?}");
    }
    let raise = Command::FeatureLevelSet(FeatureLevelSetRequest { level: 5 });
    let told = raise.check_supported(level(4)).unwrap_err().to_string();
    assert_eq!(told, "it needs feature level 5, and this version supports 4");
    assert!(raise.check_supported(level(1)).is_err());
    assert_eq!(raise.check_supported(level(5)), Ok(()));
    assert_eq!(Command::Put(put("a")).check_supported(level(1)), Ok(()));
}
