//! Hands what the store writes to the disk steadily, in pieces.
//!
//! fjall leaves a journal or a table to the kernel until it is whole, and then syncs it: up to 64 MiB at once, in
//! front of the write-ahead log's next write, which waited 20 ms for it on a fast disk. Here the kernel is told to
//! begin early, so that little is left to sync. (RocksDB's `bytes_per_sync`.)

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Bytes for what the kernel tells in one go.
const NEWS_BYTES: usize = 4096;

/// The files of a store that grow: the newest journal, and tables that are not whole yet.
pub(super) struct WriteBack {
    journal: Option<(PathBuf, File)>,
    tables: HashMap<PathBuf, File>,
    news: Option<News>,
}

/// What the kernel tells of new files.
struct News {
    from: OwnedFd,
    /// By the number that the kernel gave it.
    folders: HashMap<i32, PathBuf>,
}

impl WriteBack {
    /// Looks after a store and these keyspaces of it. Where the kernel cannot tell of new files, after the journal
    /// alone that there is now.
    pub(super) fn new<'a>(store: &Path, keyspaces: impl Iterator<Item = &'a Path>) -> Self {
        let tables = keyspaces.map(|keyspace| keyspace.join("tables"));
        let news = News::of(tables.chain([store.to_owned()]));
        if let Err(error) = &news {
            tracing::warn!(
                %error,
                "cannot watch the store's files grow (fs.inotify.max_user_instances): writes may wait for their syncs"
            );
        }
        let mut write_back = Self { journal: None, tables: HashMap::new(), news: news.ok() };
        let files = std::fs::read_dir(store).into_iter().flatten().flatten();
        files.for_each(|file| write_back.begun(file.path()));
        write_back
    }

    /// What can be read when a file was begun or is whole; [`WriteBack::round`] reads it.
    pub(super) fn news(&self) -> Option<OwnedFd> {
        self.news.as_ref().and_then(|news| news.from.try_clone().ok())
    }

    /// Lets the kernel begin to write what was added since the last time, and waits for nothing. Tells whether a table
    /// is still growing.
    pub(super) fn round(&mut self) -> bool {
        self.hear();
        if let Some((_, journal)) = &self.journal {
            steady::begin(journal);
        }
        self.tables.values().for_each(steady::begin);
        !self.tables.is_empty()
    }

    /// Hears of files that were begun or are whole.
    fn hear(&mut self) {
        let Some(news) = self.news.take() else { return };
        let mut buffer = [MaybeUninit::uninit(); NEWS_BYTES];
        let mut reader = Reader::new(&news.from, &mut buffer);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.tables.clear();
            }
            let name = event.file_name().map(CStr::to_bytes).map(OsStr::from_bytes);
            let folder = news.folders.get(&event.wd());
            let Some(path) = folder.zip(name).map(|(folder, name)| folder.join(name)) else {
                continue;
            };
            if event.events().contains(ReadFlags::CLOSE_WRITE) {
                self.tables.remove(&path);
            } else {
                self.begun(path);
            }
        }
        self.news = Some(news);
    }

    fn begun(&mut self, path: PathBuf) {
        if path.parent().is_some_and(|folder| folder.ends_with("tables")) {
            if let Ok(file) = File::open(&path) {
                self.tables.insert(path, file);
            }
        } else if let Some(number) = journal_number(&path) {
            let newest = self.journal.as_ref().and_then(|(path, _)| journal_number(path));
            if newest.is_none_or(|newest| newest < number) {
                self.journal = File::open(&path).ok().map(|file| (path, file));
            }
        }
    }
}

/// Which journal this is, if it is one; the last one is written to.
fn journal_number(path: &Path) -> Option<u64> {
    (path.extension()? == "jnl").then(|| path.file_stem()?.to_str()?.parse().ok())?
}

impl News {
    fn of(folders: impl Iterator<Item = PathBuf>) -> io::Result<Self> {
        let from = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
        let watch = |folder: PathBuf| Ok((inotify::add_watch(&from, &folder, flags)?, folder));
        let folders = folders.map(watch).collect::<io::Result<_>>()?;
        Ok(Self { from, folders })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_table_is_looked_after_until_it_is_whole() {
        let store = tempfile::tempdir().expect("a directory");
        let keyspaces = [store.path().join("a"), store.path().join("b")];
        keyspaces.iter().for_each(|keyspace| {
            std::fs::create_dir_all(keyspace.join("tables")).expect("a directory");
        });
        let mut write_back = WriteBack::new(store.path(), keyspaces.iter().map(PathBuf::as_path));
        assert!(!write_back.round());
        let tables = keyspaces.map(|keyspace| File::create(keyspace.join("tables/7")));
        let [mut first, mut second] = tables.map(|table| table.expect("a file"));
        first.write_all(&[7; 100_000]).expect("written");
        second.write_all(&[7; 100_000]).expect("written");
        assert!(write_back.round());
        drop(first);
        assert!(write_back.round(), "the other one grows");
        drop(second);
        assert!(!write_back.round());
    }

    #[test]
    fn the_newest_journal_is_looked_after() {
        let store = tempfile::tempdir().expect("a directory");
        let create = |name: &str| drop(File::create(store.path().join(name)).expect("a file"));
        let journal = |write_back: &WriteBack| {
            let path = write_back.journal.as_ref().map(|(path, _)| path.clone());
            path.and_then(|path| journal_number(&path))
        };
        ["2.jnl", "10.jnl", "9.jnl", "x.jnl", "11"].into_iter().for_each(create);
        let mut write_back = WriteBack::new(store.path(), std::iter::empty());
        assert_eq!(journal(&write_back), Some(10));
        ["12.jnl", "11.jnl", "13.tmp"].into_iter().for_each(create);
        assert!(!write_back.round());
        assert_eq!(journal(&write_back), Some(12));
    }
}
