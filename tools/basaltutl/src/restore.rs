//! `snapshot restore`: from a file to the data directory of the first member of a new cluster.
//!
//! Everything is made in `member.tmp`, synced, and renamed last: a member never starts on a part of a store, and the
//! server refuses a directory with a `member.tmp`. A restore that was killed is repeated from the beginning by the next one.
//!
//! ```text
//!  <data>/member.tmp/lock      held while a restore runs
//!  <data>/member.tmp/wal-dir   names the log's directory, if that is elsewhere
//!  <wal-dir>.tmp               the log until it is complete
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use basalt::cluster::Member;
use basalt::io::{
    Loader, UNFINISHED_RESTORE, begin_log, clock, lock_data_dir, prepare_data_dir, raise_open_files,
};
use basalt::snapshot::{self, Restore, RestoredLogStart};
use basalt::types::HardState;
use basalt::wal::Record;
use gocompat::time::rfc3339;
use sha2::{Digest as _, Sha256};

use crate::args::Args;
use crate::cluster::{Founding, found};
use crate::{Failure, exit, go_text, open, output};

/// Bytes of the checksum at the end of a file that a client saved.
const SUM_BYTES: u64 = 32;
/// A bbolt file's size is a multiple of this; with the checksum it is not.
const SECTOR_BYTES: u64 = 512;
const READ_BYTES: usize = 1 << 20;
/// The file in the unfinished member that names the log's directory.
const WAL_NOTE: &str = "wal-dir";

/// The directories of a restore.
#[derive(Clone)]
struct Places {
    snapshot: PathBuf,
    data_dir: PathBuf,
    /// The log's directory, unless it is in the data directory.
    wal_dir: Option<PathBuf>,
}

impl Places {
    fn unfinished(&self) -> PathBuf {
        self.data_dir.join(UNFINISHED_RESTORE)
    }

    /// The log's directory while it is incomplete, unless it is in the data directory.
    fn unfinished_wal(&self) -> Option<PathBuf> {
        let mut path = self.wal_dir.clone()?.into_os_string();
        path.push(".tmp");
        Some(path.into())
    }
}

pub(crate) fn restore(args: &Args) -> Result<(), Failure> {
    let bad_args = |text: &str| Failure::new(exit::BAD_ARGS, text);
    let [snapshot] = &args.positional[..] else {
        return Err(bad_args("snapshot restore requires exactly one argument"));
    };
    let bump: u64 = args.number("bump-revision")?;
    if (bump > 0) != args.is_on("mark-compacted") {
        return Err(bad_args("--mark-compacted required if --revision-bump > 0"));
    }
    let name = args.get("name");
    let founding = found(
        name,
        args.get("initial-advertise-peer-urls"),
        args.get("initial-cluster"),
        args.get("initial-cluster-token"),
    );
    let founding = founding.map_err(Failure::error)?;
    let places = places(args, snapshot)?;
    say("restoring snapshot", &places);
    verify(&places.snapshot, args.is_on("skip-hash-check"))?;
    raise_open_files(1).map_err(Failure::error)?;
    let _lock = begin(&places)?;
    let wanted =
        Restore { members: founding.members.clone(), bump_revision: (bump > 0).then_some(bump) };
    let made = make(&places, &founding, &wanted);
    match &made {
        Ok(()) => {
            founding.members.iter().for_each(|member| say_added(founding.cluster_id, member));
            say("restored snapshot", &places);
        }
        Err(_) => clear_away(&places),
    }
    made
}

/// Locks the data directory for this restore, and deletes the remains of a killed one.
fn begin(places: &Places) -> Result<File, Failure> {
    let unfinished = places.unfinished();
    let is_leftover = unfinished.exists();
    prepare_data_dir(&unfinished).map_err(Failure::error)?;
    let lock = lock_data_dir(&unfinished).map_err(Failure::error)?;
    let remove = |path: &Path| match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file("remove", path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    };
    if is_leftover {
        // The lock stays held, so that no other restore begins meanwhile.
        ["store", "store-runs", "wal"]
            .iter()
            .try_for_each(|name| remove(&unfinished.join(name)))?;
        if let Some(wal_dir) = wal_dir_of(&unfinished) {
            let left = Places { wal_dir: Some(wal_dir), ..places.clone() };
            left.unfinished_wal().iter().chain(&left.wal_dir).try_for_each(|path| remove(path))?;
        }
    }
    for path in places.unfinished_wal().iter().chain(&places.wal_dir) {
        if path.exists() {
            // The directory belongs to another restore: it stays, and the new one is deleted.
            let _ = fs::remove_dir_all(&unfinished);
            let _ = fs::remove_dir(&places.data_dir);
            return Err(Failure::error(format!("wal-dir {:?} exists", path.display().to_string())));
        }
    }
    // Written before anything else: a log directory that is not named here would not be deleted.
    let note = unfinished.join(WAL_NOTE);
    let wal_dir = places.wal_dir.as_deref().unwrap_or(Path::new(""));
    let noted = File::create(&note).and_then(|mut file| {
        file.write_all(wal_dir.as_os_str().as_encoded_bytes())?;
        file.sync_all()
    });
    noted.map_err(|error| Failure::file("write", &note, &error))?;
    sync(&unfinished)?;
    Ok(lock)
}

/// The log's directory of an incomplete restore, unless it is in the data directory.
fn wal_dir_of(unfinished: &Path) -> Option<PathBuf> {
    let noted = fs::read(unfinished.join(WAL_NOTE)).ok()?;
    (!noted.is_empty()).then(|| OsString::from_vec(noted).into())
}

/// Deletes the remains of a failure: neither directory was there before, or the data directory was empty.
fn clear_away(places: &Places) {
    // A directory that cannot be removed is in the way of the next attempt, which reports it.
    if let Some(wal_dir) = &places.wal_dir {
        let _ = fs::remove_dir_all(wal_dir);
    }
    if let Some(wal_dir) = places.unfinished_wal() {
        let _ = fs::remove_dir_all(wal_dir);
    }
    let _ = fs::remove_dir_all(places.unfinished());
    let _ = fs::remove_dir(&places.data_dir);
}

fn places(args: &Args, snapshot: &str) -> Result<Places, Failure> {
    let data_dir = match args.get("data-dir") {
        "" => format!("{}.etcd", args.get("name")),
        given => given.to_owned(),
    };
    if !is_free(Path::new(&data_dir)) {
        return Err(Failure::error(format!(
            "data-dir {data_dir:?} not empty or could not be read"
        )));
    }
    let wal_dir = Some(args.get("wal-dir")).filter(|dir| !dir.is_empty()).map(absolute);
    let left = wal_dir_of(&Path::new(&data_dir).join(UNFINISHED_RESTORE));
    if let Some(wal_dir) = &wal_dir
        && wal_dir.exists()
        && left.as_ref() != Some(wal_dir)
    {
        return Err(Failure::error(format!("wal-dir {:?} exists", args.get("wal-dir"))));
    }
    Ok(Places { snapshot: snapshot.into(), data_dir: data_dir.into(), wal_dir })
}

/// The next restore may run in another working directory.
fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// True if a data directory is empty but for the remains of a killed restore.
fn is_free(data_dir: &Path) -> bool {
    match fs::read_dir(data_dir) {
        Ok(mut entries) => {
            entries.all(|entry| entry.is_ok_and(|it| it.file_name() == UNFINISHED_RESTORE))
        }
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// A line about the restore.
fn say(what: &str, places: &Places) {
    let wal_dir = places.wal_dir.clone().unwrap_or_else(|| places.data_dir.join("member/wal"));
    let about = serde_json::json!({
        "path": places.snapshot,
        "wal-dir": wal_dir,
        "data-dir": places.data_dir,
        "store-dir": places.data_dir.join("member/store"),
    });
    log_line(what, &about.to_string());
}

/// The line of etcdutl's log about a member of the new cluster.
fn say_added(cluster_id: u64, member: &Member) {
    let urls: Vec<_> = member.peer_urls.iter().map(|url| format!("{url:?}")).collect();
    let about = format!(
        "{{\"cluster-id\": \"{cluster_id:x}\", \"local-member-id\": \"0\", \
         \"added-peer-id\": \"{:x}\", \"added-peer-peer-urls\": [{}], \
         \"added-peer-is-learner\": {}}}",
        member.id,
        urls.join(", "),
        member.is_learner
    );
    log_line("added member", &about);
}

/// One line of the log in zap's console format.
fn log_line(what: &str, about: &str) {
    output::error(&format!("{}\tinfo\tbasaltutl\t{what}\t{about}", rfc3339(clock::unix_time())));
}

/// Compares the file with the checksum behind it.
fn verify(path: &Path, skip: bool) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::file("read", path, error);
    let mut file = File::open(path).map_err(|error| Failure::file("open", path, &error))?;
    let length = file.metadata().map_err(|error| failed(&error))?.len();
    let Some(length) = length.checked_sub(SUM_BYTES) else {
        return Err(Failure::error(format!("seek {}: invalid argument", path.display())));
    };
    if skip {
        return Ok(());
    }
    if (length + SUM_BYTES) % SECTOR_BYTES != SUM_BYTES {
        return Err(Failure::error("snapshot missing hash but --skip-hash-check=false"));
    }
    let mut wanted = [0; SUM_BYTES as usize];
    file.seek(SeekFrom::Start(length)).map_err(|error| failed(&error))?;
    file.read_exact(&mut wanted).map_err(|error| failed(&error))?;
    file.rewind().map_err(|error| failed(&error))?;
    let mut rest = file.take(length);
    let mut sum = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match rest.read(&mut buffer).map_err(|error| failed(&error))? {
            0 => break,
            count => sum.update(&buffer[..count]),
        }
    }
    let got = sum.finalize();
    if got[..] != wanted {
        let list = |bytes: &[u8]| {
            let bytes: Vec<_> = bytes.iter().map(u8::to_string).collect();
            bytes.join(" ")
        };
        let text = format!("expected sha256 [{}], got [{}]", list(&wanted), list(&got));
        return Err(Failure::error(text));
    }
    Ok(())
}

fn make(places: &Places, founding: &Founding, wanted: &Restore) -> Result<(), Failure> {
    let file = open(&places.snapshot)?;
    let (unfinished, member) = (places.unfinished(), places.data_dir.join("member"));
    let beginning = {
        let mut store = Loader::begin(&unfinished.join("store")).map_err(Failure::error)?;
        let beginning = snapshot::restore(&file, &mut store, wanted).map_err(Failure::error)?;
        store.finish().map_err(Failure::error)?;
        beginning
    };
    let wal_dir = places.unfinished_wal().unwrap_or_else(|| unfinished.join("wal"));
    prepare_data_dir(&wal_dir).map_err(Failure::error)?;
    begin_log(&wal_dir, &log(founding, beginning)).map_err(Failure::error)?;
    if let Some(finished) = &places.wal_dir {
        rename(&wal_dir, finished)?;
    }
    sync(&unfinished)?;
    rename(&unfinished, &member)?;
    // Not needed any more, and harmless if it stays.
    let _ = fs::remove_file(member.join(WAL_NOTE));
    Ok(())
}

/// Renames a directory within its parent, durably.
fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::rename(from, to).map_err(|error| {
        let (from, to) = (from.display(), to.display());
        Failure::error(format!("rename {from} {to}: {}", go_text(&error)))
    })?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or(Path::new(".")))
}

/// The first records of the member's log: as if its first entries had added the members.
fn log(founding: &Founding, beginning: RestoredLogStart) -> Vec<Record> {
    let RestoredLogStart { index, term, conf_state } = beginning;
    let vote = conf_state.voters.first().copied().unwrap_or_default();
    vec![
        Record::Metadata { cluster_id: founding.cluster_id, member_id: founding.own_id },
        Record::LogStart { index, term, conf_state },
        Record::HardState(HardState { term, vote, commit: index }),
    ]
}

fn sync(dir: &Path) -> Result<(), Failure> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| Failure::file("sync", dir, &error))
}
