//! An entry that is applied in steps, because it touches many keys. Until its last step it is not applied: [`Machine::applied`]
//! does not count it, and nothing of it is committed. What it has written so far goes into the store's memory, bounded
//! pieces at a time, where only the machine sees it.

use basalt_proto::etcdserverpb::{LeaseExpireRequest, LeaseRevokeRequest, RequestHeader};

use super::{Applied, Effect, Machine, Reply};
use crate::command::Command;
use crate::mvcc::{Outcome, Steps};
use crate::store::Engine;
use crate::types::{Entry, Error, Fault, LeaseId, LogIndex, Term};

/// See the module.
pub(super) struct Running {
    index: LogIndex,
    term: Term,
    applied: Applied,
    state: State,
}

enum State {
    /// Nothing is done yet.
    Begun(RequestHeader, Command),
    /// Keys are being changed.
    Keys(Steps),
    /// The keys of a lease that ended are being deleted.
    Lease(LeaseId, Steps),
}

impl Running {
    pub(super) fn new(
        entry: &Entry,
        applied: Applied,
        header: RequestHeader,
        command: Command,
    ) -> Self {
        let (index, term) = (entry.index, entry.term);
        Self { index, term, applied, state: State::Begun(header, command) }
    }

    /// Whether it may have changed something.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.state, State::Begun(..))
    }
}

impl<E: Engine> Machine<E> {
    /// At most how many records a command looks at, as far as that depends on what is stored.
    pub(super) fn records_max(&self, command: &Command) -> usize {
        match command {
            Command::DeleteRange(delete) => self.mvcc.records_max(&delete.key, &delete.range_end),
            Command::Txn(txn) => self.mvcc.txn_records_max(txn),
            Command::LeaseRevoke(LeaseRevokeRequest { id, .. })
            | Command::LeaseExpire(LeaseExpireRequest { id, .. }) => self.leases.key_count(*id),
            Command::Put(_)
            | Command::Compaction(_)
            | Command::LeaseGrant(_)
            | Command::Alarm(_)
            | Command::AuthEnable(_)
            | Command::AuthDisable(_)
            | Command::AuthUserAdd(_)
            | Command::AuthUserDelete(_)
            | Command::AuthUserChangePassword(_)
            | Command::AuthUserGrantRole(_)
            | Command::AuthUserRevokeRole(_)
            | Command::AuthRoleAdd(_)
            | Command::AuthRoleDelete(_)
            | Command::AuthRoleGrantPermission(_)
            | Command::AuthRoleRevokePermission(_)
            | Command::ClusterMemberAttrSet(_)
            | Command::ClusterVersionSet(_)
            | Command::FeatureLevelSet(_)
            | Command::TokenIssue(_)
            | Command::TokenRenew(_)
            | Command::TokenSweep(_) => 1,
        }
    }

    /// Whether an entry is being applied in steps.
    pub fn is_in_steps(&self) -> bool {
        self.running.is_some()
    }

    /// Applies on, looking at `budget` records or a few more. Gives what came of the entry when it is applied as a whole.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn step(&mut self, budget: usize) -> Result<Option<Applied>, Fault> {
        let mut running = self.running.take().ok_or_else(|| Fault::new("no entry is under way"))?;
        let reply = Error::refusal(self.run(&mut running, budget))?.transpose();
        self.move_attachments();
        let Some(reply) = reply else {
            self.stage()?;
            self.running = Some(running);
            return Ok(None);
        };
        (self.applied, self.applied_term, self.dirty) = (running.index, running.term, true);
        Ok(Some(Applied { reply, ..running.applied }))
    }

    fn run(&mut self, running: &mut Running, budget: usize) -> Result<Option<Reply>, Error> {
        if let State::Begun(header, command) = &mut running.state {
            let command = std::mem::replace(command, Command::DeleteRange(Default::default()));
            running.state = self.start(&std::mem::take(header), command)?;
        }
        let (State::Keys(steps) | State::Lease(_, steps)) = &mut running.state else {
            return Err(Fault::new("a large entry was not begun").into());
        };
        let Some(outcome) = self.mvcc.step(&mut self.tx, steps, budget)? else { return Ok(None) };
        Ok(Some(match (outcome, &running.state) {
            (_, State::Lease(id, _)) => {
                running.applied.effects.push(Effect::LeaseRevoked(*id));
                Reply::LeaseRevoke { revision: self.mvcc.revision() }
            }
            (Outcome::DeleteRange(response), _) => Reply::DeleteRange(response),
            (Outcome::Txn(response), _) => Reply::Txn(response),
            (Outcome::Keys(_), _) => Reply::Done,
        }))
    }

    fn start(&mut self, header: &RequestHeader, command: Command) -> Result<State, Error> {
        self.check(header, &command)?;
        let (mvcc, tx, leases) = (&mut self.mvcc, &mut self.tx, &mut self.leases);
        Ok(match command {
            Command::DeleteRange(delete) => State::Keys(mvcc.begin_delete_range(&delete)),
            Command::Txn(txn) => State::Keys(mvcc.begin_txn(tx, txn, &|id| leases.exists(id))?),
            Command::LeaseRevoke(revoke) => {
                let keys = leases.revoke(tx, revoke.id)?;
                State::Lease(revoke.id, mvcc.begin_delete_keys(keys))
            }
            Command::LeaseExpire(expire) => {
                let keys = leases.expire(tx, expire.id, expire.granted_at)?;
                State::Lease(expire.id, mvcc.begin_delete_keys(keys))
            }
            Command::Put(_)
            | Command::Compaction(_)
            | Command::LeaseGrant(_)
            | Command::Alarm(_)
            | Command::AuthEnable(_)
            | Command::AuthDisable(_)
            | Command::AuthUserAdd(_)
            | Command::AuthUserDelete(_)
            | Command::AuthUserChangePassword(_)
            | Command::AuthUserGrantRole(_)
            | Command::AuthUserRevokeRole(_)
            | Command::AuthRoleAdd(_)
            | Command::AuthRoleDelete(_)
            | Command::AuthRoleGrantPermission(_)
            | Command::AuthRoleRevokePermission(_)
            | Command::ClusterMemberAttrSet(_)
            | Command::ClusterVersionSet(_)
            | Command::FeatureLevelSet(_)
            | Command::TokenIssue(_)
            | Command::TokenRenew(_)
            | Command::TokenSweep(_) => {
                return Err(Fault::new("a small command was to be applied in steps").into());
            }
        })
    }

    /// Hands to the store what is written so far, if that is much.
    fn stage(&mut self) -> Result<(), Fault> {
        if self.tx.len() >= self.config.steps.stage_writes {
            self.engine.stage(self.tx.take())?;
            self.tx.rebase(self.engine.view());
            self.mvcc.staged();
        }
        Ok(())
    }
}
