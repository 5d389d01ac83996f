//! Reads the command line, runs one load, and exits with 1 if anything failed.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match basalt_bench::run::run(basalt_bench::cli::Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
