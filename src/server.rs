//! Reads the configuration, assigns actors to cores, starts and stops them. Decides nothing about requests.

mod bootstrap;
mod config;
mod corruption;
mod doctor;
mod file;
mod flag;
mod flags;
mod gates;
mod graduated;
mod insecurity;
mod levels;
mod log;
mod member_files;
mod open;
mod raft_log;
mod run;
mod security;
mod settings;
mod start_line;
mod table;
mod tls;
mod topology;
mod values;
mod versions;

pub use self::config::Config;
pub use self::doctor::{DOCTOR, DoctorOutcome, doctor};
pub use self::flags::{Command, help, parse, usage};
pub use self::log::{Options as LogOptions, say, start as start_log};
pub use self::member_files::MemberFiles;
pub use self::run::run;
pub use self::settings::{Flags, Level, Note};
pub use self::start_line::go_arch;
