//! The command line tool for data directories and snapshot files.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect();
    ExitCode::from(basaltutl::run(arguments))
}
