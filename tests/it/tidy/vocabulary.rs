//! Names of types and files: words that only this project used are refused in favour of the field's standard terms, and a
//! public type of the library has a name of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::rust_files;

/// Names of types that are refused, and the standard term for the thing that each once named.
const TYPES: &[(&str, &str)] = &[
    ("Alone", "LeaderLease"),
    ("Ask", "PeerRequest, ClientOp"),
    ("Beginning", "Bootstrap, RestoredLogStart"),
    ("Caretaker", "Maintenance"),
    ("Census", "HubStats"),
    ("Counted", "ConnectionPermit"),
    ("Deed", "Effect"),
    ("Desk", "ReplicaClient"),
    ("Door", "ConnectionSender"),
    ("Draft", "EncodedRecord"),
    ("Fences", "CountIndex"),
    ("Front", "HttpService"),
    ("Growing", "Reservation"),
    ("Hashed", "HashKvReply"),
    ("Incoming", "IncomingSnapshot"),
    ("Knobs", "Parameters"),
    ("Mark", "LogStart"),
    ("Moment", "Instant"),
    ("News", "DirEvents"),
    ("Outgoing", "MeteredResponse"),
    ("Outlets", "Outputs"),
    ("Pace", "RateLimiter"),
    ("Peek", "RecordHeader"),
    ("Promised", "VoteLease"),
    ("Reach", "ActorHandles, DeliveryScope"),
    ("Received", "MeteredRequest"),
    ("Room", "PendingRequests, StreamTable, FreeSpace"),
    ("Round", "ReadIndexBatch, HeartbeatRound"),
    ("Rounds", "PeriodicTask"),
    ("Said", "ResponseBody"),
    ("Seat", "ExecutorContext, OpenSlot"),
    ("Serves", "Endpoints"),
    ("Share", "ConnectionCount"),
    ("Spare", "SegmentPreallocator"),
    ("Steady", "WritebackFile"),
    ("Switched", "UpgradedIo"),
    ("Tally", "KeyCounts"),
    ("Ticket", "PendingSlot"),
    ("Travels", "Priority"),
    ("Turn", "ConnectionScheduler, ExportStep, MemberEvent"),
    ("Why", "RejectReason"),
];

/// Names of files, directories and modules that are refused, and the standard term.
const MODULES: &[(&str, &str)] = &[
    ("absence", "partition"),
    ("alone", "leader_lease, lease_reads"),
    ("bad", "malformed_input"),
    ("beginning", "bootstrap"),
    ("caretaker", "maintenance"),
    ("desk", "replica_client"),
    ("fences", "count_index"),
    ("handover", "graceful_stop"),
    ("holders", "lease_holders"),
    ("links", "proxy"),
    ("pace", "rate_limiter"),
    ("place", "store_dir"),
    ("promise", "vote_lease"),
    ("room", "stream_table"),
    ("spare", "preallocator"),
    ("switched", "upgraded"),
    ("turn", "scheduler"),
    ("typing", "cli_editing"),
    ("words", "messages"),
];

/// Names that several public types of the library may have: each is read with its module before it.
const BY_MODULE: &[(&str, &str)] = &[
    ("Config", "of a core: `consensus::Config`, `machine::Config`, `watch::Config`"),
    ("Entry", "of raft's log, and of a bbolt page"),
    ("Frame", "of the write-ahead log, and of a connection between members"),
    ("Handle", "one for each mailbox: `mailbox::wal::Handle`"),
    ("Inbox", "one for each mailbox"),
    ("Input", "of a core: `consensus::Input`, `replica::Input`, `watch::Input`"),
    ("Msg", "one for each mailbox"),
    ("Options", "of a listener, of the log and of the watch actor"),
    ("Output", "of a core, beside its `Input`"),
    ("Outputs", "of an actor: the handles that it sends to"),
    ("Status", "of the member, and of a snapshot's file: both are etcd's word"),
];

/// Names that two public types still share without such a reason. One that is unique leaves the list.
const AMBIGUOUS: &[&str] = &[
    "Command",
    "Effect",
    "History",
    "KvHash",
    "Lane",
    "Operation",
    "Outcome",
    "Plan",
    "Progress",
    "Published",
    "Source",
    "Space",
];

/// A declaration of a type or module in a line of code: true if it is public, the keyword, the name.
fn declared(line: &str) -> Option<(bool, &str, &str)> {
    let code = line.split("//").next().unwrap_or_default().trim();
    let (is_public, code) = match code.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => (false, rest.split_once(") ")?.1),
        Some(rest) if rest.starts_with(' ') => (true, rest.trim_start()),
        _ => (false, code),
    };
    let (keyword, rest) = code.split_once(' ')?;
    let is_declaration = ["struct", "enum", "trait", "type", "union", "mod"].contains(&keyword);
    let name = rest.split(|it: char| !it.is_alphanumeric() && it != '_').next()?;
    (is_declaration && !name.is_empty()).then_some((is_public, keyword, name))
}

/// Refused names in one line of code: declared here, or given to an import.
fn refused(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let is_import = code.trim_start().trim_start_matches("pub ").starts_with("use ");
    let imported = if is_import { code } else { "" };
    let renamed = imported.split(" as ").skip(1).filter_map(|rest| {
        let name = rest.split(|it: char| !it.is_alphanumeric() && it != '_').next()?;
        Some(("type", name))
    });
    let found = declared(line).map(|(_, keyword, name)| (keyword, name)).into_iter().chain(renamed);
    found
        .filter_map(|(keyword, name)| {
            let table = if keyword == "mod" { MODULES } else { TYPES };
            let (_, term) = table.iter().find(|(refused, _)| *refused == name)?;
            Some(format!("`{name}` is not a term of the field, use {term}"))
        })
        .collect()
}

/// The refused part of a path below one of the source directories.
fn refused_path(path: &Path) -> Option<String> {
    path.with_extension("").iter().find_map(|part| {
        let (name, term) = MODULES.iter().find(|(name, _)| part == *name)?;
        Some(format!("{}: `{name}` is not a term of the field, use {term}", path.display()))
    })
}

/// The names of public types that occur more than once, with the files of each.
fn ambiguous(types: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, Vec<String>> {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, file) in types {
        files.entry(name).or_default().push(file);
    }
    files.retain(|_, files| files.len() > 1);
    files
}

#[test]
fn types_and_files_have_the_terms_of_the_field() {
    let mut faults = Vec::new();
    for dir in ["src", "tools", "proto", "tests/it"] {
        for path in rust_files(Path::new(dir)) {
            faults.extend(refused_path(&path));
            let text = fs::read_to_string(&path).expect("source file is readable");
            for (number, line) in text.lines().enumerate() {
                let at = format!("{}:{}", path.display(), number + 1);
                faults.extend(refused(line).into_iter().map(|it| format!("{at}: {it}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn public_types_of_the_library_have_different_names() {
    let mut types = Vec::new();
    for path in rust_files(Path::new("src")) {
        let text = fs::read_to_string(&path).expect("source file is readable");
        types.extend(text.lines().filter_map(declared).filter_map(|(is_public, keyword, name)| {
            let is_type = is_public && keyword != "mod";
            is_type.then(|| (name.to_owned(), path.display().to_string()))
        }));
    }
    let found = ambiguous(types);
    let is_listed = |name: &str| {
        BY_MODULE.iter().any(|(listed, _)| *listed == name) || AMBIGUOUS.contains(&name)
    };
    let second = found.iter().filter(|(name, _)| !is_listed(name));
    let mut faults: Vec<_> =
        second.map(|(name, files)| format!("a second public type `{name}`: {files:?}")).collect();
    let listed = BY_MODULE.iter().map(|(name, _)| name).chain(AMBIGUOUS);
    let unique = listed.filter(|name| !found.contains_key(**name));
    faults.extend(unique.map(|name| format!("`{name}` is unique: it leaves the list")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn refused_names_are_found_where_they_are_declared_and_imported() {
    for line in [
        "pub(crate) struct Desk {",
        "    enum Turn<'a> {",
        "type Seat = u8;",
        "mod promise;",
        "pub mod fences {",
        "use super::client::{ReplicaClient as Desk};",
    ] {
        assert_eq!(refused(line).len(), 1, "{line}");
    }
    for line in [
        "pub struct LeaderLease {",
        "/// enum Turn",
        "let room = 1;",
        "struct Turnstile;",
        "use hyper::body::Incoming;",
    ] {
        assert_eq!(refused(line), Vec::<String>::new(), "{line}");
    }
    assert!(refused_path(Path::new("src/io/pace.rs")).is_some());
    assert!(refused_path(Path::new("src/consensus/alone/tests.rs")).is_some());
    assert_eq!(refused_path(Path::new("src/io/rate_limiter.rs")), None);
}

#[test]
fn a_second_public_type_is_found() {
    let lines = ["pub struct Reads {", "pub(super) struct Reads {", "    pub enum Reads {"];
    let types = lines.iter().zip(["a", "b", "c"]).filter_map(|(line, file)| {
        let (is_public, _, name) = declared(line)?;
        is_public.then(|| (name.to_owned(), file.to_owned()))
    });
    let files = ["a", "c"].map(str::to_owned).to_vec();
    assert_eq!(ambiguous(types), BTreeMap::from([("Reads".to_owned(), files)]));
}
