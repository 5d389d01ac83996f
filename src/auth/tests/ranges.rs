//! Ranges against a naive twin, which looks at each key at which something could change. `BASALT_AUTH_CASES=1000000` makes
//! the run long.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

/// Cases of an ordinary run.
const CASES: usize = 20_000;

fn cases() -> usize {
    let wanted = std::env::var("BASALT_AUTH_CASES").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(CASES)
}

/// Keys that are close to each other, of up to three bytes.
fn key(random: &mut SmallRng) -> Vec<u8> {
    let bytes = [0, 1, b'a', b'b', b'c', 0xff];
    (0..random.random_range(1..=3)).map(|_| bytes[random.random_range(0..bytes.len())]).collect()
}

fn end(random: &mut SmallRng) -> Vec<u8> {
    match random.random_range(0..4) {
        0 => Vec::new(),
        1 => vec![0],
        _ => key(random),
    }
}

type Granted = Vec<(Type, Vec<u8>, Vec<u8>)>;

/// True if one permission is for this key.
fn holds(key: &[u8], (_, start, end): &(Type, Vec<u8>, Vec<u8>)) -> bool {
    match &end[..] {
        [] => key == start,
        [0] => key >= &start[..],
        end => key >= &start[..] && key < end,
    }
}

/// True if every key from `key` to `range_end` is in some permission. The places where one begins or ends, and right behind the keys of
/// those for one key, are the only places at which the answer could change.
fn may(granted: &Granted, action: Action, key: &[u8], range_end: &[u8]) -> bool {
    let granted: Granted = granted
        .iter()
        .filter(|(kind, ..)| match kind {
            Type::Readwrite => true,
            Type::Read => action == Action::Read,
            Type::Write => action == Action::Write,
        })
        .cloned()
        .collect();
    let is_open = range_end == [0];
    let asked = |at: &[u8]| match range_end {
        end if !is_open && end <= key => at == key,
        end => at >= key && (is_open || at < end),
    };
    let next = |key: &[u8]| [key, &[0]].concat();
    let borders =
        granted.iter().flat_map(|(_, start, end)| [start.clone(), end.clone(), next(start)]);
    let mut scanned = borders.chain([key.to_vec()]).filter(|at| asked(at));
    let last = vec![0xff; 8];
    let to_the_end = !is_open || granted.iter().any(|one| holds(&last, one));
    to_the_end && scanned.all(|at| granted.iter().any(|one| holds(&at, one)))
}

#[test]
fn ranges_are_covered_as_a_look_at_each_key_says() {
    let mut random = SmallRng::seed_from_u64(16);
    let (mut allowed, mut left) = (0, cases());
    while left > 0 {
        let mut bench = Bench::enabled();
        bench.user("u").unwrap();
        let mut granted: Granted = Vec::new();
        for role in 0..random.random_range(1..=3) {
            let role = format!("r{role}");
            bench.role(&role).unwrap();
            bench.give("u", &role).unwrap();
            let mut of_role: Granted = Vec::new();
            for _ in 0..random.random_range(0..=4) {
                let kind = [Type::Read, Type::Write, Type::Readwrite][random.random_range(0..3)];
                let (key, end) = (key(&mut random), end(&mut random));
                if bench.grant(&role, kind, &key, &end).is_ok() {
                    of_role.retain(|(_, old, old_end)| (old, old_end) != (&key, &end));
                    of_role.push((kind, key, end));
                }
            }
            granted.extend(of_role);
        }
        let permissions = bench.reopened();
        for _ in 0..100.min(left) {
            let action = [Action::Read, Action::Write][random.random_range(0..2)];
            let (key, end) = (key(&mut random), end(&mut random));
            let answer = permissions.check_range(somebody("u"), action, &key, &end);
            let expected = may(&granted, action, &key, &end);
            assert_eq!(answer.is_ok(), expected, "{action:?} {key:?} {end:?} of {granted:?}");
            allowed += usize::from(expected);
            left -= 1;
        }
    }
    assert!(allowed > cases() / 20 && allowed < cases() * 19 / 20, "{allowed} were allowed");
}

#[test]
fn ranges_that_touch_are_one() {
    let mut bench = Bench::enabled();
    bench.user("u").unwrap();
    for (role, key, end) in [("r", b"a", b"b"), ("s", b"b", b"c")] {
        bench.role(role).unwrap();
        bench.give("u", role).unwrap();
        bench.grant(role, Type::Read, key, end).unwrap();
    }
    let may = |bench: &Bench, key: &[u8], end: &[u8]| {
        bench.auth.permissions().check_range(somebody("u"), Action::Read, key, end).is_ok()
    };
    assert!(may(&bench, b"a", b"c") && may(&bench, b"b", b"") && may(&bench, b"az", b"b\0"));
    assert!(!may(&bench, b"a", b"c\0") && !may(&bench, b"a", b"\0") && !may(&bench, b"c", b""));
    assert!(may(&bench, b"b", b"a"), "what is upside down is its key");
    bench.grant("r", Type::Read, b"c", b"").unwrap();
    assert!(may(&bench, b"a", b"c\0") && !may(&bench, b"a", b"c\0\0"));
    bench.grant("s", Type::Read, b"c", b"\0").unwrap();
    assert!(may(&bench, b"a", b"\0"));
    bench.delete_role("s").unwrap();
    assert!(!may(&bench, b"a", b"c") && may(&bench, b"a", b"b"));
}
