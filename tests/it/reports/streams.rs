//! Floods of HTTP/2 that had advisories of their own: each ends its connection alone. `abuse` has those of resets and pings.

use crate::abuse::{Frames, call, frame, is_served};
use crate::process::{self, Setup};

const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// CVE-2023-45288: a head that never ends.
#[test]
fn a_head_without_an_end_ends_its_connection() {
    let server = Setup::new(process::basalt()).start();
    let mut frames = Frames::open(&server);
    // A header of one byte, which is not added to the table.
    let header = [0x00, 1, b'a', 1, b'b'];
    frames.send(&frame(HEADERS, 0, 1, &header));
    for _ in 0..200 {
        frames.send(&frame(CONTINUATION, 0, 1, &header).repeat(100));
    }
    frames.farewell();
    is_served(&server);
}

/// CVE-2025-8671 (MadeYouReset): frames that the server has to answer by resetting their streams.
#[test]
fn streams_that_the_server_has_to_reset_end_their_connection() {
    let server = Setup::new(process::basalt()).start();
    let mut frames = Frames::open(&server);
    for number in 0..3000 {
        let stream = 2 * number + 1;
        // More than a window can be.
        let increment = frame(WINDOW_UPDATE, 0, stream, &i32::MAX.to_be_bytes());
        frames.send(&[call(stream), increment].concat());
    }
    let why = frames.farewell();
    assert!(why.as_ref().is_some_and(|(_, why)| why.contains("too_many")), "{why:?}");
    is_served(&server);
}
