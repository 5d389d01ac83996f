//! Durable names: a file that is created, replaced or renamed here survives a power failure, with all of its content,
//! once the call has returned. All calls block.
//!
//! A file system may write a directory later than the files in it, and the content of a file later than its name. So
//! content is synced before it gets its name, and the directory after.

use std::fs::{self, File};
use std::io::{Result, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Replaces a file's content as a whole: after a power failure the file has either the old or the new one.
///
/// # Errors
/// The disk's error. Either content may be there.
pub fn replace_durably(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let new = path.with_file_name(name);
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename_durably(&new, path)
}

/// Renames a file or directory whose content is durable already.
///
/// # Errors
/// The disk's error. The file may have either name.
pub fn rename_durably(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Creates a directory and missing parents, for the owner alone.
///
/// # Errors
/// The disk's error. Some of the directories may exist.
pub fn create_dir_durably(path: &Path) -> Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<_> = path.ancestors().take_while(is_missing).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    missing.into_iter().try_for_each(sync_parent)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// The disk's error.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a name durable.
fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(&PathBuf::from(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_and_directories_made_with_those_above_them() {
        let place = tempfile::tempdir().expect("a directory");
        let deep = place.path().join("a/b/c");
        for _ in 0..2 {
            create_dir_durably(&deep).expect("made, or there");
        }
        let file = deep.join("note");
        for content in ["first", "second, which is longer", "3"] {
            replace_durably(&file, content.as_bytes()).expect("replaced");
            assert_eq!(fs::read_to_string(&file).expect("it is there"), content);
        }
        let names: Vec<_> = fs::read_dir(&deep).expect("a directory").flatten().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
        rename_durably(&deep, &place.path().join("d")).expect("renamed");
        assert!(place.path().join("d/note").exists() && !deep.exists());
        assert!(replace_durably(&deep.join("note"), b"").is_err(), "its directory is gone");
    }
}
