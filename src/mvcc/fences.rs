//! How many keys live where, without reading them.
//!
//! Fence posts cut the key space into stretches of a few hundred live keys; each post knows the count of
//! its stretch, each chunk of posts knows its sum. A count adds whole chunks and whole stretches and
//! scans only the two ends. Chunks are shared copy-on-write, so that publishing after each batch costs
//! one clone of the list of chunks.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::{Fault, KeyRange};

/// Live keys in a stretch before it is cut in two.
const STRETCH_MAX: u64 = 512;
/// Two neighbours that together hold no more become one.
const STRETCH_MERGE: u64 = 128;
/// Posts in a chunk before it is cut in two.
const CHUNK_MAX: usize = 128;

#[derive(Clone, Debug)]
struct Post {
    /// The stretch begins here and ends at the next post.
    from: Bytes,
    live: u64,
}

#[derive(Clone, Debug)]
struct Chunk {
    posts: Vec<Post>,
    live: u64,
}

/// Counts by stretch; the first stretch begins at the empty key.
#[derive(Clone, Debug)]
pub(super) struct Fences {
    chunks: Arc<Vec<Arc<Chunk>>>,
}

/// A stretch that a count must look into, or that must be cut.
pub(super) struct Stretch {
    pub(super) from: Bytes,
    /// `None`: to the end.
    pub(super) to: Option<Bytes>,
}

impl Default for Fences {
    fn default() -> Self {
        let post = Post { from: Bytes::new(), live: 0 };
        Self { chunks: Arc::new(vec![Arc::new(Chunk { posts: vec![post], live: 0 })]) }
    }
}

impl Fences {
    /// Where to cut a stretch that has grown too long: before its key of this position.
    pub(super) const HALF_STRETCH: usize = STRETCH_MAX as usize / 2;

    /// From all live keys in order.
    pub(super) fn build(keys: impl Iterator<Item = Result<Bytes, Fault>>) -> Result<Self, Fault> {
        let mut posts = vec![Post { from: Bytes::new(), live: 0 }];
        for key in keys {
            let key = key?;
            let last = posts.len() - 1;
            if posts[last].live >= STRETCH_MAX / 2 {
                posts.push(Post { from: Bytes::copy_from_slice(&key), live: 1 });
            } else {
                posts[last].live += 1;
            }
        }
        let chunk = |posts: &[Post]| {
            let live = posts.iter().map(|post| post.live).sum();
            Arc::new(Chunk { posts: posts.to_vec(), live })
        };
        Ok(Self { chunks: Arc::new(posts.chunks(CHUNK_MAX / 2).map(chunk).collect()) })
    }

    /// Where the stretch of `key` is: chunk and post.
    fn find(&self, key: &[u8]) -> (usize, usize) {
        let chunk = self.chunks.partition_point(|chunk| chunk.posts[0].from <= key).max(1) - 1;
        let posts = &self.chunks[chunk].posts;
        (chunk, posts.partition_point(|post| post.from <= key).max(1) - 1)
    }

    fn stretch(&self, chunk: usize, post: usize) -> Stretch {
        let posts = &self.chunks[chunk].posts;
        let next = posts.get(post + 1);
        let next = next.or_else(|| self.chunks.get(chunk + 1).map(|chunk| &chunk.posts[0]));
        Stretch { from: posts[post].from.clone(), to: next.map(|post| post.from.clone()) }
    }

    fn chunk_mut(&mut self, chunk: usize) -> &mut Chunk {
        Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[chunk])
    }

    /// A key came into being. If its stretch has grown too long the answer is that stretch, to be cut with
    /// [`Fences::cut`].
    pub(super) fn born(&mut self, key: &[u8]) -> Option<Stretch> {
        let (chunk, post) = self.find(key);
        let held = self.chunk_mut(chunk);
        held.live += 1;
        held.posts[post].live += 1;
        (held.posts[post].live > STRETCH_MAX).then(|| self.stretch(chunk, post))
    }

    /// A key died.
    pub(super) fn died(&mut self, key: &[u8]) {
        let (chunk, post) = self.find(key);
        let held = self.chunk_mut(chunk);
        assert!(held.posts[post].live > 0, "a key died where none lived");
        held.live -= 1;
        held.posts[post].live -= 1;
        let alone = post == 0 || held.posts[post - 1].live + held.posts[post].live > STRETCH_MERGE;
        if !alone {
            let gone = held.posts.remove(post);
            held.posts[post - 1].live += gone.live;
        }
    }

    /// Cuts the stretch that begins at `from` at `at`; `before` of its keys lie before the cut.
    pub(super) fn cut(&mut self, from: &[u8], at: Bytes, before: u64) {
        let (chunk, post) = self.find(from);
        let held = self.chunk_mut(chunk);
        let live = held.posts[post].live;
        assert!(before <= live && held.posts[post].from < at, "a cut outside of its stretch");
        held.posts[post].live = before;
        held.posts.insert(post + 1, Post { from: at, live: live - before });
        if held.posts.len() > CHUNK_MAX {
            let posts = held.posts.split_off(CHUNK_MAX / 2);
            let live = posts.iter().map(|post| post.live).sum();
            held.live -= live;
            Arc::make_mut(&mut self.chunks).insert(chunk + 1, Arc::new(Chunk { posts, live }));
        }
    }

    /// Live keys in `range`: `scan` counts those in the part of a stretch that the range covers.
    pub(super) fn count(
        &self,
        range: &KeyRange,
        mut scan: impl FnMut(&KeyRange) -> Result<u64, Fault>,
    ) -> Result<u64, Fault> {
        if range.is_empty() {
            return Ok(0);
        }
        let end = match range {
            KeyRange::One(_) => return scan(range),
            KeyRange::Span(_, end) => Some(end),
            KeyRange::From(_) => None,
        };
        let start = range.start();
        let first = self.find(start);
        let last = end.map(|end| self.find(end));
        let head = self.stretch(first.0, first.1);
        if last == Some(first) {
            return scan(range);
        }
        let mut count = self.between(first, last);
        if head.from == start {
            count += self.chunks[first.0].posts[first.1].live;
        } else {
            let part = match head.to {
                Some(to) => KeyRange::Span(start.clone(), to),
                None => KeyRange::From(start.clone()),
            };
            count += scan(&part)?;
        }
        if let (Some(last), Some(end)) = (last, end) {
            let tail = self.stretch(last.0, last.1);
            if tail.from != end {
                count += scan(&KeyRange::Span(tail.from, end.clone()))?;
            }
        }
        Ok(count)
    }

    /// Live keys in the stretches strictly between two.
    fn between(&self, first: (usize, usize), last: Option<(usize, usize)>) -> u64 {
        let last = last.unwrap_or((self.chunks.len(), 0));
        let posts = |chunk: usize, from: usize, to: usize| -> u64 {
            self.chunks[chunk].posts[from..to].iter().map(|post| post.live).sum()
        };
        if first.0 == last.0 {
            return posts(first.0, first.1 + 1, last.1);
        }
        let whole = self.chunks[first.0 + 1..last.0].iter().map(|chunk| chunk.live).sum::<u64>();
        let tail = if last.0 < self.chunks.len() { posts(last.0, 0, last.1) } else { 0 };
        posts(first.0, first.1 + 1, self.chunks[first.0].posts.len()) + whole + tail
    }
}
