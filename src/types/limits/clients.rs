//! Bounds of what clients may hold by asking for much, or by being slow.

/// Time after which a client is given up that sends no more of its request, or takes no more of its answer.
pub const STALL_MS_MAX: u64 = 60_000;

/// The inverse of the part of that time after which answers are given up that nobody takes, while others wait for the memory
/// that they hold. Shorter than [`ANSWER_WAIT_MAX`](super::ANSWER_WAIT_MAX), so that those are served.
pub const STALL_PARTS_IF_OTHERS_WAIT: u32 = 6;

/// The same for clients that have not taken a large answer before, while others like them wait: some retransmissions of TCP.
pub const STALL_PARTS_IF_NEW_WAIT: u32 = 30;

/// The inverse of the part of that time in which the body of a request in JSON may come as slowly as it likes, and the
/// bytes that must have come for each second after that.
pub const BODY_GRACE_PARTS: u32 = 2;
/// See [`BODY_GRACE_PARTS`].
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 1024;

/// Bytes of the requests of one executor that are not complete, however much memory there is: eighty clients may upload as
/// much as a request may have at once. Of those that stall a quarter of it is kept.
pub const INCOMPLETE_BYTES_MAX: usize = 128 << 20;

/// Bytes of a request that is not complete up to which they are not counted.
pub const INCOMPLETE_BYTES_UNCOUNTED: usize = 64 << 10;

/// Streams of one connection; more are refused, so that clients try again later. `--max-concurrent-streams` can only lower it.
pub const STREAMS_OF_CONNECTION_MAX: usize = 32_768;

/// Streams of a member, each executor having an equal part.
pub const STREAMS_OF_MEMBER_MAX: usize = 1_000_000;

/// Bytes of answers that HTTP/2 keeps for one connection above which its new streams are refused: while those of all
/// connections exceed an eighth of the budget of responses, or if its client has set windows that are smaller than usual.
pub const UNSENT_BYTES_OF_CONNECTION_MIN: usize = 256 << 10;

/// Leases of a cluster; more are refused by the member that is asked, before they are proposed.
pub const LEASES_MAX: usize = 10_000_000;

/// Watches of one executor; more are refused.
pub const WATCHES_MAX: usize = 1_000_000;

const _: () = assert!(STREAMS_OF_CONNECTION_MAX < STREAMS_OF_MEMBER_MAX);
const _: () = assert!(
    (STALL_MS_MAX / STALL_PARTS_IF_OTHERS_WAIT as u64) < super::ANSWER_WAIT_MAX.as_millis() as u64
);
