//! `basaltctl`: etcdctl's commands, flags, texts and exit codes.
//!
//! ```text
//! run ─► cli (parses commands and flags) ─► command (the action) ─► client (calls servers)
//!                                               └────────► print (output formats)
//! ```
//!
//! [`go`] holds the texts of Go's standard library that users see.

mod cli;
mod client;
mod command;
mod go;
mod print;

use crate::cli::command::Path;
use crate::cli::tree::ROOT;
use crate::cli::{find, help};
use crate::client::error::Refusal;
use crate::print::out;
use gocompat::flags::{Values, Word};
use gocompat::quote::quote;

/// The version that clients send to servers.
pub(crate) const API_VERSION: &str = "3.7";

/// etcdctl's exit codes.
pub(crate) mod exit {
    /// The server refused, or could not be reached.
    pub(crate) const ERROR: u8 = 1;
    /// There is no connection to send on.
    pub(crate) const BAD_CONNECTION: u8 = 2;
    /// A line of a transaction or a watch is invalid.
    pub(crate) const INVALID_INPUT: u8 = 3;
    /// A flag has a value other than its choices.
    pub(crate) const BAD_FEATURE: u8 = 4;
    /// The stream ended on its own.
    pub(crate) const INTERRUPTED: u8 = 5;
    /// The arguments are invalid.
    pub(crate) const BAD_ARGS: u8 = 128;
}

/// An early end of a command: text for standard error, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Printed after `Error: `; nothing is printed if it is missing.
    pub(crate) text: Option<String>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), code }
    }

    pub(crate) fn error(text: impl Into<String>) -> Self {
        Self::new(exit::ERROR, text)
    }

    pub(crate) fn bad_args(text: impl Into<String>) -> Self {
        Self::new(exit::BAD_ARGS, text)
    }

    /// A failure that has been printed already.
    pub(crate) fn silent(code: u8) -> Self {
        Self { text: None, code }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::error(refusal.text())
    }
}

/// Runs one command line, without the program's name; returns the exit code.
pub async fn run(words: Vec<Vec<u8>>) -> u8 {
    let outcome = match words.first().map(Vec::as_slice) {
        Some(b"__complete" | b"__completeNoDesc") => {
            command::complete::complete(&words);
            Ok(())
        }
        _ => dispatch(words).await,
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            if let Some(text) = failure.text {
                out::error(&format!("Error: {text}"));
            }
            failure.code
        }
    }
}

async fn dispatch(words: Vec<Word>) -> Result<(), Failure> {
    let (path, rest) = find::find(&ROOT, &words);
    if path.0.len() == 1
        && let Some(at) = find::first_bare(&path, &rest)
    {
        return Err(unknown_command(&String::from_utf8_lossy(&rest[at])));
    }
    let values = match Values::read(path.local(), path.above(), &rest) {
        Ok(values) => values,
        Err(text) => {
            out::error(&format!("Error: {text}\n{}", help::usage(&path)));
            return Err(Failure::silent(exit::ERROR));
        }
    };
    let Some(action) = path.command().action.filter(|_| !values.is_on("help")) else {
        out::text(&help::help(&path));
        return Ok(());
    };
    Box::pin(command::run(action, command::Context { values, path, words })).await
}

fn unknown_command(typed: &str) -> Failure {
    let mut text = format!("Error: unknown command {} for \"etcdctl\"", quote(typed));
    let names = find::suggestions(&ROOT, typed);
    if !names.is_empty() {
        text.push_str("\n\nDid you mean this?\n");
        for name in names {
            text.push_str(&format!("\t{name}\n"));
        }
    }
    out::error(&format!("{text}\nRun 'etcdctl --help' for usage."));
    Failure::silent(exit::ERROR)
}

/// The command that is the topic of `help`.
pub(crate) fn help_topic(words: &[Word]) -> Option<Path> {
    let (path, rest) = find::find(&ROOT, words);
    let unknown = path.0.len() == 1 && find::first_bare(&path, &rest).is_some();
    (!unknown).then_some(path)
}
