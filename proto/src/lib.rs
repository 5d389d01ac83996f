//! etcd's wire contract: the same packages, messages, fields and numbers as etcd 3.7, described in
//! our own words in `proto/etcd/*.proto`.
//!
//! * The package modules hold typed messages and, with feature `client`, client stubs.
//! * [`server`] (feature `server`) holds the service traits. Their bulk responses are the
//!   [`encoded`] twins, which carry keys and events as bytes that were encoded once.

#![allow(
    unreachable_pub,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

mod backward;
#[cfg(feature = "server")]
pub mod codec;
pub mod codes;
pub mod encoded;
pub mod grpc_frame;
pub mod nested;
pub mod rpc;

/// Keys, values and events.
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}
/// Users, roles, permissions.
pub mod authpb {
    include!(concat!(env!("OUT_DIR"), "/authpb.rs"));
}
/// The v3 API and the payload of raft entries.
pub mod etcdserverpb {
    pub use crate::nested::{RequestOp, ResponseOp, request_op, response_op};

    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}
/// Membership records.
pub mod membershippb {
    include!(concat!(env!("OUT_DIR"), "/membershippb.rs"));
}
/// Lease records.
pub mod leasepb {
    include!(concat!(env!("OUT_DIR"), "/leasepb.rs"));
}
/// The lock service.
pub mod v3lockpb {
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.rs"));
}
/// The election service.
pub mod v3electionpb {
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.rs"));
}
/// The standard health service.
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}
/// The standard reflection service.
pub mod reflection {
    include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
}

/// Service traits for the server.
#[cfg(feature = "server")]
pub mod server {
    /// KV, Watch, Lease, Cluster, Maintenance, Auth.
    pub mod etcdserverpb {
        include!(concat!(env!("OUT_DIR"), "/server/etcdserverpb.rs"));
    }
    /// Lock.
    pub mod v3lockpb {
        include!(concat!(env!("OUT_DIR"), "/server/v3lockpb.rs"));
    }
    /// Election.
    pub mod v3electionpb {
        include!(concat!(env!("OUT_DIR"), "/server/v3electionpb.rs"));
    }
    /// Health.
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/server/grpc.health.v1.rs"));
    }
    /// Reflection.
    pub mod reflection {
        include!(concat!(env!("OUT_DIR"), "/server/grpc.reflection.v1.rs"));
    }
}

/// The encoded `FileDescriptorSet` of all files, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
