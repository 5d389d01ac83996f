//! Conversions between the types of this crate and raft's messages.

use raft::eraftpb;

use crate::types::{ConfState, Entry, EntryKind, HardState};

pub(super) fn entry_from_raft(entry: &eraftpb::Entry) -> Entry {
    Entry {
        index: entry.index,
        term: entry.term,
        kind: match entry.get_entry_type() {
            eraftpb::EntryType::EntryNormal => EntryKind::Normal,
            eraftpb::EntryType::EntryConfChange => EntryKind::ConfChange,
            eraftpb::EntryType::EntryConfChangeV2 => EntryKind::ConfChangeV2,
        },
        data: entry.data.clone(),
    }
}

pub(super) fn entry_to_raft(entry: &Entry) -> eraftpb::Entry {
    let mut raft = eraftpb::Entry {
        index: entry.index,
        term: entry.term,
        data: entry.data.clone(),
        ..eraftpb::Entry::default()
    };
    raft.set_entry_type(match entry.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::ConfChange => eraftpb::EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
    });
    raft
}

pub(super) fn hard_state_from_raft(state: &eraftpb::HardState) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit }
}

pub(super) fn hard_state_to_raft(state: HardState) -> eraftpb::HardState {
    let HardState { term, vote, commit } = state;
    eraftpb::HardState { term, vote, commit, ..eraftpb::HardState::default() }
}

pub(super) fn conf_state_from_raft(state: &eraftpb::ConfState) -> ConfState {
    ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    }
}

pub(super) fn conf_state_to_raft(state: &ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
        ..eraftpb::ConfState::default()
    }
}
