//! Changes of the members as log entries: encoded where they are proposed, decoded where they are applied.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Member;
use crate::types::{ConfChange, ConfChangeKind, Fault, FeatureLevel, MemberId};

/// Limit of learners for a change without one, from [`FeatureLevel::LIMITS_PROPOSED`] on; etcd's default. Such a change
/// was proposed before the cluster agreed on that level.
const LEARNERS_MAX: usize = 1;

/// The context of a [`ConfChange`]: the member, and a flag for a learner that gets a vote.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Context {
    #[serde(flatten)]
    member: Member,
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
    /// `--max-learners` of the proposer; not etcd's.
    #[serde(rename = "maxLearners", default, skip_serializing_if = "Option::is_none")]
    learners_max: Option<usize>,
}

/// A decoded change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Adds a member, unless there would be more learners than the proposer allows.
    Add(Member, Option<usize>),
    /// Gives a learner a vote.
    Promote(MemberId),
    /// Changes the peer URLs of a member.
    Update(MemberId, Vec<String>),
    /// Removes a member for good.
    Remove(MemberId),
}

/// The change that adds a member. `learners_max` is `--max-learners` of the proposer.
pub fn add(request: u64, member: &Member, learners_max: usize) -> ConfChange {
    let kind =
        if member.is_learner { ConfChangeKind::AddLearner } else { ConfChangeKind::AddVoter };
    let learners_max = Some(learners_max);
    let context = Context { member: member.clone(), is_promote: false, learners_max };
    change(request, kind, &context)
}

/// The change that gives a learner a vote.
pub fn promote(request: u64, id: MemberId) -> ConfChange {
    let member = Member { id, ..Member::default() };
    let context = Context { member, is_promote: true, learners_max: None };
    change(request, ConfChangeKind::AddVoter, &context)
}

/// The change of a member's peer URLs.
pub fn update(request: u64, id: MemberId, peer_urls: Vec<String>) -> ConfChange {
    let member = Member { id, peer_urls, ..Member::default() };
    let context = Context { member, is_promote: false, learners_max: None };
    change(request, ConfChangeKind::Update, &context)
}

/// The change that removes a member.
pub fn remove(request: u64, id: MemberId) -> ConfChange {
    ConfChange { request, kind: ConfChangeKind::Remove as i32, member: id, context: Bytes::new() }
}

fn change(request: u64, kind: ConfChangeKind, context: &Context) -> ConfChange {
    let member = context.member.id;
    ConfChange { request, kind: kind as i32, member, context: json(context) }
}

/// JSON of a struct of strings and numbers; this cannot fail.
pub(super) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("strings and numbers have a JSON form").into()
}

/// Checks that a change can be applied, independent of the present members.
///
/// # Errors
/// The change is damaged, or this version does not know its kind.
pub fn check_change(change: &ConfChange) -> Result<(), Fault> {
    read(change).map(drop)
}

pub(super) fn read(change: &ConfChange) -> Result<Change, Fault> {
    let kind = ConfChangeKind::try_from(change.kind).map_err(|_| unknown_change())?;
    if kind == ConfChangeKind::Remove {
        return Ok(Change::Remove(change.member));
    }
    let context: Context = serde_json::from_slice(&change.context)
        .map_err(|error| Fault::new(format!("the member in it does not read: {error}")))?;
    let Context { member, is_promote, learners_max } = context;
    if member.id != change.member {
        return Err(Fault::new(format!(
            "it is about member {:x}, and its context about {:x}",
            change.member, member.id
        )));
    }
    Ok(match kind {
        ConfChangeKind::AddVoter if is_promote => Change::Promote(member.id),
        ConfChangeKind::AddVoter | ConfChangeKind::AddLearner => Change::Add(member, learners_max),
        ConfChangeKind::Update => Change::Update(member.id, member.peer_urls),
        ConfChangeKind::Remove => Change::Remove(member.id),
    })
}

/// The fault of a change of a kind that this version does not know.
pub fn unknown_change() -> Fault {
    Fault::new("it changes the members in a way that this version does not know")
}

/// The limit of learners for a change: the proposer's number, so that all members decide alike. Below the level at
/// which members propose that number, each applies its own.
pub(super) fn learners_max(level: FeatureLevel, proposed: Option<usize>, own: usize) -> usize {
    if level < FeatureLevel::LIMITS_PROPOSED { own } else { proposed.unwrap_or(LEARNERS_MAX) }
}
