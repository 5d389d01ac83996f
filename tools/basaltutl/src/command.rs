//! The commands and their flags, as data.

/// The commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Root,
    Completion,
    Defrag,
    Help,
    Migrate,
    Version,
    HashKv,
    Snapshot,
    Status,
    Restore,
    Save,
    Verify,
}

/// Type of a flag's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    /// Text that names a directory.
    Directory,
    Switch,
    Int,
    Uint,
    Time,
}

/// A flag: name, type, default, description.
pub(crate) type Flag<'a> = (&'static str, Kind, &'static str, &'a str);

pub(crate) const GLOBAL: &[Flag<'static>] = &[
    (
        "timeout",
        Kind::Time,
        "10s",
        "time to wait to obtain a file lock on db file, 0 to block indefinitely",
    ),
    (
        "write-out",
        Kind::Text,
        "simple",
        "set the output format (fields, json, protobuf, simple, table)",
    ),
];

const RESTORE: &[Flag<'static>] = &[
    ("bump-revision", Kind::Uint, "0", "How much to increase the latest revision after restore"),
    ("data-dir", Kind::Directory, "", "Path to the output data directory"),
    (
        "initial-advertise-peer-urls",
        Kind::Text,
        "http://localhost:2380",
        "List of this member's peer URLs to advertise to the rest of the cluster",
    ),
    (
        "initial-cluster",
        Kind::Text,
        "default=http://localhost:2380",
        "Initial cluster configuration for restore bootstrap",
    ),
    (
        "initial-cluster-token",
        Kind::Text,
        "etcd-cluster",
        "Initial cluster token for the etcd cluster during restore bootstrap",
    ),
    (
        "initial-memory-map-size",
        Kind::Uint,
        "10737418240",
        "Initial memory map size of the database in bytes. It uses the default value if not defined \
         or defined to 0",
    ),
    (
        "mark-compacted",
        Kind::Switch,
        "false",
        "Mark the latest revision after restore as the point of scheduled compaction (required if \
         --bump-revision > 0, disallowed otherwise)",
    ),
    ("name", Kind::Text, "default", "Human-readable name for this member"),
    (
        "skip-hash-check",
        Kind::Switch,
        "false",
        "Ignore snapshot integrity hash value (required if copied from data directory)",
    ),
    ("wal-dir", Kind::Directory, "", "Path to the WAL directory (use --data-dir if none given)"),
];

const DEFRAG: &[Flag<'static>] = &[(
    "data-dir",
    Kind::Directory,
    "",
    "Required. Defragments a data directory not in use by etcd.",
)];

const MIGRATE: &[Flag<'static>] = &[
    ("data-dir", Kind::Directory, "", "Path to the etcd data dir"),
    (
        "force",
        Kind::Switch,
        "false",
        "Ignore migration failure and forcefully override storage version. Not recommended.",
    ),
    (
        "target-version",
        Kind::Text,
        "",
        "Target etcd version to migrate contents of data dir. Minimal value 3.5. Format \"X.Y\" for \
         example 3.6.",
    ),
];

/// Flags of the commands that read the files of a member.
const MEMBER: &[Flag<'static>] = &[
    (
        "data-dir",
        Kind::Directory,
        "",
        "Required. Path to the data directory of a member that does not run",
    ),
    ("wal-dir", Kind::Directory, "", "Path to the WAL directory (use --data-dir if none given)"),
];

impl Command {
    /// The flags of the command itself.
    pub(crate) fn flags(self) -> &'static [Flag<'static>] {
        match self {
            Self::Restore => RESTORE,
            Self::HashKv => {
                &[("rev", Kind::Int, "0", "maximum revision to hash (default: latest revision)")]
            }
            Self::Defrag => DEFRAG,
            Self::Migrate => MIGRATE,
            Self::Save | Self::Verify => MEMBER,
            Self::Root
            | Self::Completion
            | Self::Help
            | Self::Version
            | Self::Snapshot
            | Self::Status => &[],
        }
    }

    /// The required flags.
    pub(crate) fn required(self) -> &'static [&'static str] {
        match self {
            Self::Defrag | Self::Save | Self::Verify => &["data-dir"],
            Self::Migrate => &["data-dir", "target-version"],
            Self::Root
            | Self::Completion
            | Self::Help
            | Self::Version
            | Self::HashKv
            | Self::Snapshot
            | Self::Status
            | Self::Restore => &[],
        }
    }

    /// The subcommands.
    pub(crate) fn below(self) -> &'static [(&'static str, Self)] {
        match self {
            Self::Root => &[
                ("completion", Self::Completion),
                ("defrag", Self::Defrag),
                ("hashkv", Self::HashKv),
                ("help", Self::Help),
                ("migrate", Self::Migrate),
                ("snapshot", Self::Snapshot),
                ("version", Self::Version),
            ],
            Self::Snapshot => &[("restore", Self::Restore), ("status", Self::Status)],
            Self::Completion
            | Self::Defrag
            | Self::Help
            | Self::Migrate
            | Self::Version
            | Self::HashKv
            | Self::Status
            | Self::Restore
            | Self::Save
            | Self::Verify => &[],
        }
    }

    /// Subcommands that etcdutl does not have: only their whole names select them, and lists and completion leave them
    /// out, so that scripts and users find etcdutl's.
    fn ours(self, word: &str) -> Option<Self> {
        match (self, word) {
            (Self::Root, "verify") => Some(Self::Verify),
            (Self::Snapshot, "save") => Some(Self::Save),
            _ => None,
        }
    }

    /// The subcommand that a word names, by its name or by a prefix that only one has.
    pub(crate) fn find(self, word: &str) -> Option<Self> {
        let exact = self.below().iter().find(|(name, _)| *name == word);
        let mut begun = self.below().iter().filter(|(name, _)| name.starts_with(word));
        let unambiguous = begun.next().filter(|_| begun.next().is_none());
        exact.or(unambiguous).map(|(_, command)| *command).or_else(|| self.ours(word))
    }
}
