//! Properties of a file, without a store: etcdutl's `snapshot status` and `hashkv`.

use std::collections::{BTreeMap, BTreeSet};

use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message as _;

use super::bolt::{Entry, Reader, Source};
use super::import::each_pair;
use crate::types::{Error, Fault, Refusal, Revision};

const KEY_BUCKET: &str = "key";
const TOMBSTONE_MARK: u8 = b't';
/// The revision of an empty store.
const FIRST_REVISION: i64 = 1;

/// Properties of a whole file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// The checksum of all buckets' names, keys and values.
    pub hash: u32,
    /// The newest revision that has an entry.
    pub revision: i64,
    /// Number of keys.
    pub keys: usize,
    /// The file's size as its meta page states it.
    pub bytes: u64,
    /// etcd's storage version; empty before 3.6.
    pub version: String,
}

/// Checksum of the history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvHash {
    /// The checksum.
    pub hash: u32,
    /// The revision up to which it was computed.
    pub revision: i64,
    /// The compaction revision that it covers; -1 for none.
    pub compact_revision: i64,
}

/// Reads a whole file.
///
/// # Errors
/// The file is damaged.
pub fn status(file: &Reader<impl Source>) -> Result<Status, Fault> {
    let faults = file.check();
    if !faults.is_empty() {
        return Err(Fault::new(format!(
            "snapshot file integrity check failed. {} errors found.\n{}",
            faults.len(),
            faults.join("\n")
        )));
    }
    let mut status = Status { bytes: file.bytes(), ..Status::default() };
    let mut alive = BTreeSet::new();
    each_pair(file, "meta", |key, value| {
        if key == "storageVersion" {
            status.version = String::from_utf8_lossy(&value).into_owned();
        }
        Ok(())
    })?;
    for bucket in file.entries(&file.root()) {
        let Entry::Bucket(name, bucket) = bucket? else {
            return Err(Fault::new("an entry outside of all buckets"));
        };
        add(&mut status.hash, &name);
        for entry in file.entries(&bucket) {
            let (key, value) = match entry? {
                Entry::Pair(key, value) => (key, value),
                Entry::Bucket(key, _) => (key, Bytes::new()),
            };
            add(&mut status.hash, &key);
            add(&mut status.hash, &value);
            if name == KEY_BUCKET {
                let (revision, delete) = revision(&key)?;
                status.revision = revision.main;
                let changed = key_of(value)?;
                if delete {
                    alive.remove(&changed)
                } else {
                    alive.insert(changed)
                };
            }
        }
    }
    status.keys = alive.len();
    Ok(status)
}

/// The same number as the server's `HashKV` for the same history. `at` is a revision, 0 for the newest.
///
/// # Errors
/// `Compacted`, `FutureRev`, or the file is damaged.
pub fn hash_kv(file: &Reader<impl Source>, at: i64) -> Result<KvHash, Error> {
    let (compacted, newest) = (compacted(file)?, newest(file)?);
    let newest = newest.max(compacted);
    if at > 0 && at < compacted {
        return Err(Refusal::Compacted.into());
    }
    if at > newest {
        return Err(Refusal::FutureRev.into());
    }
    let at = if at == 0 { newest } else { at };
    let kept = kept(file, at, compacted)?;
    let mut hash = 0;
    add(&mut hash, KEY_BUCKET.as_bytes());
    each_pair(file, KEY_BUCKET, |key, value| {
        let (revision, delete) = revision(&key)?;
        let counts = revision.main > compacted
            || !(delete && revision.main == compacted)
                && (kept.is_empty() || kept.contains(&revision));
        if revision.main <= at && counts {
            add(&mut hash, &key);
            add(&mut hash, &value);
        }
        Ok(())
    })?;
    Ok(KvHash { hash, revision: at, compact_revision: compacted })
}

fn add(hash: &mut u32, bytes: &[u8]) {
    *hash = crc32c::crc32c_append(*hash, bytes);
}

fn revision(key: &[u8]) -> Result<(Revision, bool), Fault> {
    let (bytes, delete) = match key.strip_suffix(&[TOMBSTONE_MARK]) {
        Some(bytes) if bytes.len() == Revision::KEY_LENGTH => (bytes, true),
        _ => (key, false),
    };
    let revision = Revision::from_key(bytes);
    let revision =
        revision.ok_or_else(|| Fault::new(format!("cannot parse revision key: {key:?}")))?;
    Ok((revision, delete))
}

fn key_of(value: Bytes) -> Result<Bytes, Fault> {
    let decoded = KeyValue::decode(value);
    let decoded =
        decoded.map_err(|error| Fault::new(format!("cannot unmarshal value: {error}")))?;
    // A slice would keep the page in memory.
    Ok(Bytes::copy_from_slice(&decoded.key))
}

fn compacted(file: &Reader<impl Source>) -> Result<i64, Fault> {
    let mut compacted = -1;
    each_pair(file, "meta", |key, value| {
        if key == "finishedCompactRev" || key == "scheduledCompactRev" {
            compacted = compacted.max(revision(&value)?.0.main);
        }
        Ok(())
    })?;
    Ok(compacted)
}

fn newest(file: &Reader<impl Source>) -> Result<i64, Fault> {
    let mut newest = FIRST_REVISION;
    each_pair(file, KEY_BUCKET, |key, _| {
        newest = revision(&key)?.0.main;
        Ok(())
    })?;
    Ok(newest)
}

/// The newest versions at a revision that are not deletes: those that the hash counts of the time before the compaction.
fn kept(file: &Reader<impl Source>, at: i64, compacted: i64) -> Result<BTreeSet<Revision>, Fault> {
    if compacted < 0 {
        return Ok(BTreeSet::new());
    }
    let mut newest = BTreeMap::new();
    each_pair(file, KEY_BUCKET, |key, value| {
        let (revision, delete) = revision(&key)?;
        if revision.main <= at {
            let changed = key_of(value)?;
            if delete {
                newest.remove(&changed)
            } else {
                newest.insert(changed, revision)
            };
        }
        Ok(())
    })?;
    Ok(newest.into_values().collect())
}
