//! Application of committed entries.

use std::collections::BTreeSet;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, LeaseGrantRequest, LeaseGrantResponse, RequestHeader,
    ResponseHeader,
};
use basalt_proto::membershippb::Attributes;
use bytes::Bytes;

use super::alarms::Alarms;
use super::position::{APPLIED, APPLIED_TERM, CONF_STATE, applied_state};
use super::steps::Running;
use super::{Applied, Config, Effect, Machine, Published, Reply, payload, position};
use crate::auth::{Auth, Change};
use crate::cluster::{Cluster, unknown_change};
use crate::command::{AuthCommand, Command};
use crate::lease::Leases;
use crate::mvcc::{Mvcc, leased_keys};
use crate::store::{Engine, Overlay, Space};
use crate::token::TokenStore;
use crate::types::{Entry, EntryKind, Error, Fault, FeatureLevel, LeaseId, Refusal};

impl<E: Engine> Machine<E> {
    /// Continues from the state in the store.
    ///
    /// # Errors
    /// The store cannot be read, or its parts contradict each other.
    pub fn open(engine: E, config: &Config) -> Result<Self, Fault> {
        let view = engine.view();
        let mvcc = Mvcc::open(&view, config.caches)?;
        let mut leases = Leases::open(&view)?;
        for attached in leased_keys(&view) {
            let (key, lease) = attached?;
            leases.attach(&key, 0, lease);
        }
        let (applied, applied_term, conf_state) = applied_state(&view)?;
        let cluster = Cluster::open(&view, config.feature_level)?;
        Ok(Self {
            mvcc,
            leases,
            auth: Auth::open(&view, cluster.feature_level() >= FeatureLevel::AUTH)?,
            tokens: TokenStore::open(&view)?,
            cluster,
            alarms: Alarms::open(&view)?,
            conf_state,
            applied,
            applied_term,
            config: config.clone(),
            dirty: false,
            running: None,
            tx: Overlay::new(view),
            engine,
        })
    }

    /// Applies the next entry of the log, however long it takes; an entry that was applied before a restart changes nothing.
    ///
    /// # Errors
    /// The store cannot be read, or this version does not know the entry.
    pub fn apply(&mut self, entry: &Entry) -> Result<Applied, Fault> {
        let mut applied = self.begin(entry)?;
        loop {
            match applied {
                Some(applied) => return Ok(applied),
                None => applied = self.step(usize::MAX)?,
            }
        }
    }

    /// Begins to apply the next entry of the log. Returns its result at once if it is small. Returns `None` if it is
    /// large: nothing has changed then, [`Machine::step`] follows, and [`Machine::commit`] may come before the first step.
    ///
    /// # Errors
    /// As [`Machine::apply`].
    pub fn begin(&mut self, entry: &Entry) -> Result<Option<Applied>, Fault> {
        assert!(self.running.is_none(), "the entry before {} is not applied", entry.index);
        let mut applied =
            Applied { request: 0, operation: None, reply: Ok(Reply::Done), effects: Vec::new() };
        if entry.index <= self.applied {
            return Ok(Some(applied));
        }
        assert_eq!(entry.index, self.applied + 1, "entries are applied in order");
        match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => (),
            EntryKind::Normal => {
                let stop = |fault| payload::stop(entry.index, &fault);
                let (header, command) = Command::decode(entry.data.clone()).map_err(stop)?;
                command.check_supported(self.config.feature_level).map_err(stop)?;
                (applied.request, applied.operation) = (header.id, Some(command.operation()));
                if self.records_max(&command) > self.config.steps.at_once_records {
                    self.running = Some(Running::new(entry, applied, header, command));
                    return Ok(None);
                }
                self.applied = entry.index;
                let outcome = self.command(&header, command, &mut applied.effects);
                applied.reply = Error::refusal(outcome)?;
                self.move_attachments();
            }
            EntryKind::ConfChange => self.conf_change(entry, &mut applied)?,
            EntryKind::ConfChangeV2 => {
                return Err(payload::stop(entry.index, &unknown_change()));
            }
        }
        (self.applied, self.applied_term, self.dirty) = (entry.index, entry.term, true);
        Ok(Some(applied))
    }

    /// Moves keys between leases by the attachments since the last call.
    pub(super) fn move_attachments(&mut self) {
        for change in self.mvcc.take_attachments() {
            self.leases.attach(&change.key, change.old, change.new);
        }
    }

    /// Commits everything applied since the last commit, and the applied position, as one batch.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn commit(&mut self) -> Result<Published<E::View>, Fault> {
        let has_half = self.running.as_ref().is_some_and(Running::has_begun);
        assert!(!has_half, "an entry is committed as a whole");
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
        let left_out_events = self.mvcc.has_left_out_events();
        let events = self.mvcc.take_events().into();
        let changes = self.mvcc.take_changes();
        Ok(Published { read: self.mvcc.publish(view), events, left_out_events, changes })
    }

    /// A slice of compaction, to be committed like entries. Returns `true` at the end.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn compact_step(&mut self, budget: usize) -> Result<bool, Fault> {
        self.dirty = true;
        self.mvcc.compact_step(&mut self.tx, budget)
    }

    pub(super) fn note_conf_state(&mut self) {
        let json = position::conf_state_to_json(&self.conf_state);
        self.tx.put(Space::Meta, Bytes::from_static(CONF_STATE), json);
    }

    fn conf_change(&mut self, entry: &Entry, applied: &mut Applied) -> Result<(), Fault> {
        let change = payload::conf_change(&entry.data)
            .map_err(|fault| payload::stop(entry.index, &fault))?;
        applied.request = change.request;
        let (tx, conf_state) = (&mut self.tx, &mut self.conf_state);
        let outcome = self.cluster.change(tx, &change, self.config.learners_max, conf_state);
        let outcome =
            Error::refusal(outcome).map_err(|fault| payload::stop(entry.index, &fault))?;
        match outcome {
            Ok(()) => {
                self.note_conf_state();
                applied.effects.push(Effect::ConfChanged(change));
            }
            Err(refusal) => applied.reply = Err(refusal),
        }
        Ok(())
    }

    fn command(
        &mut self,
        header: &RequestHeader,
        command: Command,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Error> {
        self.check(header, &command)?;
        let (mvcc, tx, leases) = (&mut self.mvcc, &mut self.tx, &mut self.leases);
        let exists = |id| leases.exists(id);
        Ok(match command {
            Command::Put(put) => Reply::Put(mvcc.put(tx, &put, &exists)?),
            Command::Txn(txn) => Reply::Txn(mvcc.txn(tx, &txn, &exists)?),
            Command::DeleteRange(delete) => Reply::DeleteRange(mvcc.delete_range(tx, &delete)?),
            Command::Compaction(compaction) => {
                mvcc.compact(tx, compaction.revision)?;
                effects.push(Effect::Compacted);
                Reply::Compact { revision: mvcc.revision() }
            }
            Command::LeaseGrant(grant) => self.lease_grant(&grant, effects)?,
            Command::LeaseRevoke(revoke) => {
                let keys = leases.revoke(tx, revoke.id)?;
                self.lease_ended(revoke.id, keys, effects)?
            }
            Command::LeaseExpire(expire) => {
                let keys = leases.expire(tx, expire.id, expire.granted_at)?;
                self.lease_ended(expire.id, keys, effects)?
            }
            Command::Alarm(alarm) => Reply::Alarm(self.alarm(&alarm)),
            Command::ClusterMemberAttrSet(set) => {
                let Attributes { name, client_urls } = set.member_attributes.unwrap_or_default();
                self.cluster.set_attributes(tx, set.member_id, name, client_urls);
                Reply::Done
            }
            Command::ClusterVersionSet(set) => {
                self.cluster.set_version(tx, &set.ver)?;
                Reply::Done
            }
            Command::FeatureLevelSet(set) => {
                let (level, supported) = (FeatureLevel::new(set.level), self.config.feature_level);
                self.cluster.set_feature_level(tx, level, supported)?;
                if self.cluster.feature_level() >= FeatureLevel::AUTH {
                    self.auth.set_supported();
                }
                Reply::Done
            }
            Command::Auth(auth) => {
                let change = self.auth_command(&auth)?;
                if let Some(change) = &change {
                    self.tokens_follow(change, usize::MAX);
                }
                effects.extend(change.map(Effect::AuthChanged));
                Reply::Done
            }
            Command::TokenIssue(issue) => self.token_issue(&issue)?,
            Command::TokenRenew(renew) => {
                self.tokens.renew(tx, &renew);
                Reply::Done
            }
            Command::TokenSweep(sweep) => {
                self.tokens.sweep(tx, sweep.before_ms);
                Reply::Done
            }
        })
    }

    pub(super) fn auth_command(
        &mut self,
        command: &AuthCommand,
    ) -> Result<Option<Change>, Refusal> {
        let (auth, tx) = (&mut self.auth, &mut self.tx);
        match command {
            AuthCommand::Enable(_) => auth.enable(tx),
            AuthCommand::Disable(_) => auth.disable(tx),
            AuthCommand::UserAdd(add) => auth.user_add(tx, add),
            AuthCommand::UserDelete(delete) => auth.user_delete(tx, &delete.name),
            AuthCommand::UserChangePassword(change) => auth.user_change_password(tx, change),
            AuthCommand::UserGrantRole(it) => auth.user_grant_role(tx, &it.user, &it.role),
            AuthCommand::UserRevokeRole(it) => auth.user_revoke_role(tx, &it.name, &it.role),
            AuthCommand::RoleAdd(add) => auth.role_add(tx, &add.name),
            AuthCommand::RoleDelete(delete) => auth.role_delete(tx, &delete.role),
            AuthCommand::RoleGrantPermission(grant) => auth.role_grant_permission(tx, grant),
            AuthCommand::RoleRevokePermission(it) => auth.role_revoke_permission(tx, it),
        }
    }

    /// Checks that may refuse a command of any kind.
    pub(super) fn check(&self, header: &RequestHeader, command: &Command) -> Result<(), Refusal> {
        command.check_level(self.cluster.feature_level())?;
        // With a corrupt member no command may read or write keys; without space none may take any.
        command.check_alarms(|alarm| self.alarms.any(alarm))?;
        self.check_access(header, command)
    }

    /// Deletes the keys of a lease that was revoked or expired.
    fn lease_ended(
        &mut self,
        id: LeaseId,
        keys: BTreeSet<Bytes>,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Error> {
        let mut steps = self.mvcc.begin_delete_keys(keys);
        while self.mvcc.step(&mut self.tx, &mut steps, usize::MAX, &|_| false)?.is_none() {}
        effects.push(Effect::LeaseRevoked(id));
        Ok(Reply::LeaseRevoke { revision: self.mvcc.revision() })
    }

    fn lease_grant(
        &mut self,
        grant: &LeaseGrantRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Error> {
        // The proposer raised it to its own minimum; below the level of that rule each member applies its own.
        let own = self.cluster.feature_level() < FeatureLevel::LIMITS_PROPOSED;
        let ttl = if own { grant.ttl.max(self.config.lease_ttl_min) } else { grant.ttl };
        let granted = self.leases.grant(&mut self.tx, grant.id, ttl, self.applied)?;
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
