//! From a committed entry to what follows from it.

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, InternalRaftRequest, LeaseGrantRequest,
    LeaseGrantResponse, ResponseHeader,
};
use bytes::Bytes;

use super::alarms::Alarms;
use super::{Applied, Config, Effect, Machine, Published, Reply, payload};
use crate::cluster::Cluster;
use crate::lease::Leases;
use crate::mvcc::{Mvcc, leased_keys, put_cost, txn_cost};
use crate::store::{Engine, Overlay, Space, View};
use crate::types::{ConfState, Entry, EntryKind, Error, Fault, LogIndex, Refusal, Term};

/// etcd's meta keys.
const APPLIED: &[u8] = b"consistent_index";
const APPLIED_TERM: &[u8] = b"term";
const CONF_STATE: &[u8] = b"confState";

impl<E: Engine> Machine<E> {
    /// Continues from what the store holds.
    ///
    /// # Errors
    /// The store cannot be read, or its parts are not from the same moment.
    pub fn open(engine: E, config: &Config) -> Result<Self, Fault> {
        let view = engine.view();
        let mvcc = Mvcc::open(&view, config.cache_bytes)?;
        let mut leases = Leases::open(&view, config.lease_ttl_min)?;
        for attached in leased_keys(&view) {
            let (key, lease) = attached?;
            leases.attach(&key, 0, lease);
        }
        let (applied, applied_term, conf_state) = standing(&view)?;
        Ok(Self {
            mvcc,
            leases,
            cluster: Cluster::open(&view)?,
            alarms: Alarms::open(&view)?,
            conf_state,
            applied,
            applied_term,
            learners_max: config.learners_max,
            dirty: false,
            tx: Overlay::new(view),
            engine,
        })
    }

    /// Applies the next entry of the log; one that was applied before a restart does nothing.
    ///
    /// # Errors
    /// The store cannot be read, or the entry is none this version understands.
    pub fn apply(&mut self, entry: &Entry) -> Result<Applied, Fault> {
        let mut applied =
            Applied { request: 0, operation: "", reply: Ok(Reply::Done), effects: Vec::new() };
        if entry.index <= self.applied {
            return Ok(applied);
        }
        assert_eq!(entry.index, self.applied + 1, "entries are applied in order");
        (self.applied, self.applied_term, self.dirty) = (entry.index, entry.term, true);
        match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => (),
            EntryKind::Normal => {
                let request = payload::request(&entry.data)
                    .map_err(|fault| payload::stop(entry.index, &fault))?;
                applied.request = request.header.as_ref().map_or(request.id, |header| header.id);
                applied.operation = payload::operation(&request);
                let outcome = self.request(request, &mut applied.effects);
                applied.reply = Error::refusal(outcome)?;
                for change in self.mvcc.take_attachments() {
                    self.leases.attach(&change.key, change.old, change.new);
                }
            }
            EntryKind::ConfChange => self.conf_change(entry, &mut applied)?,
            EntryKind::ConfChangeV2 => {
                return Err(payload::stop(entry.index, &payload::unknown_change()));
            }
        }
        Ok(applied)
    }

    /// Commits everything applied since the last time, and where the log stands, as one batch.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn commit(&mut self) -> Result<Published<E::View>, Fault> {
        if self.dirty {
            self.mvcc.write_meta(&mut self.tx);
            let number = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
            self.tx.put(Space::Meta, Bytes::from_static(APPLIED), number(self.applied));
            self.tx.put(Space::Meta, Bytes::from_static(APPLIED_TERM), number(self.applied_term));
            self.engine.commit(self.tx.take())?;
            self.dirty = false;
        }
        let view = self.engine.view();
        self.tx.rebase(view.clone());
        let events = self.mvcc.take_events().into();
        Ok(Published { read: self.mvcc.publish(view), events })
    }

    /// A slice of compaction, to be committed like entries. `true` when nothing is left to do.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn compact_step(&mut self, budget: usize) -> Result<bool, Fault> {
        self.dirty = true;
        self.mvcc.compact_step(&mut self.tx, budget)
    }

    pub(super) fn note_conf_state(&mut self) {
        let json = conf_state_to_json(&self.conf_state);
        self.tx.put(Space::Meta, Bytes::from_static(CONF_STATE), json);
    }

    fn conf_change(&mut self, entry: &Entry, applied: &mut Applied) -> Result<(), Fault> {
        let change = payload::conf_change(&entry.data)
            .map_err(|fault| payload::stop(entry.index, &fault))?;
        applied.request = change.request;
        let (tx, conf_state) = (&mut self.tx, &mut self.conf_state);
        match self.cluster.change(tx, &change, self.learners_max, conf_state) {
            Ok(()) => {
                self.note_conf_state();
                applied.effects.push(Effect::ConfChanged(change));
            }
            Err(refusal) => applied.reply = Err(refusal),
        }
        Ok(())
    }

    fn request(
        &mut self,
        request: InternalRaftRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Error> {
        self.check_alarms(&request)?;
        let (mvcc, tx, leases) = (&mut self.mvcc, &mut self.tx, &mut self.leases);
        let exists = |id| leases.exists(id);
        if let Some(put) = &request.put {
            return Ok(Reply::Put(mvcc.put(tx, put, &exists)?));
        }
        if let Some(txn) = &request.txn {
            return Ok(Reply::Txn(mvcc.txn(tx, txn, &exists)?));
        }
        if let Some(delete) = &request.delete_range {
            return Ok(Reply::DeleteRange(mvcc.delete_range(tx, delete)?));
        }
        if let Some(compaction) = &request.compaction {
            mvcc.compact(tx, compaction.revision)?;
            effects.push(Effect::Compacted);
            return Ok(Reply::Compact { revision: mvcc.revision() });
        }
        if let Some(grant) = &request.lease_grant {
            return self.lease_grant(grant, effects);
        }
        if let Some(revoke) = &request.lease_revoke {
            let keys = leases.revoke(tx, revoke.id)?;
            mvcc.delete_keys(tx, keys.into_iter())?;
            effects.push(Effect::LeaseRevoked(revoke.id));
            return Ok(Reply::LeaseRevoke { revision: mvcc.revision() });
        }
        if let Some(expire) = &request.lease_expire {
            let keys = leases.expire(tx, expire.id, expire.granted_at)?;
            mvcc.delete_keys(tx, keys.into_iter())?;
            effects.push(Effect::LeaseRevoked(expire.id));
            return Ok(Reply::LeaseRevoke { revision: mvcc.revision() });
        }
        if let Some(alarm) = &request.alarm {
            return Ok(Reply::Alarm(self.alarm(alarm)));
        }
        self.own_records(request)
    }

    /// Requests that only change what the cluster knows of itself.
    fn own_records(&mut self, request: InternalRaftRequest) -> Result<Reply, Error> {
        if let Some(set) = request.cluster_member_attr_set {
            let attributes = set.member_attributes.unwrap_or_default();
            let (name, urls) = (attributes.name, attributes.client_urls);
            self.cluster.set_attributes(&mut self.tx, set.member_id, name, urls);
            return Ok(Reply::Done);
        }
        if let Some(set) = request.cluster_version_set {
            self.cluster.set_version(&mut self.tx, &set.ver)?;
            return Ok(Reply::Done);
        }
        Err(Fault::new("an entry of the log asks for nothing").into())
    }

    /// What may not be done while something is wrong: with a corrupt member nothing that reads or writes
    /// keys, without space nothing that takes any. Deletes, compaction and the end of leases give space back.
    fn check_alarms(&self, request: &InternalRaftRequest) -> Result<(), Refusal> {
        let touches_keys = request.put.is_some()
            || request.range.is_some()
            || request.delete_range.is_some()
            || request.txn.is_some()
            || request.compaction.is_some()
            || request.lease_grant.is_some()
            || request.lease_revoke.is_some()
            || request.lease_expire.is_some();
        if touches_keys && self.alarms.any(AlarmType::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        let cost = request.put.as_ref().map_or(0, put_cost)
            + request.txn.as_ref().map_or(0, txn_cost)
            + u64::from(request.lease_grant.is_some());
        if cost > 0 && self.alarms.any(AlarmType::Nospace) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    fn lease_grant(
        &mut self,
        grant: &LeaseGrantRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Error> {
        let granted = self.leases.grant(&mut self.tx, grant.id, grant.ttl, self.applied)?;
        effects.push(Effect::LeaseGranted(granted));
        let revision = self.mvcc.revision();
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        let error = String::new();
        Ok(Reply::LeaseGrant(LeaseGrantResponse {
            header,
            id: granted.id,
            ttl: granted.ttl,
            error,
        }))
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Vec<AlarmMember> {
        let (member, alarm) = (request.member_id, request.alarm());
        let one = AlarmMember { member_id: member, alarm: alarm as i32 };
        match request.action() {
            AlarmAction::Get => self.alarms.list(member, alarm),
            AlarmAction::Activate if alarm == AlarmType::None => Vec::new(),
            AlarmAction::Activate => {
                self.alarms.raise(&mut self.tx, member, alarm);
                vec![one]
            }
            AlarmAction::Deactivate => {
                let was_on = self.alarms.put_out(&mut self.tx, member, alarm);
                was_on.then_some(one).into_iter().collect()
            }
        }
    }
}

impl<E: Engine> Machine<E> {
    /// Where the log stands: index and term.
    pub fn position(&self) -> (LogIndex, Term) {
        (self.applied, self.applied_term)
    }
}

/// Where the log stands in a store: index, term, and who counts.
///
/// # Errors
/// The store cannot be read.
pub fn standing(view: &impl View) -> Result<(LogIndex, Term, ConfState), Fault> {
    let number = |key: &[u8]| -> Result<u64, Fault> {
        let bytes = view.get(Space::Meta, key)?.unwrap_or_default();
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let conf_state = match view.get(Space::Meta, CONF_STATE)? {
        Some(json) => conf_state_from_json(&json)?,
        None => ConfState::default(),
    };
    Ok((number(APPLIED)?, number(APPLIED_TERM)?, conf_state))
}

fn conf_state_to_json(state: &ConfState) -> Bytes {
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
    let damaged = |_| Fault::new("the configuration in the store does not read back");
    let json: serde_json::Value = serde_json::from_slice(json).map_err(damaged)?;
    let ids = |name: &str| -> Vec<u64> {
        let list = json.get(name).and_then(serde_json::Value::as_array);
        list.into_iter().flatten().filter_map(serde_json::Value::as_u64).collect()
    };
    Ok(ConfState {
        voters: ids("voters"),
        learners: ids("learners"),
        voters_outgoing: ids("voters_outgoing"),
        learners_next: ids("learners_next"),
        auto_leave: json.get("auto_leave").and_then(serde_json::Value::as_bool).unwrap_or(false),
    })
}
