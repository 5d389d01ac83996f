//! Writes a file front to back from entries in order.
//!
//! A leaf is written when the next entry does not fit, a branch when its level is full; so children are written before
//! their parents and the root last. Since page 0 refers to the root, a first [`Writer`] only counts and returns a
//! [`Plan`]; the second, fed with the same entries, writes by it.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    BRANCH, BRANCH_ELEMENT, BUCKET_HEAD, FREELIST, HEADER, IS_BUCKET, KEY_BYTES_MAX, LEAF,
    LEAF_ELEMENT, META_PAGE, Meta, PAGE_BYTES, PageHead, VALUE_BYTES_MAX,
};
use crate::types::Fault;

/// The page of the (empty) list of free pages; those before it are meta pages.
const FREELIST_PAGE: u64 = 2;
/// The first page of the trees.
const FIRST_PAGE: u64 = 3;
/// A bucket of one leaf up to this size has no page of its own, as in bbolt.
const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;
/// bbolt requires two children in each branch: when one is full, so many stay for the next.
const CHILDREN_MIN: usize = 2;

/// Sizes that must be known before the first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    root: u64,
    pages: u64,
}

impl Plan {
    /// The length of the file.
    pub fn bytes(self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }
}

/// Accepts buckets and entries in order, returns the bytes of the file in order.
#[derive(Debug)]
pub struct Writer {
    pages: Pages,
    plan: Option<Plan>,
    buckets: Tree,
    bucket: Option<(Bytes, Tree)>,
}

impl Writer {
    /// A writer that computes the sizes.
    pub fn counting() -> Self {
        let pages = Pages { next: FIRST_PAGE, out: None };
        Self { pages, plan: None, buckets: Tree::default(), bucket: None }
    }

    /// A writer that must be given the same entries as the one that made the plan.
    pub fn writing(plan: Plan) -> Self {
        let mut out = BytesMut::with_capacity(4 * PAGE_BYTES);
        // The first page has the newer transaction; the next transaction is written to the second.
        for (id, transaction) in [(0, 2), (1, 1)] {
            let head = PageHead { id, kind: META_PAGE, count: 0, overflow: 0 };
            let (root, pages) = (plan.root, plan.pages);
            let (page_bytes, freelist) = (PAGE_BYTES as u32, FREELIST_PAGE);
            head.encode(&mut out);
            out.put_slice(&Meta { page_bytes, root, freelist, pages, transaction }.encode());
            out.resize((id as usize + 1) * PAGE_BYTES, 0);
        }
        let head = PageHead { id: FREELIST_PAGE, kind: FREELIST, count: 0, overflow: 0 };
        head.encode(&mut out);
        out.resize(FIRST_PAGE as usize * PAGE_BYTES, 0);
        let pages = Pages { next: FIRST_PAGE, out: Some(out) };
        Self { pages, plan: Some(plan), buckets: Tree::default(), bucket: None }
    }

    /// Ends the previous bucket and begins another; names ascend.
    ///
    /// # Errors
    /// The name is not valid in bbolt.
    pub fn bucket(&mut self, name: Bytes) -> Result<(), Fault> {
        self.end_bucket()?;
        self.bucket = Some((name, Tree::default()));
        Ok(())
    }

    /// Adds an entry to the bucket; keys ascend.
    ///
    /// # Errors
    /// The key or value is not valid in bbolt, or there is no bucket yet.
    pub fn entry(&mut self, key: Bytes, value: Bytes) -> Result<(), Fault> {
        let Some((_, tree)) = &mut self.bucket else {
            return Err(Fault::new("an entry outside of all buckets"));
        };
        tree.push(Item { flags: 0, key, value }, &mut self.pages)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The entries are not those of the plan.
    pub fn finish(&mut self) -> Result<Plan, Fault> {
        self.end_bucket()?;
        let root = std::mem::take(&mut self.buckets).finish(&mut self.pages);
        let plan = Plan { root, pages: self.pages.next };
        match self.plan {
            Some(planned) if planned != plan => Err(Fault::new(format!(
                "a snapshot of {} pages was planned and {} were written",
                planned.pages, plan.pages
            ))),
            Some(_) | None => Ok(plan),
        }
    }

    /// Number of bytes that are ready.
    pub fn ready(&self) -> usize {
        self.pages.out.as_ref().map_or(0, BytesMut::len)
    }

    /// Takes up to `length` bytes that are ready.
    pub fn take(&mut self, length: usize) -> Bytes {
        match &mut self.pages.out {
            Some(out) => out.split_to(length.min(out.len())).freeze(),
            None => Bytes::new(),
        }
    }

    fn end_bucket(&mut self) -> Result<(), Fault> {
        let Some((key, tree)) = self.bucket.take() else { return Ok(()) };
        let mut value = Vec::with_capacity(BUCKET_HEAD);
        if tree.fits_inline() {
            value.put_bytes(0, BUCKET_HEAD);
            encode_leaf(0, &tree.leaf, &mut value);
        } else {
            value.put_u64_le(tree.finish(&mut self.pages));
            value.put_u64_le(0);
        }
        let item = Item { flags: IS_BUCKET, key, value: value.into() };
        self.buckets.push(item, &mut self.pages)
    }
}

/// An element of a leaf.
#[derive(Debug)]
struct Item {
    flags: u32,
    key: Bytes,
    value: Bytes,
}

impl Item {
    fn bytes(&self) -> usize {
        LEAF_ELEMENT + self.key.len() + self.value.len()
    }
}

/// An element of a branch.
#[derive(Debug)]
struct Child {
    key: Bytes,
    page: u64,
}

/// A tree of which only the right edge is in memory.
#[derive(Debug, Default)]
struct Tree {
    leaf: Vec<Item>,
    leaf_bytes: usize,
    /// From the lowest branches up.
    branches: Vec<Vec<Child>>,
    newest: Option<Bytes>,
}

impl Tree {
    fn push(&mut self, item: Item, pages: &mut Pages) -> Result<(), Fault> {
        let takes = (1..=KEY_BYTES_MAX).contains(&item.key.len())
            && item.value.len() <= VALUE_BYTES_MAX
            && self.newest.as_ref().is_none_or(|newest| *newest < item.key);
        if !takes {
            return Err(Fault::new(format!(
                "a snapshot cannot hold the key {:?} with a value of {} bytes here",
                item.key,
                item.value.len()
            )));
        }
        if !self.leaf.is_empty() && HEADER + self.leaf_bytes + item.bytes() > PAGE_BYTES {
            self.flush_leaf(pages);
        }
        self.newest = Some(item.key.clone());
        self.leaf_bytes += item.bytes();
        self.leaf.push(item);
        Ok(())
    }

    fn fits_inline(&self) -> bool {
        self.branches.is_empty() && HEADER + self.leaf_bytes <= INLINE_BYTES_MAX
    }

    /// The page of the root.
    fn finish(mut self, pages: &mut Pages) -> u64 {
        if self.branches.is_empty() {
            return pages.leaf(&self.leaf);
        }
        if !self.leaf.is_empty() {
            self.flush_leaf(pages);
        }
        let (mut level, mut root) = (0, 0);
        while level < self.branches.len() {
            // At least two, or else the children of this level would not have been split.
            let children = std::mem::take(&mut self.branches[level]);
            root = pages.branch(&children);
            level += 1;
            if level < self.branches.len()
                && let Some(first) = children.into_iter().next()
            {
                self.child(level, Child { key: first.key, page: root }, pages);
            }
        }
        root
    }

    fn flush_leaf(&mut self, pages: &mut Pages) {
        let leaf = std::mem::take(&mut self.leaf);
        self.leaf_bytes = 0;
        let page = pages.leaf(&leaf);
        if let Some(first) = leaf.into_iter().next() {
            self.child(0, Child { key: first.key, page }, pages);
        }
    }

    fn child(&mut self, level: usize, child: Child, pages: &mut Pages) {
        if level == self.branches.len() {
            self.branches.push(Vec::new());
        }
        let children = &mut self.branches[level];
        children.push(child);
        if branch_bytes(children) <= PAGE_BYTES || children.len() < 2 * CHILDREN_MIN {
            return;
        }
        let kept = children.split_off(children.len() - CHILDREN_MIN);
        let full = std::mem::replace(children, kept);
        let page = pages.branch(&full);
        if let Some(first) = full.into_iter().next() {
            self.child(level + 1, Child { key: first.key, page }, pages);
        }
    }
}

fn branch_bytes(children: &[Child]) -> usize {
    HEADER + children.iter().map(|child| BRANCH_ELEMENT + child.key.len()).sum::<usize>()
}

fn leaf_bytes(items: &[Item]) -> usize {
    HEADER + items.iter().map(Item::bytes).sum::<usize>()
}

/// Assigns pages in order, and writes them if there is a buffer.
#[derive(Debug)]
struct Pages {
    next: u64,
    out: Option<BytesMut>,
}

impl Pages {
    fn leaf(&mut self, items: &[Item]) -> u64 {
        self.page(leaf_bytes(items), |id, out| encode_leaf(id, items, out))
    }

    fn branch(&mut self, children: &[Child]) -> u64 {
        self.page(branch_bytes(children), |id, out| encode_branch(id, children, out))
    }

    fn page(&mut self, bytes: usize, encode: impl FnOnce(u64, &mut BytesMut)) -> u64 {
        let id = self.next;
        let pages = bytes.div_ceil(PAGE_BYTES);
        self.next += pages as u64;
        if let Some(out) = &mut self.out {
            let end = out.len() + pages * PAGE_BYTES;
            out.reserve(pages * PAGE_BYTES);
            encode(id, out);
            out.resize(end, 0);
        }
        id
    }
}

fn overflow(bytes: usize) -> u32 {
    (bytes.div_ceil(PAGE_BYTES) - 1) as u32
}

fn encode_leaf(id: u64, items: &[Item], out: &mut impl bytes::BufMut) {
    let overflow = overflow(leaf_bytes(items));
    PageHead { id, kind: LEAF, count: items.len() as u16, overflow }.encode(out);
    // Positions are counted from the beginning of each element.
    let mut position = items.len() * LEAF_ELEMENT;
    for item in items {
        out.put_u32_le(item.flags);
        out.put_u32_le(position as u32);
        out.put_u32_le(item.key.len() as u32);
        out.put_u32_le(item.value.len() as u32);
        position = position + item.bytes() - 2 * LEAF_ELEMENT;
    }
    for item in items {
        out.put_slice(&item.key);
        out.put_slice(&item.value);
    }
}

fn encode_branch(id: u64, children: &[Child], out: &mut BytesMut) {
    let overflow = overflow(branch_bytes(children));
    PageHead { id, kind: BRANCH, count: children.len() as u16, overflow }.encode(out);
    let mut position = children.len() * BRANCH_ELEMENT;
    for child in children {
        out.put_u32_le(position as u32);
        out.put_u32_le(child.key.len() as u32);
        out.put_u64_le(child.page);
        position = position + child.key.len() - BRANCH_ELEMENT;
    }
    for child in children {
        out.put_slice(&child.key);
    }
}
