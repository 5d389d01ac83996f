//! Clients that cost much are told so, and busy ones that do no harm are not.

use super::*;

const MIN: Duration = Duration::from_secs(5);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[0; 8])
}

#[test]
fn pings_are_judged_as_by_grpc() {
    // Without a stream each within two hours of the last is a strike, and the third ends it.
    let mut guard = Guard::new(MIN, Duration::ZERO);
    for second in [0, 30, 60] {
        guard.received(&ping(), at(second));
        assert_eq!(guard.verdict(), None, "{second}");
    }
    guard.received(&ping(), at(90));
    assert_eq!(guard.verdict(), Some(Verdict::Pings));
    // With an open stream the flag decides.
    let mut guard = Guard::new(MIN, Duration::ZERO);
    guard.received(&frame(HEADERS, 4, 1, b"h"), at(0));
    (0..100).for_each(|ping_number| guard.received(&ping(), at(5 * ping_number)));
    assert_eq!(guard.verdict(), None);
    (0..3).for_each(|_| guard.received(&ping(), at(496)));
    assert_eq!(guard.verdict(), Some(Verdict::Pings));
    // An answer forgives, acknowledgements are no pings.
    let mut guard = Guard::new(MIN, Duration::ZERO);
    for _ in 0..1000 {
        guard.received(&ping(), at(0));
        guard.received(&frame(PING, ACK, 0, &[0; 8]), at(0));
        guard.sent(&frame(DATA, 0, 1, b"answer"));
    }
    assert_eq!(guard.verdict(), None);
    // The end of its answer closes a stream.
    guard.received(&frame(HEADERS, 4, 1, b"h"), at(0));
    guard.sent(&frame(HEADERS, 4 | END_STREAM, 1, b"h"));
    (0..5).for_each(|second| guard.received(&ping(), at(1000 * second)));
    assert_eq!(guard.verdict(), Some(Verdict::Pings));
}

#[test]
fn streams_that_are_reset_at_once_end_a_connection() {
    let request = |stream| frame(HEADERS, 4, stream, b"h");
    let reset = |stream| frame(RST_STREAM, 0, stream, &[0; 4]);
    let mut guard = Guard::new(MIN, Duration::ZERO);
    for number in 0..=RESETS_MAX {
        assert_eq!(guard.verdict(), None);
        guard.received(&request(2 * number + 1), at(1));
        guard.received(&reset(2 * number + 1), at(1));
        guard.sent(&frame(DATA, 0, 1, b"others are answered"));
    }
    assert_eq!(guard.verdict(), Some(Verdict::Resets));
    // Slowly they are nobody's concern; nor are those of a client that cancels all it has asked for some time ago.
    let mut guard = Guard::new(MIN, Duration::ZERO);
    for number in 0..2 * RESETS_MAX {
        guard.received(&request(2 * number + 1), at(u64::from(number) / 999));
        guard.received(&reset(2 * number + 1), at(u64::from(number) / 999));
    }
    assert_eq!(guard.verdict(), None);
    let mut guard = Guard::new(MIN, Duration::ZERO);
    let streams = || (0..5 * RESETS_MAX).map(|number| 2 * number + 1);
    streams().for_each(|stream| guard.received(&request(stream), at(0)));
    streams().for_each(|stream| guard.received(&reset(stream), at(60)));
    assert_eq!(guard.verdict(), None);
}

#[test]
fn frames_that_ask_for_nothing_end_a_connection_at_last() {
    for kind in [2, 4, 8, 77] {
        let mut guard = Guard::new(MIN, Duration::ZERO);
        let many = frame(kind, 0, 0, &[0; 4]).repeat(1000);
        for _ in 0..CONTROL_FRAMES_MAX / 1000 {
            guard.received(&many, at(0));
        }
        assert_eq!(guard.verdict(), None);
        guard.received(&many, at(0));
        assert_eq!(guard.verdict(), Some(Verdict::Frames));
    }
    // Windows that are raised for what is sent.
    let mut guard = Guard::new(MIN, Duration::ZERO);
    for _ in 0..4 * CONTROL_FRAMES_MAX {
        guard.received(&frame(8, 0, 1, &[0; 4]), at(0));
        guard.sent(&frame(DATA, 0, 1, b"event"));
    }
    assert_eq!(guard.verdict(), None);
}

#[test]
fn frames_are_found_however_they_are_cut() {
    let all = [
        frame(HEADERS, 4, 1, &[7; 300]),
        frame(DATA, END_STREAM, 1, &[]),
        ping(),
        frame(RST_STREAM, 0, 3, &[0; 4]),
    ]
    .concat();
    let heads = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut found, mut heads) = (Vec::new(), FrameHeads::default());
        let mut payload = 0;
        pieces.for_each(|piece| {
            heads.scan(piece, |part| match part {
                Found::Head(head) => found.push(head),
                Found::Payload(_, bytes) => payload += bytes.len(),
            });
        });
        assert_eq!(payload, found.iter().map(|head| head.length).sum::<usize>());
        assert!(heads.is_between());
        found
    };
    let whole = heads(&mut std::iter::once(&all[..]));
    assert_eq!(
        whole.iter().map(|head| head.kind).collect::<Vec<_>>(),
        [HEADERS, DATA, PING, RST_STREAM]
    );
    for size in 1..20 {
        assert_eq!(heads(&mut all.chunks(size)), whole);
    }
}

#[test]
fn the_last_frame_names_the_reason_and_the_newest_stream() {
    let mut guard = Guard::new(MIN, Duration::ZERO);
    assert_eq!(guard.goaway(), None);
    guard.received(&frame(HEADERS, 4, 5, b"h"), at(0));
    (0..4).for_each(|_| guard.received(&ping(), at(1)));
    let goaway = guard.goaway().expect("between two frames");
    assert_eq!(goaway[..9], [0, 0, 22, GOAWAY, 0, 0, 0, 0, 0]);
    assert_eq!(goaway[9..17], [0, 0, 0, 5, 0, 0, 0, 11]);
    assert_eq!(&goaway[17..], b"too_many_pings");
    guard.sent(&frame(DATA, 0, 5, b"half of it")[..12]);
    assert_eq!(guard.goaway(), None, "within a frame");
}

const TIME: Duration = Duration::from_secs(60);

#[test]
fn a_client_that_says_nothing_after_its_first_bytes_is_none() {
    let silent = || {
        let mut guard = Guard::new(MIN, at(5));
        guard.received(&frame(SETTINGS, 0, 0, &[]), at(5));
        guard
    };
    let mut guard = silent();
    assert!(guard.may_stall());
    assert_eq!(guard.sweep(at(64), TIME, 0), None);
    assert_eq!(guard.sweep(at(65), TIME, 0), Some(Verdict::Unsettled));
    let goaway = guard.goaway().expect("between two frames");
    assert_eq!(goaway[13..17], SETTINGS_TIMEOUT.to_be_bytes());
    // One that acknowledges the settings may wait for as long as it likes until it asks for something.
    for said in [frame(SETTINGS, ACK, 0, &[]), frame(HEADERS, 4, 1, b"h")] {
        let mut guard = silent();
        guard.received(&said, at(6));
        assert!(!guard.may_stall());
        assert_eq!(guard.sweep(at(100_000), TIME, 0), None);
    }
}

/// A client that has acknowledged the settings.
fn settled() -> Guard {
    let mut guard = Guard::new(MIN, at(0));
    guard.received(&frame(SETTINGS, ACK, 0, &[]), at(0));
    guard
}

fn update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

#[test]
fn a_window_that_stays_used_up_ends_a_connection_that_has_bytes_for_it() {
    let answer = |length| frame(DATA, 0, 1, &vec![0; length]);
    let mut guard = settled();
    guard.sent(&answer(60_000));
    assert!(guard.may_stall());
    // Nothing waits for it: some clients raise the window only when it is used up.
    for minute in 0..100 {
        assert_eq!(guard.sweep(at(60 * minute), TIME, 0), None);
    }
    // Single bytes do not help.
    let mut second = 10_000;
    while guard.sweep(at(second), TIME, 1).is_none() {
        assert!(second < 10_200, "it is given up at last");
        guard.received(&update(0, 1), at(second));
        guard.received(&update(1, 1 << 20), at(second));
        second += 5;
    }
    assert_eq!((second, guard.verdict()), (10_120, Some(Verdict::Window)));
    // Windows that are raised and used up again do.
    let mut guard = settled();
    for second in (0..1000).step_by(5) {
        guard.sent(&answer(60_000));
        guard.received(&update(0, 60_000), at(second));
        assert_eq!(guard.sweep(at(second), TIME, 1), None);
    }
}

#[test]
fn small_windows_are_noticed_wherever_they_stand_in_the_settings() {
    let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let is_small = |settings: &[Vec<u8>]| {
        let mut guard = settled();
        // Byte by byte, as a network may bring them.
        for byte in frame(SETTINGS, 0, 0, &settings.concat()) {
            guard.received(&[byte], at(0));
        }
        guard.has_small_windows()
    };
    let other = setting(5, 1);
    assert!(!is_small(&[]));
    assert!(!is_small(&[other.clone(), setting(INITIAL_WINDOW_SIZE, 65_535)]));
    assert!(is_small(&[other.clone(), setting(INITIAL_WINDOW_SIZE, 65_534)]));
    assert!(is_small(&[setting(INITIAL_WINDOW_SIZE, 0), other]));
}
