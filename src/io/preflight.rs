//! Checks of the machine and the data directory before anything is written.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::durable::create_dir_durably;
use crate::types::Fault;

/// Permissions of the data directory.
const PRIVATE: u32 = 0o700;

/// Creates the data directory and the one in it, for the owner alone, and warns of one that others may read, as etcd does. New directories are durable when this returns: a
/// lost directory entry would lose everything below it, and the next start would found a new cluster.
///
/// # Errors
/// The directories cannot be created or written to.
pub fn prepare_data_dir(path: &Path) -> Result<(), Fault> {
    let cannot =
        |error| Fault::new(format!("cannot access data directory: {error} ({})", path.display()));
    check_permission(path);
    create_dir_durably(path).map_err(cannot)?;
    let touched = path.join(".touch");
    fs::write(&touched, b"").and_then(|()| fs::remove_file(&touched)).map_err(cannot)
}

fn check_permission(dir: &Path) {
    let Ok(metadata) = fs::metadata(dir) else { return };
    let mode = metadata.mode() & 0o777;
    if metadata.is_dir() && mode != PRIVATE {
        let error = format!(
            "directory {:?} exist, but the permission is \"d{}\". The recommended permission is \"-{}\" to \
             prevent possible unprivileged access to the data",
            dir.display().to_string(),
            mode_text(mode),
            mode_text(PRIVATE)
        );
        tracing::warn!(error, "check file permission");
    }
}

/// Permissions as `ls` prints them.
fn mode_text(mode: u32) -> String {
    let letters = "rwxrwxrwx".chars().enumerate();
    letters.map(|(at, letter)| if mode & (0o400 >> at) == 0 { '-' } else { letter }).collect()
}

/// True if a file is there and its group or all others may read it.
pub fn is_readable_by_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o044 != 0)
}

/// Checks that the data directory is not etcd's, before anything is written to it.
///
/// # Errors
/// It is etcd's.
pub fn refuse_foreign(data_dir: &Path) -> Result<(), Fault> {
    if !data_dir.join("member/snap").exists() {
        return Ok(());
    }
    Err(Fault::new(format!(
        "the data directory {} belongs to etcd, whose files basalt does not read: give basalt a directory \
         of its own",
        data_dir.display()
    )))
}

/// The directory in a data directory in which `basaltutl snapshot restore` makes a member; renamed to `member` when
/// it is complete.
pub const UNFINISHED_RESTORE: &str = "member.tmp";

/// Refuses a data directory with a restore that did not complete, before anything is written to it: a member founded
/// beside it would serve an empty keyspace in place of the restored one.
///
/// # Errors
/// There is such a restore.
pub fn refuse_unfinished(data_dir: &Path) -> Result<(), Fault> {
    if !data_dir.join(UNFINISHED_RESTORE).exists() {
        return Ok(());
    }
    let dir = data_dir.display();
    Err(Fault::new(match data_dir.join("member").exists() {
        false => format!(
            "the data directory {dir} holds a restore that did not complete ({UNFINISHED_RESTORE}): run \
             `basaltutl snapshot restore` again, or remove the directory"
        ),
        true => format!(
            "the data directory {dir} holds a restore that did not complete ({UNFINISHED_RESTORE}) beside a \
             member: remove {UNFINISHED_RESTORE} if that member is the one to run, or the whole directory and \
             run `basaltutl snapshot restore` again"
        ),
    }))
}

/// Locks the data directory for this process, until the file is dropped.
///
/// # Errors
/// Another process has locked it.
pub fn lock_data_dir(path: &Path) -> Result<fs::File, Fault> {
    let file = path.join("lock");
    let opened = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&file);
    let held =
        opened.map_err(|error| Fault::new(format!("cannot open {}: {error}", file.display())))?;
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(held),
        Err(_) => Err(Fault::new(format!(
            "another process uses the data directory {}: stop it first, or choose another directory",
            path.display()
        ))),
    }
}

/// True if another process has locked the data directory. Nothing is changed.
pub fn is_in_use(path: &Path) -> bool {
    let held = fs::File::open(path.join("lock"));
    held.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}
