//! Bytes from other members.

use std::time::Duration;

use basalt::consensus::wire::{Encoder, decode, priority, proposals_of, snapshot_position};
use basalt::consensus::{Config, Driver, Input, MessageType, Output, Restored};
use basalt::peer::{Answer, Decoder, Hello, Kind, Question, Refused, Welcome};
use basalt::types::{ConfState, Entry, EntryKind, HardState};
use bytes::Bytes;

use super::{choice, pieces};

/// Frames of a connection.
pub(crate) fn frames(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    for piece in pieces(bytes) {
        decoder.take(piece);
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Err(_) => return,
                Ok(Some(frame)) => {
                    let _ = frame.read::<Hello>(Kind::Hello);
                    let _ = frame.read::<Welcome>(Kind::Welcome);
                    let _ = frame.read::<Refused>(Kind::Refused);
                    let _ = frame.read::<Question>(Kind::Question);
                    let _ = frame.read::<Answer>(Kind::Answer);
                    message(frame.payload);
                }
            }
        }
    }
    message(Bytes::copy_from_slice(bytes));
}

/// A message of consensus. One that is read is written again and read back.
fn message(bytes: Bytes) {
    let Some(message) = decode(bytes) else { return };
    let (head, rest) = Encoder::default().encode(&message);
    let again = decode([&head[..], &rest].concat().into()).expect("it was read before");
    assert_eq!(again, message);
    let _ = (priority(&message), snapshot_position(&message), proposals_of(message));
}

/// Messages of consensus that a member takes: framed as length and bytes, with ticks between them.
pub(crate) fn raft(bytes: &[u8]) {
    let mut driver = member();
    let mut outputs = Vec::new();
    let mut now = Duration::ZERO;
    let mut rest = bytes;
    while let (length, Some(after)) = (choice(rest).0, rest.get(1..)) {
        let (one, after) = after.split_at(length.min(after.len()));
        rest = after;
        now += Duration::from_millis(1);
        match decode(Bytes::copy_from_slice(one)) {
            // The configuration in a snapshot is checked with its file.
            Some(message) if message.get_msg_type() == MessageType::MsgSnapshot => (),
            Some(mut message) => {
                // raft stops a member whose log is shorter than its leader knows: it has lost entries.
                message.commit = message.commit.min(LAST);
                driver.on(now, Input::Step(Box::new(message)));
            }
            None => driver.on(now, Input::Tick),
        }
        driver.drain(&mut outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Persist { number, .. } => driver.on(now, Input::Persisted(number)),
                Output::Commit(entries) => {
                    let last = entries.last().map_or(0, |entry| entry.index);
                    driver.on(now, Input::Applied(last));
                }
                Output::Send(_)
                | Output::ReadAt { .. }
                | Output::Install { .. }
                | Output::ProposalsDropped(_)
                | Output::ConfChangeDropped(_)
                | Output::Role(_)
                | Output::Full(_) => (),
            }
        }
    }
}

/// Entries of that member's log.
const LAST: u64 = 3;

/// The second of three members, with a few entries.
fn member() -> Driver {
    let config = Config {
        id: 2,
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: true,
        seed: 1,
        boot_nonce: 1,
        catch_up_entries: 5000,
        catch_up_bytes_max: 1 << 20,
        uncommitted_bytes_max: 1 << 20,
        vote_lease: Duration::ZERO,
        logger: None,
    };
    let entry = |index| Entry { index, term: 1, kind: EntryKind::Normal, data: Bytes::new() };
    let restored = Restored {
        hard_state: HardState { term: 1, vote: 1, commit: 2 },
        conf_state: ConfState { voters: vec![1, 2, 3], ..ConfState::default() },
        entries: (1..=LAST).map(entry).collect(),
        applied: 1,
        ..Restored::default()
    };
    Driver::new(config, &restored).expect("the state is consistent")
}
