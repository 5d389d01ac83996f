//! Levels of free space on the disk of a member, and the thresholds between them.
//!
//! ```text
//!                 free + reserve
//!  0 ────────────┬──────────────────────┬──────────────────────────►
//!    Exhausted   │ Low                  │ Enough
//!                two thirds             the reserve
//!                of the reserve         and the margin
//! ```
//!
//! The reserve is a file that keeps its bytes allocated as long as there is [`DiskSpace::Enough`], even if another
//! process fills the disk. It is deleted when the level leaves `Enough`, so that committed entries can still be
//! applied, and deletes, compactions and alarms can be written.

use super::limits::{
    DISK_MARGIN_BYTES_MAX, DISK_MARGIN_BYTES_MIN, DISK_RESERVE_BYTES_MAX, DISK_RESERVE_BYTES_MIN,
    DISK_SHARE,
};

/// Levels of free disk space of a member.
#[derive(
    serde::Serialize,
    serde::Deserialize,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Debug,
    Default,
)]
pub enum DiskSpace {
    /// Enough for every operation.
    #[default]
    Enough,
    /// Enough for operations in flight, and for those that free space. The member should not lead, and is reported as
    /// short of space.
    Low,
    /// Enough for committed entries only. The member accepts no more entries as long as a quorum exists without it.
    Exhausted,
}

impl DiskSpace {
    /// The level as a number, for an atomic.
    pub fn to_u8(self) -> u8 {
        self as u8
    }

    /// The inverse of [`DiskSpace::to_u8`].
    pub fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Enough,
            1 => Self::Low,
            _ => Self::Exhausted,
        }
    }
}

/// Thresholds of the levels, for a disk of a certain size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskBounds {
    /// Bytes of the reserve.
    pub reserve: u64,
    /// Bytes that must be free beside the reserve.
    pub margin: u64,
}

impl DiskBounds {
    /// The bounds for a disk of `total` bytes.
    pub fn of_disk(total: u64) -> Self {
        let share = total / DISK_SHARE;
        Self {
            reserve: share.clamp(DISK_RESERVE_BYTES_MIN, DISK_RESERVE_BYTES_MAX),
            margin: share.clamp(DISK_MARGIN_BYTES_MIN, DISK_MARGIN_BYTES_MAX),
        }
    }

    /// Free bytes below which nothing more is applied: the store still has to flush memtables that it accepted.
    pub fn apply_min(self) -> u64 {
        self.reserve / 3
    }

    /// Bytes that can be taken before the disk is low, with `room` bytes free, the reserve included. Half of the margin is
    /// left for what is taken meanwhile.
    pub fn spare(self, room: u64) -> u64 {
        room.saturating_sub(self.reserve + self.margin / 2)
    }

    /// The state after `before`, with `room` bytes free, the reserve included. It gets better only with some room
    /// more than it got worse with, so that it does not change with every write.
    pub fn judge(self, before: DiskSpace, room: u64) -> DiskSpace {
        let enough = self.reserve + self.margin;
        let low = self.reserve / 3 * 2;
        let again = |bound: u64, worse: bool| if worse { bound + self.margin / 2 } else { bound };
        if room >= again(enough, before > DiskSpace::Enough) {
            DiskSpace::Enough
        } else if room >= again(low, before > DiskSpace::Low).min(enough) {
            DiskSpace::Low
        } else {
            DiskSpace::Exhausted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DiskSpace::{Enough, Exhausted, Low};
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn small_disks_are_usable_and_large_ones_keep_no_more_than_they_need() {
        let bounds = |total| {
            let bounds = DiskBounds::of_disk(total);
            (bounds.reserve / MIB, bounds.margin / MIB)
        };
        assert_eq!(bounds(200 * MIB), (24, 16));
        assert_eq!(bounds(512 * MIB), (32, 32));
        assert_eq!(bounds(1 << 40), (64, 64));
    }

    #[test]
    fn it_gets_better_later_than_it_got_worse() {
        let bounds = DiskBounds { reserve: 24, margin: 16 };
        let mut space = Enough;
        for (room, expected) in [
            (41, Enough),
            (40, Enough),
            (39, Low),
            (40, Low),
            (47, Low),
            (48, Enough),
            (39, Low),
            (16, Low),
            (15, Exhausted),
            (16, Exhausted),
            (23, Exhausted),
            (24, Low),
            (0, Exhausted),
            (1000, Enough),
            (0, Exhausted),
        ] {
            space = bounds.judge(space, room);
            assert_eq!(space, expected, "{room}");
        }
    }

    #[test]
    fn a_disk_that_others_fill_up_leaves_the_reserve() {
        let bounds = DiskBounds::of_disk(1 << 30);
        assert_eq!(bounds.judge(Enough, bounds.reserve), Low);
    }
}
