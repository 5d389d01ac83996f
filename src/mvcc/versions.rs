//! The versions of a key, found from its newest record.

use super::record::Record;
use crate::store::{Space, View};
use crate::types::{Fault, Revision};

/// The newest record of `key`, tombstones included.
pub(super) fn newest(view: &impl View, key: &[u8]) -> Result<Option<Record>, Fault> {
    view.get(Space::Kv, key)?.map(Record::new).transpose()
}

/// The record of the event at `revision` in `log`, if compaction has not removed it; maybe a stub.
pub(super) fn logged(view: &impl View, revision: Revision) -> Result<Option<Record>, Fault> {
    view.get(Space::Log, &revision.to_key())?.map(Record::new).transpose()
}

/// The whole record of a stub. A key's newest record is in `kv`, any other in `superseded`.
pub(super) fn whole(view: &impl View, record: Record) -> Result<Record, Fault> {
    if !record.is_stub() {
        return Ok(record);
    }
    let revision = record.revision()?;
    if let Some(superseded) = view.get(Space::Superseded, &revision.to_key())? {
        return Record::new(superseded);
    }
    match newest(view, &record.key()?)? {
        Some(newest) if newest.revision()? == revision => Ok(newest),
        Some(_) | None => Err(lacks(revision)),
    }
}

/// The fault of a history with a gap.
pub(super) fn lacks(revision: Revision) -> Fault {
    Fault::new(format!("history lacks revision {}", revision.main))
}

/// The version of a key at the main revision `at`, found from a newer one; tombstones included, and maybe a stub.
pub(super) fn version_at(
    view: &impl View,
    newest: Record,
    at: i64,
) -> Result<Option<Record>, Fault> {
    let mut record = newest;
    while record.main()? > at {
        // The oldest ancestor that is still too new skips the most versions.
        let mut target = None;
        for ancestor in record.ancestors()? {
            let ancestor = ancestor?;
            if ancestor.main > at || target.is_none() {
                target = Some(ancestor);
            }
            if ancestor.main <= at {
                break;
            }
        }
        let Some(target) = target else { return Ok(None) };
        record = match logged(view, target)? {
            Some(older) => older,
            // A tombstone that compaction has removed.
            None if target.main <= at => return Ok(None),
            None => return Err(lacks(target)),
        };
    }
    Ok(Some(record))
}
