//! The files beside the segments: those that wait for their turn, and those that are being zeroed.

use std::fs;
use std::path::{Path, PathBuf};

use super::{WalOptions, fault};
use crate::io::durable::sync_dir;
use crate::types::Fault;

/// Puts segments aside that are of no use any more, as many as may be kept, and removes the others.
///
/// # Errors
/// The disk's.
pub(super) fn recycle(options: &WalOptions, gone: &[PathBuf]) -> Result<(), Fault> {
    let dir = &options.dir;
    // One of them is or will be the one that is ready to be next.
    let mut free = free_files(dir, options.segment_bytes)?.len() + half_made(dir)?.len();
    for path in gone {
        let done = if free <= options.free_max {
            free += 1;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            fs::rename(path, dir.join(format!("free-{name}.tmp")))
        } else {
            fs::remove_file(path)
        };
        done.map_err(|error| fault("recycle", path, error))?;
    }
    sync_dir(dir).map_err(|error| fault("sync", dir, error))
}

/// Files of a segment's full size that wait for their turn. Others are of another size's time, and go.
pub(super) fn free_files(dir: &Path, segment_bytes: u64) -> Result<Vec<PathBuf>, Fault> {
    let mut free = Vec::new();
    for path in list(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("free-") && name.ends_with(".tmp") {
            // The thread that switches segments may have renamed it meanwhile.
            let length = match fs::metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(|error| fault("read", &path, error))?.len(),
            };
            if length == segment_bytes {
                free.push(path);
            } else {
                fs::remove_file(&path).map_err(|error| fault("remove", &path, error))?;
            }
        }
    }
    Ok(free)
}

/// Files that are being zeroed, or were when the member stopped.
fn half_made(dir: &Path) -> Result<Vec<PathBuf>, Fault> {
    let mut paths = list(dir)?;
    paths.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("new-") && name.ends_with(".tmp"))
    });
    Ok(paths)
}

pub(super) fn remove_half_made(dir: &Path) -> Result<(), Fault> {
    half_made(dir)?
        .iter()
        .try_for_each(|path| fs::remove_file(path).map_err(|error| fault("remove", path, error)))
}

pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = fs::read_dir(dir).map_err(|error| fault("read", dir, error))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<Result<_, _>>().map_err(|error| fault("read", dir, error))
}
