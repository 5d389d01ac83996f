//! Application of an entry in steps, because it touches many keys or tokens. Until its last step it is not applied:
//! [`Machine::applied`] does not count it, and nothing of it is committed. Its writes are staged in the store's memory
//! in bounded batches, where only the machine sees them.

use basalt_proto::etcdserverpb::{LeaseExpireRequest, LeaseRevokeRequest, RequestHeader};

use super::{Applied, Effect, Machine, Reply};
use crate::auth::Change;
use crate::command::{Command, Large};
use crate::mvcc::{Outcome, Steps};
use crate::store::Engine;
use crate::types::{Entry, Error, Fault, LeaseId, LogIndex, Term};

/// The entry in progress, described in the module.
pub(super) struct Running {
    index: LogIndex,
    term: Term,
    applied: Applied,
    state: State,
}

enum State {
    /// No step was made.
    Begun(RequestHeader, Command),
    /// Keys are being changed.
    Keys(Steps),
    /// The keys of a revoked or expired lease are being deleted.
    Lease(LeaseId, Steps),
    /// Users are changed, if there was something to change, and tokens are being dropped.
    Tokens(Option<Change>),
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

    /// True if it may have changed keys.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.state, State::Begun(..))
    }
}

impl<E: Engine> Machine<E> {
    /// Upper bound of the records that a command reads, as far as that depends on the stored keys.
    pub(super) fn records_max(&self, command: &Command) -> usize {
        match command.large() {
            None => 1,
            Some(Large::DeleteRange(it)) => self.mvcc.records_max(&it.key, &it.range_end),
            Some(Large::Txn(txn)) => self.mvcc.txn_records_max(txn),
            Some(Large::LeaseRevoke(LeaseRevokeRequest { id, .. }))
            | Some(Large::LeaseExpire(LeaseExpireRequest { id, .. })) => self.leases.key_count(*id),
            Some(Large::AllTokens) => self.tokens.len(),
            Some(Large::TokensOf(user)) => self.tokens.count_of(user),
        }
    }

    /// True if an entry is being applied in steps.
    pub fn is_in_steps(&self) -> bool {
        self.running.is_some()
    }

    /// Continues until about `budget` records were read. Returns the result when the entry is completely applied.
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
        if let State::Begun(header, command) = &running.state {
            running.state = self.start(header, command)?;
        }
        let steps = match &mut running.state {
            State::Keys(steps) | State::Lease(_, steps) => steps,
            State::Tokens(change) => {
                if change.as_ref().is_some_and(|change| !self.tokens_follow(change, budget)) {
                    return Ok(None);
                }
                running.applied.effects.extend(change.take().map(Effect::AuthChanged));
                return Ok(Some(Reply::Done));
            }
            State::Begun(..) => return Err(Fault::new("a large entry was not begun").into()),
        };
        let leases = &self.leases;
        let outcome = self.mvcc.step(&mut self.tx, steps, budget, &|id| leases.exists(id))?;
        let Some(outcome) = outcome else { return Ok(None) };
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

    fn start(&mut self, header: &RequestHeader, command: &Command) -> Result<State, Error> {
        self.check(header, command)?;
        if let Command::Auth(auth) = command {
            return Ok(State::Tokens(self.auth_command(auth)?));
        }
        let (mvcc, tx, leases) = (&self.mvcc, &mut self.tx, &mut self.leases);
        Ok(match command.large() {
            Some(Large::DeleteRange(delete)) => State::Keys(mvcc.begin_delete_range(delete)),
            Some(Large::Txn(txn)) => State::Keys(mvcc.begin_txn(txn.clone())),
            Some(Large::LeaseRevoke(revoke)) => {
                let keys = leases.revoke(tx, revoke.id)?;
                State::Lease(revoke.id, mvcc.begin_delete_keys(keys))
            }
            Some(Large::LeaseExpire(expire)) => {
                let keys = leases.expire(tx, expire.id, expire.granted_at)?;
                State::Lease(expire.id, mvcc.begin_delete_keys(keys))
            }
            Some(Large::AllTokens | Large::TokensOf(_)) | None => {
                return Err(Fault::new("a small command was to be applied in steps").into());
            }
        })
    }

    /// Stages the writes in the store, if there are many.
    fn stage(&mut self) -> Result<(), Fault> {
        if self.tx.len() >= self.config.steps.stage_writes {
            self.engine.stage(self.tx.take())?;
            self.tx.rebase(self.engine.view());
            self.mvcc.staged();
        }
        Ok(())
    }
}
