//! The system calls that containerd 2's RuntimeDefault profile lets a container make that has no capabilities, with its
//! conditions: those that every version from 2.0.0 to 2.4 allows. Others fail with EPERM, and clone3 with ENOSYS, so that C
//! libraries use clone instead. Left out are calls of Linux 6.5 and later (`cachestat`, `fchmodat2`, `futex_wait`, `mseal`, …), which nothing here
//! needs and which other runtimes lack longer.

use std::collections::BTreeMap;
use std::error::Error;

use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// A list that is not formatted as one call a line.
macro_rules! calls {
    ($($call:ident)*) => { &[$($call),*] };
}

/// Missing in libc.
#[allow(non_upper_case_globals, reason = "as libc names the others")]
const SYS_io_pgetevents: c_long = if cfg!(target_arch = "x86_64") { 333 } else { 292 };

/// Calls of every architecture.
const ALLOWED: &[c_long] = calls! {
    // Processes and threads.
    SYS_capget SYS_capset SYS_clone3 SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_futex SYS_futex_waitv
    SYS_get_robust_list SYS_getcpu SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getpgid SYS_getpid
    SYS_getppid SYS_getpriority SYS_getresgid SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid SYS_gettid
    SYS_getuid SYS_membarrier SYS_pidfd_open SYS_pidfd_send_signal SYS_prctl SYS_prlimit64 SYS_process_mrelease
    SYS_ptrace SYS_restart_syscall SYS_rseq SYS_seccomp SYS_set_robust_list SYS_set_tid_address SYS_setfsgid
    SYS_setfsuid SYS_setgid SYS_setgroups SYS_setpgid SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid
    SYS_setreuid SYS_setrlimit SYS_setsid SYS_setuid SYS_umask SYS_uname SYS_wait4 SYS_waitid
    // Scheduling.
    SYS_ioprio_get SYS_ioprio_set SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getaffinity
    SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity
    SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield
    // Signals.
    SYS_kill SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn
    SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sigaltstack SYS_signalfd4 SYS_tgkill SYS_tkill
    // Time.
    SYS_adjtimex SYS_clock_adjtime SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_getitimer
    SYS_gettimeofday SYS_nanosleep SYS_setitimer SYS_timer_create SYS_timer_delete SYS_timer_getoverrun
    SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times
    // Memory.
    SYS_brk SYS_madvise SYS_memfd_create SYS_memfd_secret SYS_mincore SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap
    SYS_mprotect SYS_mremap SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_pkey_alloc SYS_pkey_free
    SYS_pkey_mprotect SYS_remap_file_pages
    // Files.
    SYS_chdir SYS_close SYS_close_range SYS_copy_file_range SYS_dup SYS_dup3 SYS_faccessat SYS_faccessat2
    SYS_fadvise64 SYS_fallocate SYS_fanotify_mark SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat
    SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat
    SYS_fstatfs SYS_fsync SYS_ftruncate SYS_getcwd SYS_getdents64 SYS_getxattr SYS_inotify_add_watch
    SYS_inotify_init1 SYS_inotify_rm_watch SYS_ioctl SYS_landlock_add_rule SYS_landlock_create_ruleset
    SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek
    SYS_lsetxattr SYS_mkdirat SYS_mknodat SYS_name_to_handle_at SYS_newfstatat SYS_openat SYS_openat2 SYS_pipe2
    SYS_pread64 SYS_preadv SYS_preadv2 SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead
    SYS_readlinkat SYS_readv SYS_removexattr SYS_renameat SYS_renameat2 SYS_sendfile SYS_setxattr SYS_splice
    SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs SYS_tee SYS_truncate SYS_unlinkat
    SYS_utimensat SYS_vmsplice SYS_write SYS_writev
    // Events and asynchronous I/O, without io_uring.
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_io_cancel SYS_io_destroy
    SYS_io_getevents SYS_io_pgetevents SYS_io_setup SYS_io_submit SYS_ppoll SYS_pselect6
    // Sockets; `socket` has a condition.
    SYS_accept SYS_accept4 SYS_bind SYS_connect SYS_getpeername SYS_getsockname SYS_getsockopt SYS_listen
    SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setsockopt SYS_shutdown
    SYS_socketpair
    // Messages, semaphores and shared memory.
    SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_msgctl
    SYS_msgget SYS_msgrcv SYS_msgsnd SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_shmat SYS_shmctl
    SYS_shmdt SYS_shmget
    // The rest.
    SYS_getrandom SYS_sysinfo
};

/// Those that only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_get_thread_area SYS_getdents
    SYS_getpgrp SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open
    SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_set_thread_area SYS_signalfd
    SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Flags of clone that make namespaces.
const NAMESPACES: c_int = CLONE_NEWNS
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_NEWCGROUP;

/// Sets the filter for this process and those that it starts, and lets them make some more calls.
pub(crate) fn refuse_unlisted(more: &[c_long]) -> Result<(), Box<dyn Error>> {
    let listed = ALLOWED.iter().chain(ALLOWED_HERE).chain(more).map(|call| (*call, Vec::new()));
    let mut rules: BTreeMap<_, _> = listed.collect();
    let only = |argument, op, value: u64| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, op, value)?;
        SeccompRule::new(vec![condition])
    };
    let no_namespaces = only(0, SeccompCmpOp::MaskedEq(NAMESPACES as u64), 0)?;
    rules.insert(SYS_clone, vec![no_namespaces]);
    // All families but AF_ALG and AF_VSOCK.
    let families = vec![
        only(0, SeccompCmpOp::Lt, AF_ALG as u64)?,
        only(0, SeccompCmpOp::Eq, AF_ALG as u64 + 1)?,
        only(0, SeccompCmpOp::Gt, AF_VSOCK as u64)?,
    ];
    rules.insert(SYS_socket, families);
    let personalities = [0, 0x8, 0x20000, 0x20008, 0xffff_ffff];
    let personalities = personalities.map(|value| only(0, SeccompCmpOp::Eq, value));
    rules.insert(SYS_personality, personalities.into_iter().collect::<Result<_, _>>()?);
    apply(rules, SeccompAction::Errno(EPERM.unsigned_abs()), SeccompAction::Allow)?;
    let clone3 = BTreeMap::from([(SYS_clone3, Vec::new())]);
    apply(clone3, SeccompAction::Allow, SeccompAction::Errno(ENOSYS.unsigned_abs()))
}

/// Sets a filter: the action for calls that match none of the rules, and the one for those that match.
pub(crate) fn apply(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    others: SeccompAction,
    matched: SeccompAction,
) -> Result<(), Box<dyn Error>> {
    let filter = SeccompFilter::new(rules, others, matched, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
