//! Reads a file page by page. The file is untrusted: every inconsistency is an error that names the position.

use bytes::{Buf as _, Bytes};

use super::{
    BRANCH, BRANCH_ELEMENT, BUCKET_HEAD, HEADER, IS_BUCKET, LEAF, LEAF_ELEMENT, META, META_PAGE,
    Meta, NO_FREELIST, PageHead,
};
use crate::types::Fault;

/// Page sizes of existing machines.
const PAGE_BYTES_MIN: u64 = 1024;
const PAGE_BYTES_MAX: u64 = 64 << 10;
/// Upper bound of a tree's levels: more than any file that fits on a disk has.
const DEPTH_MAX: usize = 32;
/// Every file has more pages than this: two meta pages and at least two others.
const PAGES_MIN: u64 = 3;

/// Source of a file's bytes.
pub trait Source {
    /// The size of the file.
    fn length(&self) -> u64;

    /// Fills `into` with the bytes from `at` on.
    ///
    /// # Errors
    /// The file ends before, or the disk failed.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Fault>;
}

impl Source for Bytes {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        let start = usize::try_from(at).ok();
        let found = start.and_then(|start| self.get(start..)?.get(..into.len()));
        into.copy_from_slice(found.ok_or_else(|| Fault::new("the file ends too early"))?);
        Ok(())
    }
}

/// A file that is open for reading.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    meta: Meta,
}

/// Content of a leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A pair.
    Pair(Bytes, Bytes),
    /// A bucket within this one.
    Bucket(Bytes, Bucket),
}

impl Entry {
    fn key(&self) -> &Bytes {
        match self {
            Self::Pair(key, _) | Self::Bucket(key, _) => key,
        }
    }
}

/// Position of a bucket's tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bucket {
    /// The tree's root is this page.
    Root(u64),
    /// The tree consists of this page.
    Inline(Bytes),
}

impl<S: Source> Reader<S> {
    /// Reads the newer of the two meta pages.
    ///
    /// # Errors
    /// The file is not a bbolt file, or truncated.
    pub fn open(source: S) -> Result<Self, Fault> {
        let first = meta_at(&source, 0);
        let second = match &first {
            Ok(first) => meta_at(&source, u64::from(first.page_bytes)),
            Err(_) => second_meta(&source),
        };
        let meta = match (first, second) {
            (Ok(first), Ok(second)) if second.transaction > first.transaction => second,
            (Ok(first), _) => first,
            (Err(_), Ok(second)) => second,
            // bbolt checks the length before it reports another format.
            (Err(_), Err(_))
                if (4096..2 * 4096).contains(&source.length())
                    && source.read(0, &mut [0]).is_ok() =>
            {
                return Err(too_small(&source));
            }
            (Err(error), Err(_)) => return Err(error),
        };
        let page = u64::from(meta.page_bytes);
        let sound = page.is_power_of_two()
            && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page)
            && meta.pages > PAGES_MIN
            && meta.pages.checked_mul(page).is_some_and(|bytes| bytes <= source.length());
        if !sound {
            return Err(too_small(&source));
        }
        Ok(Self { source, meta })
    }

    /// The size in the meta page.
    pub fn bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_bytes)
    }

    /// The root: its entries are the buckets.
    pub fn root(&self) -> Bucket {
        Bucket::Root(self.meta.root)
    }

    /// The bucket with a name.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, Fault> {
        for entry in self.entries(&self.root()) {
            match entry? {
                Entry::Bucket(key, bucket) if key == name => return Ok(Some(bucket)),
                Entry::Bucket(..) | Entry::Pair(..) => (),
            }
        }
        Ok(None)
    }

    /// The entries of a bucket, in order. Nothing comes after an error.
    pub fn entries(&self, bucket: &Bucket) -> Entries<'_, S> {
        let entries = Entries { reader: self, stack: Vec::new(), newest: None, failed: None };
        match bucket {
            Bucket::Root(id) => entries.begin(self.page(*id)),
            // An inline bucket's page is not a page of the file: it is not passed to the observer.
            Bucket::Inline(bytes) => {
                entries.begin(Page::new(bytes.clone()).map(|page| Page { seen: true, ..page }))
            }
        }
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    pub(super) fn head(&self, id: u64) -> Result<PageHead, Fault> {
        if id >= self.meta.pages {
            return Err(Fault::new(format!("page {id}: out of bounds: {}", self.meta.pages)));
        }
        let mut head = [0; HEADER];
        self.source.read(id * u64::from(self.meta.page_bytes), &mut head)?;
        let head = PageHead::decode(&head);
        if head.id != id {
            return Err(Fault::new(format!(
                "assertion failed: Page expected to be: {id}, but self identifies as {}",
                head.id
            )));
        }
        if id + u64::from(head.overflow) >= self.meta.pages {
            return Err(Fault::new(format!("page {id}: runs past the end of the file")));
        }
        Ok(head)
    }

    /// A branch or a leaf with its overflow.
    fn page(&self, id: u64) -> Result<Page, Fault> {
        let head = self.head(id)?;
        let page_bytes = u64::from(self.meta.page_bytes);
        // Bounded by the file's length, which was compared with the meta page.
        let mut bytes = vec![0; ((u64::from(head.overflow) + 1) * page_bytes) as usize];
        self.source.read(id * page_bytes, &mut bytes)?;
        Page::new(bytes.into())
    }

    /// The page of the list of free pages, if the file has one.
    pub(super) fn freelist(&self) -> Option<u64> {
        (self.meta.freelist != NO_FREELIST).then_some(self.meta.freelist)
    }
}

fn too_small(source: &impl Source) -> Fault {
    Fault::new(format!("file size too small {}", source.length()))
}

fn meta_at(source: &impl Source, at: u64) -> Result<Meta, Fault> {
    let mut bytes = [0; HEADER + META];
    source.read(at, &mut bytes).map_err(|_| Fault::new("invalid database"))?;
    let (head, meta) = bytes.split_at(HEADER);
    let Ok(meta) = meta.try_into() else { return Err(Fault::new("invalid database")) };
    if PageHead::decode(head).kind & META_PAGE == 0 {
        return Err(Fault::new("invalid database"));
    }
    Meta::decode(meta)
}

/// The second meta page of a file whose first is damaged, so that the size of its pages is unknown.
fn second_meta(source: &impl Source) -> Result<Meta, Fault> {
    let mut at = PAGE_BYTES_MIN;
    while at <= PAGE_BYTES_MAX {
        if let Ok(meta) = meta_at(source, at)
            && u64::from(meta.page_bytes) == at
        {
            return Ok(meta);
        }
        at *= 2;
    }
    Err(Fault::new("invalid database"))
}

/// A page whose elements are inside it.
#[derive(Debug)]
struct Page {
    head: PageHead,
    bytes: Bytes,
    next: usize,
    seen: bool,
}

impl Page {
    fn new(bytes: Bytes) -> Result<Self, Fault> {
        if bytes.len() < HEADER {
            return Err(Fault::new("an inline bucket is too short"));
        }
        let head = PageHead::decode(&bytes);
        if head.kind != BRANCH && head.kind != LEAF {
            return Err(Fault::new(format!(
                "unexpected page type (flags: {:x}) for pgId:{}",
                head.kind, head.id
            )));
        }
        Ok(Self { head, bytes, next: 0, seen: false })
    }

    fn is_leaf(&self) -> bool {
        self.head.kind == LEAF
    }

    fn damaged(&self, what: &str) -> Fault {
        Fault::new(format!("page {}: {what}", self.head.id))
    }

    /// The position of the next element, and its bytes.
    fn element<const LENGTH: usize>(&mut self) -> Option<Result<(usize, &[u8]), Fault>> {
        if self.next == usize::from(self.head.count) {
            return None;
        }
        let at = HEADER + self.next * LENGTH;
        self.next += 1;
        Some(match self.bytes.get(at..at + LENGTH) {
            Some(bytes) => Ok((at, bytes)),
            None => Err(self.damaged("its elements do not fit in it")),
        })
    }

    fn slice(&self, at: usize, position: u32, length: usize) -> Result<Bytes, Fault> {
        let start = at + position as usize;
        let fits = start.checked_add(length).is_some_and(|end| end <= self.bytes.len());
        if !fits || length == 0 {
            return Err(self.damaged("a key or value does not fit in it"));
        }
        Ok(self.bytes.slice(start..start + length))
    }

    fn child(&mut self) -> Option<Result<(Bytes, u64), Fault>> {
        let (at, mut element) = match self.element::<BRANCH_ELEMENT>()? {
            Ok(found) => found,
            Err(fault) => return Some(Err(fault)),
        };
        let (position, key_length) = (element.get_u32_le(), element.get_u32_le());
        let page = element.get_u64_le();
        Some(self.slice(at, position, key_length as usize).map(|key| (key, page)))
    }

    fn entry(&mut self) -> Option<Result<Entry, Fault>> {
        let (at, mut element) = match self.element::<LEAF_ELEMENT>()? {
            Ok(found) => found,
            Err(fault) => return Some(Err(fault)),
        };
        let (flags, position) = (element.get_u32_le(), element.get_u32_le());
        let (key, value) = (element.get_u32_le() as usize, element.get_u32_le() as usize);
        Some(self.pair(at, position, key, value).and_then(|(key, value)| {
            if flags & IS_BUCKET == 0 {
                return Ok(Entry::Pair(key, value));
            }
            if value.len() < BUCKET_HEAD {
                return Err(self.damaged("a bucket in it is too short"));
            }
            let root = (&value[..]).get_u64_le();
            let inline = || Bucket::Inline(value.slice(BUCKET_HEAD..));
            Ok(Entry::Bucket(key, if root == 0 { inline() } else { Bucket::Root(root) }))
        }))
    }

    fn pair(
        &self,
        at: usize,
        position: u32,
        key: usize,
        value: usize,
    ) -> Result<(Bytes, Bytes), Fault> {
        if key == 0 {
            return Err(self.damaged("a key in it is empty"));
        }
        let mut pair = self.slice(at, position, key + value)?;
        let key = pair.split_to(key);
        Ok((key, pair))
    }
}

/// The iterator of [`Reader::entries`].
#[derive(Debug)]
pub struct Entries<'a, S> {
    reader: &'a Reader<S>,
    /// The path from the root to a leaf.
    stack: Vec<Page>,
    newest: Option<Bytes>,
    failed: Option<Fault>,
}

impl<S: Source> Entries<'_, S> {
    fn begin(mut self, root: Result<Page, Fault>) -> Self {
        match root {
            Ok(page) => self.stack.push(page),
            Err(fault) => self.failed = Some(fault),
        }
        self
    }

    fn advance(&mut self, see: &mut impl FnMut(PageHead)) -> Result<Option<Entry>, Fault> {
        loop {
            let depth = self.stack.len();
            let Some(page) = self.stack.last_mut() else { return Ok(None) };
            if !std::mem::replace(&mut page.seen, true) {
                see(page.head);
            }
            if page.is_leaf() {
                if let Some(entry) = page.entry().transpose()? {
                    let id = page.head.id;
                    self.check_order(entry.key(), id)?;
                    self.newest = Some(entry.key().clone());
                    return Ok(Some(entry));
                }
                if page.head.count == 0 && depth > 1 {
                    return Err(page.damaged("it is empty"));
                }
                self.stack.pop();
                continue;
            }
            if page.head.count == 0 {
                return Err(page.damaged("it is empty"));
            }
            match page.child().transpose()? {
                Some((key, child)) => self.descend(&key, child, depth)?,
                None => drop(self.stack.pop()),
            }
        }
    }

    /// The next entry; passes each page on the path to the observer when it is first read.
    pub(super) fn next_seeing(
        &mut self,
        see: &mut impl FnMut(PageHead),
    ) -> Option<Result<Entry, Fault>> {
        let advanced = match self.failed.take() {
            Some(fault) => Err(fault),
            None => self.advance(see),
        };
        if advanced.is_err() {
            self.stack.clear();
        }
        advanced.transpose()
    }

    fn descend(&mut self, key: &Bytes, child: u64, depth: usize) -> Result<(), Fault> {
        // Keys ascend over all pages read, so that no page is read twice and no cycle continues; a cycle of branches
        // alone ends by its depth.
        self.check_order(key, child)?;
        if depth == DEPTH_MAX {
            return Err(Fault::new(format!("page {child}: too many levels")));
        }
        self.stack.push(self.reader.page(child)?);
        Ok(())
    }

    fn check_order(&self, key: &Bytes, id: u64) -> Result<(), Fault> {
        match &self.newest {
            Some(newest) if newest >= key => {
                Err(Fault::new(format!("page {id}: its keys are not in order")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl<S: Source> Iterator for Entries<'_, S> {
    type Item = Result<Entry, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_seeing(&mut |_| ())
    }
}
