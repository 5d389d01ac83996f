//! From the state to the bytes of a file, in steps.

use std::ops::Bound;

use bytes::Bytes;

use super::bolt::{Plan, Writer};
use crate::cluster::{Version, cluster_version};
use crate::mvcc;
use crate::store::{Pair, Space, View};
use crate::types::Fault;

/// Upper bound of entries read in one step.
const STEP_ENTRIES: usize = 256;
/// Bytes of entries after which a step ends.
const STEP_BYTES: usize = 256 << 10;

/// Source of a bucket's entries.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// The space of the same name and encoding.
    Space(Space),
    /// Positions of the log and of compaction, in etcd's encoding.
    Meta,
    /// The history.
    Key,
}

/// For whom a file is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// An operator, who may read it anywhere and restore another cluster from it: without tokens.
    File,
    /// Another member of the cluster: all of the state.
    Member,
}

/// etcd's buckets, and ours for other members, in the order of their names.
const BUCKETS: [(&str, Origin); 11] = [
    ("alarm", Origin::Space(Space::Alarm)),
    ("auth", Origin::Space(Space::Auth)),
    ("authRoles", Origin::Space(Space::AuthRoles)),
    ("authUsers", Origin::Space(Space::AuthUsers)),
    ("cluster", Origin::Space(Space::Cluster)),
    ("key", Origin::Key),
    ("lease", Origin::Space(Space::Lease)),
    ("members", Origin::Space(Space::Members)),
    ("members_removed", Origin::Space(Space::MembersRemoved)),
    ("meta", Origin::Meta),
    ("tokens", Origin::Space(Space::Tokens)),
];

/// Keys in etcd's bucket `meta`, in order, beside the storage version.
const META_KEYS: [&str; 5] =
    ["confState", "consistent_index", "finishedCompactRev", "scheduledCompactRev", "term"];
const STORAGE_VERSION_KEY: &str = "storageVersion";

/// The result of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExportStep {
    /// More steps are needed before the next bytes are known.
    Working,
    /// The next bytes of the file.
    Chunk(Bytes),
    /// The end of the file.
    Done,
}

/// A file being made from one view.
#[derive(Debug)]
pub struct Export<V> {
    view: V,
    scope: Scope,
    writer: Writer,
    plan: Option<Plan>,
    /// The current bucket, and its newest key that was read.
    bucket: usize,
    after: Bytes,
    begun: bool,
    done: bool,
}

impl<V: View> Export<V> {
    /// Starts with the pass for the sizes.
    pub fn new(view: V, scope: Scope) -> Self {
        Self {
            view,
            scope,
            writer: Writer::counting(),
            plan: None,
            bucket: 0,
            after: Bytes::new(),
            begun: false,
            done: false,
        }
    }

    /// The size of the file; known from the first chunk on.
    pub fn length(&self) -> Option<u64> {
        self.plan.map(Plan::bytes)
    }

    /// Bytes of the file that are in memory.
    pub fn held(&self) -> usize {
        self.writer.ready()
    }

    /// Performs a step. Chunks have `chunk` bytes, except for the last one.
    ///
    /// # Errors
    /// A fault of the store.
    pub fn step(&mut self, chunk: usize) -> Result<ExportStep, Fault> {
        let ready = self.writer.ready();
        if ready >= chunk || (self.done && ready > 0) {
            return Ok(ExportStep::Chunk(self.writer.take(chunk)));
        }
        if self.done {
            return Ok(ExportStep::Done);
        }
        match BUCKETS.get(self.bucket) {
            Some((_, Origin::Space(Space::Tokens))) if !self.has_tokens()? => self.bucket += 1,
            Some((name, origin)) => self.entries(name, *origin)?,
            None => self.end_pass()?,
        }
        Ok(ExportStep::Working)
    }

    /// True if there are tokens, and they belong into the file.
    fn has_tokens(&self) -> Result<bool, Fault> {
        let mut tokens = self.view.scan(Space::Tokens, Bound::Unbounded, Bound::Unbounded);
        Ok(self.scope == Scope::Member && tokens.next().transpose()?.is_some())
    }

    fn end_pass(&mut self) -> Result<(), Fault> {
        let plan = self.writer.finish()?;
        match self.plan {
            Some(_) => self.done = true,
            None => {
                self.plan = Some(plan);
                self.writer = Writer::writing(plan);
                self.bucket = 0;
            }
        }
        Ok(())
    }

    fn entries(&mut self, name: &'static str, origin: Origin) -> Result<(), Fault> {
        if !std::mem::replace(&mut self.begun, true) {
            self.writer.bucket(Bytes::from_static(name.as_bytes()))?;
        }
        let (writer, after) = (&mut self.writer, self.after.clone());
        let more = match origin {
            Origin::Meta => {
                for (key, value) in meta(&self.view)? {
                    writer.entry(key, value)?;
                }
                false
            }
            // The first pass needs lengths only.
            Origin::Key if self.plan.is_none() => {
                write_step(writer, &mut self.after, mvcc::bucket_outline(&self.view, &after))?
            }
            Origin::Key => write_step(writer, &mut self.after, mvcc::bucket(&self.view, &after))?,
            Origin::Space(space) => {
                let from =
                    if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(&after[..]) };
                let pairs = self.view.scan(space, from, Bound::Unbounded);
                write_step(writer, &mut self.after, pairs)?
            }
        };
        if !more {
            self.bucket += 1;
            self.after = Bytes::new();
            self.begun = false;
        }
        Ok(())
    }
}

/// Writes pairs until a step ends; true if there may be more.
fn write_step(
    writer: &mut Writer,
    after: &mut Bytes,
    pairs: impl Iterator<Item = Result<Pair, Fault>>,
) -> Result<bool, Fault> {
    let mut bytes = 0;
    for (count, pair) in pairs.enumerate() {
        let (key, value) = pair?;
        bytes += key.len() + value.len();
        *after = key.clone();
        writer.entry(key, value)?;
        if bytes >= STEP_BYTES || count + 1 == STEP_ENTRIES {
            return Ok(true);
        }
    }
    Ok(false)
}

fn meta(view: &impl View) -> Result<Vec<Pair>, Fault> {
    let mut pairs = Vec::with_capacity(META_KEYS.len() + 1);
    for key in META_KEYS {
        let found = view.get(Space::Meta, key.as_bytes())?;
        pairs.extend(found.map(|value| (Bytes::from_static(key.as_bytes()), value)));
    }
    // As in etcd's file, the version is missing until the store has followed the cluster to a version that has it.
    let version = cluster_version(view)?.map(Version::storage);
    let version = version.filter(|version| *version > Version::STORAGE_UNSAID);
    let key = Bytes::from_static(STORAGE_VERSION_KEY.as_bytes());
    pairs.extend(version.map(|version| (key, version.to_string().into())));
    pairs.sort();
    Ok(pairs)
}
