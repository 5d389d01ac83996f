//! Passwords, typed without echo.

use std::io::{Read as _, stdin};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex as Key, Termios, tcgetattr, tcsetattr,
};

use crate::print::out;

/// The exit code after the interrupt key: etcdctl's `exit(-1)`.
const INTERRUPTED: i32 = 255;

/// Shows the prompt and reads one line.
///
/// # Errors
/// Standard input cannot be read.
pub(crate) fn ask(prompt: &str) -> Result<String, String> {
    // Echo is turned off before the prompt, so that early input is not shown either.
    let terminal = Quiet::begin();
    out::text(prompt);
    let line = match &terminal {
        Some(terminal) => terminal.line(),
        None => line(),
    };
    drop(terminal);
    out::text("\n");
    let line = line.map_err(|it| format!("failed during password entry: {it}"))?;
    Ok(line.trim().to_owned())
}

/// Turns off the echo of the terminal at standard input until it is dropped. The keys that edit and
/// interrupt are read as characters: a signal would end the program with the echo off.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        quiet.special_codes[Key::VMIN] = 1;
        quiet.special_codes[Key::VTIME] = 0;
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &quiet).ok()?;
        Some(Self(before))
    }

    fn is(&self, byte: u8, key: Key) -> bool {
        self.0.special_codes[key] == byte
    }

    fn line(&self) -> std::io::Result<String> {
        let mut line = String::new();
        let mut character = Vec::new();
        let mut byte = [0];
        while stdin().read(&mut byte)? == 1 {
            match byte[0] {
                b'\n' | b'\r' => break,
                key if self.is(key, Key::VINTR) || self.is(key, Key::VQUIT) => {
                    self.give_back();
                    std::process::exit(INTERRUPTED);
                }
                key if self.is(key, Key::VEOF) && line.is_empty() => break,
                key if self.is(key, Key::VERASE) => drop(line.pop()),
                key if self.is(key, Key::VKILL) => line.clear(),
                other => character.push(other),
            }
            // One character may be several bytes.
            if let Ok(whole) = std::str::from_utf8(&character) {
                line.push_str(whole);
                character.clear();
            }
        }
        Ok(line)
    }

    fn give_back(&self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Reads byte by byte, so that nothing of the next line is consumed.
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
