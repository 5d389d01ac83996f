//! Facts, one each.

use basalt_proto::etcdserverpb::compare::TargetUnion;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use super::*;
use crate::store::{Space, View as _};
use crate::types::LeaseId;
use crate::types::limits::AUTH_NAME_BYTES_MAX;

#[test]
fn auth_is_not_enabled_without_a_root_that_has_the_role() {
    let mut bench = Bench::new();
    assert_eq!(bench.enable(), Err(Refusal::RootUserNotExist));
    bench.user(ROOT).unwrap();
    assert_eq!(bench.enable(), Err(Refusal::RootRoleNotExist));
    bench.give(ROOT, ROOT).unwrap();
    let before = bench.revision();
    assert_eq!(bench.enable(), Ok(Some(Change::Enabled)));
    assert_eq!(bench.enable(), Ok(None), "it is on");
    assert_eq!(bench.revision(), before, "it does not raise the revision");
    assert_eq!(bench.take(ROOT, ROOT), Err(Refusal::InvalidAuthMgmt));
    assert_eq!(bench.delete_user(ROOT), Err(Refusal::InvalidAuthMgmt));
    assert_eq!(bench.delete_role(ROOT), Err(Refusal::InvalidAuthMgmt));
    assert_eq!(bench.disable(), Ok(Some(Change::Disabled)));
    assert_eq!(bench.revision(), before + 1, "this does");
    assert_eq!(bench.disable(), Ok(None));
    assert_eq!(bench.delete_role(ROOT), Err(Refusal::RoleNotFound));
    bench.take(ROOT, ROOT).unwrap();
    bench.delete_user(ROOT).unwrap();
}

#[test]
fn records_are_those_of_etcds_buckets() {
    let mut bench = Bench::enabled();
    bench.role("r").unwrap();
    bench.grant("r", Type::Readwrite, b"a", b"b").unwrap();
    bench.give(ROOT, "r").unwrap();
    bench.user_without_password("c").unwrap();
    bench.engine.commit(bench.tx.take()).unwrap();
    let view = bench.engine.view();
    let read = |space, key: &[u8]| view.get(space, key).unwrap().map(|it| it.to_vec());
    assert_eq!(read(Space::Auth, b"authEnabled"), Some(vec![1]));
    assert_eq!(read(Space::Auth, b"authRevision"), Some(vec![0, 0, 0, 0, 0, 0, 0, 7]));
    let user = b"\x0a\x04root\x12\x04hash\x1a\x01r\x1a\x04root\x22\x00".to_vec();
    assert_eq!(read(Space::AuthUsers, b"root"), Some(user));
    assert_eq!(read(Space::AuthUsers, b"c"), Some(b"\x0a\x01c\x22\x02\x08\x01".to_vec()));
    let role = b"\x0a\x01r\x12\x08\x08\x02\x12\x01a\x1a\x01b".to_vec();
    assert_eq!(read(Space::AuthRoles, b"r"), Some(role));
}

#[test]
fn a_permission_that_is_granted_again_is_replaced() {
    let mut bench = Bench::new();
    bench.role("r").unwrap();
    for (kind, end) in [(Type::Read, b"b"), (Type::Readwrite, b"c"), (Type::Read, b"c")] {
        bench.grant("r", kind, b"a", end).unwrap();
    }
    let permissions = bench.auth.permissions().role("r").unwrap().permissions().to_vec();
    let kinds: Vec<_> = permissions.iter().map(|it| (it.perm_type(), &it.range_end[..])).collect();
    assert_eq!(kinds, [(Type::Read, &b"b"[..]), (Type::Read, b"c")]);
    assert_eq!(bench.revoke("r", b"a", b""), Err(Refusal::PermissionNotGranted));
    bench.revoke("r", b"a", b"b").unwrap();
    assert_eq!(bench.revoke("x", b"a", b"c"), Err(Refusal::RoleNotFound));
}

#[test]
fn a_permission_needs_keys() {
    let mut bench = Bench::new();
    bench.role("r").unwrap();
    let none = AuthRoleGrantPermissionRequest { name: "x".into(), perm: None };
    let outcome = bench.auth.role_grant_permission(&mut bench.tx, &none);
    assert_eq!(outcome, Err(Refusal::PermissionNotGiven));
    for (key, end) in [(&b""[..], &b""[..]), (b"", b"\0"), (b"b", b"b"), (b"b", b"a")] {
        let outcome = bench.grant("x", Type::Read, key, end);
        assert_eq!(outcome, Err(Refusal::InvalidAuthMgmt), "{key:?} {end:?}");
    }
    assert_eq!(bench.grant("x", Type::Read, b"a", b""), Err(Refusal::RoleNotFound));
    bench.grant("r", Type::Read, b"b", b"\0").unwrap();
}

#[test]
fn passwords_are_hashes_and_a_user_without_one_keeps_none() {
    let mut bench = Bench::new();
    bench.user("a").unwrap();
    bench.user_without_password("b").unwrap();
    let no_base64 = Err(Refusal::PasswordForNoPasswordUser);
    assert_eq!(bench.password("a", "*"), no_base64);
    assert_eq!(bench.password("c", "*"), Err(Refusal::UserNotFound));
    bench.password("a", "").unwrap();
    bench.password("b", HASH).unwrap();
    let permissions = bench.auth.permissions();
    let hash = |user: &str| permissions.user(user).unwrap().password_hash().clone();
    assert_eq!((hash("a"), hash("b")), (Bytes::new(), Bytes::new()));
    assert!(permissions.user("b").unwrap().has_no_password());
    assert!(!permissions.user("a").unwrap().has_no_password());
    let plain = AuthUserAddRequest {
        name: "p".into(),
        password: "secret".into(),
        hashed_password: HASH.into(),
        ..Default::default()
    };
    bench.auth.user_add(&mut bench.tx, &plain).unwrap();
    let user = bench.auth.permissions().user("p").unwrap().clone();
    assert_eq!(user.password_hash(), "hash", "what is plain is passed over");
}

#[test]
fn names_are_bounded_and_some_are_kept_for_operators() {
    let mut bench = Bench::new();
    let long = "x".repeat(AUTH_NAME_BYTES_MAX + 1);
    assert_eq!(bench.user(&long), Err(Refusal::RequestTooLarge));
    assert_eq!(bench.role(&long), Err(Refusal::RequestTooLarge));
    bench.user(&long[1..]).unwrap();
    assert_eq!(bench.user(""), Err(Refusal::UserEmpty));
    assert_eq!(bench.role(""), Err(Refusal::RoleEmpty));
    assert_eq!(bench.role("basalt:backup"), Err(Refusal::RoleAlreadyExist));
    assert_eq!(bench.role("basalt:mine"), Err(Refusal::InvalidAuthMgmt));
    bench.role("basalt").unwrap();
}

#[test]
fn roles_for_operators_grant_what_is_roots_and_no_keys() {
    let mut bench = Bench::enabled();
    let all = [
        Capability::Snapshot,
        Capability::HashKv,
        Capability::MoveLeader,
        Capability::Defragment,
        Capability::Compact,
        Capability::Alarm,
        Capability::ReadAuth,
    ];
    for (role, granted) in [
        ("backup", &[Capability::Snapshot, Capability::HashKv][..]),
        ("monitor", &[Capability::HashKv]),
        ("operator", &all[1..6]),
        ("auditor", &[Capability::ReadAuth]),
    ] {
        bench.user(role).unwrap();
        bench.give(role, &format!("basalt:{role}")).unwrap();
        let permissions = bench.auth.permissions();
        for capability in all {
            let outcome = permissions.check_capability(somebody(role), capability);
            let expected = granted.contains(&capability);
            assert_eq!(outcome.is_ok(), expected, "{role} {capability:?}");
        }
        assert_eq!(permissions.check_root(somebody(role)), Err(Refusal::PermissionDenied));
        assert!(!permissions.covers_all(somebody(role), Action::Read));
    }
    assert_eq!(bench.give("backup", "basalt:other"), Err(Refusal::RoleNotFound));
}

/// The rows of the table in which nobody, a user without a record, and a user whose record is gone differ.
#[test]
fn who_is_asked_in_etcds_order() {
    use Refusal::{AuthOldRevision, PermissionDenied, UserEmpty, UserNotFound};
    let mut bench = Bench::enabled();
    bench.user("a").unwrap();
    let permissions = bench.auth.permissions();
    let now = permissions.revision();
    let key = |who| permissions.check_range(who, Action::Read, b"k", b"");
    let who = |user, revision| Some(Principal { user, revision });
    let table = [
        (None, Err(UserEmpty), Err(UserEmpty), Err(UserEmpty)),
        (who("ghost", now), Err(PermissionDenied), Err(UserNotFound), Ok(())),
        (who("", now), Err(PermissionDenied), Err(UserEmpty), Ok(())),
        (who("a", now), Err(PermissionDenied), Err(PermissionDenied), Ok(())),
        (who("ghost", now - 1), Err(AuthOldRevision), Err(UserNotFound), Ok(())),
        (who(ROOT, now - 1), Err(AuthOldRevision), Ok(()), Ok(())),
        (who(ROOT, now), Ok(()), Ok(()), Ok(())),
        (who(ROOT, now + 1), Ok(()), Ok(()), Ok(())),
    ];
    for (who, of_key, of_root, of_any) in table {
        assert_eq!(key(who), of_key, "{who:?}");
        assert_eq!(permissions.check_root(who), of_root, "{who:?}");
        assert_eq!(permissions.check_any_user(who), of_any, "{who:?}");
    }
    assert_eq!(permissions.check_user_get(who("a", 1), "a"), Ok(()));
    assert_eq!(permissions.check_user_get(who("a", 1), ROOT), Err(PermissionDenied));
    assert_eq!(permissions.check_user_get(None, "a"), Err(UserEmpty));
    assert_eq!(permissions.check_user_get(None, ""), Ok(()));
    let off = Permissions::default();
    assert_eq!(off.check_range(None, Action::Write, b"k", b"\0"), Ok(()));
    assert_eq!((off.check_root(None), off.check_any_user(None)), (Ok(()), Ok(())));
}

#[test]
fn ones_own_roles_may_be_seen() {
    let mut bench = Bench::enabled();
    for (user, role) in [("a", "r"), ("b", "s")] {
        bench.user(user).unwrap();
        bench.role(role).unwrap();
        bench.give(user, role).unwrap();
    }
    let permissions = bench.auth.permissions();
    assert_eq!(permissions.check_role_get(somebody("a"), "r"), Ok(()));
    assert_eq!(permissions.check_role_get(somebody("a"), "s"), Err(Refusal::PermissionDenied));
    assert_eq!(permissions.check_role_get(somebody("c"), "r"), Err(Refusal::UserNotFound));
    assert_eq!(permissions.check_role_get(None, "r"), Err(Refusal::UserEmpty));
}

#[test]
fn a_copy_that_was_published_does_not_change() {
    let mut bench = Bench::enabled();
    let before = std::sync::Arc::clone(bench.auth.permissions());
    bench.user("a").unwrap();
    assert!(before.user("a").is_none() && bench.auth.permissions().user("a").is_some());
    assert_eq!(before.revision() + 1, bench.revision());
}

#[test]
fn nothing_is_checked_before_all_members_can() {
    let mut bench = Bench::enabled();
    bench.reopened();
    let mut held_back = Auth::open(&bench.engine.view(), false).unwrap();
    let permissions = held_back.permissions();
    assert!(permissions.is_held_back() && !permissions.is_enabled());
    assert_eq!(permissions.check_range(None, Action::Read, b"k", b""), Ok(()));
    held_back.set_supported();
    let permissions = held_back.permissions();
    assert!(permissions.is_enabled() && !permissions.is_held_back());
}

/// Keys `a` and `w` of lease 1; none of others.
struct Attached;

impl AttachedKeys for Attached {
    fn next(&self, lease: LeaseId, from: &[u8]) -> Option<&[u8]> {
        let keys = if lease == 1 { &[&b"a"[..], b"w"][..] } else { &[] };
        keys.iter().copied().find(|key| *key >= from)
    }
}

fn put(key: &str, prev_kv: bool, lease: LeaseId) -> PutRequest {
    PutRequest { key: text(key), prev_kv, lease, ..PutRequest::default() }
}

fn of(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// One who may read `r` and `b`, and write `w` and `b`.
fn reader_and_writer() -> Bench {
    let mut bench = Bench::enabled();
    bench.user("u").unwrap();
    bench.role("x").unwrap();
    bench.give("u", "x").unwrap();
    bench.grant("x", Type::Read, b"r", b"").unwrap();
    bench.grant("x", Type::Write, b"w", b"").unwrap();
    bench.grant("x", Type::Readwrite, b"b", b"").unwrap();
    bench
}

#[test]
fn a_put_needs_its_key_the_keys_of_its_lease_and_what_it_gives_back() {
    let bench = reader_and_writer();
    let may = |put: PutRequest| bench.auth.permissions().check_put(somebody("u"), &put, &Attached);
    assert_eq!(may(put("w", false, 0)), Ok(()));
    assert_eq!(may(put("r", false, 0)), Err(Refusal::PermissionDenied));
    assert_eq!(may(put("w", true, 0)), Err(Refusal::PermissionDenied), "it may not read it");
    assert_eq!(may(put("b", true, 0)), Ok(()));
    assert_eq!(may(put("w", false, 1)), Err(Refusal::PermissionDenied), "`a` has this lease");
    assert_eq!(may(put("w", false, 2)), Ok(()), "nothing has this one");
    let root = bench.auth.permissions().check_put(somebody(ROOT), &put("w", true, 1), &Attached);
    assert_eq!(root, Ok(()));
}

#[test]
fn operations_are_checked_at_any_depth_in_both_branches() {
    let bench = reader_and_writer();
    let range = |key: &str| {
        of(Request::RequestRange(RangeRequest { key: text(key), ..RangeRequest::default() }))
    };
    let delete = |key: &str, prev_kv| {
        let key = text(key);
        of(Request::RequestDeleteRange(DeleteRangeRequest { key, prev_kv, ..Default::default() }))
    };
    let compare = |key: &str| Compare {
        key: text(key),
        target_union: Some(TargetUnion::Version(0)),
        ..Compare::default()
    };
    let (allowed, refused) = (
        [
            range("r"),
            of(Request::RequestPut(put("w", false, 2))),
            delete("w", false),
            delete("b", true),
        ],
        [
            range("w"),
            of(Request::RequestPut(put("r", false, 0))),
            of(Request::RequestPut(put("w", true, 0))),
            of(Request::RequestPut(put("w", false, 1))),
            delete("r", false),
            delete("w", true),
        ],
    );
    let may = |txn: &TxnRequest, who| bench.auth.permissions().check_txn(who, txn, &Attached);
    let compares = |key| TxnRequest { compare: vec![compare(key)], ..TxnRequest::default() };
    for depth in 0..4 {
        for in_failure in [false, true] {
            let within = |txn: TxnRequest| {
                (0..depth).fold(txn, |txn, _| {
                    let nested = vec![of(Request::RequestTxn(txn))];
                    match in_failure {
                        true => TxnRequest { failure: nested, ..TxnRequest::default() },
                        false => TxnRequest { success: nested, ..TxnRequest::default() },
                    }
                })
            };
            let one = |operation: &RequestOp| match in_failure {
                true => TxnRequest { failure: vec![operation.clone()], ..TxnRequest::default() },
                false => TxnRequest { success: vec![operation.clone()], ..TxnRequest::default() },
            };
            for operation in &allowed {
                assert_eq!(may(&within(one(operation)), somebody("u")), Ok(()), "{operation:?}");
            }
            for operation in &refused {
                let txn = within(one(operation));
                let denied = Err(Refusal::PermissionDenied);
                assert_eq!(may(&txn, somebody("u")), denied, "{depth} {operation:?}");
                assert_eq!(may(&txn, None), Err(Refusal::UserEmpty));
                assert_eq!(may(&txn, somebody(ROOT)), Ok(()));
            }
            assert_eq!(may(&within(compares("r")), somebody("u")), Ok(()));
            assert!(may(&within(compares("w")), somebody("u")).is_err());
            let nothing = within(TxnRequest::default());
            assert_eq!(may(&nothing, None), Ok(()), "what does nothing demands nothing");
        }
    }
}

#[test]
fn the_keys_of_a_lease_decide_about_it_but_not_for_root() {
    let mut bench = reader_and_writer();
    let may = |bench: &Bench, who, action, lease| {
        bench.auth.permissions().check_lease(who, action, lease, &Attached)
    };
    let denied = Err(Refusal::PermissionDenied);
    assert_eq!(may(&bench, somebody("u"), Action::Write, 1), denied);
    assert_eq!(may(&bench, None, Action::Write, 1), Err(Refusal::UserEmpty));
    assert_eq!(may(&bench, None, Action::Write, 2), Ok(()), "it has no keys");
    let old = Some(Principal { user: ROOT, revision: 1 });
    assert_eq!(may(&bench, old, Action::Write, 1), Ok(()), "whatever its revision");
    bench.grant("x", Type::Write, b"a", b"").unwrap();
    assert_eq!(may(&bench, somebody("u"), Action::Write, 1), Ok(()));
    assert_eq!(may(&bench, somebody("u"), Action::Read, 1), denied);
    let old = Some(Principal { user: "u", revision: 1 });
    assert_eq!(may(&bench, old, Action::Write, 1), Err(Refusal::AuthOldRevision));
}
