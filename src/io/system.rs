//! The process and its machine: exit, signals, random numbers, cores, statistics.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::clock;
use super::log_queue::flush_log;
use crate::metrics::Process;
use crate::types::Fault;

/// Ends the process after a fault, instead of running on with a part of it.
#[allow(clippy::exit, reason = "this is the one place that does it")]
pub fn fatal(fault: &Fault) -> ! {
    tracing::error!(error = %fault, "this member cannot go on");
    flush_log();
    std::process::exit(1)
}

/// Ends the process with exit code 0.
#[allow(clippy::exit, reason = "sessions that are still open end with the process")]
pub fn leave() -> ! {
    tracing::info!("closed the member");
    flush_log();
    std::process::exit(0)
}

/// Ends the process by the default action of a signal, as etcd ends; with exit code 0 if it is the first process of its
/// container, for which the kernel ignores that action.
#[allow(clippy::exit, reason = "whoever asked wants it to end now")]
pub fn end_by(signal: i32) -> ! {
    flush_log();
    if !rustix::process::getpid().is_init() {
        // It returns only for a signal that does not end a process.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    std::process::exit(0)
}

/// A random number from the kernel.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    // So few bytes are always complete, except in the first moments after the machine has started.
    let came = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(came, Ok(bytes.len()), "the kernel gives no random bytes");
    u64::from_ne_bytes(bytes)
}

/// Statistics of this process from the kernel. Blocks.
pub fn process_stats() -> Process {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is a name in parentheses that may contain any character.
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let field = |at: usize| fields.get(at - 3).copied().unwrap_or(0);
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime: f64 = uptime.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0.0);
    let boot = clock::unix_time().as_secs_f64() - uptime;
    let (received_bytes, sent_bytes) = network_bytes();
    Process {
        virtual_bytes_max: getrlimit(Resource::As).current.unwrap_or(u64::MAX),
        received_bytes,
        sent_bytes,
        cpu_seconds: (field(14) + field(15)) as f64 / ticks_per_second,
        resident_bytes: field(24) * rustix::param::page_size() as u64,
        virtual_bytes: field(23),
        open_files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        start_seconds: boot + field(22) as f64 / ticks_per_second,
    }
}

/// Bytes received and sent over all interfaces, in the columns of `/proc/net/dev`.
fn network_bytes() -> (u64, u64) {
    const RECEIVED: usize = 0;
    const SENT: usize = 8;
    let table = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let rows = table.lines().filter_map(|line| line.split_once(':'));
    rows.fold((0, 0), |(received, sent), (_, numbers)| {
        let numbers: Vec<u64> = numbers.split_whitespace().flat_map(str::parse).collect();
        let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
        (received + number(RECEIVED), sent + number(SENT))
    })
}
