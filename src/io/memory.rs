//! Memory limit of the process: of its control group, or the machine.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::control_groups::{self, Limit};
use crate::types::Budgets;

const MEMORY: Limit =
    Limit { controller: "memory", file_v1: "memory.limit_in_bytes", file_v2: "memory.max" };
const MACHINE: &str = "machine";

static BUDGETS: OnceLock<Budgets> = OnceLock::new();

/// The budgets for the available memory and so many executors, computed once; later calls return the same. Blocks.
pub fn divide_memory(executors: usize) -> (u64, Budgets) {
    let bytes = memory_bytes(Path::new("/"));
    (bytes, *BUDGETS.get_or_init(|| Budgets::new(bytes, executors)))
}

/// Bytes for a store's block cache.
pub(super) fn block_cache_bytes() -> u64 {
    BUDGETS.get().map_or_else(|| Budgets::unbounded().block_cache, |budgets| budgets.block_cache)
}

/// Bytes of a memtable of a store.
pub(super) fn memtable_bytes() -> u64 {
    BUDGETS.get().map_or_else(|| Budgets::unbounded().memtable, |budgets| budgets.memtable)
}

/// The lowest of all limits below `root`, the machine's memory included.
fn memory_bytes(root: &Path) -> u64 {
    memory_limit(root).0
}

/// The same, and the place where it is set.
pub(super) fn memory_limit(root: &Path) -> (u64, &'static str) {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = control_groups::files(root, &MEMORY).into_iter();
    let groups = groups.filter_map(|(version, path)| Some((number(&path)?, group_name(version))));
    let machine = machine_bytes(root).map(|bytes| (bytes, MACHINE));
    // A limit above the machine's memory is none.
    groups.chain(machine).min_by_key(|(bytes, _)| *bytes).unwrap_or((u64::MAX, MACHINE))
}

/// Name of a version of control groups.
pub(super) const fn group_name(version: u8) -> &'static str {
    if version == 1 { "cgroup v1" } else { "cgroup v2" }
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, content).expect("written");
        }
    }

    #[test]
    fn the_lowest_limit_of_both_kinds_of_control_groups_counts() {
        const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
        let cases: [(&[(&str, &str)], u64); 6] = [
            (&[], u64::MAX),
            (&[MACHINE], 16 << 20),
            (
                &[MACHINE, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")],
                16 << 20,
            ),
            (
                &[
                    MACHINE,
                    ("proc/self/cgroup", "0::/pod/one\n"),
                    ("sys/fs/cgroup/pod/one/memory.max", "max\n"),
                    ("sys/fs/cgroup/pod/memory.max", "4096\n"),
                    ("sys/fs/cgroup/memory.max", "8192\n"),
                ],
                4096,
            ),
            (
                &[
                    MACHINE,
                    ("proc/self/cgroup", "3:cpu,cpuacct:/a\n2:rdma,memory:/a\n0::/\n"),
                    ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "12288\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                12288,
            ),
            (
                &[
                    MACHINE,
                    // The host's path, which does not exist in the container.
                    ("proc/self/cgroup", "2:memory:/docker/0123\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8388608\n"),
                ],
                8 << 20,
            ),
        ];
        for (files, expected) in cases {
            let root = tempfile::tempdir().expect("a directory");
            write(root.path(), files);
            assert_eq!(memory_bytes(root.path()), expected, "{files:?}");
        }
    }

    #[test]
    fn this_machine_says_how_much_it_has() {
        let bytes = memory_bytes(Path::new("/"));
        assert!(bytes > 64 << 20 && bytes < 1 << 50, "{bytes}");
    }
}
