//! Checks that every page of a file is used exactly once, as bbolt's own check does.

use bytes::Buf as _;

use super::read::{Bucket, Entry, Reader, Source};
use super::{FREELIST, HEADER, PageHead};
use crate::types::Fault;

/// Value of the header's count from which on the list's first number is the count.
const COUNT_IN_HEADER_MAX: u16 = u16::MAX;
/// Upper bound of reported faults; a damaged file may have as many as it has pages.
const FAULTS_MAX: usize = 1000;

/// One bit for each page.
struct PageSet(Vec<u64>);

impl PageSet {
    fn new(pages: u64) -> Self {
        Self(vec![0; pages.div_ceil(u64::from(u64::BITS)) as usize])
    }

    fn has(&self, page: u64) -> bool {
        self.0[(page / u64::from(u64::BITS)) as usize] >> (page % u64::from(u64::BITS)) & 1 == 1
    }

    /// True if the page was not in the set yet.
    fn insert(&mut self, page: u64) -> bool {
        let is_new = !self.has(page);
        self.0[(page / u64::from(u64::BITS)) as usize] |= 1 << (page % u64::from(u64::BITS));
        is_new
    }
}

impl<S: Source> Reader<S> {
    /// All faults of the file, with bbolt's texts where it has them.
    pub fn check(&self) -> Vec<String> {
        let mut check = Check {
            reader: self,
            reached: PageSet::new(self.meta().pages),
            freed: PageSet::new(self.meta().pages),
            faults: Vec::new(),
        };
        if let Err(fault) = check.file() {
            check.fault(fault.0);
        }
        check.faults
    }
}

struct Check<'a, S> {
    reader: &'a Reader<S>,
    reached: PageSet,
    freed: PageSet,
    faults: Vec<String>,
}

impl<S: Source> Check<'_, S> {
    fn fault(&mut self, text: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(text);
        }
    }

    fn file(&mut self) -> Result<(), Fault> {
        self.reached.insert(0);
        self.reached.insert(1);
        if let Some(page) = self.reader.freelist() {
            self.freelist(page)?;
        }
        self.bucket(&self.reader.root())?;
        // Without a list every unreachable page is free.
        if self.reader.freelist().is_some() {
            for page in 0..self.reader.meta().pages {
                if !self.reached.has(page) && !self.freed.has(page) {
                    self.fault(format!("page {page}: unreachable unfreed"));
                }
            }
        }
        Ok(())
    }

    fn freelist(&mut self, page: u64) -> Result<(), Fault> {
        let head = self.reader.head(page)?;
        if head.kind != FREELIST {
            return Err(Fault::new(format!(
                "assertion failed: can't get freelist page count from a non-freelist page: {:2x}",
                head.kind
            )));
        }
        self.reach(head);
        let page_bytes = u64::from(self.reader.meta().page_bytes);
        let mut bytes = vec![0; ((u64::from(head.overflow) + 1) * page_bytes) as usize];
        self.reader.source().read(page * page_bytes, &mut bytes)?;
        let mut rest = &bytes[HEADER..];
        let count = match head.count {
            COUNT_IN_HEADER_MAX => rest.get_u64_le(),
            count => u64::from(count),
        };
        if count > (rest.len() / size_of::<u64>()) as u64 {
            return Err(Fault::new(format!("page {page}: its free pages do not fit in it")));
        }
        for _ in 0..count {
            let free = rest.get_u64_le();
            if free >= self.reader.meta().pages {
                return Err(Fault::new(format!("page {free}: freed beyond the end of the file")));
            }
            if !self.freed.insert(free) {
                self.fault(format!("page {free}: already freed"));
            }
        }
        Ok(())
    }

    /// Records a page and its overflow as reachable.
    fn reach(&mut self, head: PageHead) {
        for page in head.id..=head.id + u64::from(head.overflow) {
            if !self.reached.insert(page) {
                self.fault(format!("page {page}: multiple references"));
            }
            if self.freed.has(page) {
                self.fault(format!("page {page}: reachable freed"));
            }
        }
    }

    fn bucket(&mut self, bucket: &Bucket) -> Result<(), Fault> {
        // Buckets may contain buckets: a cycle of them reaches a page twice.
        let mut waiting = vec![bucket.clone()];
        while let Some(bucket) = waiting.pop() {
            let faults = self.faults.len();
            let mut entries = self.reader.entries(&bucket);
            while let Some(entry) = entries.next_seeing(&mut |head| self.reach(head)) {
                if let Entry::Bucket(_, bucket) = entry? {
                    waiting.push(bucket);
                }
            }
            if self.faults.len() > faults {
                break;
            }
        }
        Ok(())
    }
}
