//! Facts about the machine, the control groups and the limits of the process, for people: nothing is changed.

use std::fs;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access, statfs};
use rustix::process::{Resource, getrlimit};

use super::clock::Instant;
use super::control_groups::{Limit, files};
use super::{disk, memory};

const QUOTA: Limit = Limit { controller: "cpu", file_v1: "cpu.cfs_quota_us", file_v2: "cpu.max" };

/// A limit of the process, and the place where it is set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostLimit<T> {
    /// The limit.
    pub value: T,
    /// Where it is set: `cgroup v2`, `cgroup v1` or `machine`.
    pub set_by: &'static str,
}

/// Bytes of memory that the process may use.
pub fn memory_limit() -> HostLimit<u64> {
    let (value, set_by) = memory::memory_limit(Path::new("/"));
    HostLimit { value, set_by }
}

/// Thousandths of a core's time that the process may use; `None` without a quota.
pub fn cpu_quota() -> Option<HostLimit<u64>> {
    cpu_quota_below(Path::new("/"))
}

fn cpu_quota_below(root: &Path) -> Option<HostLimit<u64>> {
    let quotas = files(root, &QUOTA).into_iter().filter_map(|(version, path)| {
        let text = fs::read_to_string(&path).ok()?;
        let period_v1 = || fs::read_to_string(path.with_file_name("cpu.cfs_period_us")).ok();
        let (quota, period) = match version {
            1 => (text, period_v1()?),
            _ => {
                text.split_once(' ').map(|(quota, period)| (quota.to_owned(), period.to_owned()))?
            }
        };
        // `max`, and -1 in version 1, are no numbers here.
        let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
        Some((quota.saturating_mul(1000).checked_div(period)?, version))
    });
    let (value, version) = quotas.min()?;
    Some(HostLimit { value, set_by: memory::group_name(version) })
}

/// The kernel's release.
pub fn kernel_release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

/// The kernel's clock source, empty if it is hidden, and the time that it takes to read the clock.
pub fn clock_source() -> (String, Duration) {
    const READINGS: u32 = 10_000;
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let name = fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let began = Instant::now();
    (0..READINGS).for_each(|_| {
        black_box(Instant::now());
    });
    (name, began.elapsed() / READINGS)
}

/// The soft and the hard limit of locked memory; `None` for none.
pub fn locked_memory() -> (Option<u64>, Option<u64>) {
    let limit = getrlimit(Resource::Memlock);
    (limit.current, limit.maximum)
}

/// Open files that the process may have once it has raised its limit.
pub fn open_files_max() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// A directory of the member, or the place where it would be made.
#[derive(Clone, Debug)]
pub struct DirectoryFacts {
    /// The directory itself, or the nearest existing one above it.
    pub existing: PathBuf,
    /// True if the directory itself exists.
    pub exists: bool,
    /// Owner.
    pub uid: u32,
    /// Permission bits.
    pub mode: u32,
    /// This process may make files in it.
    pub is_writable: bool,
    /// Kind of the file system; empty if it is none of the known ones.
    pub file_system: &'static str,
    /// Bytes of the file system, and free ones.
    pub total_bytes: u64,
    /// See above.
    pub free_bytes: u64,
}

/// Facts about a directory.
///
/// # Errors
/// Neither it nor one above it can be looked at.
pub fn directory_facts(path: &Path) -> std::io::Result<DirectoryFacts> {
    let absolute = std::path::absolute(path)?;
    let existing = absolute.ancestors().find(|path| path.exists());
    let existing = existing.ok_or(std::io::ErrorKind::NotFound)?;
    let about = fs::metadata(existing)?;
    let space = disk::room(existing);
    Ok(DirectoryFacts {
        exists: existing == absolute,
        uid: about.uid(),
        mode: about.mode() & 0o7777,
        is_writable: about.is_dir() && access(existing, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        file_system: statfs(existing).map_or("", |found| file_system(found.f_type as u32)),
        total_bytes: space.map_or(0, |it| it.total),
        free_bytes: space.map_or(0, |it| it.free),
        existing: existing.to_owned(),
    })
}

/// Names of file systems by their numbers in `statfs(2)`.
fn file_system(magic: u32) -> &'static str {
    match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0xff53_4d42 | 0xfe53_4d42 => "smb",
        0x6573_5546 => "fuse",
        _ => "",
    }
}

/// The user of the process.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_quota_of_both_kinds_of_control_groups_counts() {
        let quota = |files: &[(&str, &str)]| {
            let root = tempfile::tempdir().expect("a directory");
            for (path, content) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().expect("it has one")).expect("made");
                fs::write(path, content).expect("written");
            }
            cpu_quota_below(root.path()).map(|it| (it.value, it.set_by))
        };
        assert_eq!(quota(&[]), None);
        let v2 = [
            ("proc/self/cgroup", "0::/pod/one\n"),
            ("sys/fs/cgroup/pod/one/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/pod/cpu.max", "150000 100000\n"),
        ];
        assert_eq!(quota(&v2), Some((1500, "cgroup v2")));
        assert_eq!(quota(&v2[..2]), None);
        let v1 = [
            ("proc/self/cgroup", "3:cpu,cpuacct:/docker/12\n2:memory:/docker/12\n0::/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota(&v1), Some((500, "cgroup v1")));
        assert_eq!(quota(&[v1[0], ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"), v1[2]]), None);
    }

    #[test]
    fn a_directory_that_is_missing_is_judged_by_the_one_above_it() {
        let root = tempfile::tempdir().expect("a directory");
        let missing = directory_facts(&root.path().join("a/b")).expect("there is one above");
        assert!(!missing.exists && missing.is_writable && missing.total_bytes > 0);
        assert_eq!(missing.existing, root.path());
        assert!(!root.path().join("a").exists(), "nothing is made");
        assert!(directory_facts(root.path()).expect("it is there").exists);
    }

    #[test]
    fn this_machine_reads_its_clock_in_less_than_a_millisecond() {
        assert!(clock_source().1 < Duration::from_millis(1));
        assert!(open_files_max() > 0 && !kernel_release().is_empty());
    }
}
