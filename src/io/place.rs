//! Where the store is: in `store`, or where a snapshot from another member put it.
//!
//! ```text
//!  <member>/store               the first store
//!  <member>/current             name, index and term of the snapshot's store that replaced it
//!  <member>/store-<number>      that store; others of the kind, or with more behind the number, are left-overs
//!  <member>/incoming-<number>   a snapshot's file on its way in
//! ```

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use steady::Steady;

use super::disk;
use super::removal::remove_gently;
use crate::types::{DiskBounds, Fault, LogIndex, Term};

const CURRENT: &str = "current";

fn fault(what: &str, path: &Path, error: impl std::fmt::Display) -> Fault {
    Fault::new(format!("cannot {what} {}: {error}", path.display()))
}

/// Whether there is a write-ahead log in this directory.
pub fn has_log(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|it| it == "wal"))
}

/// Where the store is, and which snapshot it began with, if any. Takes away what installations that were
/// not finished left.
///
/// # Errors
/// The directory cannot be read.
pub fn find_store(member: &Path) -> Result<(PathBuf, Option<(LogIndex, Term)>), Fault> {
    let path = member.join(CURRENT);
    let text = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(fault("read", &path, error)),
    };
    let found = match &text {
        None => ("store", None),
        Some(text) => parse(text).ok_or_else(|| fault("use", &path, "it makes no sense"))?,
    };
    sweep(member, found.0)?;
    Ok((member.join(found.0), found.1))
}

fn parse(text: &str) -> Option<(&str, Option<(LogIndex, Term)>)> {
    let mut words = text.split_whitespace();
    let (name, index, term) = (words.next()?, words.next()?, words.next()?);
    Some((name, Some((index.parse().ok()?, term.parse().ok()?))))
}

fn sweep(member: &Path, keep: &str) -> Result<(), Fault> {
    let entries = fs::read_dir(member).map_err(|error| fault("read", member, error))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let gone = match name.as_str() {
            "store" => keep != "store",
            name if name.starts_with("store-") => name != keep,
            name => name.starts_with("incoming-"),
        };
        if !gone {
            continue;
        }
        let path = entry.path();
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| fault("remove", &path, error))?;
    }
    Ok(())
}

/// A snapshot on its way in. Removed some time after it is dropped; its store, too, unless it was installed.
#[derive(Debug)]
pub struct Incoming {
    member: PathBuf,
    number: u64,
    file: Steady,
    /// Its length.
    bytes: u64,
    installed: bool,
}

impl Incoming {
    /// Begins a file.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn begin(member: &Path, index: LogIndex) -> Result<Self, Fault> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // Never a name of before: the index differs, or what had it was swept away.
        let number = index << 16 | NUMBER.fetch_add(1, Ordering::Relaxed) & 0xffff;
        let path = member.join(format!("incoming-{number:x}"));
        let file = fs::File::create(&path).map_err(|error| fault("make", &path, error))?;
        Ok(Self {
            member: member.to_owned(),
            number,
            file: Steady::new(file),
            bytes: 0,
            installed: false,
        })
    }

    /// Appends. Blocks. What comes faster than the disk takes it waits here, in the sender's time: a gigabyte that the
    /// kernel writes at once would stop the log of everyone who has it on the same disk.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn append(mut self, bytes: &[u8]) -> Result<Self, Fault> {
        self.check_room(bytes.len() as u64)?;
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| fault("write", &self.file(), error))?;
        Ok(self)
    }

    /// That there is room for the store that will be made of the whole file, which takes up to twice its size while it
    /// is made. Blocks.
    ///
    /// # Errors
    /// There is none.
    pub fn check_store_room(&self) -> Result<(), Fault> {
        self.check_room(2 * self.bytes)
    }

    /// The store that is in use must not lack what is written here: it would end with that.
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

    /// Where the store made of it belongs.
    pub fn store(&self) -> PathBuf {
        self.member.join(self.name())
    }

    fn name(&self) -> String {
        format!("store-{:x}", self.number)
    }

    /// Makes its store the one that is opened from now on. Blocks.
    ///
    /// # Errors
    /// The disk failed: which store is found after a restart is not known, but it is one of them, whole.
    pub fn install(mut self, index: LogIndex, term: Term) -> Result<(), Fault> {
        let (path, new) = (self.member.join(CURRENT), self.member.join("current.tmp"));
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&new)?;
            writeln!(file, "{} {index} {term}", self.name())?;
            file.sync_all()?;
            fs::File::open(self.store())?.sync_all()?;
            fs::rename(&new, &path)?;
            fs::File::open(&self.member)?.sync_all()
        };
        write().map_err(|error| fault("write", &path, error))?;
        self.installed = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        remove_gently(self.file());
        if !self.installed {
            remove_gently(self.store());
        }
    }
}
