//! Files as input of [`crate::snapshot`].

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::snapshot::bolt::Source;
use crate::types::Fault;

/// A file on disk, read page by page. Blocks: not for executors.
#[derive(Debug)]
pub struct BoltFile {
    file: File,
    length: u64,
}

impl BoltFile {
    /// Opens a file.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

impl Source for BoltFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.file
            .read_exact_at(into, at)
            .map_err(|error| Fault::new(format!("the file cannot be read at {at}: {error}")))
    }
}
