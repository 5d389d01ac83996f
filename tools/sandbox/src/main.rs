//! Runs a server as container runtimes run it, for tests: `BASALT_BIN=target/debug/sandbox`. The program gets the
//! arguments as they are.
//!
//! * No privileges can be gained (`no_new_privs`), and there are none: if root starts it, it becomes a user without
//!   capabilities. That user is given the data and log directories that the arguments name, if they are there, and the
//!   working directory and those of unix sockets, if they are below one that is called `tmp`, as those of the tests are.
//! * No memory may be locked.
//! * io_uring is refused, as by the default profiles of Docker and containerd (EPERM) or of Podman and gVisor (ENOSYS).
//!
//! | variable | meaning |
//! |---|---|
//! | `SANDBOX_BIN` | the program; by default `basalt` beside this one |
//! | `SANDBOX_REFUSES` | `EPERM` (by default), `ENOSYS`, or `nothing` |
//! | `SANDBOX_UID` | the user and group, 1000 by default; used if root starts it |

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

const UID: u32 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let program = match std::env::var_os("SANDBOX_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("basalt"),
    };
    // Before the user changes, to whom the place of the program may be closed.
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    let no_lock = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Memlock, no_lock)?;
    if rustix::process::geteuid().is_root() {
        become_user(number("SANDBOX_UID")?.unwrap_or(UID))?;
    }
    rustix::thread::set_no_new_privs(true)?;
    if let Some(error) = refusal(std::env::var_os("SANDBOX_REFUSES"))? {
        refuse_io_uring(error)?;
    }
    Err(command.exec().into())
}

fn number(variable: &str) -> Result<Option<u32>, Box<dyn Error>> {
    let text = std::env::var(variable).ok();
    Ok(text.map(|text| text.parse()).transpose()?)
}

fn refusal(asked: Option<OsString>) -> Result<Option<i32>, Box<dyn Error>> {
    match asked.unwrap_or_else(|| "EPERM".into()).to_str() {
        Some("EPERM") => Ok(Some(libc::EPERM)),
        Some("ENOSYS") => Ok(Some(libc::ENOSYS)),
        Some("nothing") => Ok(None),
        _ => Err("SANDBOX_REFUSES is EPERM, ENOSYS or nothing".into()),
    }
}

/// Becomes a user without groups or capabilities, to whom belongs what it writes to.
#[allow(unsafe_code, reason = "rustix leaves it to the caller to know that there is one thread")]
fn become_user(id: u32) -> Result<(), Box<dyn Error>> {
    give_scratch(&std::env::current_dir()?, id)?;
    for argument in std::env::args() {
        let urls = argument.split(['=', ',']).filter_map(|it| it.strip_prefix("unix://"));
        for directory in urls.filter_map(|path| Path::new(path).parent()) {
            give_scratch(directory, id)?;
        }
    }
    let arguments = std::env::args();
    let directories = arguments.filter_map(|argument| {
        let named = ["--data-dir=", "--wal-dir="].map(|flag| argument.strip_prefix(flag));
        named.into_iter().flatten().next().map(PathBuf::from)
    });
    for directory in directories {
        give_all(&directory, id)?;
    }
    // SAFETY: this process has one thread, and the pointer is not used for no groups.
    let changed = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(id, id, id) == 0
            && libc::setresuid(id, id, id) == 0
    };
    if !changed {
        return Err(std::io::Error::last_os_error().into());
    }
    // A change of the user takes back that this process ends with the one that started it.
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// A directory, if it is one of a test.
fn give_scratch(directory: &Path, id: u32) -> std::io::Result<()> {
    let is_scratch = directory.components().any(|part| part.as_os_str() == "tmp");
    if is_scratch && directory.is_dir() {
        lchown(directory, Some(id), Some(id))?;
    }
    Ok(())
}

/// Files that a test, or a run without this sandbox, has made there may belong to root.
fn give_all(path: &Path, id: u32) -> std::io::Result<()> {
    let about = match path.symlink_metadata() {
        // Another process of the test has removed it meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        about => about?,
    };
    if about.uid() != id {
        lchown(path, Some(id), Some(id))?;
    }
    if about.is_dir() {
        for entry in path.read_dir()? {
            give_all(&entry?.path(), id)?;
        }
    }
    Ok(())
}

fn refuse_io_uring(error: i32) -> Result<(), Box<dyn Error>> {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let refused: BTreeMap<_, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
