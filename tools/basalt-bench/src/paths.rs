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
