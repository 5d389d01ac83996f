//! Keys and values as etcd's benchmark makes them, repeatable from a seed.
//!
//! A key is `prefix`, then a buffer of fixed size that starts with the number of the key as Go's
//! signed varint. Unlike etcd's, the rest of the buffer is zero, so that a key space of N has N keys.

use bytes::{Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::distribution::Distribution;

/// Values are cut from a pool of this size if each is to be different: larger than the window of
/// any compressor that a store uses.
const POOL_BYTES: usize = 4 << 20;

/// Description of a key space.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// Prefix of every key.
    pub prefix: Vec<u8>,
    /// Bytes after the prefix.
    pub size: usize,
    /// Number of different keys.
    pub space: u64,
    /// Distribution of operations over the keys.
    pub distribution: Distribution,
}

impl KeySpec {
    /// Checks the numbers, with etcd's error texts where it has them.
    ///
    /// # Errors
    /// The numbers contradict each other.
    pub fn check(&self) -> Result<(), String> {
        if self.space == 0 {
            return Err("expected positive --key-space-size, got (0)".to_owned());
        }
        let longest = varint(self.space - 1).1;
        if longest > self.size {
            return Err(format!(
                "--key-size {} is too small for --key-space-size {}: the last key needs {longest} bytes",
                self.size, self.space
            ));
        }
        Ok(())
    }
}

/// Makes keys, one after the other.
#[derive(Debug)]
pub struct Keys {
    spec: KeySpec,
    random: SmallRng,
    buffer: BytesMut,
}

impl Keys {
    /// Keys by `spec`; the same seed gives the same random keys.
    pub fn new(spec: KeySpec, seed: u64) -> Self {
        Self { spec, random: SmallRng::seed_from_u64(seed), buffer: BytesMut::new() }
    }

    /// The key of operation `index`.
    pub fn key(&mut self, index: u64) -> Bytes {
        let space = self.spec.space;
        let number = self.spec.distribution.choose(index, space, &mut self.random);
        self.numbered(number)
    }

    /// The key of this number.
    pub fn numbered(&mut self, number: u64) -> Bytes {
        let (bytes, length) = varint(number);
        self.buffer.extend_from_slice(&self.spec.prefix);
        self.buffer.extend_from_slice(&bytes[..length.min(self.spec.size)]);
        self.buffer.resize(self.spec.prefix.len() + self.spec.size, 0);
        self.buffer.split().freeze()
    }
}

/// Makes values: one random value for all, or each a different one.
#[derive(Debug)]
pub struct Values {
    pool: Bytes,
    size: usize,
    random: SmallRng,
}

impl Values {
    /// Values of `size` bytes.
    pub fn new(size: usize, each_different: bool, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut pool = vec![0; if each_different { size + POOL_BYTES } else { size }];
        random.fill_bytes(&mut pool);
        Self { pool: pool.into(), size, random }
    }

    /// The next value.
    pub fn value(&mut self) -> Bytes {
        let spare = self.pool.len() - self.size;
        let at = if spare == 0 { 0 } else { self.random.random_range(0..spare) };
        self.pool.slice(at..at + self.size)
    }
}

/// `number` as Go's `binary.PutVarint` writes it, and its length: zigzag, seven bits a byte.
fn varint(number: u64) -> ([u8; 10], usize) {
    let mut rest = number << 1;
    let mut bytes = [0; 10];
    let mut length = 0;
    loop {
        let byte = (rest & 0x7f) as u8;
        rest >>= 7;
        bytes[length] = if rest == 0 { byte } else { byte | 0x80 };
        length += 1;
        if rest == 0 {
            return (bytes, length);
        }
    }
}

/// The end of the range of all keys that start with `prefix`: one zero byte when there is none.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn spec(size: usize, space: u64, sequential: bool) -> KeySpec {
        let distribution =
            if sequential { Distribution::Sequential } else { Distribution::Uniform };
        KeySpec { prefix: b"p/".to_vec(), size, space, distribution }
    }

    #[test]
    fn keys_are_gos_varints_in_a_buffer_of_zeros() {
        let mut keys = Keys::new(spec(4, 1000, true), 1);
        assert_eq!(&keys.key(0)[..], b"p/\0\0\0\0");
        assert_eq!(&keys.key(1)[..], b"p/\x02\0\0\0");
        // PutVarint(64) is 0x80 0x01, PutVarint(999) is 0xce 0x0f.
        assert_eq!(&keys.key(64)[..], b"p/\x80\x01\0\0");
        assert_eq!(&keys.key(1999)[..], b"p/\xce\x0f\0\0");
    }

    #[test]
    fn a_space_has_as_many_keys_as_it_says() {
        for sequential in [true, false] {
            let mut keys = Keys::new(spec(8, 300, sequential), 7);
            let seen: BTreeSet<Bytes> = (0..20_000).map(|index| keys.key(index)).collect();
            assert_eq!(seen.len(), 300);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_keys_and_values() {
        let run = |seed| {
            let mut keys = Keys::new(spec(8, 1_000_000, false), seed);
            let mut values = Values::new(32, true, seed);
            (0..10).map(|index| (keys.key(index), values.value())).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn one_value_for_all_unless_each_is_to_differ() {
        let mut same = Values::new(16, false, 1);
        assert_eq!(same.value(), same.value());
        let mut different = Values::new(16, true, 1);
        assert_ne!(different.value(), different.value());
    }

    #[test]
    fn numbers_that_cannot_be_keys_are_refused() {
        let wrong = spec(8, 0, false).check().unwrap_err();
        assert_eq!(wrong, "expected positive --key-space-size, got (0)");
        assert!(spec(1, 65, false).check().is_err());
        assert!(spec(1, 64, false).check().is_ok());
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_string() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
        assert_eq!(prefix_end(b""), b"\0");
    }
}
