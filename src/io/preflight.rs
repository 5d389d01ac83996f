//! Checks of the machine and the data directory before anything is written.

use std::fs;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, getrlimit};

use super::durable::create_dir_durably;
use super::executor::IO_MEMORY_BYTES;
use crate::types::Fault;

/// Least amount of memory that glommio needs to register its rings.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Checks that io_uring may be used.
///
/// # Errors
/// One sentence that names the lack and how to grant it.
pub fn preflight() -> Result<(), Fault> {
    let limit = getrlimit(Resource::Memlock).current;
    if let Some(limit) = limit
        && limit < MEMLOCK_BYTES_MIN
    {
        return Err(Fault::new(format!(
            "only {limit} bytes of memory may be locked and io_uring needs {MEMLOCK_BYTES_MIN}: raise \
             `ulimit -l`, or set LimitMEMLOCK=infinity in the systemd unit"
        )));
    }
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    if disabled.trim() == "2" {
        return Err(Fault::new(
            "the kernel does not allow io_uring: set kernel.io_uring_disabled to 0 with sysctl",
        ));
    }
    // Memory pinned by the probe would stay with the allocator.
    let probe = glommio::LocalExecutorBuilder::default().io_memory(IO_MEMORY_BYTES).make();
    probe.map(drop).map_err(|error| {
        Fault::new(format!(
            "io_uring cannot be used ({error}): allow it in the container's seccomp profile, or run on a \
             kernel of 5.8 or newer"
        ))
    })
}

/// Creates the data directory and the one in it, for the owner alone. New directories are durable when this returns: a
/// lost directory entry would lose everything below it, and the next start would found a new cluster.
///
/// # Errors
/// The directories cannot be created or written to.
pub fn prepare_data_dir(path: &Path) -> Result<(), Fault> {
    let cannot =
        |error| Fault::new(format!("cannot access data directory: {error} ({})", path.display()));
    create_dir_durably(path).map_err(cannot)?;
    let touched = path.join(".touch");
    fs::write(&touched, b"").and_then(|()| fs::remove_file(&touched)).map_err(cannot)
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
