//! The feature level that another member stated in the hello of its connection, as long as that lasts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::FeatureLevel;

/// Which connection stated which level: the number of the connection in the upper half, the level in the lower one, which
/// is 0 when none is stated.
#[derive(Default)]
pub struct Stated(AtomicU64);

/// A connection whose end takes its statement away, unless a newer one has made another.
pub struct Statement<'a> {
    stated: &'a Stated,
    made: u64,
}

impl Stated {
    /// The level, if a connection is there that stated one.
    pub fn feature_level(&self) -> Option<FeatureLevel> {
        let level = self.0.load(Ordering::Acquire) as u32;
        (level > 0).then(|| FeatureLevel::new(level))
    }

    /// A new connection states a level.
    pub fn state(&self, level: FeatureLevel) -> Statement<'_> {
        let made = |before: u64| ((before >> 32) + 1) << 32 | u64::from(level.number());
        let before = self.0.update(Ordering::AcqRel, Ordering::Acquire, made);
        Statement { stated: self, made: made(before) }
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        let none = self.made & !u64::from(u32::MAX);
        let _ =
            self.stated.0.compare_exchange(self.made, none, Ordering::AcqRel, Ordering::Acquire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_stated_as_long_as_the_newest_connection_lasts() {
        let stated = Stated::default();
        assert_eq!(stated.feature_level(), None);
        let first = stated.state(FeatureLevel::new(2));
        assert_eq!(stated.feature_level(), Some(FeatureLevel::new(2)));
        let second = stated.state(FeatureLevel::INITIAL);
        assert_eq!(stated.feature_level(), Some(FeatureLevel::INITIAL), "it was replaced");
        drop(first);
        assert_eq!(stated.feature_level(), Some(FeatureLevel::INITIAL));
        drop(second);
        assert_eq!(stated.feature_level(), None);
        let third = stated.state(FeatureLevel::new(2));
        assert_eq!(stated.feature_level(), Some(FeatureLevel::new(2)));
        drop(third);
        assert_eq!(stated.feature_level(), None);
    }
}
