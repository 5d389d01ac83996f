//! Encoding of raft messages for other members. All numbers are little-endian.
//!
//! ```text
//!  type u8 · reject u8 · 9 numbers u64 · priorities u64, i64 · context · snapshot's position ‖ entries
//!  entries   count u32, then of each: kind u8 · term u64 · index u64 · length u32 · payload
//! ```
//!
//! The entries are a block of their own, so that a block sent to several members is encoded once. Decoded payloads are
//! slices of the input.

use bytes::{Buf as _, BufMut as _, Bytes};
use protobuf::{ProtobufEnum as _, RepeatedField};
use raft::eraftpb::{self, ConfState, EntryType, Message, MessageType};

use crate::types::{self, LogIndex, Term};

/// Encodes messages one after the other.
#[derive(Debug, Default)]
pub struct Encoder {
    /// The entries that were encoded last: first index, last index, last term.
    last: Option<((u64, u64, u64), Bytes)>,
}

impl Encoder {
    /// The header of a message, and its block of entries.
    pub fn encode(&mut self, message: &Message) -> (Vec<u8>, Bytes) {
        (head(message), self.entries(&message.entries))
    }

    fn entries(&mut self, entries: &[eraftpb::Entry]) -> Bytes {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Bytes::from_static(&[0; 4]);
        };
        // The last entry's term identifies the log before it; an entry that is not in a log yet has no index, and is
        // never equal to a cached one.
        let which = (first.index, last.index, last.term);
        if let Some((same, bytes)) = &self.last
            && *same == which
            && first.index > 0
        {
            return bytes.clone();
        }
        let length: usize = entries.iter().map(|entry| entry.data.len() + 21).sum();
        let mut out = Vec::with_capacity(length + 4);
        out.put_u32_le(entries.len() as u32);
        for entry in entries {
            out.put_u8(entry.get_entry_type().value() as u8);
            out.put_u64_le(entry.term);
            out.put_u64_le(entry.index);
            out.put_u32_le(entry.data.len() as u32);
            out.put_slice(&entry.data);
        }
        let bytes = Bytes::from(out);
        self.last = Some((which, bytes.clone()));
        bytes
    }
}

fn head(message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.put_u8(message.get_msg_type().value() as u8);
    out.put_u8(u8::from(message.reject));
    let numbers = [
        message.to,
        message.from,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
        message.deprecated_priority,
    ];
    numbers.into_iter().for_each(|number| out.put_u64_le(number));
    out.put_i64_le(message.priority);
    out.put_u32_le(message.context.len() as u32);
    out.put_slice(&message.context);
    let metadata = message.get_snapshot().get_metadata();
    out.put_u64_le(metadata.index);
    out.put_u64_le(metadata.term);
    let state = metadata.get_conf_state();
    for ids in [&state.voters, &state.learners, &state.voters_outgoing, &state.learners_next] {
        out.put_u32_le(ids.len() as u32);
        ids.iter().for_each(|id| out.put_u64_le(*id));
    }
    out.put_u8(u8::from(state.auto_leave));
    out
}

/// Decodes a message; `None` if it is malformed, or has a term that its kind has not, or lacks one.
pub fn decode(mut bytes: Bytes) -> Option<Message> {
    let mut message = Message::default();
    message.set_msg_type(MessageType::from_i32(bytes.try_get_u8().ok()?.into())?);
    message.reject = bytes.try_get_u8().ok()? != 0;
    message.to = bytes.try_get_u64_le().ok()?;
    message.from = bytes.try_get_u64_le().ok()?;
    for field in [
        &mut message.term,
        &mut message.log_term,
        &mut message.index,
        &mut message.commit,
        &mut message.commit_term,
        &mut message.reject_hint,
        &mut message.request_snapshot,
    ] {
        *field = count(&mut bytes)?;
    }
    message.deprecated_priority = bytes.try_get_u64_le().ok()?;
    message.priority = bytes.try_get_i64_le().ok()?;
    message.context = block(&mut bytes)?;
    let (index, term) = (count(&mut bytes)?, count(&mut bytes)?);
    let mut state = ConfState::default();
    for ids in [
        &mut state.voters,
        &mut state.learners,
        &mut state.voters_outgoing,
        &mut state.learners_next,
    ] {
        let length = bytes.try_get_u32_le().ok()?;
        *ids = (0..length).map(|_| bytes.try_get_u64_le().ok()).collect::<Option<_>>()?;
    }
    state.auto_leave = bytes.try_get_u8().ok()? != 0;
    if index > 0 {
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(state);
    }
    let length = bytes.try_get_u32_le().ok()?;
    let entries: Option<Vec<_>> = (0..length).map(|_| entry(&mut bytes)).collect();
    message.entries = RepeatedField::from_vec(entries?);
    (bytes.is_empty() && has_its_term(&message)).then_some(message)
}

/// True if it has a term, or is of a kind that has none. raft takes one without a term for its own, which could set a
/// member's term back, and cannot pass on a proposal that has one.
fn has_its_term(message: &Message) -> bool {
    let has_none = [MessageType::MsgPropose, MessageType::MsgReadIndex];
    (message.term == 0) == has_none.contains(&message.get_msg_type())
}

/// A term or an index: raft adds to them without a look at the end of their type.
fn count(bytes: &mut Bytes) -> Option<u64> {
    bytes.try_get_u64_le().ok().filter(|number| i64::try_from(*number).is_ok())
}

fn block(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32_le().ok()? as usize;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn entry(bytes: &mut Bytes) -> Option<eraftpb::Entry> {
    let kind = EntryType::from_i32(bytes.try_get_u8().ok()?.into())?;
    let (term, index) = (count(bytes)?, count(bytes)?);
    let data = block(bytes)?;
    let mut entry = eraftpb::Entry { term, index, data, ..eraftpb::Entry::default() };
    entry.set_entry_type(kind);
    Some(entry)
}

/// Transport class of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Small, and delay would cause elections: never queued behind appends.
    Urgent,
    /// As large as clients' requests.
    Bulk,
    /// Accompanied by the whole state.
    Snapshot,
}

/// The transport class of this message.
pub fn priority(message: &Message) -> Priority {
    let kind = message.get_msg_type();
    if kind == MessageType::MsgSnapshot {
        Priority::Snapshot
    } else if matches!(kind, MessageType::MsgAppend | MessageType::MsgPropose) {
        Priority::Bulk
    } else {
        Priority::Urgent
    }
}

/// True if a message carries proposals to the leader: the only kind that raft does not retransmit.
pub fn is_proposal(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgPropose
}

/// Removes entries that must not be appended to the log from a message; returns their number. A message without entries
/// must not be stepped: raft panics on an empty proposal.
pub fn retain_proposals(
    message: &mut Message,
    may_enter: impl Fn(types::EntryKind, &Bytes) -> bool,
) -> usize {
    let before = message.entries.len();
    message.entries.retain(|raft| {
        let entry = super::convert::entry_from_raft(raft);
        may_enter(entry.kind, &entry.data)
    });
    before - message.entries.len()
}

/// Proposals in a message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proposals {
    /// Payloads of normal entries.
    pub normal: Vec<Bytes>,
    /// Encoded [`crate::types::ConfChange`]s.
    pub conf_changes: Vec<Bytes>,
}

/// The proposals in a message.
pub fn proposals_of(message: Message) -> Proposals {
    let mut proposals = Proposals::default();
    for entry in message.entries {
        match entry.get_entry_type() {
            EntryType::EntryNormal => proposals.normal.push(entry.data),
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                proposals.conf_changes.push(entry.data);
            }
        }
    }
    proposals
}

/// Index and term of the snapshot in a message.
pub fn snapshot_position(message: &Message) -> (LogIndex, Term) {
    let metadata = message.get_snapshot().get_metadata();
    (metadata.index, metadata.term)
}

/// Sets the position and configuration of the snapshot that accompanies a message.
pub fn set_snapshot(message: &mut Message, index: LogIndex, term: Term, state: &types::ConfState) {
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (index, term);
    metadata.set_conf_state(super::convert::conf_state_to_raft(state));
}
