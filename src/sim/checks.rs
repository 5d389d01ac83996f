//! Invariants of all members together, checked at each event. A failed check panics: the rooms' own asserts are checks too.

use std::collections::BTreeMap;

use basalt_proto::mvccpb;
use bytes::Bytes;
use prost::Message as _;

use super::linear::Kv;
use super::plan::Micros;
use crate::machine::Reply;
use crate::mvcc;
use crate::types::{ConfState, Entry, LeaseId, LogIndex, MemberId, Refusal, Term};

/// Entries after a change of members that may have been committed before the change was known.
const CHANGE_KNOWN: u64 = 500;

/// Digest of a state at some index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Digest {
    pub(super) revision: i64,
    pub(super) hash: mvcc::KvHash,
    pub(super) keys: i64,
    pub(super) rest: u32,
}

/// A lease from its owner's point of view.
#[derive(Default)]
struct Lease {
    /// The lease exists up to this time at least, by the answers to its owner.
    safe_until: Micros,
    /// Time of its first deletion on a member, unless it was granted again.
    gone_at: Option<Micros>,
}

/// Observations of the whole cluster so far.
#[derive(Default)]
pub(super) struct Checks {
    leaders: BTreeMap<Term, MemberId>,
    votes: BTreeMap<(MemberId, Term), MemberId>,
    /// Each entry that was in any log: its checksum and the term of the entry before it.
    entries: BTreeMap<(LogIndex, Term), (u32, Term)>,
    /// The first entry of the log.
    first: LogIndex,
    conf_state: ConfState,
    /// Index of the last change of the members.
    members_changed: LogIndex,
    /// The committed entries, and the reply to each.
    log: Vec<Entry>,
    replies: Vec<Result<Reply, Refusal>>,
    digests: BTreeMap<LogIndex, Digest>,
    /// Each revision's events, in the form that watchers receive.
    pub(super) history: BTreeMap<i64, Vec<mvccpb::Event>>,
    /// Each key's changes: the revision, and the new version.
    keys: BTreeMap<Bytes, Vec<(i64, Option<Kv>)>>,
    /// The newest compacted revision.
    pub(super) compacted: i64,
    leases: BTreeMap<LeaseId, Lease>,
}

impl Checks {
    /// Number of committed entries.
    pub(super) fn committed(&self) -> LogIndex {
        self.first + self.log.len() as u64 - 1
    }

    pub(super) fn newest_revision(&self) -> i64 {
        self.history.last_key_value().map_or(1, |(revision, _)| *revision)
    }

    /// A member reports its leader.
    pub(super) fn leader(&mut self, term: Term, leader: MemberId) {
        let one = *self.leaders.entry(term).or_insert(leader);
        assert_eq!(one, leader, "two leaders in term {term}");
    }

    /// A member gives its vote.
    pub(super) fn vote(&mut self, member: MemberId, term: Term, candidate: MemberId) {
        let one = *self.votes.entry((member, term)).or_insert(candidate);
        assert_eq!(one, candidate, "member {member} votes twice in term {term}");
    }

    /// An entry is in a member's log, after one of this term: every log has the same entry there, and the same before it.
    pub(super) fn appended(&mut self, member: MemberId, entry: &Entry, before: Term) {
        let is = (crc32c::crc32c(&entry.data), before);
        let first = *self.entries.entry((entry.index, entry.term)).or_insert(is);
        let at = (entry.index, entry.term);
        assert_eq!(first, is, "the log of member {member} is another one at {at:?}");
    }

    /// The initial state: each member counts as added by an entry.
    pub(super) fn new(members: u64) -> Self {
        let voters = (1..=members).collect();
        let conf_state = ConfState { voters, ..ConfState::default() };
        Self { first: members + 1, conf_state, ..Self::default() }
    }

    /// A committed entry is on so many disks.
    pub(super) fn copies(&self, index: LogIndex, copies: usize) {
        // Committed before the last change was known to the leader: one less may have been enough.
        let changed = usize::from(index < self.members_changed + CHANGE_KNOWN);
        let quorum = self.conf_state.voters.len() / 2 + 1 - changed;
        assert!(copies >= quorum, "entry {index} is committed, and on {copies} disks only");
    }

    /// The members from the next entry on.
    pub(super) fn members_changed(&mut self, conf_state: ConfState) {
        (self.conf_state, self.members_changed) = (conf_state, self.committed());
    }

    /// The newest members.
    pub(super) fn members(&self) -> &ConfState {
        &self.conf_state
    }

    /// An entry is handed to a member to be applied.
    pub(super) fn commit(&mut self, member: MemberId, entry: &Entry) {
        match self.log.get((entry.index - self.first) as usize) {
            Some(known) => assert_eq!(
                (known.term, &known.data),
                (entry.term, &entry.data),
                "member {member} applies another entry {} than others did",
                entry.index
            ),
            None => {
                assert_eq!(entry.index, self.committed() + 1, "member {member} leaves one out");
                self.log.push(entry.clone());
            }
        }
    }

    /// True for the first member that applied the entry; the reply is the same on all of them.
    pub(super) fn applied(
        &mut self,
        member: MemberId,
        index: LogIndex,
        reply: &Result<Reply, Refusal>,
    ) -> bool {
        match self.replies.get((index - self.first) as usize) {
            Some(known) => {
                assert_eq!(known, reply, "member {member} answers entry {index} differently");
                false
            }
            None => {
                let next = self.first + self.replies.len() as u64;
                assert_eq!(index, next, "entries are applied in order");
                self.replies.push(reply.clone());
                true
            }
        }
    }

    /// Two members that applied the same entries have the same state.
    pub(super) fn state(&mut self, member: MemberId, index: LogIndex, digest: Digest) {
        let first = self.digests.entry(index).or_insert_with(|| digest.clone());
        assert_eq!(*first, digest, "the state of member {member} at entry {index} differs");
    }

    /// Events that a member published.
    pub(super) fn events(&mut self, member: MemberId, events: &[mvcc::Event]) {
        for of_revision in events.chunk_by(|a, b| a.revision.main == b.revision.main) {
            let revision = of_revision[0].revision.main;
            let typed: Vec<_> = of_revision.iter().map(typed).collect();
            match self.history.get(&revision) {
                Some(first) => {
                    assert_eq!(
                        *first, typed,
                        "the events of revision {revision} differ on {member}"
                    );
                }
                None => self.first_events(revision, typed),
            }
        }
    }

    fn first_events(&mut self, revision: i64, typed: Vec<mvccpb::Event>) {
        for event in &typed {
            let Some(kv) = event.kv.as_ref() else { continue };
            let is_put = event.r#type() == mvccpb::event::EventType::Put;
            let changes = self.keys.entry(kv.key.clone()).or_default();
            changes.push((revision, is_put.then(|| kv_of(kv))));
        }
        self.history.insert(revision, typed);
    }

    /// The version of a key at a revision.
    pub(super) fn value_at(&self, key: &[u8], revision: i64) -> Option<Kv> {
        let changes = self.keys.get(key)?;
        let count = changes.partition_point(|(at, _)| *at <= revision);
        changes[..count].last().and_then(|(_, kv)| *kv)
    }

    /// Each value that was written to a key, and the version with it.
    pub(super) fn written(&self) -> BTreeMap<u64, Kv> {
        let all = self.keys.values().flatten();
        all.filter_map(|(_, kv)| Some((kv.as_ref()?.value, (*kv)?))).collect()
    }

    /// A lease was granted.
    pub(super) fn lease_granted(&mut self, id: LeaseId) {
        self.leases.insert(id, Lease::default());
    }

    /// A client that asked at `asked` received the answer that its lease lives for `ttl` seconds from then on.
    pub(super) fn lease_promised(&mut self, id: LeaseId, asked: Micros, ttl: i64) {
        let Some(lease) = self.leases.get_mut(&id) else {
            panic!("lease {id} was promised and never granted")
        };
        // Clocks may run a twentieth too fast.
        let until = asked + ttl as u64 * 900_000;
        lease.safe_until = lease.safe_until.max(until);
        if let Some(gone_at) = lease.gone_at {
            assert!(
                gone_at >= until,
                "lease {id} ended at {gone_at}, and was promised until {until}"
            );
        }
    }

    /// A lease expired.
    pub(super) fn lease_ended(&mut self, id: LeaseId, now: Micros) {
        let lease = self.leases.entry(id).or_default();
        let until = lease.safe_until;
        assert!(now >= until, "lease {id} ends at {now}, and was promised until {until}");
        lease.gone_at.get_or_insert(now);
    }
}

fn typed(event: &mvcc::Event) -> mvccpb::Event {
    let mut typed = mvccpb::Event::decode(event.encoded.clone()).expect("an event reads back");
    let prev = event.prev.clone().map(mvccpb::KeyValue::decode);
    typed.prev_kv = prev.transpose().expect("a key and its value read back");
    typed
}

/// A version in the form that clients see. A value begins with its number.
pub(super) fn kv_of(kv: &mvccpb::KeyValue) -> Kv {
    let digits = kv.value.iter().take_while(|byte| byte.is_ascii_digit());
    let value = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Kv { value, create: kv.create_revision, modified: kv.mod_revision, version: kv.version }
}
