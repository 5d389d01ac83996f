//! From a file to the state of a new member of a new cluster, or of another member of the same cluster.

use bytes::Bytes;

use super::bolt::{Entry, Reader, Source};
use crate::auth;
use crate::cluster::{
    Cluster, FEATURE_LEVEL, Member, Version, check_feature_level, read_feature_level,
};
use crate::mvcc;
use crate::store::{Engine, Overlay, Space, View};
use crate::types::{ConfState, Fault, FeatureLevel, LogIndex, Revision, Term};

/// Bytes of memory for entries that are committed together: many, as each batch becomes a sorted run that is merged
/// with the others.
const BATCH_BYTES: usize = 32 << 20;
/// Overhead of an entry in memory, beside its bytes.
const ENTRY_BYTES: usize = 256;

/// Buckets whose entries are copied unchanged. The members of the old cluster are not copied.
const COPIED: [(&str, Space); 6] = [
    ("alarm", Space::Alarm),
    ("auth", Space::Auth),
    ("authRoles", Space::AuthRoles),
    ("authUsers", Space::AuthUsers),
    ("cluster", Space::Cluster),
    ("lease", Space::Lease),
];

const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const FINISHED: &[u8] = b"finishedCompactRev";
const SCHEDULED: &[u8] = b"scheduledCompactRev";

/// The term of the entries that add the new cluster's members.
const FIRST_TERM: Term = 1;

/// Options of a restore.
#[derive(Clone, Debug, Default)]
pub struct Restore {
    /// The members of the new cluster; all of them vote.
    pub members: Vec<Member>,
    /// Number by which the revision is raised, so that clients never see it decrease; everything before is then compacted.
    pub bump_revision: Option<u64>,
}

/// The log start of the new cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoredLogStart {
    /// Each member counts as added by one entry, and the whole restored state as one more: the log of a newly founded,
    /// empty member begins one entry earlier, so that it never counts as up to date with a restored one.
    pub index: LogIndex,
    /// The term of those entries.
    pub term: Term,
    /// The voters.
    pub conf_state: ConfState,
}

/// Fills an empty store from a file.
///
/// # Errors
/// The file is damaged, or the store cannot be written.
pub fn restore<E: Engine>(
    file: &Reader<impl Source>,
    engine: &mut E,
    wanted: &Restore,
) -> Result<RestoredLogStart, Fault> {
    check_version(file)?;
    let mut batch = Batch { tx: Overlay::new(engine.view()), engine, bytes: 0 };
    for (name, space) in COPIED {
        each_pair(file, name, |key, value| {
            // The new members decide on the version again: the old cluster's may be lower.
            if space == Space::Cluster && key == CLUSTER_VERSION {
                return Ok(());
            }
            batch.put(space, key, value)
        })?;
    }
    let scheduled = history(file, &mut batch, wanted.bump_revision)?;
    if let Some(scheduled) = scheduled {
        let key = Bytes::copy_from_slice(&Revision { main: scheduled, sub: 0 }.to_key());
        batch.put(Space::Meta, Bytes::from_static(SCHEDULED), key)?;
    }
    require_auth(file, &mut batch)?;
    let beginning = members(&mut batch.tx, &wanted.members)?;
    batch.commit()?;
    Ok(beginning)
}

/// Fills an empty store with the state of another member of the same cluster, unchanged: including the members and the
/// applied position.
///
/// # Errors
/// The file is damaged, or the store cannot be written.
pub fn install<E: Engine>(file: &Reader<impl Source>, engine: &mut E) -> Result<(), Fault> {
    check_version(file)?;
    let mut batch = Batch { tx: Overlay::new(engine.view()), engine, bytes: 0 };
    let others = [
        ("members", Space::Members),
        ("members_removed", Space::MembersRemoved),
        ("tokens", Space::Tokens),
    ];
    for (name, space) in COPIED.into_iter().chain(others) {
        each_pair(file, name, |key, value| batch.put(space, key, value))?;
    }
    history(file, &mut batch, None)?;
    each_pair(file, "meta", |key, value| match &key[..] {
        FINISHED | b"storageVersion" => Ok(()),
        _ => batch.put(Space::Meta, key, value),
    })?;
    batch.commit()
}

/// Where auth is on, all members must check what is asked from their first entry on: one of a version that cannot does not start
/// on such a store.
fn require_auth<E: Engine>(
    file: &Reader<impl Source>,
    batch: &mut Batch<'_, E>,
) -> Result<(), Fault> {
    let mut enabled = false;
    each_pair(file, "auth", |key, value| {
        enabled |= auth::is_enabled(&key, &value);
        Ok(())
    })?;
    let mut level = FeatureLevel::INITIAL;
    each_pair(file, "cluster", |key, value| {
        if key == FEATURE_LEVEL {
            level = read_feature_level(&value)?;
        }
        Ok(())
    })?;
    if enabled && level < FeatureLevel::AUTH {
        let text = FeatureLevel::AUTH.to_string();
        batch.put(Space::Cluster, Bytes::from_static(FEATURE_LEVEL), text.into())?;
    }
    Ok(())
}

/// Checks the storage version and feature level: older layouts are readable, newer ones unknown.
fn check_version(file: &Reader<impl Source>) -> Result<(), Fault> {
    each_pair(file, "cluster", |key, value| match key == FEATURE_LEVEL {
        true => check_feature_level(read_feature_level(&value)?, FeatureLevel::NEWEST),
        false => Ok(()),
    })?;
    let newest = Version::SERVER.minor();
    each_pair(file, "meta", |key, value| {
        let version = String::from_utf8_lossy(&value);
        if key == "storageVersion" && Version::read_minor(&version) > Some(newest) {
            return Err(Fault::new(format!(
                "the snapshot has storage version {version}, and no newer one than {newest} \
                 can be read"
            )));
        }
        Ok(())
    })
}

/// Imports the key bucket; returns the scheduled compaction.
fn history<E: Engine>(
    file: &Reader<impl Source>,
    batch: &mut Batch<'_, E>,
    bump: Option<u64>,
) -> Result<Option<i64>, Fault> {
    let (mut finished, mut scheduled) = (None, None);
    each_pair(file, "meta", |key, value| {
        match &key[..] {
            FINISHED => finished = Some((key, value)),
            SCHEDULED => scheduled = Some(compaction(&value)?),
            _ => (),
        }
        Ok(())
    })?;
    let mut compacted = scheduled.unwrap_or(0);
    if let Some((key, value)) = finished {
        compacted = compacted.max(compaction(&value)?);
        batch.put(Space::Meta, key, value)?;
    }
    let mut import = mvcc::Import::default();
    each_pair(file, "key", |key, value| {
        import.entry(&mut batch.tx, &key, &value)?;
        batch.count(key.len() + value.len())
    })?;
    if let Some(bump) = bump {
        let raised = i64::try_from(bump).ok().and_then(|bump| import.newest().checked_add(bump));
        let main = raised.ok_or_else(|| Fault::new("the revision cannot be raised so far"))?;
        import.entry(&mut batch.tx, &Revision { main, sub: 0 }.to_key(), &[])?;
        scheduled = Some(main);
    }
    import.finish(&mut batch.tx, compacted);
    Ok(scheduled)
}

fn compaction(value: &[u8]) -> Result<i64, Fault> {
    let revision = Revision::from_key(value).map(|revision| revision.main);
    revision.ok_or_else(|| Fault::new("a compacted revision in the file cannot be read"))
}

/// Adds the members of the new cluster.
fn members<V: View>(tx: &mut Overlay<V>, members: &[Member]) -> Result<RestoredLogStart, Fault> {
    let mut cluster = Cluster::default();
    let mut voters: Vec<_> = members.iter().map(|member| member.id).collect();
    voters.sort_unstable();
    members.iter().for_each(|member| cluster.put(tx, member.clone()));
    let (index, term) = (members.len() as LogIndex + 1, FIRST_TERM);
    let number = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
    let json = serde_json::json!({ "voters": voters, "auto_leave": false }).to_string();
    tx.put(Space::Meta, Bytes::from_static(b"consistent_index"), number(index));
    tx.put(Space::Meta, Bytes::from_static(b"term"), number(term));
    tx.put(Space::Meta, Bytes::from_static(b"confState"), json.into());
    Ok(RestoredLogStart { index, term, conf_state: ConfState { voters, ..ConfState::default() } })
}

/// Calls `show` with every pair of a bucket; a missing bucket has none.
pub(super) fn each_pair(
    file: &Reader<impl Source>,
    bucket: &str,
    mut show: impl FnMut(Bytes, Bytes) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let Some(bucket) = file.bucket(bucket.as_bytes())? else { return Ok(()) };
    for entry in file.entries(&bucket) {
        match entry? {
            Entry::Pair(key, value) => show(key, value)?,
            Entry::Bucket(..) => return Err(Fault::new("a bucket within a bucket of etcd's")),
        }
    }
    Ok(())
}

/// Writes that are committed in batches.
struct Batch<'a, E: Engine> {
    tx: Overlay<E::View>,
    engine: &'a mut E,
    bytes: usize,
}

impl<E: Engine> Batch<'_, E> {
    fn put(&mut self, space: Space, key: Bytes, value: Bytes) -> Result<(), Fault> {
        let bytes = key.len() + value.len();
        // Slices would keep whole pages in memory.
        self.tx.put(space, Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
        self.count(bytes)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes += bytes + ENTRY_BYTES;
        if self.bytes < BATCH_BYTES { Ok(()) } else { self.commit() }
    }

    fn commit(&mut self) -> Result<(), Fault> {
        self.bytes = 0;
        self.engine.commit(self.tx.take())?;
        self.tx.rebase(self.engine.view());
        Ok(())
    }
}
