//! The command line client.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect();
    ExitCode::from(basaltctl::run(arguments).await)
}
