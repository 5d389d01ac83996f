//! A file for lines that is put aside under another name when it is large enough, in the way of the library that etcd uses
//! for it (lumberjack): `audit.log` becomes `audit-2026-11-29T10-04-38.123.log`. Those put aside are kept up to a number and
//! an age, and may be compressed. All of it blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use gocompat::time::rfc3339_micros;

use super::{clock, thread};

/// Only the owner reads a log: it says who does what.
const MODE: u32 = 0o600;
/// How far the thread steps back that compresses.
const NICE: i32 = 10;
/// The suffix of compressed files.
const COMPRESSED: &str = ".gz";

/// When a file is put aside, and for how long it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// Bytes past which it is put aside.
    pub bytes_max: u64,
    /// Files put aside that are kept; all if `None`.
    pub count_max: Option<usize>,
    /// How long they are kept; for ever if `None`.
    pub age_max: Option<Duration>,
    /// True if they are compressed.
    pub compressed: bool,
}

/// The file.
#[derive(Debug)]
pub struct RotatedFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
}

impl RotatedFile {
    /// Opens the file to append to it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation) -> io::Result<Self> {
        let path = path.into();
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        let opened = Self { path, rotation, file, bytes };
        opened.prune();
        Ok(opened)
    }

    /// Appends whole lines. If the file cannot be put aside it goes on to grow.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let is_full = self.bytes + lines.len() as u64 > self.rotation.bytes_max;
        if is_full && self.bytes > 0 {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file by its name again, which another program may have given to another file.
    ///
    /// # Errors
    /// It cannot be opened; the old one stays.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let aside = self.free_name();
        let renamed = fs::rename(&self.path, &aside);
        // Somebody else may have put it aside.
        if let Err(error) = renamed
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        self.reopen()?;
        if self.rotation.compressed {
            // It is better uncompressed than late: without a thread it stays as it is.
            drop(thread::start_nice("log-gzip", NICE, move || compress(&aside)));
        }
        self.prune();
        Ok(())
    }

    /// A name for the file that is put aside, which no other one has.
    fn free_name(&self) -> PathBuf {
        let now = clock::unix_time();
        let names = (0..).map(|more| self.backup_path(now + Duration::from_millis(more)));
        let mut free = names.filter(|path| !path.exists());
        free.next().unwrap_or_else(|| self.backup_path(now))
    }

    fn backup_path(&self, time: Duration) -> PathBuf {
        let (stem, extension) = self.name();
        self.path.with_file_name(format!("{stem}-{}{extension}", stamp(time)))
    }

    /// The file's name: what is before the last dot, and the rest.
    fn name(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let extension = part(self.path.extension());
        let dot = if extension.is_empty() { "" } else { "." };
        (part(self.path.file_stem()), format!("{dot}{extension}"))
    }

    /// Files put aside: when, and the name. Newest first.
    fn kept(&self) -> Vec<(String, PathBuf)> {
        let (stem, extension) = self.name();
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let names = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut kept: Vec<_> = names
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let name = name.strip_suffix(COMPRESSED).unwrap_or(&name);
                let stamp = name.strip_prefix(&format!("{stem}-"))?.strip_suffix(&extension)?;
                is_stamp(stamp).then(|| (stamp.to_owned(), entry.path()))
            })
            .collect();
        kept.sort_unstable_by(|left, right| right.cmp(left));
        kept
    }

    /// Removes the files put aside that are too many or too old. One that cannot be removed stays.
    fn prune(&self) {
        let Rotation { count_max, age_max, .. } = self.rotation;
        if count_max.is_none() && age_max.is_none() {
            return;
        }
        let oldest = age_max.map(|age| stamp(clock::unix_time().saturating_sub(age)));
        for (number, (stamp, path)) in self.kept().into_iter().enumerate() {
            let is_too_many = count_max.is_some_and(|count| number >= count);
            if is_too_many || oldest.as_ref().is_some_and(|oldest| stamp < *oldest) {
                drop(fs::remove_file(path));
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

/// A time as lumberjack writes it: `2026-11-29T10-04-38.123`.
fn stamp(time: Duration) -> String {
    rfc3339_micros(time).replace(':', "-").chars().take(STAMP.len()).collect()
}

/// Its form.
const STAMP: &str = "dddd-dd-ddTdd-dd-dd.ddd";

fn is_stamp(text: &str) -> bool {
    let fits = |(found, form): (u8, u8)| match form {
        b'd' => found.is_ascii_digit(),
        other => found == other,
    };
    text.len() == STAMP.len() && text.bytes().zip(STAMP.bytes()).all(fits)
}

/// Replaces a file by a compressed one. If that fails it stays as it is.
fn compress(path: &Path) {
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    let (packed, mut unfinished) = (PathBuf::from(&name), name);
    unfinished.push(".tmp");
    let attempt = || -> io::Result<()> {
        let mut source = File::open(path)?;
        let mut options = OpenOptions::new();
        let target =
            options.create(true).write(true).truncate(true).mode(MODE).open(&unfinished)?;
        let mut gzip = GzEncoder::new(target, Compression::default());
        io::copy(&mut source, &mut gzip)?;
        gzip.finish()?;
        fs::rename(&unfinished, &packed)?;
        fs::remove_file(path)
    };
    if attempt().is_err() {
        drop(fs::remove_file(&unfinished));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const KEEP_ALL: Rotation =
        Rotation { bytes_max: 100, count_max: None, age_max: None, compressed: false };

    fn texts(dir: &Path) -> Vec<(String, String)> {
        let mut texts: Vec<_> = fs::read_dir(dir)
            .expect("a directory")
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                let mut text = String::new();
                let file = File::open(&path).expect("a file");
                match name.ends_with(COMPRESSED) {
                    true => flate2::read::GzDecoder::new(file).read_to_string(&mut text),
                    false => (&file).read_to_string(&mut text),
                }
                .expect("text");
                (name, text)
            })
            .collect();
        texts.sort_unstable();
        texts
    }

    #[test]
    fn no_line_is_lost_or_cut_and_no_file_is_larger_than_it_may_be() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let lines: Vec<_> =
            (0..50).map(|line| format!("line {line} {}\n", "x".repeat(line))).collect();
        for half in lines.chunks(25) {
            // As after a restart.
            let mut file = RotatedFile::open(&path, KEEP_ALL).expect("it opens");
            half.iter().for_each(|line| file.write(line.as_bytes()).expect("it is written"));
        }
        let texts = texts(dir.path());
        assert!(texts.iter().all(|(_, text)| text.len() <= 100), "{texts:?}");
        let (newest, aside) = texts.split_last().expect("files");
        assert_eq!(newest.0, "audit.log");
        assert!(aside.iter().all(|(name, _)| name.starts_with("audit-2") && name.len() == 33));
        let all: String = texts.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(all, lines.concat());
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn files_go_by_number_and_age_and_others_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let others =
            ["audit-.log", "audit-2026-11-29T10-04-38.log", "other-2020-01-01T00-00-00.000.log"];
        for other in others {
            fs::write(dir.path().join(other), "").expect("it is written");
        }
        for old in ["audit-2020-01-01T00-00-00.000.log", "audit-2020-01-01T00-00-00.001.log.gz"] {
            fs::write(dir.path().join(old), "").expect("it is written");
        }
        let path = dir.path().join("audit.log");
        let count = |rotation: Rotation, lines: usize| {
            let mut file = RotatedFile::open(&path, rotation).expect("it opens");
            for _ in 0..lines {
                file.write(&[b'x'; 100]).expect("it is written");
            }
            file.kept().len()
        };
        assert_eq!(count(KEEP_ALL, 4), 5);
        assert_eq!(count(Rotation { age_max: Some(Duration::from_hours(24)), ..KEEP_ALL }, 1), 4);
        assert_eq!(count(Rotation { count_max: Some(2), ..KEEP_ALL }, 9), 2);
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 2 + 1 + others.len());
    }

    #[test]
    fn what_is_put_aside_is_compressed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let mut file =
            RotatedFile::open(&path, Rotation { compressed: true, ..KEEP_ALL }).expect("it opens");
        for line in ["a", "b"] {
            file.write(line.repeat(100).as_bytes()).expect("it is written");
        }
        let kept = || file.kept().pop().expect("it was put aside").1;
        for _ in 0..10_000 {
            if kept().to_string_lossy().ends_with(COMPRESSED) {
                break;
            }
            futures_lite::future::block_on(clock::sleep(Duration::from_millis(1)));
        }
        let texts: Vec<_> = texts(dir.path()).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["b".repeat(100), "a".repeat(100)]);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let mut file = RotatedFile::open(&path, KEEP_ALL).expect("it opens");
        file.write(b"a\n").expect("it is written");
        fs::rename(&path, dir.path().join("moved")).expect("it is moved");
        file.reopen().expect("it opens");
        file.write(b"b\n").expect("it is written");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "b\n");
        // Moved away, and full: nothing is there to be put aside.
        fs::remove_file(&path).expect("it is removed");
        file.write(&[b'x'; 100]).expect("it is written");
        assert_eq!(fs::read_to_string(&path).expect("it is there").len(), 100);
    }
}
