//! Merged frames mean the same as before, however the reads are cut.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Kind, flags, stream and payload of all frames.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk() {
        let (payload, rest) = rest.split_at(payload_of(head));
        let [_, _, _, kind, flags, stream @ ..] = *head;
        frames.push((kind, flags, u32::from_be_bytes(stream), payload.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame");
    frames
}

fn merged(bytes: &[u8], reads: impl Iterator<Item = usize>) -> Vec<u8> {
    let (mut merge, mut at, mut all) = (Merge::default(), 0, Vec::new());
    for read in reads {
        let mut piece = bytes[at..bytes.len().min(at + read)].to_vec();
        at += piece.len();
        let length = merge.merge(&mut piece);
        all.extend_from_slice(&piece[..length]);
    }
    assert_eq!(at, bytes.len());
    all
}

#[test]
fn small_messages_of_a_stream_become_one_frame() {
    let small: Vec<u8> = (0..20_000).flat_map(|_| frame(DATA, 0, 1, &[7; 15])).collect();
    let merged = merged(&small, std::iter::repeat_n(64 << 10, small.len().div_ceil(64 << 10)));
    let frames = frames(&merged);
    assert!(frames.len() < 60, "{} frames", frames.len());
    assert!(frames.iter().all(|it| it.3.len() <= PAYLOAD_MAX));
}

#[test]
fn streams_that_take_turns_are_joined_too() {
    let streams = [1, 3, 5].map(|stream| frame(DATA, 0, stream, &[stream as u8]));
    let bytes = streams.concat().repeat(100);
    let merged = merged(&bytes, std::iter::once(bytes.len()));
    let expected = [1, 3, 5].map(|stream| (DATA, 0, stream, vec![stream as u8; 100]));
    assert_eq!(frames(&merged), expected);
}

#[test]
fn empty_padded_and_last_frames_are_not_merged() {
    for (flags, payload) in [(END_STREAM, &[7][..]), (PADDED, &[0, 7]), (0, &[])] {
        let bytes = frame(DATA, flags, 1, payload).repeat(3);
        assert_eq!(merged(&bytes, std::iter::once(bytes.len())), bytes);
    }
}

/// Frames that are not plain DATA, in order, and the frames of each stream in order.
type Meaning = (Vec<(u8, u8, u32, Vec<u8>)>, Vec<Vec<(u8, u8, Vec<u8>)>>);

fn meaning(bytes: &[u8]) -> Meaning {
    let (mut others, mut streams) = (Vec::new(), vec![Vec::new(); 40]);
    for (kind, flags, stream, payload) in frames(bytes) {
        let is_plain = |it: &(u8, u8, Vec<u8>)| (it.0, it.1) == (DATA, 0) && !it.2.is_empty();
        let seen = &mut streams[stream as usize];
        match seen.last_mut() {
            Some(last) if is_plain(&(kind, flags, payload.clone())) && is_plain(last) => {
                last.2.extend_from_slice(&payload);
            }
            _ => seen.push((kind, flags, payload.clone())),
        }
        if !is_plain(&(kind, flags, payload.clone())) {
            others.push((kind, flags, stream, payload));
        }
    }
    (others, streams)
}

#[test]
fn the_meaning_stays_however_frames_are_mixed_and_cut() {
    for seed in 0..2_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (streams, plain) = (rng.random_range(1..40), rng.random_range(0.5..1.0));
        let bytes: Vec<u8> = (0..rng.random_range(0..200))
            .flat_map(|number: u32| {
                let longest = if rng.random_bool(0.02) { 9_000 } else { 30 };
                let length = rng.random_range(0..longest);
                let (kind, flags) = match rng.random_bool(plain) {
                    true => (DATA, 0),
                    false => (rng.random_range(0..4), rng.random_range(0..16)),
                };
                let stream = rng.random_range(0..streams);
                frame(kind, flags, stream, &vec![number as u8; length])
            })
            .collect();
        let longest = [1, 10, 100, 10_000, 70_000][rng.random_range(0..5)];
        let mut left = bytes.len();
        let reads = std::iter::from_fn(|| {
            let read = rng.random_range(1..=longest).min(left);
            left -= read;
            (read > 0).then_some(read)
        });
        let merged = merged(&bytes, reads);
        assert!(merged.len() <= bytes.len());
        assert_eq!(meaning(&merged), meaning(&bytes), "seed {seed}");
    }
}
