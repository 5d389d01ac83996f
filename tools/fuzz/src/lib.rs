//! Targets of a fuzzer: each takes any bytes and must neither panic nor take long, and what it accepts must be
//! readable again.
//!
//! ```text
//!  tests/fuzz/<target>/* ─► tests/replay.rs: as they are, and with seeded changes     (in `cargo test`)
//!                        └► tools/fuzz/run <target> <seconds>: libFuzzer, with counters of the compiler
//! ```

mod clients;
mod config;
mod disk;
mod peers;
mod security;

/// A target's function.
pub type Run = fn(&[u8]);

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of the directory of its corpus.
    pub name: &'static str,
    /// Its function.
    pub run: Run,
}

const fn target(name: &'static str, run: Run) -> Target {
    Target { name, run }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("audit", security::audit),
    target("certificates", security::certificates),
    target("command", disk::command),
    target("config", config::config),
    target("flags", config::flags),
    target("grpc", clients::grpc),
    target("json", clients::json),
    target("jwt", security::jwt),
    target("peer", peers::frames),
    target("raft", peers::raft),
    target("requests", clients::requests),
    target("snapshot", disk::snapshot),
    target("token", security::token),
    target("wal", disk::wal),
    target("websocket", clients::websocket),
];

/// The first byte, which chooses, and the rest.
fn choice(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((0, &[]), |(first, rest)| (usize::from(*first), rest))
}

/// The same bytes in pieces whose lengths the bytes themselves choose, as a connection delivers them.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(*rest.first()?).clamp(1, rest.len());
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some(piece)
    })
}
