//! The vote lease on disk, so that it is kept after a restart: `<member>/promise`, a number of ms.

use std::fs;
use std::path::Path;

use super::durable::replace_durably;
use crate::types::Fault;

const NAME: &str = "promise";

fn fault(what: &str, path: &Path, error: impl std::fmt::Display) -> Fault {
    Fault::new(format!("cannot {what} {}: {error}", path.display()))
}

/// Longest vote lease in ms that the member may have given before its restart, counted from its last message; 0 if it
/// never gave one.
///
/// # Errors
/// The file cannot be read, or does not contain a number.
pub fn vote_lease_ms(member: &Path) -> Result<u64, Fault> {
    let path = member.join(NAME);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|error| fault("use", &path, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(fault("read", &path, error)),
    }
}

/// Stores the vote lease for the next start, before this run gives any. Blocks.
///
/// # Errors
/// The file cannot be written.
pub fn note_vote_lease(member: &Path, ms: u64) -> Result<(), Fault> {
    let path = member.join(NAME);
    let written = replace_durably(&path, format!("{ms}\n").as_bytes());
    written.map_err(|error| fault("write", &path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_life_knows_what_was_promised() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(vote_lease_ms(dir.path()), Ok(0));
        for ms in [900, 450, 0] {
            note_vote_lease(dir.path(), ms).expect("the disk takes it");
            assert_eq!(vote_lease_ms(dir.path()), Ok(ms));
        }
        fs::write(dir.path().join(NAME), "soon").expect("the disk takes it");
        assert!(vote_lease_ms(dir.path()).is_err(), "what it means is not known");
    }
}
