//! Each target with its corpus: as it is, and with seeded changes.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Changed inputs of each target, if `FUZZ_CHANGES` does not say how many.
const CHANGES: usize = 2_000;
/// Changes of one input.
const EDITS_MAX: usize = 8;

fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz").join(target.name)
}

fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(corpus(target))
        .unwrap_or_else(|error| panic!("the corpus of {}: {error}", target.name))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.iter().map(|path| fs::read(path).expect("a file")).collect()
}

/// Replaces, inserts, removes and repeats bytes.
fn changed(input: &[u8], random: &mut SmallRng) -> Vec<u8> {
    const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..=EDITS_MAX) {
        let at = random.random_range(0..=bytes.len());
        let end = random.random_range(at..=bytes.len().min(at + 16));
        match random.random_range(0..5) {
            0 => bytes.insert(at, random.random()),
            1 => bytes.insert(at, EDGES[random.random_range(0..EDGES.len())]),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ => (),
        }
    }
    bytes
}

#[test]
fn no_target_fails_on_its_corpus_or_on_changes_of_it() {
    let wanted = std::env::var("FUZZ_CHANGES").ok().and_then(|text| text.parse().ok());
    for target in TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        inputs.iter().for_each(|input| (target.run)(input));
        let mut random = SmallRng::seed_from_u64(1);
        for _ in 0..wanted.unwrap_or(CHANGES) {
            let input = &inputs[random.random_range(0..inputs.len())];
            (target.run)(&changed(input, &mut random));
        }
    }
}

#[test]
fn each_corpus_has_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz");
    for entry in fs::read_dir(root).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(TARGETS.iter().any(|target| name == target.name), "{name:?} is of no target");
    }
}
