//! Reads the configuration, lays actors out on cores, starts and stops them.

mod beginning;
mod config;
mod file;
mod flags;
mod log;
mod open;
mod run;
mod table;
mod values;

pub use self::config::{Config, Retention};
pub use self::flags::{Command, Flags, Level, Note, help, parse, usage};
pub use self::log::{Options as LogOptions, say, start as start_log};
pub use self::run::run;
