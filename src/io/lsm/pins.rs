//! Sequence numbers of the store at which views read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::lock;

/// Sequence numbers, and the number of views at each.
#[derive(Default)]
pub(super) struct Pins(Arc<Mutex<BTreeMap<u64, usize>>>);

/// Keeps the versions visible at its number until it is dropped.
pub(super) struct Pin {
    number: u64,
    pins: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl Pins {
    pub(super) fn pin(&self, number: u64) -> Pin {
        *lock(&self.0).entry(number).or_default() += 1;
        Pin { number, pins: Arc::clone(&self.0) }
    }

    /// The oldest number that is pinned.
    pub(super) fn oldest(&self) -> Option<u64> {
        lock(&self.0).keys().next().copied()
    }
}

impl Pin {
    /// The number: batches with smaller ones are visible.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        if let Some(readers) = pins.get_mut(&self.number) {
            *readers -= 1;
            if *readers == 0 {
                pins.remove(&self.number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_the_first_that_is_still_read() {
        let pins = Pins::default();
        assert_eq!(pins.oldest(), None);
        let (five, again, seven) = (pins.pin(5), pins.pin(5), pins.pin(7));
        drop(five);
        assert_eq!((pins.oldest(), again.number()), (Some(5), 5));
        drop(again);
        assert_eq!(pins.oldest(), Some(7));
        drop(seven);
        assert_eq!(pins.oldest(), None);
    }
}
