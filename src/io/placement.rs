//! How many executors there are, and which are bound to a core: those that can expect to have it to themselves.
//!
//! | the process may use | executors | bound to cores |
//! |---|---|---|
//! | what `--cores` names | one for each | yes |
//! | a share of processor time (a quota) below its cores | as many as the share is worth | no |
//! | some cores of the machine (a set of cores, `taskset`) | one for each | yes |
//! | all cores of the machine, three at most | one for each | no: clients and neighbours run there, too |
//! | all cores of the machine | one for each, `EXECUTORS_DEFAULT_MAX` at most | yes |

use std::fs;
use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity};

use super::reactor::Place;
use crate::types::limits::{EXECUTORS_DEFAULT_MAX, EXECUTORS_MAX};

/// Cores that executors share with others, if the machine has no more.
const SHARED_CORES_MAX: usize = 3;

/// How many cores' worth of time the process may use; set once, by a thread that is not bound to one.
static USABLE: OnceLock<usize> = OnceLock::new();

/// Where executors run, and why there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The first one is for consensus.
    pub places: Vec<Place>,
    /// For the log.
    pub reason: &'static str,
}

/// Limits that the machine sets.
struct Limits {
    /// Cores of the affinity mask, lowest first.
    cores: Vec<usize>,
    /// Cores of the machine.
    machine: usize,
    /// As many as the share of processor time is worth, of those.
    share: usize,
}

/// Where executors run; `asked` are the cores of `--cores`. Reads files.
pub fn place_executors(asked: &[usize]) -> Placement {
    place(asked, &limits())
}

/// How many cores' worth of time the process may use, also when asked by a thread that is bound to one of them.
pub(super) fn usable_cores() -> usize {
    *USABLE.get_or_init(|| {
        let mask = sched_getaffinity(Some(rustix::process::getpid()));
        mask.map_or(1, |mask| (0..CpuSet::MAX_CPU).filter(|core| mask.is_set(*core)).count())
    })
}

fn limits() -> Limits {
    // Counts the quotas of control groups of either version.
    let share = std::thread::available_parallelism().map_or(1, usize::from);
    let _ = USABLE.set(share);
    let cores = match sched_getaffinity(None) {
        Ok(mask) => (0..CpuSet::MAX_CPU).filter(|core| mask.is_set(*core)).collect(),
        Err(_) => (0..share).collect(),
    };
    // Not from /sys, which containers may hide.
    let machine = fs::read_to_string("/proc/stat").map_or(0, |text| count_cores(&text));
    Limits { cores, machine, share }
}

/// Cores in `/proc/stat`: `cpu` is the sum of them, `cpu0` one.
fn count_cores(stat: &str) -> usize {
    let names = stat.lines().filter_map(|line| line.strip_prefix("cpu"));
    names.filter(|name| name.starts_with(|first: char| first.is_ascii_digit())).count()
}

fn place(asked: &[usize], limits: &Limits) -> Placement {
    let Limits { cores, machine, share } = limits;
    let bound = |cores: &[usize]| cores.iter().map(|core| Some(*core)).collect();
    let (on, reason): (Vec<Option<usize>>, _) = if !asked.is_empty() {
        (bound(asked), "bound to the cores of --cores")
    } else if *share < cores.len() {
        (vec![None; *share], "not bound: the process has a share of the time of its cores")
    } else if cores.len() < *machine {
        (bound(cores), "bound to the cores that the process is confined to")
    } else if cores.len() <= SHARED_CORES_MAX {
        (vec![None; cores.len()], "not bound: the machine has few cores")
    } else {
        (bound(&cores[..cores.len().min(EXECUTORS_DEFAULT_MAX)]), "bound to cores of the machine")
    };
    let on = on.into_iter().chain(std::iter::repeat_n(None, usize::from(cores.is_empty())));
    let places = on.take(EXECUTORS_MAX).enumerate();
    Placement { places: places.map(|(number, core)| Place { number, core }).collect(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(
        asked: &[usize],
        cores: &[usize],
        machine: usize,
        share: usize,
    ) -> Vec<Option<usize>> {
        let limits = Limits { cores: cores.to_vec(), machine, share };
        place(asked, &limits).places.iter().map(|place| place.core).collect()
    }

    #[test]
    fn executors_are_bound_where_they_have_a_core_to_themselves() {
        let all: Vec<usize> = (0..64).collect();
        assert_eq!(placed(&[], &all, 64, 4), [None; 4], "a quota");
        assert_eq!(placed(&[], &[0, 1], 2, 1), [None], "half a core, or one");
        assert_eq!(placed(&[], &[3, 9], 64, 2), [Some(3), Some(9)], "a set of cores");
        assert_eq!(placed(&[], &[3, 9, 12], 64, 2), [None; 2], "both");
        assert_eq!(placed(&[], &[0, 1], 2, 2), [None; 2], "a small machine");
        assert_eq!(placed(&[], &[1], 2, 1), [Some(1)], "taskset on it");
        assert_eq!(placed(&[], &all[..4], 4, 4), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(placed(&[], &all, 64, 64).len(), EXECUTORS_DEFAULT_MAX, "no limit");
        assert_eq!(placed(&[], &all[..32], 64, 32).len(), 32, "a set is a limit");
        assert_eq!(placed(&[1, 0], &[0, 1], 2, 1), [Some(1), Some(0)], "--cores has its way");
        assert_eq!(placed(&[], &[], 0, 1), [None], "nothing is known");
    }

    #[test]
    fn this_machine_is_understood() {
        let limits = limits();
        assert!(limits.machine >= limits.cores.len() && limits.share >= 1, "{}", limits.machine);
        assert_eq!(count_cores("cpu  1 2\ncpu0 1 2\ncpu11 1 2\nintr 5\ncpuset 1\n"), 2);
    }
}
