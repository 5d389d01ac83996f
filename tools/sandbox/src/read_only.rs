//! A mount namespace in which everything is read-only but a few directories, and /sys is empty.

use std::ffi::CString;
use std::io::{Error, Result};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Makes it for this process; needs root. The current directory stays the same one.
#[allow(unsafe_code, reason = "rustix leaves it to the caller to know that there is one thread")]
pub(crate) fn make_read_only(writable: &[PathBuf]) -> Result<()> {
    let current = std::env::current_dir()?;
    // SAFETY: this process has one thread, and shares no descriptors or memory by this.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    writable.iter().try_for_each(|dir| mount_bind(dir, dir))?;
    set_read_only(Path::new("/"), true)?;
    writable.iter().try_for_each(|dir| set_read_only(dir, false))?;
    if Path::new("/sys").is_dir() {
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        mount("none", "/sys", "tmpfs", flags, c"mode=0555")?;
    }
    // By its name again: the process is still below what the mounts cover.
    std::env::set_current_dir(current)
}

/// Changes the mount of a path, and all below it if it becomes read-only.
#[allow(unsafe_code, reason = "neither std nor rustix has this call")]
fn set_read_only(path: &Path, read_only: bool) -> Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (set, clear) =
        if read_only { (libc::MOUNT_ATTR_RDONLY, 0) } else { (0, libc::MOUNT_ATTR_RDONLY) };
    let attributes =
        libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let flags = if read_only { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and attributes are valid for the call, and the size is that of the attributes.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if outcome == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
