//! Golden bytes: every format on disk and on the wire, as members of this version write it. A change of a format fails here,
//! and so does a reader that no longer reads the old bytes.
//!
//! The files are `tests/golden/*.hex`, a name and its bytes per line. They are never rewritten: bytes that a member has
//! written once must stay readable for ever. A new format, or one of a new feature level, gets a new file or a line, which
//! `GOLDEN_WRITE=1 cargo test --test it golden` adds; existing lines stay.

mod auth;
mod disk;
mod store;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes by name, in the order of the file.
#[derive(Default)]
struct Golden(Vec<(String, Vec<u8>)>);

impl Golden {
    fn add(&mut self, name: impl Into<String>, bytes: impl AsRef<[u8]>) {
        self.0.push((name.into(), bytes.as_ref().to_vec()));
    }

    /// Compares with the file; returns its content, for the readers.
    fn check(self, file: &str) -> BTreeMap<String, Vec<u8>> {
        let path = path(file);
        let mut kept = read(&path);
        let missing: Vec<_> = self.0.iter().filter(|(name, _)| !kept.contains_key(name)).collect();
        if !missing.is_empty() && std::env::var_os("GOLDEN_WRITE").is_some() {
            let mut text = fs::read_to_string(&path).unwrap_or_default();
            missing.iter().for_each(|(name, bytes)| text += &format!("{name}: {}\n", hex(bytes)));
            fs::write(&path, text).expect("the file can be written");
            kept = read(&path);
        }
        for (name, bytes) in &self.0 {
            let golden = kept.get(name).unwrap_or_else(|| panic!("{file} has no line {name:?}"));
            assert_eq!(
                hex(bytes),
                hex(golden),
                "{name} in {file} is written in another way: members of earlier versions cannot read it"
            );
        }
        let unwritten: Vec<_> = kept
            .keys()
            .filter(|name| !self.0.iter().any(|(written, _)| written == *name))
            .collect();
        assert!(unwritten.is_empty(), "{unwritten:?} of {file} are not written any more");
        kept
    }
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn read(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| {
        let (name, bytes) = line.rsplit_once(": ").expect("a name and its bytes");
        (name.to_owned(), unhex(bytes))
    };
    text.lines().map(line).collect()
}

/// Two digits for each byte; `-` for none.
fn hex(bytes: &[u8]) -> String {
    match bytes {
        [] => "-".to_owned(),
        bytes => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    if text == "-" { Vec::new() } else { (0..text.len()).step_by(2).map(pair).collect() }
}
