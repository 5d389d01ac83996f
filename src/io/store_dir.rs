//! The directory of the store: `store`, or the one of an installed snapshot.
//!
//! ```text
//!  <member>/store               the first store
//!  <member>/founding            that store until it is complete
//!  <member>/current             name, index and term of the snapshot's store that replaced it
//!  <member>/store-<number>      that store; others of the kind, or with more behind the number, are left-overs
//!  <member>/incoming-<number>   the file of a snapshot that is being received
//! ```

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use steady::WritebackFile;

use super::disk;
use super::durable::{rename_durably, replace_durably, sync_dir};
use super::lsm::LsmEngine;
use super::removal::delete_in_background;
use crate::types::{DiskBounds, Fault, LogIndex, Term};

const CURRENT: &str = "current";
/// The first store.
const FIRST: &str = "store";
const FOUNDING: &str = "founding";

fn fault(what: &str, path: &Path, error: impl std::fmt::Display) -> Fault {
    Fault::new(format!("cannot {what} {}: {error}", path.display()))
}

/// True if there is a write-ahead log in this directory.
pub fn has_log(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|it| it == "wal"))
}

/// The path of a store, and the snapshot it began with, if any.
type Place = (PathBuf, Option<(LogIndex, Term)>);

/// Finds the store. Creates an empty one if there was none yet, and removes left-overs of unfinished installations. Blocks.
///
/// # Errors
/// The directory cannot be read, or the current store is missing.
pub fn find_store(member: &Path) -> Result<Place, Fault> {
    let (store, snapshot) = current_store(member)?;
    if snapshot.is_none() {
        make_first(member, &store)?;
    }
    sweep(member, &store)?;
    Ok((store, snapshot))
}

/// Finds the store of a member, and changes nothing.
///
/// # Errors
/// The directory cannot be read, or the current store is missing.
pub fn current_store(member: &Path) -> Result<Place, Fault> {
    let path = member.join(CURRENT);
    let text = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(fault("read", &path, error)),
    };
    let found = match &text {
        None => (FIRST, None),
        Some(text) => parse(text).ok_or_else(|| fault("use", &path, "it makes no sense"))?,
    };
    let store = member.join(found.0);
    if text.is_some() && !store.exists() {
        let text = format!("{}, which it names, is not there", store.display());
        return Err(fault("use", &path, text));
    }
    Ok((store, found.1))
}

/// Creates an empty first store, if there is none: in a directory of another name, which is renamed when the store is
/// complete. An incomplete one may not open again.
fn make_first(member: &Path, store: &Path) -> Result<(), Fault> {
    if store.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(member).map_err(|error| fault("read", member, error))?;
    let received = entries.flatten().map(|entry| entry.path()).find(|path| is_received(path));
    if let Some(received) = received {
        let text = format!("{CURRENT}, which names the store {}, is not there", received.display());
        return Err(fault("use", member, text));
    }
    let founding = member.join(FOUNDING);
    remove(&founding)?;
    LsmEngine::open(&founding)?.persist()?;
    rename_durably(&founding, store).map_err(|error| fault("make", store, error))
}

/// Removes a file, or a directory with its content, unless it does not exist.
fn remove(path: &Path) -> Result<(), Fault> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(fault("remove", path, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// True if a store of a received snapshot is here, complete or not.
fn is_received(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("store-"))
}

fn parse(text: &str) -> Option<(&str, Option<(LogIndex, Term)>)> {
    let mut words = text.split_whitespace();
    let (name, index, term) = (words.next()?, words.next()?, words.next()?);
    Some((name, Some((index.parse().ok()?, term.parse().ok()?))))
}

fn sweep(member: &Path, keep: &Path) -> Result<(), Fault> {
    let keep = keep.file_name().unwrap_or_default().to_string_lossy();
    let entries = fs::read_dir(member).map_err(|error| fault("read", member, error))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let gone = match name.as_str() {
            FIRST => keep != FIRST,
            name if name.starts_with("store-") => name != keep,
            name => name.starts_with("incoming-"),
        };
        if !gone {
            continue;
        }
        remove(&entry.path())?;
    }
    Ok(())
}

/// A snapshot that is being received. Removed in the background after it is dropped, like its store, unless
/// that was installed.
#[derive(Debug)]
pub struct IncomingSnapshot {
    member: PathBuf,
    number: u64,
    file: WritebackFile,
    /// The size of the file in bytes.
    bytes: u64,
    installed: bool,
}

impl IncomingSnapshot {
    /// Creates the file.
    ///
    /// # Errors
    /// The disk's error.
    pub fn begin(member: &Path, index: LogIndex) -> Result<Self, Fault> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // Never an earlier name: the index differs, or the earlier file was removed at the start.
        let number = index << 16 | NUMBER.fetch_add(1, Ordering::Relaxed) & 0xffff;
        let path = member.join(format!("incoming-{number:x}"));
        let file = fs::File::create(&path).map_err(|error| fault("make", &path, error))?;
        Ok(Self {
            member: member.to_owned(),
            number,
            file: WritebackFile::new(file),
            bytes: 0,
            installed: false,
        })
    }

    /// Appends, and waits for writeback (back-pressure on the sender). Blocks. Without it the kernel would write the
    /// whole snapshot in one burst and stall the writes of every log on that disk.
    ///
    /// # Errors
    /// The disk's error.
    pub fn append(mut self, bytes: &[u8]) -> Result<Self, Fault> {
        self.check_room(bytes.len() as u64)?;
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| fault("write", &self.file(), error))?;
        Ok(self)
    }

    /// Checks that there is space for the store that will be made of the whole file, which takes up to twice its size
    /// while it is made. Blocks.
    ///
    /// # Errors
    /// There is too little.
    pub fn check_store_room(&self) -> Result<(), Fault> {
        self.check_room(2 * self.bytes)
    }

    /// Checks that these bytes leave enough space for the store in use, which would fail without.
    fn check_room(&self, bytes: u64) -> Result<(), Fault> {
        let Some(room) = disk::room(&self.member) else { return Ok(()) };
        if room.free >= bytes + DiskBounds::of_disk(room.total).margin {
            return Ok(());
        }
        let (dir, free) = (self.member.display(), room.free);
        Err(Fault::new(format!(
            "the disk of {dir} is full: {free} bytes are free and a snapshot takes {bytes} more"
        )))
    }

    /// The snapshot's file.
    pub fn file(&self) -> PathBuf {
        self.member.join(format!("incoming-{:x}", self.number))
    }

    /// The path for the store made of it.
    pub fn store(&self) -> PathBuf {
        self.member.join(self.name())
    }

    fn name(&self) -> String {
        format!("store-{:x}", self.number)
    }

    /// Makes its store the current one for the next start. Blocks.
    ///
    /// # Errors
    /// The disk failed: either store may be the current one after a restart, and each is complete.
    pub fn install(mut self, index: LogIndex, term: Term) -> Result<(), Fault> {
        let path = self.member.join(CURRENT);
        let named = format!("{} {index} {term}\n", self.name());
        let written =
            sync_dir(&self.store()).and_then(|()| replace_durably(&path, named.as_bytes()));
        written.map_err(|error| fault("write", &path, error))?;
        self.installed = true;
        Ok(())
    }
}

impl Drop for IncomingSnapshot {
    fn drop(&mut self) {
        delete_in_background(self.file());
        if !self.installed {
            delete_in_background(self.store());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(member: &Path) -> String {
        find_store(member).expect_err("there is none").to_string()
    }

    #[test]
    fn a_first_store_that_was_being_made_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let member = dir.path();
        // Some of the files that an engine creates first; the engine may refuse to open such a directory.
        let founding = member.join(FOUNDING);
        fs::create_dir(&founding).expect("made");
        fs::write(founding.join("0.jnl"), b"").expect("made");
        let (store, snapshot) = find_store(member).expect("made anew");
        assert_eq!((&store, snapshot), (&member.join(FIRST), None));
        assert!(!founding.exists());
        LsmEngine::open(&store).expect("it is whole");
        // It is kept from then on.
        fs::write(store.join("mark"), b"").expect("made");
        find_store(member).expect("found");
        assert!(store.join("mark").exists());
    }

    #[test]
    fn a_store_that_is_gone_is_not_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let member = dir.path();
        let received = member.join("store-50000");
        fs::create_dir(&received).expect("made");
        assert!(refusal(member).contains("current, which names the store"));
        assert!(received.exists(), "it may be all there is");
        fs::write(member.join(CURRENT), "store-50000 5 2\n").expect("written");
        assert_eq!(find_store(member), Ok((received.clone(), Some((5, 2)))));
        fs::remove_dir(&received).expect("empty");
        assert!(refusal(member).contains("which it names, is not there"));
        assert!(!received.exists() && !member.join(FIRST).exists());
    }
}
