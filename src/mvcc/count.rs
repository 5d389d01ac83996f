//! Exact counts without reading keys one by one.

use std::ops::Bound;

use super::range::Source;
use super::record::Record;
use crate::store::{Space, View};
use crate::types::{Fault, KeyRange, Revision};

impl<V: View> Source<'_, V> {
    /// Live keys in a range at a revision.
    ///
    /// At the newest revision the fences know. In the past it is that number less what was created and
    /// plus what was deleted since, or a scan, whichever reads less.
    pub(super) fn count(&self, range: &KeyRange, at: i64) -> Result<u64, Fault> {
        if let KeyRange::One(key) = range {
            return Ok(u64::from(self.get(key, at)?.is_some()));
        }
        let now = self.fences.count(range, |part| self.scan_count(part, self.revision))?;
        let since = (self.revision - at) as u64;
        match since {
            0 => Ok(now),
            // More changes than keys, as far as one can tell: reading the keys is cheaper.
            _ if since > now => self.scan_count(range, at),
            _ => Ok((now as i64 - self.born_since(range, at)?) as u64),
        }
    }

    fn scan_count(&self, range: &KeyRange, at: i64) -> Result<u64, Fault> {
        self.records(range, at).try_fold(0, |count, record| record.map(|_| count + 1))
    }

    /// Keys of the range that came into being after a revision, less those that died.
    fn born_since(&self, range: &KeyRange, at: i64) -> Result<i64, Fault> {
        let from = Revision { main: at + 1, sub: 0 }.to_key();
        let events = self.view.scan(Space::Log, Bound::Included(&from), Bound::Unbounded);
        let mut born = 0;
        for pair in events {
            let record = Record::parse(pair?.1)?;
            if range.contains(&record.key()) {
                born += i64::from(record.version == 1) - i64::from(record.tombstone);
            }
        }
        Ok(born)
    }
}
