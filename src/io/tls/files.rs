//! The files of one side, read together, and whether they have changed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::options::Options;

/// Metadata that change with a file: device, inode, time of change in seconds and nanoseconds, size.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// How the files look from outside.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Stamps(BTreeMap<PathBuf, Stamp>);

impl Stamps {
    /// As they are now. Symbolic links are followed: Kubernetes swaps them.
    pub(super) fn look(options: &Options) -> Self {
        let stamp = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
        };
        Self(options.files().map(|path| (path.clone(), stamp(path))).collect())
    }
}

/// The contents of the files. Equal contents are not parsed again.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Contents(BTreeMap<PathBuf, Vec<u8>>);

impl Contents {
    /// Reads all of them.
    ///
    /// # Errors
    /// One cannot be read, in Go's words.
    pub(super) fn read(options: &Options) -> Result<Self, String> {
        let read = |path: &PathBuf| Ok((path.clone(), read(path)?));
        Ok(Self(options.files().map(read).collect::<Result<_, String>>()?))
    }

    pub(super) fn of(&self, path: &Path) -> &[u8] {
        self.0.get(path).map(Vec::as_slice).unwrap_or_default()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        let kind = error.kind();
        if kind == ErrorKind::IsADirectory {
            return format!("read {}: is a directory", path.display());
        }
        let why = if kind == ErrorKind::NotFound {
            "no such file or directory".to_owned()
        } else if kind == ErrorKind::PermissionDenied {
            "permission denied".to_owned()
        } else {
            error.to_string()
        };
        format!("open {}: {why}", path.display())
    })
}
