//! `basaltctl`: etcdctl's commands, flags, output and exit codes, for the commands that are there so far.
//!
//! One file per group of commands; [`args`] reads the command line as cobra does, [`client`] connects,
//! [`output`] prints.

mod args;
mod client;
mod endpoint;
mod keys;
mod lease;
mod output;
mod watch;

pub use self::args::{Args, Spec};

/// etcdctl's exit codes.
pub(crate) mod exit {
    /// The server refused, or could not be reached.
    pub(crate) const ERROR: u8 = 1;
    /// The stream ended on its own.
    pub(crate) const INTERRUPTED: u8 = 5;
    /// What was typed makes no sense.
    pub(crate) const BAD_ARGS: u8 = 128;
}

/// What ends a command early: text for standard error, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// Printed after `Error: `.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { text: text.into(), code }
    }

    pub(crate) fn bad_args(text: impl Into<String>) -> Self {
        Self::new(exit::BAD_ARGS, text)
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::new(exit::ERROR, status.message())
    }
}

const USAGE: &str = "basaltctl - A simple command line client for etcd3.

Usage:
  basaltctl [command]

Commands:
  put, get, del, watch, compaction,
  lease grant | revoke | timetolive | list | keep-alive,
  endpoint health | status | hashkv, member list, version

Flags: --endpoints 127.0.0.1:2379, -w/--write-out simple|json, --hex,
       --command-timeout 5s, --dial-timeout 2s
";

/// Runs one command; gives the exit code.
pub async fn run(arguments: Vec<String>) -> u8 {
    match dispatch(arguments).await {
        Ok(()) => 0,
        Err(failure) => {
            if !failure.text.is_empty() {
                output::error(&format!("Error: {}", failure.text));
            }
            failure.code
        }
    }
}

async fn dispatch(arguments: Vec<String>) -> Result<(), Failure> {
    let (words, rest) = args::command(arguments)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["put"] => keys::put(rest).await,
        ["get"] => keys::get(rest).await,
        ["del"] => keys::del(rest).await,
        ["compaction"] => keys::compaction(rest).await,
        ["watch"] => watch::watch(rest).await,
        ["lease", "grant"] => lease::grant(rest).await,
        ["lease", "revoke"] => lease::revoke(rest).await,
        ["lease", "timetolive"] => lease::time_to_live(rest).await,
        ["lease", "list"] => lease::list(rest).await,
        ["lease", "keep-alive"] => lease::keep_alive(rest).await,
        ["endpoint", "health"] => endpoint::health(rest).await,
        ["endpoint", "status"] => endpoint::status(rest).await,
        ["endpoint", "hashkv"] => endpoint::hash_kv(rest).await,
        ["member", "list"] => endpoint::members(rest).await,
        ["version"] => {
            output::line("etcdctl version: 3.7.1\nAPI version: 3.7");
            Ok(())
        }
        _ => {
            output::text(USAGE);
            Ok(())
        }
    }
}
