//! etcd's two programs between clients and members, `gateway` and `grpc-proxy`: subcommands of the server's binary that
//! share nothing with a member. Neither keeps anything on disk but a certificate that it makes itself.
//!
//! ```text
//!  run ─► cli: words ─► flags ─┬─► gateway     TCP: bytes between a client and one of the endpoints
//!                              └─► grpc_proxy  gRPC: cache, shared watches and keep-alives, a namespace, pages
//!  discovery: endpoints from DNS        limits: every bound
//! ```
//!
//! Plain tokio: the work is that of the members behind; here it is only passed on.

mod cli;
mod discovery;
mod gateway;
mod grpc_proxy;
mod limits;

use std::path::{Path, PathBuf};

use gocompat::zap::Line;

/// Makes a certificate for hosts in a directory, valid for some years, and returns its file and that of its key.
pub type SelfSign = fn(&Path, &[String], u64) -> Result<(PathBuf, PathBuf), String>;

/// The reason why a program ends with exit code 1.
pub(crate) enum Failure {
    /// A line on standard error.
    Error(String),
    /// A text on standard output, where etcd prints some of its errors.
    Output(String),
    /// A fatal line of the log: source line of etcd, message, error.
    Fatal(&'static str, &'static str, String),
}

/// Tells if these arguments, with the program's name, are for this crate.
pub fn is_meant(arguments: &[String]) -> bool {
    matches!(arguments.get(1).map(String::as_str), Some("gateway" | "grpc-proxy"))
}

/// Runs the program that the arguments name; returns its exit code.
pub fn run(arguments: &[String], self_sign: SelfSign) -> u8 {
    let outcome = match cli::parse(&arguments[1..]) {
        cli::Parsed::Help(text) => {
            print!("{text}");
            return 0;
        }
        cli::Parsed::Misuse(text) => {
            eprint!("{text}");
            return 1;
        }
        cli::Parsed::Gateway(values) => run_on_all_cores(gateway::run(&values, arguments)),
        cli::Parsed::GrpcProxy(values) => run_on_all_cores(grpc_proxy::run(&values, self_sign)),
    };
    match outcome {
        Ok(()) => 0,
        Err(Failure::Error(text)) => {
            eprintln!("{text}");
            1
        }
        Err(Failure::Output(text)) => {
            print!("{text}");
            1
        }
        Err(Failure::Fatal(caller, message, error)) => {
            Line::new("fatal", "", caller).message(message).text("error", &error).write();
            1
        }
    }
}

fn run_on_all_cores(program: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Error(error.to_string()))?;
    runtime.block_on(Box::pin(program))
}

/// A line of the log on standard error.
pub(crate) fn info(caller: &str, message: &str) -> Line {
    Line::new("info", "", caller).message(message)
}

pub(crate) fn warn(caller: &str, message: &str) -> Line {
    Line::new("warn", "", caller).message(message)
}

/// Tells systemd that the program serves, with etcd's lines about it.
pub(crate) fn notify_systemd() {
    info("etcdmain/main.go:44", "notifying init daemon").write();
    match sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        Ok(()) => info("etcdmain/main.go:50", "successfully notified init daemon").write(),
        Err(error) => Line::new("error", "", "etcdmain/main.go:47")
            .message("failed to notify systemd for readiness")
            .text("error", &error.to_string())
            .write(),
    }
}
