//! Rate limit of log lines by call site: a warning for each slow request must not fill the disk while the disk is slow.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::metrics;
use crate::types::limits::LOG_LINES_PER_SECOND_MAX;

/// File and line of a call site.
pub(super) type Site = (String, u32);

/// Counts lines by call site. Their number is bounded by the code.
#[derive(Debug, Default)]
pub(super) struct Limiter(Mutex<HashMap<Site, Count>>);

#[derive(Debug, Default)]
struct Count {
    /// The second of the counted lines.
    second: u64,
    lines: u32,
    /// Lines that were not written, and not reported yet.
    suppressed: u64,
}

impl Limiter {
    /// True if a line of this site may be written in this second.
    pub(super) fn admits(&self, site: Site, second: u64) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(site).or_default();
        if count.second != second {
            (count.second, count.lines) = (second, 0);
        }
        count.lines += 1;
        let admits = count.lines <= LOG_LINES_PER_SECOND_MAX;
        if !admits {
            count.suppressed += 1;
            metrics::LOG_LINES_SUPPRESSED.add(1);
        }
        admits
    }

    /// Sites with suppressed lines in an earlier second, and their number.
    pub(super) fn take_suppressed(&self, second: u64) -> Vec<(Site, u64)> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = counts.iter_mut().filter(|(_, it)| it.suppressed > 0 && it.second != second);
        over.map(|(site, it)| (site.clone(), std::mem::take(&mut it.suppressed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_limit_are_counted_by_site_and_second() {
        let limiter = Limiter::default();
        let site = |line| ("rpc/call.rs".to_owned(), line);
        let admitted =
            |line, second| (0..250).filter(|_| limiter.admits(site(line), second)).count();
        assert_eq!(admitted(1, 7), LOG_LINES_PER_SECOND_MAX as usize);
        assert!(limiter.admits(site(2), 7), "another site has its own");
        assert_eq!(limiter.take_suppressed(7), [], "more may come in this second");
        assert_eq!(limiter.take_suppressed(8), [(site(1), 150)]);
        assert_eq!(limiter.take_suppressed(9), [], "they are told of once");
        assert_eq!(admitted(1, 9), LOG_LINES_PER_SECOND_MAX as usize);
    }
}
