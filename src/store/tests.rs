//! The overlay is compared with a naive twin: a map to which everything was written at once.

use std::collections::BTreeMap;
use std::ops::Bound;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn key(random: &mut StdRng) -> Bytes {
    Bytes::from(vec![b'a' + random.random_range(0..3), b'a' + random.random_range(0..8)])
}

fn bound(random: &mut StdRng, key: Bytes) -> Bound<Bytes> {
    match random.random_range(0..5) {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Included(key),
        _ => Bound::Excluded(key),
    }
}

/// Takes from both ends at random.
fn zigzag<T>(
    random: &mut StdRng,
    mut pairs: impl DoubleEndedIterator<Item = T>,
) -> (Vec<T>, Vec<T>) {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let bias = [0.0, 0.5, 1.0][random.random_range(0..3)];
    loop {
        let forward = random.random_bool(bias);
        let Some(pair) = (if forward { pairs.next() } else { pairs.next_back() }) else { break };
        if forward { front.push(pair) } else { back.push(pair) }
    }
    assert!(pairs.next().is_none());
    assert!(pairs.next_back().is_none());
    (front, back)
}

#[test]
fn an_overlay_reads_as_if_everything_were_one_map() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut engine = Memory::default();
        let mut overlay = Overlay::new(engine.view());
        let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for step in 0..120_u8 {
            let key = key(&mut random);
            match random.random_range(0..10) {
                0..5 => {
                    let value = Bytes::from(vec![step]);
                    overlay.put(Space::Kv, key.clone(), value.clone());
                    assert_eq!(overlay.written(Space::Kv, &key), Some(Some(&value)));
                    model.insert(key, value);
                }
                5..8 => {
                    overlay.delete(Space::Kv, key.clone());
                    assert_eq!(overlay.written(Space::Kv, &key), Some(None));
                    model.remove(&key);
                }
                8 => {
                    engine.commit(overlay.take()).unwrap();
                    overlay.rebase(engine.view());
                    assert_eq!(overlay.written(Space::Kv, &key), None);
                }
                _ => check(&mut random, &overlay, &model),
            }
            overlay.put(Space::Log, Bytes::from(vec![b'a', step]), Bytes::new());
        }
    }
}

fn check(random: &mut StdRng, overlay: &Overlay<MemoryView>, model: &BTreeMap<Bytes, Bytes>) {
    let (one, two) = (key(random), key(random));
    assert_eq!(overlay.get(Space::Kv, &one).unwrap(), model.get(&one).cloned());
    let (from, to) = (bound(random, one.clone().min(two.clone())), bound(random, one.max(two)));
    if let (Bound::Excluded(from), Bound::Excluded(to)) = (&from, &to)
        && from == to
    {
        return;
    }
    let as_slices = |bound: &Bound<Bytes>| bound.clone();
    let (from_bytes, to_bytes) = (as_slices(&from), as_slices(&to));
    let from = from_bytes.as_ref().map(Bytes::as_ref);
    let to = to_bytes.as_ref().map(Bytes::as_ref);
    let expected: Vec<Pair> = model
        .range::<[u8], _>((from, to))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let (mut found, back) = zigzag(random, overlay.scan(Space::Kv, from, to).map(Result::unwrap));
    found.extend(back.into_iter().rev());
    assert_eq!(found, expected);
}

#[test]
fn views_stay_as_they_were() {
    let mut engine = Memory::default();
    let put = |value: &'static str| Batch {
        writes: vec![(Space::Kv, Bytes::from("a"), Some(Bytes::from(value)))],
    };
    engine.commit(put("1")).unwrap();
    let view = engine.view();
    engine.commit(put("2")).unwrap();
    assert_eq!(view.get(Space::Kv, b"a").unwrap(), Some(Bytes::from("1")));
    assert_eq!(engine.view().get(Space::Kv, b"a").unwrap(), Some(Bytes::from("2")));
    assert_eq!(engine.disk_bytes(), 2);
}

#[test]
fn spaces_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> =
        Space::ALL.iter().map(|space| space.name()).collect();
    assert_eq!(names.len(), Space::ALL.len());
    for (at, space) in Space::ALL.into_iter().enumerate() {
        assert_eq!(space as usize, at);
    }
}
