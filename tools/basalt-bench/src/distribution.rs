//! Choice of the key that an operation gets from its key space.

use clap::{Args, ValueEnum};
use rand::Rng;
use rand::distr::Distribution as _;
use rand_distr::Zipf;

/// How keys are chosen.
#[derive(Clone, Copy, Debug)]
pub enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// Key 0 most often, key `k` in proportion to `1 / (k + 1)^exponent`.
    Zipf(Zipf<f64>),
    /// One after the other, round and round.
    Sequential,
}

impl Distribution {
    /// Zipf's law over a key space.
    ///
    /// # Errors
    /// The exponent is not a number from 0 up.
    pub fn zipf(space: u64, exponent: f64) -> Result<Self, String> {
        let zipf = Zipf::new(space as f64, exponent);
        zipf.map(Self::Zipf).map_err(|error| format!("--zipf-exponent {exponent}: {error}"))
    }

    /// The key of operation `index`, below `space`.
    pub fn choose(self, index: u64, space: u64, random: &mut impl Rng) -> u64 {
        match self {
            _ if space == 1 => 0,
            Self::Uniform => random.random_range(0..space),
            // Samples are whole numbers from 1 to the space.
            Self::Zipf(zipf) => (zipf.sample(random) as u64).clamp(1, space) - 1,
            Self::Sequential => index % space,
        }
    }
}

/// Flags of loads with a key space.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Flags {
    /// Use sequential keys: --key-distribution sequential
    #[arg(long)]
    pub sequential_keys: bool,
    /// How keys are chosen
    #[arg(long, value_enum, default_value_t = Name::Uniform, conflicts_with = "sequential_keys")]
    pub key_distribution: Name,
    /// How uneven zipf is: 0 is uniform, at 0.99 the hottest of a million keys gets 7 % of all
    #[arg(long, default_value_t = 0.99)]
    pub zipf_exponent: f64,
}

/// Values of `--key-distribution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Each as often as any other
    Uniform,
    /// Few hot keys and a long tail
    Zipf,
    /// One after the other
    Sequential,
}

impl Flags {
    /// The distribution that the flags ask for, over `space` keys.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn distribution(&self, space: u64) -> Result<Distribution, String> {
        Ok(match (self.sequential_keys, self.key_distribution) {
            (true, _) | (false, Name::Sequential) => Distribution::Sequential,
            (false, Name::Uniform) => Distribution::Uniform,
            (false, Name::Zipf) => Distribution::zipf(space.max(1), self.zipf_exponent)?,
        })
    }

    /// The name, for reports.
    pub fn name(&self) -> &'static str {
        match (self.sequential_keys, self.key_distribution) {
            (true, _) | (false, Name::Sequential) => "sequential",
            (false, Name::Uniform) => "uniform",
            (false, Name::Zipf) => "zipf",
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn counts(distribution: Distribution, space: u64, draws: u64) -> Vec<u64> {
        let mut random = SmallRng::seed_from_u64(5);
        let mut counts = vec![0; usize::try_from(space).unwrap()];
        for index in 0..draws {
            let key = distribution.choose(index, space, &mut random);
            counts[usize::try_from(key).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_come_equally_often() {
        let counts = counts(Distribution::Uniform, 100, 100_000);
        assert!(counts.iter().all(|&count| (850..1_150).contains(&count)), "{counts:?}");
    }

    #[test]
    fn sequential_keys_go_round() {
        assert_eq!(counts(Distribution::Sequential, 3, 10), [4, 3, 3]);
    }

    #[test]
    fn zipf_keys_follow_zipfs_law() {
        let draws = 1_000_000;
        let counts = counts(Distribution::zipf(1_000, 1.0).unwrap(), 1_000, draws);
        // The thousandth harmonic number: the sum of all weights.
        let total: f64 = (1..=1_000).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1_usize, 2, 10, 100] {
            let expected = draws as f64 / (rank as f64 * total);
            let found = counts[rank - 1] as f64;
            assert!((found / expected - 1.0).abs() < 0.1, "rank {rank}: {found} of {expected}");
        }
        assert!(counts.iter().filter(|&&count| count > 0).count() > 990, "the tail is there");
    }

    #[test]
    fn an_exponent_below_zero_is_refused() {
        assert!(Distribution::zipf(10, -1.0).is_err());
        assert!(Distribution::zipf(10, f64::NAN).is_err());
    }
}
