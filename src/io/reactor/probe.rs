//! Probes io_uring with raw system calls before glommio is used: glommio ends the process with a panic where io_uring is
//! refused, and with a line of its own where operations are missing.

use glommio::LocalExecutorBuilder;
use rustix::io::Errno;
use rustix::io_uring::{
    IoringEnterFlags, IoringOp, IoringRegisterOp, io_uring_enter, io_uring_params,
    io_uring_register, io_uring_setup,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::uring::IO_MEMORY_BYTES;

/// Operations that glommio needs.
const OPERATIONS: [IoringOp; 23] = [
    IoringOp::Nop,
    IoringOp::Readv,
    IoringOp::Writev,
    IoringOp::Fsync,
    IoringOp::ReadFixed,
    IoringOp::WriteFixed,
    IoringOp::PollAdd,
    IoringOp::PollRemove,
    IoringOp::Sendmsg,
    IoringOp::Recvmsg,
    IoringOp::Timeout,
    IoringOp::TimeoutRemove,
    IoringOp::Accept,
    IoringOp::LinkTimeout,
    IoringOp::Connect,
    IoringOp::Fallocate,
    IoringOp::Openat,
    IoringOp::Close,
    IoringOp::Statx,
    IoringOp::Read,
    IoringOp::Write,
    IoringOp::Send,
    IoringOp::Recv,
];

/// Makes so many executors of glommio, and drops them.
///
/// # Errors
/// The reason, and how to grant it, as the beginning of a sentence.
pub(super) fn io_uring(executors: usize) -> Result<(), String> {
    ring().map_err(|(call, error)| format!("{call} fails: {}", hint(error)))?;
    lock_what_is_allowed();
    let made: Result<Vec<_>, _> = (0..executors)
        .map(|_| LocalExecutorBuilder::default().io_memory(IO_MEMORY_BYTES).make())
        .collect();
    made.map(drop).map_err(|error| {
        format!(
            "io_uring cannot be used ({error}): raise `ulimit -l`, or set LimitMEMLOCK=infinity in the systemd unit"
        )
    })
}

fn hint(error: Errno) -> String {
    let text = std::io::Error::from(error);
    let hint = match error {
        Errno::PERM | Errno::ACCESS => {
            "allow io_uring in the container's seccomp profile, and set the sysctl kernel.io_uring_disabled to 0"
        }
        Errno::NOSYS => {
            "allow io_uring in the container's seccomp profile, or run on a kernel of 5.8 or newer that has it"
        }
        Errno::NOMEM => "raise `ulimit -l`, or set LimitMEMLOCK=infinity in the systemd unit",
        _ => "run on a kernel of 5.8 or newer that allows io_uring",
    };
    format!("{text}: {hint}")
}

/// Makes a ring, asks what it can do, and enters it.
#[allow(unsafe_code, reason = "std has no such calls, and those of rustix are unsafe")]
fn ring() -> Result<(), (&'static str, Errno)> {
    const ENTRIES: u32 = 2;
    /// A head of two words, then a word for each operation: its number in the first byte, flags in the third.
    const HEAD: usize = 2;
    const LISTED: usize = 256;
    const SUPPORTED: u64 = 1 << 16;
    let mut params = io_uring_params::default();
    // SAFETY: no flags are set, so that the kernel uses no descriptor or memory of ours.
    let ring = unsafe { io_uring_setup(ENTRIES, &mut params) };
    let ring = ring.map_err(|error| ("io_uring_setup", error))?;
    let mut probe = [0u64; HEAD + LISTED];
    let probed = (&raw mut probe).cast();
    // SAFETY: the kernel writes as many entries of 8 bytes behind a head of 16 as the last argument says, and they are there.
    let asked =
        unsafe { io_uring_register(&ring, IoringRegisterOp::RegisterProbe, probed, LISTED as u32) };
    asked.map_err(|error| ("io_uring_register", error))?;
    let knows = |operation: &IoringOp| {
        let entry = u64::from_le(probe[HEAD + *operation as usize]);
        entry & SUPPORTED != 0
    };
    if !OPERATIONS.iter().all(knows) {
        return Err(("an operation of io_uring", Errno::OPNOTSUPP));
    }
    // SAFETY: nothing is submitted or waited for.
    let entered = unsafe { io_uring_enter(&ring, 0, 0, IoringEnterFlags::empty()) };
    entered.map(drop).map_err(|error| ("io_uring_enter", error))
}

/// Raises the soft limit of locked memory as far as it goes: glommio reads it, whatever the kernel counts.
fn lock_what_is_allowed() {
    let limit = getrlimit(Resource::Memlock);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // If it is not allowed, glommio says how much it lacks.
        let _ = setrlimit(Resource::Memlock, raised);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_grants_it() {
        for error in [Errno::PERM, Errno::NOSYS, Errno::NOMEM, Errno::INVAL] {
            assert!(hint(error).contains(": "), "{}", hint(error));
        }
        assert!(hint(Errno::PERM).contains("seccomp"));
    }
}
