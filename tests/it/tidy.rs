//! Checks the structure of the code itself: the rooms that each room may use, and the purity of rooms.
//!
//! `circles` refuses files that need each other in a circle, `vocabulary` names that are not terms of the field, `comments`
//! sentences that do not begin with their subject.
//!
//! `ROOMS` is the list of rooms. It reads bottom-up: a room may name only rooms listed above it, so
//! the graph cannot have a cycle. Change the plan in the same commit as the code that needs it.

mod circles;
mod comments;
mod vocabulary;

use std::fs;
use std::path::{Path, PathBuf};

/// Permission of a room to do I/O (clock, disk, network, threads, async).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Floor {
    /// Sync, deterministic, no IO: same inputs, same outputs, on every node and every run.
    Pure,
    /// Hosts pure rooms and does their IO.
    Host,
}
use Floor::{Host, Pure};

/// Room, floor, and the other rooms it may name. The siblings `mvcc`, `lease`, `auth` and `cluster` do not
/// know each other, nor do `machine`, `watch` and `consensus`.
const ROOMS: &[(&str, Floor, &[&str])] = &[
    ("types", Pure, &[]),
    ("command", Pure, &["types"]),
    ("json", Pure, &[]),
    ("audit", Pure, &["types"]),
    ("jwt", Pure, &["types"]),
    ("login", Pure, &["types"]),
    ("ratelimit", Pure, &["types"]),
    ("metrics", Pure, &["types", "command"]),
    ("store", Pure, &["types"]),
    ("mvcc", Pure, &["types", "store"]),
    ("lease", Pure, &["types", "command", "store"]),
    ("auth", Pure, &["types", "store"]),
    ("token", Pure, &["types", "store"]),
    ("cluster", Pure, &["types", "store"]),
    ("snapshot", Pure, &["types", "store", "mvcc", "auth", "cluster"]),
    ("machine", Pure, &["types", "command", "store", "mvcc", "lease", "auth", "token", "cluster"]),
    ("watch", Pure, &["types", "store", "mvcc"]),
    ("wal", Pure, &["types"]),
    ("consensus", Pure, &["types", "wal"]),
    ("peer", Pure, &["types"]),
    (
        "replica",
        Pure,
        &["types", "metrics", "store", "lease", "auth", "cluster", "machine", "wal", "consensus"],
    ),
    (
        "sim",
        Pure,
        &[
            "types",
            "command",
            "store",
            "mvcc",
            "lease",
            "auth",
            "cluster",
            "snapshot",
            "machine",
            "watch",
            "wal",
            "consensus",
            "replica",
        ],
    ),
    ("io", Host, &["types", "login", "metrics", "store", "wal", "snapshot"]),
    (
        "actors",
        Host,
        &[
            "types",
            "command",
            "metrics",
            "store",
            "mvcc",
            "jwt",
            "lease",
            "auth",
            "token",
            "cluster",
            "machine",
            "watch",
            "wal",
            "consensus",
            "peer",
            "replica",
            "snapshot",
            "io",
        ],
    ),
    (
        "rpc",
        Host,
        &[
            "types",
            "command",
            "audit",
            "metrics",
            "store",
            "mvcc",
            "auth",
            "token",
            "cluster",
            "ratelimit",
            "snapshot",
            "machine",
            "watch",
            "io",
            "actors",
        ],
    ),
    (
        "http",
        Host,
        &["types", "json", "metrics", "mvcc", "auth", "cluster", "machine", "io", "actors", "rpc"],
    ),
    (
        "server",
        Host,
        &[
            "types",
            "command",
            "audit",
            "jwt",
            "metrics",
            "store",
            "mvcc",
            "lease",
            "auth",
            "token",
            "ratelimit",
            "cluster",
            "machine",
            "watch",
            "wal",
            "consensus",
            "peer",
            "replica",
            "io",
            "actors",
            "rpc",
            "http",
        ],
    ),
];

/// Words that must not appear in a pure room. `metrics` contains atomics and nothing else impure.
const IMPURE: &[&str] = &[
    "async ",
    ".await",
    "glommio",
    "flume",
    "lsm_tree",
    "tonic::",
    "tokio",
    "hyper::",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::process",
    "Instant::now",
    "SystemTime",
    "rand::rng(",
    "thread_rng",
];

/// Libraries that one room alone may name, so that they could be replaced there.
const ONLY_IN: &[(&str, &str)] =
    &[("glommio", "io"), ("lsm_tree::", "io"), ("raft::", "consensus")];

#[test]
fn the_floor_plan_has_no_cycles() {
    for (row, (room, _, uses)) in ROOMS.iter().enumerate() {
        for used in *uses {
            let above = ROOMS[..row].iter().any(|(name, ..)| name == used);
            assert!(above, "{room} may not use {used}: it is not listed above it in ROOMS");
        }
    }
}

#[test]
fn every_room_keeps_to_the_floor_plan() {
    let mut faults = Vec::new();
    for path in rust_files(Path::new("src")) {
        let Some(room) = room_of(&path) else { continue };
        let Some((_, floor, uses)) = ROOMS.iter().find(|(name, ..)| *name == room) else {
            faults.push(format!("{}: room `{room}` is not in ROOMS", path.display()));
            continue;
        };
        let text = fs::read_to_string(&path).expect("source file is readable");
        for (number, line) in text.lines().enumerate() {
            let at = format!("{}:{}", path.display(), number + 1);
            let code = line.split("//").next().unwrap_or_default();
            // Tests of a pure room read their scripts and race threads.
            let is_test = path.iter().any(|part| part == "tests" || part == "tests.rs");
            faults.extend(
                faults_of(code, &room, *floor, uses, is_test).map(|it| format!("{at}: {it}")),
            );
        }
    }
    assert!(faults.is_empty(), "untidy:\n{}", faults.join("\n"));
}

#[test]
fn every_file_begins_with_a_module_doc() {
    let silent: Vec<_> = rust_files(Path::new("src"))
        .into_iter()
        .chain(rust_files(Path::new("tests/it")))
        .filter(|path| !fs::read_to_string(path).expect("readable").starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top of {silent:?}");
}

/// Violations in one line of code of `room`.
fn faults_of<'a>(
    code: &'a str,
    room: &'a str,
    floor: Floor,
    uses: &'a [&'a str],
    is_test: bool,
) -> impl Iterator<Item = String> + 'a {
    let rooms = rooms_named(code)
        .filter(move |used| *used != room && !uses.contains(used))
        .map(move |used| format!("`{room}` may not use `{used}`"));
    let braces =
        code.contains("use crate::{").then(|| "name the room: `use crate::room::...`".to_owned());
    let impure = IMPURE
        .iter()
        .filter(move |word| floor == Pure && !is_test && code.contains(**word))
        .map(move |word| format!("`{room}` is pure, found `{}`", word.trim()));
    let kept = ONLY_IN
        .iter()
        .filter(move |(word, home)| room != *home && code.contains(word))
        .map(|(word, home)| format!("only `{home}` names `{}`", word.trim_end_matches(':')));
    rooms.chain(braces).chain(impure).chain(kept)
}

/// `src/mvcc/index.rs` and `src/mvcc.rs` are both in room `mvcc`; `lib.rs` and bins are in none.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").ok()?;
    let first = inside.iter().next()?.to_str()?.trim_end_matches(".rs").to_owned();
    (first != "lib" && first != "main" && first != "bin").then_some(first)
}

/// The names that follow `crate::` in one line of code; macros and `$crate` belong to no room.
fn rooms_named(code: &str) -> impl Iterator<Item = &str> {
    code.split("crate::").skip(1).filter_map(|rest| {
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        (!name.is_empty()).then_some(name)
    })
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("directory is readable") {
        let path = entry.expect("entry is readable").path();
        match path.is_dir() {
            true => files.extend(rust_files(&path)),
            false if path.extension().is_some_and(|it| it == "rs") => files.push(path),
            false => (),
        }
    }
    files.sort();
    files
}
