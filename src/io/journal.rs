//! systemd's journal as an output of the log, as etcd writes to it: each line is a message of its own, with the priority
//! of its level (`systemd.journal-fields(7)`).

use std::io::{IoSlice, Result, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal of this machine.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    /// Name under which lines are found (`journalctl -t`).
    identifier: String,
}

/// Level and origin of a line.
#[derive(Deserialize)]
struct About {
    level: String,
    caller: String,
}

impl Journal {
    /// Finds the journal.
    ///
    /// # Errors
    /// There is none.
    pub fn connect() -> Result<Self> {
        Self::at(SOCKET)
    }

    fn at(path: &str) -> Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        let program = std::env::args().next().unwrap_or_default();
        let identifier = program.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { socket, identifier })
    }

    /// Writes lines; those that the journal does not take go to standard error.
    pub(super) fn write(&self, lines: &[u8]) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if self.send(&self.entry(line)).is_err() {
                // A log that cannot be written has nowhere to say so.
                let _ = std::io::stderr().write_all(line);
            }
        }
    }

    fn entry(&self, line: &[u8]) -> Vec<u8> {
        // A line for people says neither.
        let about: Option<About> = serde_json::from_slice(line).ok();
        let (level, caller) =
            about.as_ref().map_or(("info", ""), |it| (it.level.as_str(), it.caller.as_str()));
        let package = caller.rsplit_once('/').map_or(".", |(directory, _)| directory);
        let mut entry = Vec::with_capacity(line.len() + 128);
        append(&mut entry, "PRIORITY", priority(level).as_bytes());
        append(&mut entry, "MESSAGE", line);
        append(&mut entry, "PACKAGE", package.as_bytes());
        append(&mut entry, "SYSLOG_IDENTIFIER", self.identifier.as_bytes());
        entry
    }

    fn send(&self, entry: &[u8]) -> Result<()> {
        match self.socket.send(entry) {
            Ok(_) => return Ok(()),
            Err(error) if is_too_long(&error) => (),
            Err(error) => return Err(error),
        }
        // An entry that is too long for a datagram goes as a file.
        let mut file = std::fs::File::from(rustix::fs::memfd_create(
            "journal",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?);
        file.write_all(entry)?;
        file.rewind()?;
        let files = [file.as_fd()];
        let mut space =
            [const { std::mem::MaybeUninit::uninit() }; rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&files));
        sendmsg(&self.socket, &[IoSlice::new(&[])], &mut rights, SendFlags::empty())?;
        Ok(())
    }
}

fn is_too_long(error: &std::io::Error) -> bool {
    [Errno::MSGSIZE, Errno::NOBUFS].iter().any(|it| error.raw_os_error() == Some(it.raw_os_error()))
}

/// The priorities that etcd gives its levels.
fn priority(level: &str) -> &'static str {
    match level {
        "debug" => "7",
        "warn" => "4",
        "error" => "3",
        "fatal" => "2",
        _ => "6",
    }
}

/// A field; one with a line feed carries its length.
fn append(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_to_the_journal_with_their_priority_however_long_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("bound");
        let journal = Journal::at(&path.to_string_lossy()).expect("it is there");
        let warning =
            "{\"level\":\"warn\",\"ts\":\"x\",\"caller\":\"server/log.rs:1\",\"msg\":\"a\"}\n";
        journal.write(format!("{warning}for people\n").as_bytes());
        let mut entry = vec![0; 4096];
        let length = journald.recv(&mut entry).expect("the first line");
        let text = String::from_utf8_lossy(&entry[..length]).into_owned();
        assert!(text.starts_with("PRIORITY=4\nMESSAGE\n"), "{text}");
        assert!(text.contains(warning) && text.contains("\nPACKAGE=server\nSYSLOG_IDENTIFIER="));
        let length = journald.recv(&mut entry).expect("the second line");
        assert!(String::from_utf8_lossy(&entry[..length]).starts_with("PRIORITY=6\nMESSAGE\n"));

        journal.write(format!("{}\n", "x".repeat(4 << 20)).as_bytes());
        assert_eq!(journald.recv(&mut entry).expect("a file"), 0, "its bytes are in the file");
    }

    #[test]
    fn no_journal_is_told_at_once() {
        assert!(Journal::at("/nonexistent/socket").is_err());
    }
}
