//! Passwords, typed without echo.

use std::io::{Read as _, stdin};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::print::out;

/// Shows the prompt and reads one line.
///
/// # Errors
/// Standard input cannot be read.
pub(crate) fn ask(prompt: &str) -> Result<String, String> {
    out::text(prompt);
    let before = tcgetattr(rustix::stdio::stdin()).ok();
    if let Some(before) = &before {
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &quiet);
    }
    let line = line();
    if let Some(before) = &before {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
    }
    out::text("\n");
    let line = line.map_err(|it| format!("failed during password entry: {it}"))?;
    Ok(line.trim().to_owned())
}

/// One byte after the other, so that nothing of the next line is taken.
fn line() -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stdin().read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The first word of standard input, as `fmt.Scanf("%s")` takes it.
pub(crate) fn scan() -> String {
    let line = line().unwrap_or_default();
    line.split_whitespace().next().unwrap_or_default().to_owned()
}
