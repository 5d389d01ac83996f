//! For every cut and every flipped bit, either the exact records are read back, or damage is reported.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::types::EntryKind;
use crate::types::limits::WAL_BLOCK_BYTES;

fn entry(index: u64, length: usize) -> Record {
    let data = Bytes::from(vec![index as u8; length]);
    Record::Entry(Entry { index, term: 3, kind: EntryKind::Normal, data })
}

/// A segment of random frames; also the records up to the end of each frame.
fn segment(rng: &mut StdRng, number: u64) -> (Vec<u8>, Vec<(u64, Vec<Record>)>) {
    let mut bytes = Vec::new();
    let mut head = FrameHead { segment: number, offset: 0, previous: 0 };
    let mut records = vec![
        Record::Metadata { cluster_id: 1, member_id: 2 },
        Record::HardState(HardState::default()),
    ];
    let (mut all, mut ends) = (Vec::new(), Vec::new());
    for index in 1..rng.random_range(2..12) {
        records.push(entry(index, rng.random_range(0..9000)));
        head.previous = encode_frame(head, &records, &mut bytes);
        head.offset = bytes.len() as u64;
        all.append(&mut records);
        ends.push((head.offset, all.clone()));
    }
    (bytes, ends)
}

fn recovered(bytes: Vec<u8>, number: u64) -> Result<Vec<Record>, Fault> {
    replay_segment(&bytes.into(), number, None).map(|segment| segment.records)
}

use crate::types::Fault;

#[test]
fn written_frames_are_read_back() {
    let mut rng = StdRng::seed_from_u64(1);
    for number in 0..50 {
        let (mut bytes, ends) = segment(&mut rng, number);
        bytes.resize(bytes.len() + 3 * WAL_BLOCK_BYTES, 0);
        let read = replay_segment(&bytes.into(), number, None).expect("nothing is damaged");
        let (end, records) = ends.last().expect("there is a frame");
        assert_eq!((&read.records, read.next.offset, read.torn), (records, *end, false));
    }
}

#[test]
fn a_cut_gives_exactly_the_whole_frames_before_it() {
    let mut rng = StdRng::seed_from_u64(2);
    for number in 0..200 {
        let (mut bytes, ends) = segment(&mut rng, number);
        let cut = rng.random_range(0..bytes.len());
        let length = bytes.len();
        bytes.truncate(cut);
        bytes.resize(length, 0);
        let whole = ends.iter().rfind(|(end, _)| *end <= cut as u64);
        // Padding may be cut: the frame is whole without it.
        let padded =
            ends.iter().find(|(end, _)| *end > cut as u64).map(|(_, records)| records.clone());
        let read = recovered(bytes, number).expect("a torn tail is no damage");
        let expected = whole.map(|(_, records)| records.clone()).unwrap_or_default();
        assert!(read == expected || Some(read) == padded, "seed 2, segment {number}, cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_is_damage_or_a_torn_tail_and_never_wrong_data() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut refused = 0;
    for number in 0..400 {
        let (mut bytes, ends) = segment(&mut rng, number);
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        match recovered(bytes, number) {
            Err(_) => refused += 1,
            Ok(read) => {
                let complete = ends.iter().any(|(_, records)| *records == read);
                assert!(complete || read.is_empty(), "seed 3, segment {number}, flip at {at}");
                // Only the last frame may be lost without an error (and a flip in the padding is not detected).
                assert!(
                    ends.iter().rev().take(2).any(|(_, records)| *records == read)
                        || ends.len() == 1
                );
            }
        }
    }
    assert!(refused > 100, "most flips hit a frame that others follow");
}

#[test]
fn old_frames_of_a_recycled_file_are_not_valid() {
    let mut rng = StdRng::seed_from_u64(4);
    for number in 0..50 {
        let (old, _) = segment(&mut rng, number);
        let (new, ends) = segment(&mut rng, number + 1000);
        let mut file = old.clone();
        file.resize(old.len().max(new.len()), 0);
        file[..new.len()].copy_from_slice(&new);
        let read = recovered(file, number + 1000).expect("old frames are no damage");
        assert_eq!(read, ends.last().expect("there is a frame").1);
    }
}

#[test]
fn old_frames_of_a_recycled_file_are_not_a_torn_write() {
    let mut rng = StdRng::seed_from_u64(5);
    for number in 0..50 {
        let (old, _) = segment(&mut rng, number);
        let (new, ends) = segment(&mut rng, number + 1000);
        let mut file = new.clone();
        file.resize(new.len().max(old.len()), 0);
        let stale = &old[new.len().min(old.len())..];
        file[new.len()..new.len() + stale.len()].copy_from_slice(stale);
        let read = replay_segment(&file.into(), number + 1000, None).expect("nothing is damaged");
        assert_eq!((read.torn, read.next.offset), (false, ends.last().expect("a frame").0));
    }
}

#[test]
fn a_frame_that_was_begun_is_told_from_none() {
    let mut bytes = Vec::new();
    let head = FrameHead { segment: 7, offset: 0, previous: 0 };
    encode_frame(head, &[entry(1, 9000)], &mut bytes);
    bytes[2 * WAL_BLOCK_BYTES..].fill(0);
    let read = replay_segment(&bytes.into(), 7, None).expect("a torn tail is no damage");
    assert_eq!((read.records, read.torn, read.next), (vec![], true, head));
}

#[test]
fn a_segment_follows_the_end_of_the_one_before() {
    let mut bytes = Vec::new();
    let head = FrameHead { segment: 8, offset: 0, previous: 11 };
    encode_frame(head, &[entry(1, 10)], &mut bytes);
    let bytes = Bytes::from(bytes);
    for previous in [None, Some(11)] {
        assert!(replay_segment(&bytes, 8, previous).is_ok());
    }
    let lost = replay_segment(&bytes, 8, Some(12)).expect_err("frames between are missing");
    assert!(lost.to_string().contains("offset 0"), "{lost}");
}

#[test]
fn an_entry_replaces_the_tail_and_a_mark_cuts_the_head() {
    let mut replay = Replay::default();
    for index in 1..=5 {
        replay.take(entry(index, 1)).expect("fits");
    }
    replay.take(entry(4, 2)).expect("fits");
    let lengths =
        |replay: &Replay| replay.entries.iter().map(|it| it.data.len()).collect::<Vec<_>>();
    assert_eq!(lengths(&replay), [1, 1, 1, 2]);
    replay.take(log_start(2)).expect("fits");
    assert_eq!((replay.log_start_index, lengths(&replay)), (2, vec![1, 2]));
    assert!(replay.take(entry(9, 1)).is_err(), "a gap is refused");
}

fn log_start(index: u64) -> Record {
    let conf_state = ConfState { voters: vec![9], ..ConfState::default() };
    Record::LogStart { index, term: 3, conf_state }
}

#[test]
fn only_entries_below_a_later_log_start_may_be_missing() {
    let replayed = |log_starts: [u64; 2]| {
        let mut replay = Replay::default();
        replay.take(log_start(log_starts[0])).expect("fits");
        (50..60).for_each(|index| replay.take(entry(index, 1)).expect("fits"));
        replay.take(log_start(log_starts[1])).expect("fits");
        replay.finish().map(|replay| (replay.log_start_index, replay.entries.len()))
    };
    assert_eq!(replayed([10, 49]), Ok((49, 10)));
    assert_eq!(replayed([10, 55]), Ok((55, 4)));
    assert_eq!(replayed([10, 70]), Ok((70, 0)));
    let lost = replayed([10, 48]).expect_err("entry 49 is missing");
    assert!(lost.to_string().contains("from entry 48 to 50"), "{lost}");
}
