//! Micro benchmarks of the hot paths: instructions for one operation, which do not depend on what else the machine does.
//!
//! ```text
//!  cargo bench --bench micro [name]   counts with valgrind if it is there, and takes the time otherwise
//!  cargo test --bench micro           runs each some times, so that none rots
//! ```
//!
//! Instructions are counted by running this program under valgrind twice, with few and with many operations: what the
//! program does before and after them is in both. Nothing here depends on an executor, a socket or a disk.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a tool for the terminal that takes the time where nothing else can be counted"
)]

mod apply;
mod codec;
mod count;
mod read;
mod wal;
mod watch;

/// A prepared operation, which is called repeatedly.
type Operation = Box<dyn FnMut()>;

/// The name of an operation, and the function that prepares it.
type Named = (&'static str, fn() -> Operation);

/// All operations.
const ALL: &[Named] = &[
    ("encode-put", codec::encode_put),
    ("decode-put", codec::decode_put),
    ("encode-range-response", codec::encode_range_response),
    ("decode-range", codec::decode_range),
    ("apply-put", apply::put),
    ("range-one-key", read::one_key),
    ("watch-match", watch::one_of_many),
    ("wal-frame", wal::frame),
];

/// Operations in a run that only shows that they work.
const FEW: u64 = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = arguments.iter().find(|it| !it.starts_with("--"));
    let all = ALL.iter().filter(|(name, _)| named.is_none_or(|named| named == name));
    if let Some(times) = arguments.iter().find_map(|it| it.strip_prefix(count::TIMES)) {
        let times = times.parse().expect("a number of operations");
        all.for_each(|(_, make)| repeat(make(), times));
    } else if arguments.iter().any(|it| it == "--bench") {
        all.for_each(|(name, make)| println!("{name:<24} {}", count::one(name, || make())));
    } else {
        all.for_each(|(_, make)| repeat(make(), FEW));
    }
}

fn repeat(mut operation: Operation, times: u64) {
    (0..times).for_each(|_| operation());
}
