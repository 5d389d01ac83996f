//! Changes of the members, as entries of the log: made where they are proposed, read where they are applied.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Member;
use crate::types::{ConfChange, ConfChangeKind, Fault, FeatureLevel, MemberId};

/// The number of learners that a change is taken to allow that does not say, from [`FeatureLevel::LIMITS_PROPOSED`] on;
/// etcd's default. Such a change was proposed before.
const LEARNERS_MAX: usize = 1;

/// The context of a [`ConfChange`]: the member, and whether it is a learner that gets a vote.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Context {
    #[serde(flatten)]
    member: Member,
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
    /// `--max-learners` of the member that proposed it; not etcd's.
    #[serde(rename = "maxLearners", default, skip_serializing_if = "Option::is_none")]
    learners_max: Option<usize>,
}

/// A change, read from its entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A member comes in, if there are no more learners than the proposer allows.
    Add(Member, Option<usize>),
    /// A learner gets a vote.
    Promote(MemberId),
    /// A member is reached at other URLs.
    Update(MemberId, Vec<String>),
    /// A member goes for good.
    Remove(MemberId),
}

/// The change that brings a member in. `learners_max` is `--max-learners` of the member that proposes it.
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

/// The change of where a member is reached.
pub fn update(request: u64, id: MemberId, peer_urls: Vec<String>) -> ConfChange {
    let member = Member { id, peer_urls, ..Member::default() };
    let context = Context { member, is_promote: false, learners_max: None };
    change(request, ConfChangeKind::Update, &context)
}

/// The change that takes a member away.
pub fn remove(request: u64, id: MemberId) -> ConfChange {
    ConfChange { request, kind: ConfChangeKind::Remove as i32, member: id, context: Bytes::new() }
}

fn change(request: u64, kind: ConfChangeKind, context: &Context) -> ConfChange {
    let member = context.member.id;
    ConfChange { request, kind: kind as i32, member, context: json(context) }
}

/// A struct of strings and numbers as JSON, which it always has.
pub(super) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("strings and numbers have a JSON form").into()
}

/// Checks that a change can be applied, in whatever state the members are.
///
/// # Errors
/// It cannot: it is damaged, or this version does not know it.
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

/// How many learners a change allows: the proposer's number, so that all members decide alike. Before all members knew
/// that number, each took its own.
pub(super) fn learners_max(level: FeatureLevel, proposed: Option<usize>, own: usize) -> usize {
    if level < FeatureLevel::LIMITS_PROPOSED { own } else { proposed.unwrap_or(LEARNERS_MAX) }
}
