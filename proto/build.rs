//! Compiles the .proto files twice: typed messages with client stubs, and server stubs whose
//! bulk responses carry keys and events that are already encoded (`src/encoded.rs`). `build/rpc.rs` makes the list of
//! all RPCs from the same descriptors.

#[path = "build/rpc.rs"]
mod rpc;

use std::path::PathBuf;
use std::{env, error::Error, fs};

use prost_build::Config;

const FILES: &[&str] = &[
    "etcd/mvccpb.proto",
    "etcd/authpb.proto",
    "etcd/rpc.proto",
    "etcd/raft_internal.proto",
    "etcd/membershippb.proto",
    "etcd/leasepb.proto",
    "etcd/lock.proto",
    "etcd/election.proto",
    "etcd/health.proto",
    "etcd/reflection.proto",
];

const PACKAGES: &[&str] =
    &["mvccpb", "authpb", "etcdserverpb", "membershippb", "leasepb", "v3lockpb", "v3electionpb"];

/// Messages that the server sends with parts that are encoded already.
const ENCODED: &[&str] = &[
    "RangeResponse",
    "RangeStreamResponse",
    "PutResponse",
    "DeleteRangeResponse",
    "TxnResponse",
    "WatchResponse",
];

/// Messages that hold transactions in transactions, and are read in a way of their own (`src/nested.rs`).
const NESTED: &[&str] = &["RequestOp", "ResponseOp"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("descriptors.bin"), prost_bytes(&descriptors))?;
    fs::write(out.join("rpc.rs"), rpc::list(&descriptors))?;

    let mut typed = Config::new();
    typed.bytes(["."]);
    for name in NESTED {
        typed.extern_path(format!(".etcdserverpb.{name}"), format!("crate::nested::{name}"));
    }
    tonic_prost_build::configure()
        .build_server(false)
        .build_client(env::var("CARGO_FEATURE_CLIENT").is_ok())
        .build_transport(false)
        .compile_fds_with_config(descriptors.clone(), typed)?;

    if env::var("CARGO_FEATURE_SERVER").is_ok() {
        let stubs = out.join("server");
        fs::create_dir_all(&stubs)?;
        let mut encoded = Config::new();
        for name in ENCODED {
            encoded.extern_path(format!(".etcdserverpb.{name}"), format!("crate::encoded::{name}"));
        }
        for package in PACKAGES {
            encoded.extern_path(format!(".{package}"), format!("crate::{package}"));
        }
        encoded.extern_path(".grpc.health.v1", "crate::health");
        encoded.extern_path(".grpc.reflection.v1", "crate::reflection");
        tonic_prost_build::configure()
            .build_client(false)
            .build_server(true)
            .build_transport(false)
            .codec_path("crate::codec::Codec")
            .out_dir(&stubs)
            .compile_fds_with_config(descriptors, encoded)?;
    }
    Ok(())
}

fn prost_bytes(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
