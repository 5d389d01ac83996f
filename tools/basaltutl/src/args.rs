//! The command line as cobra reads it: flags anywhere, `--flag=value` or `--flag value`, `-w json`, `--` ends
//! them; commands by any unambiguous prefix.

use std::collections::BTreeMap;
use std::num::{IntErrorKind, ParseIntError};

use crate::{Failure, usage};

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

/// The parsed command line.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) command: Command,
    flags: BTreeMap<&'static str, String>,
    /// The arguments that are no flags.
    pub(crate) positional: Vec<String>,
}

/// Parses the command line.
pub(crate) fn read(arguments: Vec<String>) -> Result<Args, Failure> {
    let (command, rest) = command(arguments)?;
    let mut args = Args { command, flags: BTreeMap::new(), positional: Vec::new() };
    let mut rest = rest.into_iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            args.positional.extend(rest);
            break;
        }
        match argument.strip_prefix('-') {
            Some(flag) if !flag.is_empty() => args.flag(flag, &mut rest)?,
            _ => args.positional.push(argument),
        }
    }
    Ok(args)
}

/// Takes the words of the command off the front; flags before them stay.
fn command(arguments: Vec<String>) -> Result<(Command, Vec<String>), Failure> {
    let (mut command, mut rest) = (Command::Root, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if command.below().is_empty() || argument == "--" {
            rest.push(argument);
            rest.extend(arguments);
            break;
        }
        if argument.starts_with('-') {
            // The flags without a value are not known yet, nor is the flag for help.
            let is_whole = argument.starts_with("--") || argument.len() == 2;
            let takes_next = is_whole && !argument.contains('=');
            rest.push(argument);
            if takes_next {
                rest.extend(arguments.next());
            }
            continue;
        }
        match command.find(&argument) {
            Some(below) => command = below,
            None if command == Command::Root => return Err(usage::unknown(&argument)),
            // A command that only contains others prints them.
            None => return Ok((command, Vec::new())),
        }
    }
    Ok((command, rest))
}

impl Args {
    fn flag(&mut self, flag: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), Failure> {
        let (short, flag) = match flag.strip_prefix('-') {
            Some(long) => (false, long),
            None => (true, flag),
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            // `-wjson`
            None if short && flag.starts_with('w') && flag.len() > 1 => {
                ("w", Some(flag[1..].to_owned()))
            }
            None => (flag, None),
        };
        if name == "help" && !short || name == "h" && short {
            self.flags.insert("help", "true".to_owned());
            return Ok(());
        }
        let name = match (short, name) {
            (true, "w") => "write-out",
            (true, _) => {
                let letter = name.chars().next().unwrap_or_default();
                let text = format!("unknown shorthand flag: {letter:?} in -{flag}");
                return Err(usage::misuse(self.command, text));
            }
            (false, name) => name,
        };
        let known = self.command.flags().iter().chain(GLOBAL).find(|it| it.0 == name);
        let Some((name, kind, ..)) = known else {
            return Err(usage::misuse(self.command, format!("unknown flag: --{name}")));
        };
        let value = match given {
            Some(value) => value,
            None if *kind == Kind::Switch => "true".to_owned(),
            None => rest.next().ok_or_else(|| {
                usage::misuse(self.command, format!("flag needs an argument: --{name}"))
            })?,
        };
        if let Some(reason) = wrong(*kind, &value) {
            let text = format!("invalid argument {value:?} for \"--{name}\" flag: {reason}");
            return Err(usage::misuse(self.command, text));
        }
        self.flags.insert(name, value);
        Ok(())
    }

    /// The value of a flag: given, or its default.
    pub(crate) fn get(&self, name: &str) -> &str {
        let known = self.command.flags().iter().chain(GLOBAL).find(|it| it.0 == name);
        self.flags.get(name).map(String::as_str).or(known.map(|it| it.2)).unwrap_or_default()
    }

    /// Refuses a command line that lacks a required flag.
    ///
    /// # Errors
    /// The missing flags.
    pub(crate) fn check_required(&self) -> Result<(), Failure> {
        let missing = self.command.required().iter().filter(|it| !self.flags.contains_key(**it));
        let missing: Vec<_> = missing.map(|it| format!("{it:?}")).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => {
                let text = format!("required flag(s) {} not set", missing.join(", "));
                Err(usage::misuse(self.command, text))
            }
        }
    }

    /// True if a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        switch(self.get(name)) == Some(true)
    }

    /// A whole number; it was checked when it was parsed.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, Failure> {
        let wrong = |_| Failure::error(format!("invalid argument for \"--{name}\" flag"));
        self.get(name).parse().map_err(wrong)
    }
}

/// Go's spellings of true and false.
fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The reason why a flag cannot have this value, in Go's words.
fn wrong(kind: Kind, value: &str) -> Option<String> {
    let go =
        |function: &str, why: &str| Some(format!("strconv.{function}: parsing {value:?}: {why}"));
    let why = |error: &ParseIntError| {
        let kind = error.kind();
        let is_beyond = [IntErrorKind::PosOverflow, IntErrorKind::NegOverflow].contains(kind);
        if is_beyond { "value out of range" } else { "invalid syntax" }
    };
    match kind {
        Kind::Text | Kind::Directory => None,
        Kind::Switch if switch(value).is_some() => None,
        Kind::Switch => go("ParseBool", "invalid syntax"),
        Kind::Int => value.parse::<i64>().err().and_then(|error| go("ParseInt", why(&error))),
        Kind::Uint => value.parse::<u64>().err().and_then(|error| go("ParseUint", why(&error))),
        Kind::Time => gocompat::duration::parse(value).err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Result<Args, Failure> {
        read(text.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn flags_stand_anywhere() {
        let args = typed("-w json snap stat --timeout=3s file -- -x").unwrap();
        assert_eq!(args.command, Command::Status);
        assert_eq!(args.positional, ["file", "-x"]);
        assert_eq!((args.get("write-out"), args.get("timeout")), ("json", "3s"));
        let args =
            typed("snapshot restore f --name a --skip-hash-check --bump-revision 7").unwrap();
        assert_eq!((args.get("name"), args.get("initial-cluster-token")), ("a", "etcd-cluster"));
        assert!(args.is_on("skip-hash-check") && !args.is_on("mark-compacted"));
        assert_eq!(args.number("bump-revision"), Ok(7_u64));
    }

    #[test]
    fn wrong_words_are_refused_in_cobras_words() {
        let text = |line| typed(line).unwrap_err().text;
        assert_eq!(text("nope"), "unknown command \"nope\" for \"etcdutl\"");
        assert_eq!(text("hashkv --nope"), "unknown flag: --nope");
        assert_eq!(text("hashkv -z"), "unknown shorthand flag: 'z' in -z");
        assert_eq!(text("hashkv --rev"), "flag needs an argument: --rev");
        assert_eq!(
            text("snapshot restore --bump-revision x"),
            "invalid argument \"x\" for \"--bump-revision\" flag: strconv.ParseUint: parsing \"x\": \
             invalid syntax"
        );
        assert_eq!(typed("snapshot nope").unwrap().command, Command::Snapshot);
    }
}
