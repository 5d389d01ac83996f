//! The feature level that another member stated in the hello of its present connection.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::FeatureLevel;

/// The number of the newest connection in the upper half, and its feature level in the lower one, 0 for none.
#[derive(Default)]
pub struct Stated(AtomicU64);

/// Guard of a connection: its end clears the level, unless a newer connection has stated another.
pub struct Statement<'a> {
    stated: &'a Stated,
    made: u64,
}

impl Stated {
    /// The level of the present connection, if there is one.
    pub fn feature_level(&self) -> Option<FeatureLevel> {
        let level = self.0.load(Ordering::Acquire) as u32;
        (level > 0).then(|| FeatureLevel::new(level))
    }

    /// Sets the level of a new connection.
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
