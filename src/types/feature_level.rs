//! The number by which members of different versions agree on what may be in the log.

use std::fmt;

/// A feature level. Each one adds commands, or changes what an entry of the log means; a member that supports a level
/// supports all below it.
///
/// | level | adds |
/// |---|---|
/// | 1 | everything that existed before there were levels |
/// | 2 | `FeatureLevelSet`; the least time of a lease and the number of learners are those of the proposal, no longer those of the flags of the member that applies it |
/// | 3 | users and roles, and the checks of what they may do |
///
/// Members state the level that they support in the hello of each connection. The level of the cluster is part of the
/// replicated state: the lowest level of all members, raised by a command, never lowered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FeatureLevel(u32);

impl FeatureLevel {
    /// The level of members that state none, and of a cluster that has not agreed on another.
    pub const INITIAL: Self = Self(1);
    /// From this level on a proposal carries the limits that decide what it does.
    pub const LIMITS_PROPOSED: Self = Self(2);
    /// From this level on entries are checked against the permissions of whom they name, if auth is on.
    pub const AUTH: Self = Self(3);
    /// The level that this version supports.
    pub const NEWEST: Self = Self(3);

    /// The level with this number; [`FeatureLevel::INITIAL`] for 0, the value read where none was written.
    pub const fn new(number: u32) -> Self {
        if number == 0 { Self::INITIAL } else { Self(number) }
    }

    /// The level as a number, never 0.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_not_stated_is_the_first() {
        assert_eq!(FeatureLevel::new(0), FeatureLevel::INITIAL);
        assert_eq!(FeatureLevel::new(7).number(), 7);
        assert!(FeatureLevel::new(7) > FeatureLevel::NEWEST);
    }
}
