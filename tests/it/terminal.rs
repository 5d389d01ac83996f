//! A pseudo-terminal for an interactive program: its output is read, a user's input
//! is written, and the echo flag can be read.
//!
//! ```text
//! test ── type_in ──► master ══ kernel's line discipline ══ slave ──► setsid --ctty sh ──► <program>
//!      ◄─ wait_for ─┘ (a thread reads all that is shown)               │
//!      ◄────────────────── its exit code; then: it may end ────────────┘
//! ```
//!
//! The program is not the session leader: when that one ends, the kernel discards the output that
//! has not reached the master yet.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::process::{PATIENCE, spawn_with};

/// So wide that no line of ours is wrapped.
const SIZE: Winsize = Winsize { ws_row: 60, ws_col: 250, ws_xpixel: 0, ws_ypixel: 0 };
/// `O_NOCTTY`: the terminal is to control the program, not us.
const NO_CONTROL: i32 = 0o400;
/// Runs a program, prints its exit code, and stays until the socket is closed.
const LEADER: &str = r#"trap : INT QUIT; "$@" >&2; echo $?; read -r _ <&1"#;

/// The output so far, and true if that was all.
#[derive(Clone, Default)]
struct Screen(Arc<(Mutex<(Vec<u8>, bool)>, Condvar)>);

impl Screen {
    fn read(&self, mut from: File) {
        let screen = self.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The last program's end is an error here.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                screen.0.0.lock().unwrap().0.extend_from_slice(&buffer[..count]);
                screen.0.1.notify_all();
            }
            screen.0.0.lock().unwrap().1 = true;
            screen.0.1.notify_all();
        });
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().0).replace("\r\n", "\n")
    }
}

/// A program in a terminal of its own; ended when dropped.
pub(crate) struct Terminal {
    child: Child,
    master: File,
    screen: Screen,
    /// To the session leader, which sends the program's exit code.
    leader: UnixStream,
    /// Length of the output that has been waited for.
    seen: usize,
}

impl Terminal {
    pub(crate) fn open(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a new terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("the terminal is ours");
        let name = ptsname(&master, Vec::new()).expect("the terminal has a name");
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(NO_CONTROL)
            .open(std::ffi::OsStr::from_bytes(name.as_bytes()))
            .expect("the terminal opens");
        tcsetwinsize(&slave, SIZE).expect("a terminal has a size");
        let (leader, told) = UnixStream::pair().expect("a pair of sockets");
        leader.set_read_timeout(Some(PATIENCE)).expect("a socket can be limited");
        let shown = slave.try_clone().expect("one more");
        let standard = [slave.into(), OwnedFd::from(told).into(), shown.into()];
        let child = spawn_with(controlled(command), standard);
        let (master, screen) = (File::from(master), Screen::default());
        screen.read(master.try_clone().expect("one more"));
        Self { child, master, screen, leader, seen: 0 }
    }

    /// Presses keys.
    pub(crate) fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes what is typed");
    }

    /// Waits until `text` is shown behind the part waited for before; returns the output up to it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let shown = self.screen.text();
            let new = &shown[self.seen..];
            if let Some(at) = new.find(text) {
                let found = new[..at + text.len()].to_owned();
                self.seen += found.len();
                return found;
            }
            let state = self.screen.0.0.lock().unwrap();
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !state.1, "no {text:?} on the screen:\n{shown}");
            drop(self.screen.0.1.wait_timeout(state, left.min(Duration::from_millis(50))));
        }
    }

    /// Waits until the echo is on (or off).
    pub(crate) fn wait_echo(&self, wanted: bool) {
        let until = Instant::now() + PATIENCE;
        while self.echoes() != wanted {
            let shown = self.screen.text();
            assert!(Instant::now() < until, "echo is still {}:\n{shown}", !wanted);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// True if the echo is on.
    pub(crate) fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.master).expect("a terminal has modes").local_modes;
        modes.contains(LocalModes::ECHO)
    }

    /// Its whole output until it ended by itself, and its exit code, as a shell counts it.
    pub(crate) fn end(self) -> (String, i32) {
        let mut told = String::new();
        let read = BufReader::new(&self.leader).read_line(&mut told);
        let Some(code) = read.ok().and_then(|_| told.trim_end().parse().ok()) else {
            panic!("it does not end:\n{}", self.screen.text());
        };
        while self.has_more() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.leader.shutdown(std::net::Shutdown::Both).expect("the session may end");
        let state = self.screen.0.0.lock().unwrap();
        let (state, _) = self.screen.0.1.wait_timeout_while(state, PATIENCE, |it| !it.1).unwrap();
        assert!(state.1, "the session does not end");
        drop(state);
        (self.screen.text(), code)
    }

    /// True if there is output that the reading thread has not taken.
    fn has_more(&self) -> bool {
        let mut master = [PollFd::new(&self.master, PollFlags::IN)];
        poll(&mut master, Some(&Timespec::default())).expect("a terminal can be asked") > 0
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command in a session of its own, with the given controlling terminal.
fn controlled(command: &Command) -> Command {
    let mut leader = Command::new("setsid");
    leader
        .args(["--ctty", "sh", "-c", LEADER, "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => leader.env(name, value),
            None => leader.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        leader.current_dir(dir);
    }
    leader
}
