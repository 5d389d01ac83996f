//! Deletion of large files in the background, without a stall of other writes.
//!
//! A file system mounted with `discard` tells the disk of all blocks of a removed file at once, and the log's next
//! writes wait behind that: 10 ms for each of 32 MiB, on a fast disk. So files are truncated step by step first.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::rate_limiter::RateLimiter;
use super::thread;

/// Bytes truncated at once, and in a second.
const PIECE_BYTES: u64 = 1 << 20;
const BYTES_PER_SECOND: usize = 200 << 20;
/// The thread runs with the lowest priority of the process.
const NICE: i32 = 10;

/// Removes a file, or a directory with its content, that is no longer needed, on a thread of its own. Best effort: if
/// the process ends first, the next start finds the path by its name and deletes it.
pub(super) fn delete_in_background(path: PathBuf) {
    // Without a thread for it, it stays until the next start.
    let _ = thread::start_nice("removal", NICE, move || {
        let mut limiter = RateLimiter::new(BYTES_PER_SECOND);
        remove(&path, &mut |bytes| limiter.keep(bytes))
    });
}

fn remove(path: &Path, keep_pace: &mut impl FnMut(usize)) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            remove(&entry?.path(), keep_pace)?;
        }
        return fs::remove_dir(path);
    }
    if found.is_file() && found.len() > PIECE_BYTES {
        let file = File::options().write(true).open(path)?;
        let mut left = found.len();
        while left > 0 {
            left = left.saturating_sub(PIECE_BYTES);
            keep_pace(PIECE_BYTES as usize);
            file.set_len(left)?;
        }
    }
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_file_is_truncated_in_steps_and_link_target_stays() {
        let place = tempfile::tempdir().expect("a directory");
        let (gone, kept) = (place.path().join("gone"), place.path().join("kept"));
        fs::create_dir_all(gone.join("deep/deeper")).expect("directories");
        fs::write(&kept, vec![7; 2 << 20]).expect("a file");
        fs::write(gone.join("deep/small"), "small").expect("a file");
        fs::write(gone.join("deep/deeper/large"), vec![7; 5 << 19]).expect("a file");
        std::os::unix::fs::symlink(&kept, gone.join("link")).expect("a link");
        let mut pieces = Vec::new();
        remove(&gone, &mut |bytes| pieces.push(bytes)).expect("removed");
        assert_eq!(pieces, [1 << 20; 3], "two pieces and a half");
        assert!(!gone.exists());
        assert_eq!(fs::read(&kept).expect("it is there").len(), 2 << 20);
        assert!(remove(&gone, &mut |_| ()).is_err(), "nothing is there");
    }
}
