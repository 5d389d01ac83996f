//! Runs a server as container runtimes run it, for tests: `BASALT_BIN=target/debug/sandbox`. The program gets the
//! arguments as they are.
//!
//! * No privileges can be gained (`no_new_privs`), and there are none: if root starts it, it becomes a user without
//!   capabilities. That user is given the working directory, and what arguments and variables name, with the
//!   directory in which it is, if that is below one that is called `tmp`, as those of the tests are.
//! * No memory may be locked, but with `Localhost`.
//! * io_uring is refused, as by the default profiles of Docker and containerd (EPERM) or of Podman and gVisor (ENOSYS).
//! * `RuntimeDefault` refuses everything that containerd's profile of that name does not list, `Localhost` that but for
//!   io_uring, as `deploy/seccomp/basalt.json`. If root starts it, all directories but those given to the user are read-only
//!   then, and /sys is empty.
//!
//! | variable | meaning |
//! |---|---|
//! | `SANDBOX_BIN` | the program; by default `basalt` beside this one |
//! | `SANDBOX_REFUSES` | `EPERM` (by default), `ENOSYS`, `RuntimeDefault`, `Localhost`, or `nothing` |
//! | `SANDBOX_UID` | the user and group, 1000 by default; used if root starts it. 0 stays root, with the capabilities that container runtimes give |

mod read_only;
mod runtime_default;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use seccompiler::SeccompAction;

const UID: u32 = 1000;

const IO_URING: [i64; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

fn main() -> Result<(), Box<dyn Error>> {
    let program = match std::env::var_os("SANDBOX_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("basalt"),
    };
    // Before the user changes, to whom the place of the program may be closed.
    let mut command = Command::new(program);
    let mut arguments = std::env::args_os();
    // The server is told the name by which this program was called.
    command.arg0(arguments.next().unwrap_or_default()).args(arguments);
    let refusal = refusal(std::env::var_os("SANDBOX_REFUSES"))?;
    // The kernel counts rings for those without CAP_IPC_LOCK; as much is its default.
    let locked = if refusal == Refusal::Unlisted(&IO_URING) { 8 << 20 } else { 0 };
    let locked = Rlimit { current: Some(locked), maximum: Some(locked) };
    rustix::process::setrlimit(Resource::Memlock, locked)?;
    if rustix::process::geteuid().is_root() {
        let scratch = scratch_directories()?;
        if matches!(refusal, Refusal::Unlisted(_)) {
            read_only::make_read_only(&scratch)?;
        }
        let uid = number("SANDBOX_UID")?.unwrap_or(UID);
        if uid == 0 {
            keep_capabilities_of_containers()?;
        }
        become_user(uid, &scratch)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    match refusal {
        Refusal::Nothing => (),
        Refusal::IoUring(error) => refuse_io_uring(error)?,
        Refusal::Unlisted(more) => runtime_default::refuse_unlisted(more)?,
    }
    Err(command.exec().into())
}

fn number(variable: &str) -> Result<Option<u32>, Box<dyn Error>> {
    let text = std::env::var(variable).ok();
    Ok(text.map(|text| text.parse()).transpose()?)
}

/// The system calls that are refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Nothing,
    /// Those of io_uring, with an error.
    IoUring(i32),
    /// All that RuntimeDefault does not list, but for these.
    Unlisted(&'static [i64]),
}

fn refusal(asked: Option<OsString>) -> Result<Refusal, Box<dyn Error>> {
    match asked.unwrap_or_else(|| "EPERM".into()).to_str() {
        Some("EPERM") => Ok(Refusal::IoUring(libc::EPERM)),
        Some("ENOSYS") => Ok(Refusal::IoUring(libc::ENOSYS)),
        Some("RuntimeDefault") => Ok(Refusal::Unlisted(&[])),
        Some("Localhost") => Ok(Refusal::Unlisted(&IO_URING)),
        Some("nothing") => Ok(Refusal::Nothing),
        _ => Err("SANDBOX_REFUSES is EPERM, ENOSYS, RuntimeDefault, Localhost or nothing".into()),
    }
}

/// Directories of a test that the server may use: the working directory, those that an argument or variable names, and those
/// in which something that one names is, or will be.
fn scratch_directories() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let variables = std::env::vars().map(|(_, value)| value);
    let mut found = BTreeSet::from([std::env::current_dir()?]);
    for text in std::env::args().chain(variables) {
        for word in text.split(['=', ',']) {
            let path = Path::new(word.strip_prefix("unix://").unwrap_or(word));
            let parent = path.ancestors().skip(1).find(|it| it.is_dir());
            found.extend([Some(path), parent].into_iter().flatten().map(PathBuf::from));
        }
    }
    let is_below_tmp = |path: &Path| path.iter().any(|part| part == "tmp");
    let is_scratch = |path: &PathBuf| path.is_dir() && path.parent().is_some_and(is_below_tmp);
    Ok(found.into_iter().filter(is_scratch).collect())
}

/// Root in a container has these, which containerd gives by default.
fn keep_capabilities_of_containers() -> Result<(), Box<dyn Error>> {
    let kept = CapabilitySet::AUDIT_WRITE
        | CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::MKNOD
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::NET_RAW
        | CapabilitySet::SETFCAP
        | CapabilitySet::SETGID
        | CapabilitySet::SETPCAP
        | CapabilitySet::SETUID
        | CapabilitySet::SYS_CHROOT;
    // The program that is started gets what this set allows. This process itself keeps all until then.
    for capability in CapabilitySet::all().difference(kept).iter() {
        match remove_capability_from_bounding_set(capability) {
            // The kernel is older than it.
            Err(Errno::INVAL) => (),
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Becomes a user without groups or capabilities, to whom belongs what it writes to.
#[allow(unsafe_code, reason = "rustix leaves it to the caller to know that there is one thread")]
fn become_user(id: u32, scratch: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    for directory in scratch {
        give_all(directory, id)?;
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
    let refused: BTreeMap<_, _> = IO_URING.into_iter().map(|call| (call, Vec::new())).collect();
    let action = SeccompAction::Errno(error.unsigned_abs());
    runtime_default::apply(refused, SeccompAction::Allow, action)
}
