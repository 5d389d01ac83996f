//! Policy of merges: the tables to merge, and when. Pure: sizes in, a merge out.
//!
//! Merging by levels alone, as the tree does it, keeps garbage as long as nothing is written: deleted or replaced
//! versions are removed when a merge reads them, and merges start when a level is full. Here garbage itself is a
//! reason: the owner sets how many bytes of keys and values are kept ([`Facts::usage`]), the last merge of everything
//! showed how many bytes of tables such a byte takes, and any excess is garbage.
//!
//! - A small store is merged as a whole, for its garbage or for the number of its tables: that is as cheap as any
//!   partial merge.
//! - In a large one new data is pushed down through the levels, step by step: only tables that overlap with it are
//!   written again. It is merged as a whole only when little is committed.

/// Bytes of a table. The tree ends a merge under the lock that a flush takes, for a time that grows with the table's size.
pub(super) const TABLE_BYTES: u64 = 8 << 20;
/// Tables of level 0, above which they are merged into the next.
pub(super) const LEVEL_0_TABLES: u8 = 4;

/// Kept bytes up to which a store is small: merging all of it takes about a second, and less than the many steps of
/// pushing it down.
const SMALL_BYTES: u64 = 256 << 20;
/// Approximate bytes of one step of a merge by levels.
const STEP_BYTES: u64 = 64 << 20;
/// Garbage that is tolerated while much is committed. Including writes during a merge, a small store stays within twice
/// the kept bytes and 64 MiB.
const GARBAGE_BYTES: u64 = 24 << 20;
const GARBAGE_BYTES_LARGE: u64 = 64 << 20;
/// Garbage that is tolerated while little is committed.
const GARBAGE_BYTES_IDLE: u64 = 2 << 20;
/// The inverse of the share of garbage above which a store is merged as a whole when little is committed: each byte is
/// written a dozen times at most for that reason.
const GARBAGE_SHARE_IDLE: u64 = 12;
/// Upper bound of the bytes of tables assumed for a byte of keys and values, until a merge has shown it.
const NEED_UNKNOWN_MAX: f64 = 2.0;

/// Sizes of a store's tables and other inputs of the policy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Tables of level 0.
    pub(super) level_0_tables: usize,
    /// Bytes of each level.
    pub(super) levels: [u64; 7],
    /// Bytes of keys and values that are kept.
    pub(super) usage: u64,
    /// Little was committed in the last seconds.
    pub(super) is_idle: bool,
    /// Old views hold replaced tables: a merge frees nothing before they end.
    pub(super) is_pinned: bool,
    /// A merge of everything was requested.
    pub(super) is_asked: bool,
    /// Bytes that a merge may take on the disk, until its input is removed.
    pub(super) room: u64,
}

impl Facts {
    pub(super) fn bytes(&self) -> u64 {
        self.levels.iter().sum()
    }

    /// Bytes above the last level.
    fn bytes_above(&self) -> u64 {
        self.levels[..6].iter().sum()
    }
}

/// A merge to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Merge {
    /// None: there is nothing to do, or no space for it.
    None,
    /// By the tree's rules for the sizes of levels.
    Level,
    /// Everything above the last level is pushed down, a part at a time.
    PushDown,
    /// All tables.
    All,
}

/// Decides on merges; remembers the results of the last ones.
#[derive(Clone, Debug, Default)]
pub(super) struct MergePolicy {
    /// Bytes of tables for a byte that is kept; `None` before it is known.
    need: Option<f64>,
    /// The last push changed nothing, at these bytes.
    pushed_at: Option<u64>,
}

impl MergePolicy {
    /// The next merge: the wanted one, or else a smaller one that fits into the free space.
    pub(super) fn next(&mut self, facts: &Facts) -> Merge {
        let wanted = self.wanted(facts);
        self.within_room(wanted, facts)
    }

    /// True if there is no room for any merge, so that waiting for one makes no sense.
    pub(super) fn lacks_room(&self, facts: &Facts) -> bool {
        facts.room < STEP_BYTES.min(facts.bytes()) + TABLE_BYTES
    }

    fn within_room(&mut self, wanted: Merge, facts: &Facts) -> Merge {
        let (bytes, garbage) = (facts.bytes(), self.garbage(facts));
        match wanted {
            // Its output is what is kept.
            Merge::All if facts.room >= bytes - garbage + TABLE_BYTES => Merge::All,
            _ if self.lacks_room(facts) => Merge::None,
            Merge::All => Merge::Level,
            smaller @ (Merge::None | Merge::Level | Merge::PushDown) => smaller,
        }
    }

    fn wanted(&mut self, facts: &Facts) -> Merge {
        if facts.is_asked {
            return Merge::All;
        }
        let (bytes, garbage) = (facts.bytes(), self.garbage(facts));
        let kept = bytes - garbage;
        let is_small = kept <= SMALL_BYTES;
        let is_worth_it = garbage >= GARBAGE_BYTES_IDLE && garbage >= bytes / GARBAGE_SHARE_IDLE;
        let is_much = match is_small {
            true => garbage > GARBAGE_BYTES + kept / 10,
            false => garbage > GARBAGE_BYTES_LARGE + kept / 6,
        };
        let is_due = (is_much || (facts.is_idle && is_worth_it)) && !facts.is_pinned;
        if is_small {
            let is_tall = facts.level_0_tables >= 2 * usize::from(LEVEL_0_TABLES);
            return if is_due || is_tall { Merge::All } else { Merge::None };
        }
        if !is_due {
            return Merge::Level;
        }
        match facts.bytes_above() > 2 * TABLE_BYTES && self.pushed_at != Some(bytes) {
            true => Merge::PushDown,
            false if facts.is_idle => Merge::All,
            false => Merge::Level,
        }
    }

    /// Estimated bytes of tables that a merge of everything would remove.
    pub(super) fn garbage(&mut self, facts: &Facts) -> u64 {
        let bytes = facts.bytes();
        // The tables present at the start are assumed to be needed, within limits.
        let need = *self.need.get_or_insert_with(|| {
            (bytes as f64 / facts.usage.max(1) as f64).clamp(1.0, NEED_UNKNOWN_MAX)
        });
        bytes.saturating_sub((need * facts.usage as f64) as u64)
    }

    /// A merge changed nothing: there was nothing to do.
    pub(super) fn nothing_changed(&mut self, merge: Merge, facts: &Facts) {
        if merge == Merge::PushDown {
            self.pushed_at = Some(facts.bytes());
        }
    }

    /// A merge of everything, with nothing held back by old views, left so many bytes in the last level. `usage` is
    /// from its start: data deleted since then is still in these tables.
    pub(super) fn merged_all(&mut self, usage: u64, bytes: u64) {
        if usage > 0 && bytes > 0 {
            self.need = Some(bytes as f64 / usage as f64);
        }
    }
}

/// Size ratios of levels, from the first that is not empty, so that pushing down empties all but the last.
pub(super) fn push_down_ratios(levels: &[u64; 7]) -> Vec<f32> {
    let first = levels.iter().skip(1).position(|bytes| *bytes > 0).map_or(6, |at| at + 1);
    // One level more, since the tree may create one for the output of level 0.
    let count = 7 - first + 1;
    let mut ratios = vec![1e-6; count.saturating_sub(1)];
    ratios.push(1e12);
    ratios
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A store with so many MiB in level 0 and in the last level, and so many kept.
    fn facts(level_0: u64, last: u64, usage: u64) -> Facts {
        let mut levels = [0; 7];
        (levels[0], levels[6]) = (level_0 * MIB, last * MIB);
        Facts {
            level_0_tables: (level_0 / 16) as usize,
            levels,
            usage: usage * MIB,
            room: u64::MAX,
            ..Facts::default()
        }
    }

    fn idle(facts: Facts) -> Facts {
        Facts { is_idle: true, ..facts }
    }

    /// A policy after a merge of everything that left one byte of tables for each that is kept.
    fn policy() -> MergePolicy {
        let mut policy = MergePolicy::default();
        policy.merged_all(40 * MIB, 40 * MIB);
        policy
    }

    #[test]
    fn without_garbage_the_levels_decide() {
        assert_eq!(policy().next(&facts(32, 1000, 1032)), Merge::Level);
        assert_eq!(policy().next(&idle(facts(32, 1000, 1032))), Merge::Level);
        assert_eq!(policy().next(&idle(facts(32, 100, 132))), Merge::None);
        assert_eq!(policy().next(&facts(128, 100, 228)), Merge::All, "many tables");
    }

    #[test]
    fn a_small_store_is_merged_as_a_whole_when_much_of_it_is_garbage() {
        assert_eq!(policy().next(&facts(20, 40, 40)), Merge::None);
        assert_eq!(policy().next(&facts(32, 40, 40)), Merge::All);
    }

    #[test]
    fn little_garbage_is_enough_when_nothing_is_committed() {
        assert_eq!(policy().next(&idle(facts(3, 40, 41))), Merge::None);
        assert_eq!(policy().next(&idle(facts(8, 40, 40))), Merge::All);
        assert_eq!(policy().next(&idle(facts(0, 3, 0))), Merge::All);
    }

    #[test]
    fn a_large_store_is_pushed_down_and_merged_as_a_whole_only_in_quiet_times() {
        let mut policy = policy();
        let busy = facts(320, 1000, 900);
        assert_eq!(policy.next(&busy), Merge::PushDown);
        policy.nothing_changed(Merge::PushDown, &busy);
        assert_eq!(policy.next(&busy), Merge::Level);
        assert_eq!(policy.next(&idle(busy)), Merge::All);
    }

    #[test]
    fn garbage_read_by_old_views_is_kept() {
        let held = Facts { is_pinned: true, ..idle(facts(100, 40, 40)) };
        assert_eq!(policy().next(&held), Merge::None);
        assert_eq!(policy().next(&Facts { is_asked: true, ..held }), Merge::All);
    }

    #[test]
    fn on_a_full_disk_a_merge_is_made_if_its_output_fits() {
        let with = |room: u64, facts: Facts| Facts { room: room * MIB, ..facts };
        let garbage = idle(facts(100, 100, 10));
        let large = facts(100, 400, 499);
        assert_eq!(policy().next(&with(20, garbage)), Merge::All);
        assert_eq!(policy().next(&with(15, garbage)), Merge::None);
        assert_eq!(policy().next(&with(80, large)), Merge::Level);
        assert_eq!(policy().next(&with(60, large)), Merge::None);
        let lack = [garbage, large].map(|facts| policy().lacks_room(&with(60, facts)));
        assert_eq!(lack, [true, true]);
        assert!(!policy().lacks_room(&with(72, large)));
    }

    #[test]
    fn compression_ratio_is_measured() {
        let mut policy = MergePolicy::default();
        assert_eq!(policy.garbage(&facts(0, 150, 100)), 0, "found at the start");
        policy.merged_all(100 * MIB, 50 * MIB);
        assert_eq!(policy.garbage(&facts(0, 150, 100)), 100 * MIB);
        let mut policy = MergePolicy::default();
        assert_eq!(policy.garbage(&facts(0, 300, 100)), 100 * MIB, "twice is the most");
    }

    #[test]
    fn pushing_down_leaves_room_in_the_last_level_alone() {
        let mut levels = [0; 7];
        levels[6] = 5;
        assert_eq!(push_down_ratios(&levels), [1e-6, 1e12]);
        levels[4] = 5;
        assert_eq!(push_down_ratios(&levels), [1e-6, 1e-6, 1e-6, 1e12]);
    }
}
