//! Random numbers from a seed: the same on every machine and with every version of every library.

/// xoshiro256++ (Blackman, Vigna 2019), seeded through splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Random([u64; 4]);

impl Random {
    /// A stream of its own for each `purpose`, so that removing draws from one does not change the numbers of another.
    pub(super) fn new(seed: u64, purpose: &str, number: u64) -> Self {
        let mut state = seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93);
        for byte in purpose.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut split = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        Self([split(), split(), split(), split()])
    }

    pub(super) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let drawn = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }

    /// From 0 to `end`, which is excluded and not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Mostly near `low`, seldom near `high`, evenly by orders of magnitude.
    pub(super) fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let doublings = u64::from((high / low.max(1)).max(1).ilog2());
        let scale = low.max(1) << self.below(doublings + 1);
        self.between(low, (scale * 2).clamp(low, high))
    }

    /// True with this probability, in thousandths.
    pub(super) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
