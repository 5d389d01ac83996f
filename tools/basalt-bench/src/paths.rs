//! The gRPC methods that are called.

/// `KV.Range`.
pub const RANGE: &str = "/etcdserverpb.KV/Range";
/// `KV.RangeStream`.
pub const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
/// `KV.Put`.
pub const PUT: &str = "/etcdserverpb.KV/Put";
/// `KV.Txn`.
pub const TXN: &str = "/etcdserverpb.KV/Txn";
/// `KV.Compact`.
pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
/// `Watch.Watch`.
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// `Maintenance.HashKV`.
pub const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";
/// `Maintenance.Status`.
pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";
/// `Auth.Authenticate`.
pub const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
/// `KV.DeleteRange`.
pub const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
/// `Lease.LeaseGrant`.
pub const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
/// `Lease.LeaseRevoke`.
pub const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
/// `Lease.LeaseKeepAlive`: with our half closed at once, a call like any other.
pub const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
/// `Cluster.MemberList`.
pub const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
/// `Lock.Lock`.
pub const LOCK: &str = "/v3lockpb.Lock/Lock";
/// `Lock.Unlock`.
pub const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
