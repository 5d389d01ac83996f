//! The command line client.

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    let code = tokio::task::LocalSet::new().run_until(basaltctl::run(words)).await;
    // A thread that still reads standard input would keep the runtime from ending.
    std::process::exit(i32::from(code))
}
