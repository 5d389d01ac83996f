//! Reads the configuration, lays actors out on cores, starts and stops them.

mod beginning;
mod config;
mod corruption;
mod file;
mod flags;
mod levels;
mod log;
mod open;
mod raft_log;
mod run;
mod table;
mod topology;
mod values;
mod versions;

pub use self::config::Config;
pub use self::flags::{Command, Flags, Level, Note, help, parse, usage};
pub use self::log::{Options as LogOptions, say, start as start_log};
pub use self::run::run;
