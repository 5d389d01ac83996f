//! The outside tests, in one binary: the shape of the code, and the real server process under
//! real clients, beside a real etcd, killed, paused and fed with garbage. `README.md` next to this
//! file describes the variables that change them.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::type_complexity,
    reason = "tests wait on real processes by the real clock, and a test that cannot go on panics"
)]

mod abuse;
mod auth;
mod bench;
mod cli_editing;
mod clients;
mod cluster;
mod compare;
mod completion;
mod cores;
mod crash;
mod curl;
mod data_dirs;
mod deadlines;
mod deploy;
mod descriptors;
mod discovery;
mod doctor;
mod endings;
mod flags;
mod frames;
mod gateway;
mod golden;
mod graceful_stop;
mod half_made;
mod image;
mod lease_holders;
mod locks;
mod logging;
mod logins;
mod malformed_input;
mod metrics;
mod mirror;
mod peers;
mod ports;
mod process;
mod proxies;
mod readable;
mod reports;
mod retention;
mod sandbox;
mod secured;
mod sim;
mod snapshot;
mod stopping;
mod store_crashes;
mod stress;
mod terminal;
mod tidy;
mod tls;
mod transcripts;
mod unreadable;
mod websocket;
mod wire;
