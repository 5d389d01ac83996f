//! Several loads at once, mixed by weight: each operation belongs to one of them, drawn anew.

use clap::{Args, Parser, Subcommand};
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::SmallRng;

use super::{Kind, Load, lease_keepalive, put, range, txn_mixed, txn_put};
use crate::error::Fatal;
use crate::generator::Workload;
use crate::options::Globals;
use crate::report::Finished;
use crate::session;

/// Flags of `mix`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// A weight, a load, its flags; may be repeated: --load '3 put --val-size 256' --load '1 range foo'
    #[arg(long, required = true, value_parser = part, value_name = "WEIGHT LOAD [FLAGS]")]
    pub load: Vec<Part>,
    /// Operations per second of all loads together, each sent at its scheduled time (0 is no limit)
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Total number of operations
    #[arg(long, default_value_t = 10_000)]
    pub total: u64,
}

/// A load and its weight.
#[derive(Clone, Debug)]
pub struct Part {
    weight: f64,
    load: Loads,
}

/// The command line of a part: `--total` and `--rate` in it have no meaning.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(subcommand)]
    load: Loads,
}

/// Loads that can be mixed.
#[derive(Clone, Debug, Subcommand)]
enum Loads {
    LeaseKeepalive(lease_keepalive::Flags),
    Put(put::Flags),
    Range(range::Flags),
    TxnMixed(txn_mixed::Flags),
    TxnPut(txn_put::Flags),
}

fn part(text: &str) -> Result<Part, String> {
    let (weight, load) = text.trim().split_once(char::is_whitespace).unwrap_or((text, ""));
    let weight = weight.parse().map_err(|_| format!("{weight:?} is not a weight"))?;
    let line = Line::try_parse_from(load.split_whitespace());
    Ok(Part { weight, load: line.map_err(|error| error.to_string())?.load })
}

/// Any load.
type Any = Box<dyn Workload + Send>;
/// Makes the load of a connection.
type Maker<'a> = Box<dyn Fn(usize) -> Any + Sync + 'a>;

/// A random choice of loads by weight.
struct Mix {
    parts: Vec<Any>,
    /// The number of each part's first kind.
    first_kinds: Vec<usize>,
    weights: WeightedIndex<f64>,
    random: SmallRng,
    /// The part that owns the current operation of each client.
    owners: Vec<usize>,
}

impl Workload for Mix {
    fn begin(&mut self, slot: usize, index: u64, body: &mut Vec<u8>) -> &'static str {
        let owner = self.weights.sample(&mut self.random);
        if self.owners.len() <= slot {
            self.owners.resize(slot + 1, 0);
        }
        self.owners[slot] = owner;
        self.parts[owner].begin(slot, index, body)
    }

    fn message(&mut self, slot: usize, body: &[u8]) -> Result<(), String> {
        self.parts[self.owners[slot]].message(slot, body)
    }

    fn next(&mut self, slot: usize, body: &mut Vec<u8>) -> Result<Option<&'static str>, String> {
        self.parts[self.owners[slot]].next(slot, body)
    }

    fn is_enough(&self, slot: usize) -> bool {
        self.parts[self.owners[slot]].is_enough(slot)
    }

    fn kind(&self, slot: usize) -> usize {
        let owner = self.owners[slot];
        self.first_kinds[owner] + self.parts[owner].kind(slot)
    }
}

/// Runs the mix, checks the revisions that it made, and reports each load on its own.
///
/// # Errors
/// The flags are wrong or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    let dialer = session::dialer(globals)?;
    let weights = WeightedIndex::new(flags.load.iter().map(|part| part.weight))
        .map_err(|error| format!("the weights of --load: {error}"))?;
    let (mut kinds, mut first_kinds, mut makers) =
        (Vec::new(), Vec::new(), Vec::<Maker<'_>>::new());
    for (number, part) in flags.load.iter().enumerate() {
        let (its, maker) = prepare(globals, &dialer, &part.load)?;
        first_kinds.push(kinds.len());
        // The same load may be there twice.
        kinds.extend(
            its.into_iter()
                .map(|kind| Kind { name: format!("mix-{}-{}", number + 1, kind.name), ..kind }),
        );
        makers.push(maker);
    }
    let load = Load { globals, total: flags.total, rate: flags.rate, kinds };
    let make = |conn: usize| Mix {
        parts: makers.iter().map(|make| make(conn)).collect(),
        first_kinds: first_kinds.clone(),
        weights: weights.clone(),
        random: SmallRng::seed_from_u64(globals.seed.wrapping_add(conn as u64)),
        owners: Vec::new(),
    };
    let (mut finished, _) = load.run(&dialer, make)?;
    for report in &mut finished.reports {
        report.heading = format!("\n{}:\n", report.name);
    }
    let loads = flags.load.iter().map(|part| format!("{} {:?}", part.weight, part.load));
    finished.details.insert("loads".into(), loads.collect::<Vec<_>>().into());
    Ok(finished)
}

fn prepare<'a>(
    globals: &'a Globals,
    dialer: &crate::wire::Dialer,
    load: &'a Loads,
) -> Result<(Vec<Kind>, Maker<'a>), Fatal> {
    fn any<'a, W: Workload + Send + 'static>(make: impl Fn(usize) -> W + Sync + 'a) -> Maker<'a> {
        Box::new(move |conn| Box::new(make(conn)))
    }
    Ok(match load {
        Loads::LeaseKeepalive(_) => {
            (lease_keepalive::kinds(), any(lease_keepalive::maker(globals, dialer)?))
        }
        Loads::Put(flags) => (put::kinds(), any(put::maker(globals, flags)?)),
        Loads::Range(flags) => (range::kinds(), any(range::maker(globals, flags)?)),
        Loads::TxnMixed(flags) => (txn_mixed::kinds(), any(txn_mixed::maker(globals, flags)?)),
        Loads::TxnPut(flags) => (txn_put::kinds(flags), any(txn_put::maker(globals, flags)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(&'static str);

    impl Workload for Fixed {
        fn begin(&mut self, _: usize, _: u64, _: &mut Vec<u8>) -> &'static str {
            self.0
        }

        fn message(&mut self, _: usize, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn loads_come_by_their_weight_and_keep_their_kind() {
        let mut mix = Mix {
            parts: vec![Box::new(Fixed("/a")), Box::new(Fixed("/b"))],
            first_kinds: vec![0, 2],
            weights: WeightedIndex::new([3.0, 1.0]).unwrap(),
            random: SmallRng::seed_from_u64(1),
            owners: Vec::new(),
        };
        let mut first = 0;
        for index in 0..10_000 {
            let path = mix.begin(5, index, &mut Vec::new());
            assert_eq!(mix.kind(5), if path == "/a" { 0 } else { 2 });
            first += u32::from(path == "/a");
        }
        assert!((7_300..7_700).contains(&first), "{first}");
    }

    #[test]
    fn a_part_is_a_weight_and_a_command_line() {
        let good = part("2.5 put --val-size 100").unwrap();
        assert_eq!(good.weight, 2.5);
        let Loads::Put(flags) = good.load else { panic!("a put was asked for") };
        assert_eq!(flags.val_size, 100);
        for wrong in ["put", "x put", "1", "1 stm", "1 put --no-such-flag"] {
            assert!(part(wrong).is_err(), "{wrong}");
        }
    }
}
