//! Usage texts, laid out as cobra and pflag do.

use std::fmt::Write as _;

use crate::command::{Command, Flag, GLOBAL, Kind};
use crate::{Failure, exit, output};

/// An invalid command line: the error before and after the usage, as cobra prints it.
pub(crate) fn misuse(command: Command, text: String) -> Failure {
    Failure { text, usage: Some(of(command)), code: exit::ERROR }
}

/// An unknown command, and similar names.
pub(crate) fn unknown(typed: &str) -> Failure {
    let mut text = format!("unknown command {typed:?} for \"etcdutl\"");
    let near = |name: &str| name.starts_with(typed) || distance(typed, name) <= 2;
    let names = Command::Root.below().iter().map(|it| it.0);
    let names: Vec<_> = names.filter(|it| *it != "help" && near(it)).collect();
    if !names.is_empty() {
        text.push_str("\n\nDid you mean this?\n");
        for name in names {
            // Writing to a string does not fail.
            let _ = writeln!(text, "\t{name}");
        }
    }
    let usage = Some("Run 'etcdutl --help' for usage.".to_owned());
    Failure { text, usage, code: exit::ERROR }
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let cost = if l == *r { diagonal } else { 1 + diagonal.min(row[j]).min(row[j + 1]) };
            diagonal = row[j + 1];
            row[j + 1] = cost;
        }
    }
    row[right.len()]
}

/// The output of `help` about a command; an unknown one is no failure.
pub(crate) fn help(words: &[String]) {
    let mut command = Command::Root;
    for word in words {
        match command.find(word) {
            Some(below) => command = below,
            None if command == Command::Root => {
                let words: Vec<_> = words.iter().map(|it| format!("`{it}`")).collect();
                let usage = usage(command, false);
                let text = format!("Unknown help topic [{}]\n{usage}", words.join(" "));
                return output::error(text.trim_end());
            }
            None => break,
        }
    }
    output::text(&of(command));
}

/// Usage line and description of a command.
pub(crate) fn about(command: Command) -> (&'static str, &'static str) {
    match command {
        Command::Root => ("etcdutl", ""),
        Command::Completion => {
            ("etcdutl completion [bash|zsh|fish|powershell]", "Generate completion script")
        }
        Command::Defrag => ("etcdutl defrag [flags]", "Defragments the storage of the etcd"),
        Command::Help => ("etcdutl help [command] [flags]", "Help about any command"),
        Command::Migrate => (
            "etcdutl migrate [flags]",
            "Migrates schema of etcd data dir files to make them compatible with different etcd \
             version",
        ),
        Command::Version => ("etcdutl version [flags]", "Prints the version of etcdutl"),
        Command::HashKv => {
            ("etcdutl hashkv <filename> [flags]", "Prints the KV history hash of a given file")
        }
        Command::Snapshot => ("etcdutl snapshot", "Manages etcd node snapshots"),
        Command::Save => (
            "basaltutl snapshot save <filename> --data-dir {data dir} [flags]",
            "Saves the state of a member that does not run to a file",
        ),
        Command::Verify => (
            "basaltutl verify --data-dir {data dir} [flags]",
            "Tells whether a member's log can be applied, and what to do if it cannot",
        ),
        Command::Status => (
            "etcdutl snapshot status <filename> [flags]",
            "Gets backend snapshot status of a given file",
        ),
        Command::Restore => (
            "etcdutl snapshot restore <filename> --data-dir {output dir} [options] [flags]",
            "Restores an etcd member snapshot to an etcd directory",
        ),
    }
}

/// The name of a command, without those above it: the last word before its arguments.
pub(crate) fn name(command: Command) -> &'static str {
    let words = about(command).0.split(' ');
    let is_name = |word: &&str| word.starts_with(|it: char| it.is_ascii_alphabetic());
    words.take_while(is_name).last().unwrap_or_default()
}

/// The usage of a command.
pub(crate) fn of(command: Command) -> String {
    usage(command, true)
}

fn usage(command: Command, with_help: bool) -> String {
    let (line, is_group) = (about(command).0, !command.below().is_empty());
    let mut text = format!("Usage:\n  {line}{}\n", if is_group { " [command]" } else { "" });
    if is_group {
        text.push_str("\nAvailable Commands:\n");
        for (name, below) in command.below() {
            let _ = writeln!(text, "  {name:<11} {}", about(*below).1);
        }
    }
    let help = format!("help for {}", name(command));
    let help: Flag = ("help", Kind::Switch, "false", &help);
    let mut own: Vec<Flag<'_>> = command.flags().to_vec();
    own.extend(with_help.then_some(help));
    text.push_str("\nFlags:\n");
    if command == Command::Root {
        own.extend(GLOBAL);
        flags(&mut text, own);
    } else {
        flags(&mut text, own);
        text.push_str("\nGlobal Flags:\n");
        flags(&mut text, GLOBAL.to_vec());
    }
    if is_group {
        let _ = writeln!(
            text,
            "\nUse \"{line} [command] --help\" for more information about a command."
        );
    }
    text
}

/// Flags by name, their descriptions in one column.
fn flags(text: &mut String, mut flags: Vec<Flag<'_>>) {
    flags.sort_by_key(|it| it.0);
    let named = flags.iter().map(|(name, kind, ..)| {
        let short = short(name).map_or_else(|| "    ".to_owned(), |it| format!("-{it}, "));
        let takes = match kind {
            Kind::Text | Kind::Directory => " string",
            Kind::Switch => "",
            Kind::Int => " int",
            Kind::Uint => " uint",
            Kind::Time => " duration",
        };
        format!("  {short}--{name}{takes}")
    });
    let named: Vec<_> = named.collect();
    let width = named.iter().map(String::len).max().unwrap_or_default() + 3;
    for (named, (_, kind, default, purpose)) in named.iter().zip(flags) {
        let default = match (kind, default) {
            (_, "" | "0" | "false") => String::new(),
            (Kind::Text, default) => format!(" (default {default:?})"),
            (_, default) => format!(" (default {default})"),
        };
        let _ = writeln!(text, "{named:<width$}{purpose}{default}");
    }
}

/// The one-letter form of a flag.
pub(crate) fn short(name: &str) -> Option<char> {
    match name {
        "help" => Some('h'),
        "write-out" => Some('w'),
        _ => None,
    }
}
