//! The requests of the matrix, in the order in which they are made. `@k` stands for a key `k` in base64, `#` for the number of
//! the identity, so that what one of them locks does not stop the next.

/// A request.
pub(super) struct Shape {
    /// Its RPC.
    pub(super) path: &'static str,
    /// The request as JSON.
    pub(super) body: &'static str,
    /// Of what comes on success only the code counts: it holds what each server chooses.
    pub(super) is_opaque: bool,
}

const fn shape(path: &'static str, body: &'static str) -> Shape {
    Shape { path, body, is_opaque: false }
}

const fn opaque(path: &'static str, body: &'static str) -> Shape {
    Shape { path, body, is_opaque: true }
}

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
const LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";
const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
const MEMBER_ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
const DOWNGRADE: &str = "/etcdserverpb.Maintenance/Downgrade";

/// User `u` may read `r` to `s`, write `w` to `x`, both from `b` to `c`. There are the keys `r1`, `w1`, `b1`, `x1`; `b1` hangs on
/// the lease 1001, `x1` on 1002, nothing on 1003.
pub(super) const SHAPES: &[Shape] = &[
    shape(RANGE, r#"{"key":"@r1"}"#),
    shape(RANGE, r#"{"key":"@w1"}"#),
    shape(RANGE, r#"{"key":"@r","range_end":"@s"}"#),
    shape(RANGE, r#"{"key":"@r","range_end":"@t","count_only":true}"#),
    shape(RANGE, r#"{"key":"@b1","range_end":"AA=="}"#),
    shape(RANGE, r#"{"key":"@x1","serializable":true}"#),
    shape(RANGE, r#"{"key":""}"#),
    shape("/etcdserverpb.KV/RangeStream", r#"{"key":"@r","range_end":"@s"}"#),
    shape("/etcdserverpb.KV/RangeStream", r#"{"key":"@r","range_end":"@t"}"#),
    shape(PUT, r#"{"key":"@w1","value":"@v"}"#),
    shape(PUT, r#"{"key":"@x1","value":"@v","lease":"1002"}"#),
    shape(PUT, r#"{"key":"@r1","value":"@v"}"#),
    shape(PUT, r#"{"key":"@b1","prev_kv":true,"lease":"1001"}"#),
    shape(PUT, r#"{"key":"@w1","prev_kv":true}"#),
    shape(PUT, r#"{"key":"@b2","lease":"1001"}"#),
    shape(PUT, r#"{"key":"@b3","lease":"1002"}"#),
    shape(PUT, r#"{"key":"@b4","lease":"4711"}"#),
    shape(PUT, r#"{"value":"@v"}"#),
    shape(DELETE, r#"{"key":"@w9"}"#),
    shape(DELETE, r#"{"key":"@x9"}"#),
    shape(DELETE, r#"{"key":"@b8","range_end":"@b9","prev_kv":true}"#),
    shape(DELETE, r#"{"key":"@w8","range_end":"@w9","prev_kv":true}"#),
    shape(DELETE, r#"{"key":"@x8","range_end":"AA=="}"#),
    shape(TXN, "{}"),
    shape(TXN, r#"{"success":[{"request_txn":{}}]}"#),
    shape(
        TXN,
        r#"{"compare":[{"key":"@r1","target":"VERSION","version":"1"}],"success":[{"request_range":{"key":"@r1"}}]}"#,
    ),
    shape(TXN, r#"{"compare":[{"key":"@x1","target":"VERSION","version":"0"}]}"#),
    shape(
        TXN,
        r#"{"success":[{"request_range":{"key":"@r1"}}],"failure":[{"request_range":{"key":"@x1"}}]}"#,
    ),
    shape(TXN, r#"{"success":[{"request_put":{"key":"@w1","value":"@v"}}]}"#),
    shape(TXN, r#"{"success":[{"request_put":{"key":"@w1","prev_kv":true}}]}"#),
    shape(TXN, r#"{"success":[{"request_put":{"key":"@b3","lease":"1002"}}]}"#),
    shape(
        TXN,
        r#"{"success":[{"request_put":{"key":"@b3"}}],"failure":[{"request_put":{"key":"@x3"}}]}"#,
    ),
    shape(
        TXN,
        r#"{"success":[{"request_txn":{"failure":[{"request_txn":{"success":[{"request_put":{"key":"@x3"}}]}}]}}]}"#,
    ),
    shape(TXN, r#"{"success":[{"request_txn":{"success":[{"request_put":{"key":"@b3"}}]}}]}"#),
    shape(TXN, r#"{"success":[{"request_delete_range":{"key":"@w9","prev_kv":true}}]}"#),
    shape(TXN, r#"{"success":[{"request_delete_range":{"key":"@b9","prev_kv":true}}]}"#),
    shape(
        TXN,
        r#"{"compare":[{"key":"@r1","range_end":"@t","target":"VERSION","version":"1"}],"success":[{"request_put":{"key":"@b3"}}]}"#,
    ),
    shape("/etcdserverpb.KV/Compact", r#"{"revision":"2"}"#),
    shape(WATCH, r#"{"create_request":{"key":"@r1"}}"#),
    shape(WATCH, r#"{"create_request":{"key":"@x1","watch_id":"5"}}"#),
    shape(WATCH, r#"{"create_request":{"key":"@r1","range_end":"AA=="}}"#),
    shape(WATCH, r#"{"create_request":{"key":"@r","range_end":"@s","prev_kv":true}}"#),
    shape(WATCH, r#"{"create_request":{"key":"@r1","start_revision":"-1"}}"#),
    shape(WATCH, r#"{"create_request":{"range_end":"AA=="}}"#),
    opaque(GRANT, r#"{"TTL":"600"}"#),
    shape(GRANT, r#"{"TTL":"600","ID":"1003"}"#),
    shape(GRANT, r#"{"TTL":"10000000000"}"#),
    shape(KEEP_ALIVE, r#"{"ID":"1001"}"#),
    shape(KEEP_ALIVE, r#"{"ID":"1002"}"#),
    shape(KEEP_ALIVE, r#"{"ID":"4711"}"#),
    shape(TIME_TO_LIVE, r#"{"ID":"1001","keys":true}"#),
    shape(TIME_TO_LIVE, r#"{"ID":"1002","keys":true}"#),
    shape(TIME_TO_LIVE, r#"{"ID":"1002"}"#),
    shape(TIME_TO_LIVE, r#"{"ID":"4711","keys":true}"#),
    opaque(LEASES, "{}"),
    opaque(MEMBER_LIST, "{}"),
    opaque(MEMBER_LIST, r#"{"linearizable":true}"#),
    shape(MEMBER_ADD, r#"{"peerURLs":["nonsense"]}"#),
    shape("/etcdserverpb.Cluster/MemberRemove", r#"{"ID":"77"}"#),
    shape("/etcdserverpb.Cluster/MemberUpdate", r#"{"ID":"77","peerURLs":["http://127.0.0.1:1"]}"#),
    shape("/etcdserverpb.Cluster/MemberPromote", r#"{"ID":"77"}"#),
    shape(ALARM, "{}"),
    shape(ALARM, r#"{"action":"DEACTIVATE","alarm":"NOSPACE"}"#),
    shape(ALARM, r#"{"action":"ACTIVATE","alarm":"NONE"}"#),
    opaque("/etcdserverpb.Maintenance/Status", "{}"),
    opaque("/etcdserverpb.Maintenance/Defragment", "{}"),
    opaque("/etcdserverpb.Maintenance/Hash", "{}"),
    opaque("/etcdserverpb.Maintenance/HashKV", "{}"),
    opaque("/etcdserverpb.Maintenance/Snapshot", "{}"),
    shape("/etcdserverpb.Maintenance/MoveLeader", r#"{"targetID":"77"}"#),
    opaque(DOWNGRADE, r#"{"action":"VALIDATE","version":"3.6"}"#),
    shape(DOWNGRADE, r#"{"action":"VALIDATE","version":"nonsense"}"#),
    shape("/etcdserverpb.Auth/AuthStatus", "{}"),
    shape("/etcdserverpb.Auth/AuthEnable", "{}"),
    shape("/etcdserverpb.Auth/Authenticate", r#"{"name":"u","password":"wrong"}"#),
    shape("/etcdserverpb.Auth/Authenticate", r#"{"name":"nobody","password":"wrong"}"#),
    shape("/etcdserverpb.Auth/Authenticate", r#"{"name":"without","password":"wrong"}"#),
    opaque("/etcdserverpb.Auth/Authenticate", r#"{"name":"u","password":"pw"}"#),
    shape("/etcdserverpb.Auth/UserAdd", r#"{"name":"new#","password":"pw"}"#),
    shape("/etcdserverpb.Auth/UserAdd", r#"{"name":"u","password":"pw"}"#),
    shape("/etcdserverpb.Auth/UserAdd", r#"{"password":"pw"}"#),
    shape("/etcdserverpb.Auth/UserAdd", r#"{"name":"bare#","options":{"no_password":true}}"#),
    shape("/etcdserverpb.Auth/UserGet", r#"{"name":"u"}"#),
    shape("/etcdserverpb.Auth/UserGet", r#"{"name":"root"}"#),
    shape("/etcdserverpb.Auth/UserGet", r#"{"name":"gone"}"#),
    shape("/etcdserverpb.Auth/UserGet", "{}"),
    shape("/etcdserverpb.Auth/UserList", "{}"),
    shape("/etcdserverpb.Auth/UserDelete", r#"{"name":"root"}"#),
    shape("/etcdserverpb.Auth/UserDelete", r#"{"name":"new#"}"#),
    shape("/etcdserverpb.Auth/UserChangePassword", r#"{"name":"nobody","password":"x"}"#),
    shape("/etcdserverpb.Auth/UserChangePassword", r#"{"name":"without","password":"x"}"#),
    shape("/etcdserverpb.Auth/UserGrantRole", r#"{"user":"without","role":"r"}"#),
    shape("/etcdserverpb.Auth/UserGrantRole", r#"{"user":"without","role":"none"}"#),
    shape("/etcdserverpb.Auth/UserGrantRole", r#"{"user":"nobody","role":"none"}"#),
    shape("/etcdserverpb.Auth/UserRevokeRole", r#"{"name":"without","role":"r"}"#),
    shape("/etcdserverpb.Auth/UserRevokeRole", r#"{"name":"root","role":"root"}"#),
    shape("/etcdserverpb.Auth/RoleAdd", r#"{"name":"role#"}"#),
    shape("/etcdserverpb.Auth/RoleAdd", "{}"),
    shape("/etcdserverpb.Auth/RoleGet", r#"{"role":"r"}"#),
    shape("/etcdserverpb.Auth/RoleGet", r#"{"role":"root"}"#),
    shape("/etcdserverpb.Auth/RoleGet", r#"{"role":"none"}"#),
    shape("/etcdserverpb.Auth/RoleList", "{}"),
    shape("/etcdserverpb.Auth/RoleDelete", r#"{"role":"role#"}"#),
    shape("/etcdserverpb.Auth/RoleDelete", r#"{"role":"root"}"#),
    shape("/etcdserverpb.Auth/RoleGrantPermission", r#"{"name":"r"}"#),
    shape(
        "/etcdserverpb.Auth/RoleGrantPermission",
        r#"{"name":"r","perm":{"key":"@b","range_end":"@a"}}"#,
    ),
    shape(
        "/etcdserverpb.Auth/RoleGrantPermission",
        r#"{"name":"other","perm":{"permType":"WRITE","key":"@o#"}}"#,
    ),
    shape("/etcdserverpb.Auth/RoleRevokePermission", r#"{"role":"r","key":"@nothing"}"#),
    shape("/etcdserverpb.Auth/RoleRevokePermission", r#"{"role":"other","key":"@o#"}"#),
    opaque("/v3lockpb.Lock/Lock", r#"{"name":"@b#"}"#),
    opaque("/v3lockpb.Lock/Lock", r#"{"name":"@x#"}"#),
    shape("/v3lockpb.Lock/Unlock", r#"{"key":"@x9"}"#),
    opaque("/v3electionpb.Election/Campaign", r#"{"name":"@be#"}"#),
    opaque("/v3electionpb.Election/Campaign", r#"{"name":"@xe#"}"#),
    opaque("/v3electionpb.Election/Leader", r#"{"name":"@bn"}"#),
    opaque("/v3electionpb.Election/Leader", r#"{"name":"@xn"}"#),
    opaque(
        "/v3electionpb.Election/Proclaim",
        r#"{"leader":{"name":"@xn","key":"@xn","lease":"1003"}}"#,
    ),
    opaque(
        "/v3electionpb.Election/Resign",
        r#"{"leader":{"name":"@xn","key":"@xn","lease":"1003"}}"#,
    ),
    shape(REVOKE, r#"{"ID":"4711"}"#),
    shape(REVOKE, r#"{"ID":"1003"}"#),
    shape(REVOKE, r#"{"ID":"1002"}"#),
    opaque(MEMBER_ADD, r#"{"peerURLs":["http://127.0.0.1:9"],"isLearner":true}"#),
];
