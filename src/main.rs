//! The server.

use std::process::ExitCode;

use basalt::server::{self, Command, Config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match server::parse(std::env::args().skip(1), std::env::vars()) {
        Command::Version => {
            println!("etcd Version: {}", basalt::rpc::ETCD_VERSION);
            println!("Git SHA: Not provided");
            println!("Go Version: none (Rust)");
            println!("Go OS/Arch: linux/{}", goarch());
            println!("Basalt Version: {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Command::Help => {
            print!("{}", server::usage());
            ExitCode::SUCCESS
        }
        Command::Refuse(text, code) => {
            eprintln!("{text}");
            if code == 2 {
                eprint!("{}", server::usage());
            }
            ExitCode::from(code as u8)
        }
        Command::Run(flags) => run(&flags),
    }
}

fn run(flags: &server::Flags) -> ExitCode {
    server::start_log(flags.get("log-level"));
    flags.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let outcome = match Config::new(flags) {
        Ok(config) => server::run(config).map_err(|fault| fault.to_string()),
        Err(text) => Err(format!("error verifying flags, {text}. See 'basalt --help'.")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            tracing::error!(error = text, "the member cannot run");
            ExitCode::FAILURE
        }
    }
}

fn goarch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
