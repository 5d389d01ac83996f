//! Reads the configuration, lays actors out on cores, starts and stops them.

mod config;
mod flags;
mod log;
mod run;

pub use self::config::Config;
pub use self::flags::{Command, Flags, parse, usage};
pub use self::log::start as start_log;
pub use self::run::run;
