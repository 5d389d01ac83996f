//! The applied position and raft's configuration in a store, in etcd's bucket `meta`.

use bytes::Bytes;
use serde::Deserialize;

use super::Machine;
use crate::store::{Engine, Space, View};
use crate::types::{ConfState, Fault, LogIndex, MemberId, Term};

/// etcd's meta keys.
pub(super) const APPLIED: &[u8] = b"consistent_index";
pub(super) const APPLIED_TERM: &[u8] = b"term";
pub(super) const CONF_STATE: &[u8] = b"confState";

impl<E: Engine> Machine<E> {
    /// Index and term of the last applied entry.
    pub fn position(&self) -> (LogIndex, Term) {
        (self.applied, self.applied_term)
    }
}

/// The applied position of a store: index, term, and configuration.
///
/// # Errors
/// The store cannot be read, or a value is malformed.
pub fn applied_state(view: &impl View) -> Result<(LogIndex, Term, ConfState), Fault> {
    let number = |key: &[u8]| -> Result<u64, Fault> {
        let Some(bytes) = view.get(Space::Meta, key)? else { return Ok(0) };
        let bytes = bytes[..].try_into().map_err(|_| {
            Fault::new(format!("the {} in the store does not read back", key.escape_ascii()))
        })?;
        Ok(u64::from_be_bytes(bytes))
    };
    let conf_state = match view.get(Space::Meta, CONF_STATE)? {
        Some(json) => conf_state_from_json(&json)?,
        None => ConfState::default(),
    };
    Ok((number(APPLIED)?, number(APPLIED_TERM)?, conf_state))
}

/// [`ConfState`] in etcd's JSON, which omits empty lists. There are always voters.
#[derive(Deserialize)]
struct Stored {
    voters: Vec<MemberId>,
    #[serde(default)]
    learners: Vec<MemberId>,
    #[serde(default)]
    voters_outgoing: Vec<MemberId>,
    #[serde(default)]
    learners_next: Vec<MemberId>,
    #[serde(default)]
    auto_leave: bool,
}

pub(super) fn conf_state_to_json(state: &ConfState) -> Bytes {
    serde_json::json!({
        "voters": state.voters,
        "learners": state.learners,
        "voters_outgoing": state.voters_outgoing,
        "learners_next": state.learners_next,
        "auto_leave": state.auto_leave,
    })
    .to_string()
    .into()
}

fn conf_state_from_json(json: &[u8]) -> Result<ConfState, Fault> {
    let damaged =
        |error| Fault::new(format!("the configuration in the store does not read back: {error}"));
    let stored: Stored = serde_json::from_slice(json).map_err(damaged)?;
    let Stored { voters, learners, voters_outgoing, learners_next, auto_leave } = stored;
    Ok(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave })
}
