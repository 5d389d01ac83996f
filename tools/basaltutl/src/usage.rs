//! How to use it.

use std::fmt::Write as _;

use crate::args::{Command, Flag, GLOBAL, Kind};
use crate::{Failure, exit};

/// A command line that is wrong: told before and after the usage, as cobra does.
pub(crate) fn misuse(command: Command, text: String) -> Failure {
    Failure { text, usage: Some(of(command)), code: exit::ERROR }
}

/// What a command is called with, and what it is for.
fn about(command: Command) -> (&'static str, &'static str) {
    match command {
        Command::Root => ("basaltutl [command]", ""),
        Command::Version => ("basaltutl version [flags]", "Prints the version of etcdutl"),
        Command::HashKv => {
            ("basaltutl hashkv <filename> [flags]", "Prints the KV history hash of a given file")
        }
        Command::Snapshot => ("basaltutl snapshot [command]", "Manages etcd node snapshots"),
        Command::Status => (
            "basaltutl snapshot status <filename> [flags]",
            "Gets backend snapshot status of a given file",
        ),
        Command::Restore => (
            "basaltutl snapshot restore <filename> --data-dir {output dir} [options] [flags]",
            "Restores an etcd member snapshot to a basalt directory",
        ),
    }
}

/// The usage of a command.
pub(crate) fn of(command: Command) -> String {
    let mut text = format!("Usage:\n  {}\n", about(command).0);
    if !command.below().is_empty() {
        text.push_str("\nAvailable Commands:\n");
        for (name, below) in command.below() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {name:<11} {}", about(*below).1);
        }
    }
    text.push_str("\nFlags:\n");
    flags(&mut text, command.flags());
    text.push_str("  -h, --help\n");
    if command != Command::Root {
        text.push_str("\nGlobal Flags:\n");
    }
    flags(&mut text, GLOBAL);
    text
}

fn flags(text: &mut String, flags: &[Flag]) {
    for (name, kind, default, purpose) in flags {
        let short = if *name == "write-out" { "-w, " } else { "    " };
        let takes = match kind {
            Kind::Text => " string",
            Kind::Switch => "",
            Kind::Int => " int",
            Kind::Uint => " uint",
            Kind::Time => " duration",
        };
        let named = format!("{name}{takes}");
        let default = match (kind, *default) {
            (_, "" | "0" | "false") => String::new(),
            (Kind::Text, default) => format!(" (default {default:?})"),
            (_, default) => format!(" (default {default})"),
        };
        let _ = writeln!(text, "  {short}--{named:<36} {purpose}{default}");
    }
}
