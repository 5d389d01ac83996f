//! `verify` and `snapshot save`: inspect the files of a member that does not start. If this version cannot apply an
//! entry of the log, they print the entry and the possible remedies, and save everything before it.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use basalt::io::{LsmEngine, current_store, lock_data_dir, read_log, rename_durably};
use basalt::lease::ttl_min;
use basalt::machine::{self, Machine, applied_state, check_payload};
use basalt::snapshot::{Export, ExportStep, Scope};
use basalt::store::Engine as _;
use basalt::types::limits::RECORD_CACHE_BYTES;
use basalt::types::{CacheBytes, Entry, EntryKind, Fault, FeatureLevel, LogIndex};
use basalt::wal::Replay;
use sha2::{Digest as _, Sha256};

use crate::args::Args;
use crate::{Failure, exit, output};

/// etcd's defaults, which determine the result of a replayed lease grant and of a replayed membership change.
const ELECTION_MS: u64 = 1000;
const LEARNERS_MAX: usize = 1;
/// Size of one write.
const CHUNK_BYTES: usize = 1 << 20;

/// The files of a member, locked by this process.
struct Files {
    _lock: File,
    store: LsmEngine,
    log: Replay,
}

impl Files {
    fn open(args: &Args) -> Result<Self, Failure> {
        let data_dir = Path::new(args.get("data-dir"));
        let member = data_dir.join("member");
        let wal_dir = match args.get("wal-dir") {
            "" => member.join("wal"),
            given => PathBuf::from(given),
        };
        let (store, _) = current_store(&member).map_err(Failure::error)?;
        for dir in [&store, &wal_dir] {
            dir.metadata().map_err(|error| Failure::file("stat", dir, &error))?;
        }
        let lock = lock_data_dir(&member).map_err(Failure::error)?;
        let log = read_log(&wal_dir).map_err(Failure::error)?;
        let store = LsmEngine::open(&store).map_err(Failure::error)?;
        let (applied, ..) = applied_state(&store.view()).map_err(Failure::error)?;
        log.check_store(applied).map_err(Failure::error)?;
        Ok(Self { _lock: lock, store, log })
    }

    /// The last log entry that the store contains.
    fn applied(&self) -> Result<LogIndex, Failure> {
        applied_state(&self.store.view()).map(|(applied, ..)| applied).map_err(Failure::error)
    }

    /// The first entry that the store does not contain and this version cannot apply, with the reason.
    fn unreadable(&self) -> Result<Option<(&Entry, Fault)>, Failure> {
        let applied = self.applied()?;
        let mut left = self.log.entries.iter().filter(|entry| entry.index > applied);
        Ok(left.find_map(|entry| {
            let checked = check_payload(entry.kind, &entry.data, FeatureLevel::NEWEST);
            checked.err().map(|fault| (entry, fault))
        }))
    }
}

/// Prints if this version can apply the log, and the remedies if it cannot.
///
/// # Errors
/// An entry cannot be applied, or the files cannot be read.
pub(crate) fn verify(args: &Args) -> Result<(), Failure> {
    let files = Files::open(args)?;
    let (applied, log) = (files.applied()?, &files.log);
    let last = log.entries.last().map_or(log.log_start_index, |last| last.index);
    let commit = log.hard_state.commit;
    output::text(&format!(
        "the store holds everything up to entry {applied}\n\
         the log ends at entry {last} and is known to be committed up to entry {commit}\n"
    ));
    let Some((entry, why)) = files.unreadable()? else {
        output::text("every entry that is left can be applied\n");
        return Ok(());
    };
    let Entry { index, term, kind, data } = entry;
    let kind = match kind {
        EntryKind::Normal => "a request",
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => "a change of the members",
    };
    let (length, data_dir) = (data.len(), args.get("data-dir"));
    output::text(&format!(
        "entry {index} of term {term}, {kind} of {length} bytes, cannot be applied: {why}\n\
         \n\
         Every member of this version stops there. To go on, the first of these that is possible:\n\
         1. Start the member with a version that can apply the entry.\n\
         2. If other members serve the cluster: remove this member, clear its data directory, and add it anew.\n\
         3. Save everything before the entry, and begin a new cluster with it. The entry and those after it are lost.\n\
         \x20  basaltutl snapshot save backup.db --data-dir {data_dir}\n\
         \x20  basaltutl snapshot restore backup.db --data-dir NEW\n"
    ));
    Err(Failure::error(format!("entry {index} of the log cannot be applied")))
}

/// Saves the state of a member that does not run: up to the first entry that cannot be applied, or as far as the log is
/// known to be committed. The entries before one at which a member stopped were committed, even if that is not recorded.
///
/// # Errors
/// The files cannot be read, or the snapshot not written.
pub(crate) fn save(args: &Args) -> Result<(), Failure> {
    let [path] = &args.positional[..] else {
        let text = "snapshot save requires exactly one argument";
        return Err(Failure::new(exit::BAD_ARGS, text));
    };
    let path = Path::new(path);
    let files = Files::open(args)?;
    let last = match files.unreadable()? {
        Some((entry, _)) => entry.index - 1,
        None => files.log.hard_state.commit,
    };
    let Files { _lock, store, log } = files;
    let view = applied_to(store, &log, last).map_err(Failure::error)?;
    let part = PathBuf::from(format!("{}.part", path.display()));
    write(Export::new(view, Scope::File), &part)?;
    rename_durably(&part, path).map_err(|error| Failure::file("rename", &part, &error))?;
    output::text(&format!(
        "Snapshot saved at {}, with everything up to entry {last}\n",
        path.display()
    ));
    Ok(())
}

/// The store after the log up to an entry was applied, as the member would have applied it.
fn applied_to(
    store: LsmEngine,
    log: &Replay,
    last: LogIndex,
) -> Result<<LsmEngine as basalt::store::Engine>::View, Fault> {
    let config = machine::Config {
        caches: CacheBytes { records: RECORD_CACHE_BYTES, lists: 0 },
        lease_ttl_min: ttl_min(ELECTION_MS),
        learners_max: LEARNERS_MAX,
        feature_level: FeatureLevel::NEWEST,
        steps: basalt::machine::StepLimits::DEFAULT,
    };
    let mut machine = Machine::open(store, &config)?;
    for entry in log.entries.iter().filter(|entry| entry.index <= last) {
        machine.apply(entry)?;
        machine.commit()?;
    }
    let view = machine.commit()?.read.view;
    machine.engine().persist()?;
    Ok(view)
}

/// Writes a snapshot in the format of `snapshot save`, with its checksum at the end.
fn write<V: basalt::store::View>(mut export: Export<V>, path: &Path) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::file("write", path, error);
    // All keys are in it.
    let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = opened.map_err(|error| Failure::file("open", path, &error))?;
    let mut sum = Sha256::new();
    loop {
        match export.step(CHUNK_BYTES).map_err(Failure::error)? {
            ExportStep::Working => (),
            ExportStep::Chunk(bytes) => {
                sum.update(&bytes);
                file.write_all(&bytes).map_err(|error| failed(&error))?;
            }
            ExportStep::Done => break,
        }
    }
    let written = file.write_all(&sum.finalize()).and_then(|()| file.sync_all());
    written.map_err(|error| failed(&error))
}
