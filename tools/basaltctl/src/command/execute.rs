//! Runs the program that a watch or a lock was given.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use gocompat::flags::Word;

/// The failure of a program, in Go's words, and its exit code if it has one.
pub(crate) struct Unwell {
    pub(crate) text: String,
    pub(crate) code: Option<i32>,
}

/// Runs a program with additional environment and our own output.
///
/// # Errors
/// It could not be started, or its exit code is not 0.
pub(crate) async fn run(words: &[Word], environment: &[(&str, String)]) -> Result<(), Unwell> {
    let word = |it: &Word| OsString::from_vec(it.clone());
    let program = word(&words[0]);
    let mut command = tokio::process::Command::new(&program);
    command.args(words[1..].iter().map(word)).stdin(Stdio::null());
    for (name, value) in environment {
        command.env(name, value);
    }
    let status = command.status().await.map_err(|it| Unwell {
        text: if it.kind() == std::io::ErrorKind::NotFound {
            let program = gocompat::quote::quote(program.to_string_lossy().as_bytes());
            format!("exec: {program}: executable file not found in $PATH")
        } else {
            dial::files::why(&it)
        },
        code: None,
    })?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Unwell { text: format!("exit status {code}"), code: Some(code) }),
        (None, signal) => {
            let mut text = format!("signal: {}", signal_name(signal.unwrap_or_default()));
            if status.core_dumped() {
                text.push_str(" (core dumped)");
            }
            Err(Unwell { text, code: Some(-1) })
        }
    }
}

/// Go's name of a signal.
fn signal_name(number: i32) -> String {
    const NAMES: [&str; 15] = [
        "hangup",
        "interrupt",
        "quit",
        "illegal instruction",
        "trace/breakpoint trap",
        "aborted",
        "bus error",
        "floating point exception",
        "killed",
        "user defined signal 1",
        "segmentation fault",
        "user defined signal 2",
        "broken pipe",
        "alarm clock",
        "terminated",
    ];
    let name = usize::try_from(number - 1).ok().and_then(|at| NAMES.get(at));
    name.map_or_else(|| format!("signal {number}"), |it| (*it).to_owned())
}
