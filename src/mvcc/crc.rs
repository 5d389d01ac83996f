//! Combines checksums of adjacent byte strings, without the bytes.
//!
//! CRC-32C of `one ‖ two` is `crc(one)·x^(8·|two|) + crc(two)`, in polynomials over GF(2) modulo Castagnoli's. The crate
//! that computes the checksums does that by squaring matrices, some 6 µs for each; with powers of x from a table it is
//! 0.1 to 0.2 µs, and compaction does it for each large value. (Mark Adler's way, in zlib since 1.2.12.)

/// Castagnoli's polynomial; as in all of these numbers, the highest power is the lowest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x to the power of 0.
const ONE: u32 = 1 << 31;

/// x to the power of 2^n at n.
const POWERS: [u32; 64] = {
    let mut powers = [0; 64];
    powers[0] = ONE >> 1;
    let mut n = 1;
    while n < powers.len() {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

/// The product of two polynomials.
const fn multiply(one: u32, two: u32) -> u32 {
    let (mut product, mut shifted, mut bit) = (0, two, ONE);
    while bit > 0 {
        if one & bit != 0 {
            product ^= shifted;
        }
        shifted = (shifted >> 1) ^ (POLYNOMIAL & (shifted & 1).wrapping_neg());
        bit >>= 1;
    }
    product
}

/// The checksum of two adjacent strings, given the checksum of each and the length of the second.
pub(super) fn combine(one: u32, two: u32, length: usize) -> u32 {
    let mut shifted = one;
    // Of eight times the length, bit by bit.
    let (mut rest, mut power) = (length as u64, 3);
    while rest > 0 {
        if rest & 1 == 1 {
            shifted = multiply(POWERS[power], shifted);
        }
        (rest, power) = (rest >> 1, power + 1);
    }
    shifted ^ two
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn joined_checksums_are_those_of_the_whole() {
        let mut random = StdRng::seed_from_u64(7);
        let bytes: Vec<u8> = (0..70_000).map(|_| random.random()).collect();
        for _ in 0..500 {
            let end = random.random_range(0..=bytes.len());
            let middle = random.random_range(0..=end);
            let (one, two) =
                (crc32c::crc32c(&bytes[..middle]), crc32c::crc32c(&bytes[middle..end]));
            assert_eq!(combine(one, two, end - middle), crc32c::crc32c(&bytes[..end]));
        }
        for length in [1 << 31, 1 << 40, usize::MAX >> 4] {
            assert_eq!(combine(7, 9, length), crc32c::crc32c_combine(7, 9, length), "{length}");
        }
    }
}
