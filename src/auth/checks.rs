//! The permissions that requests need: the keys that each of their operations reads and writes.

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

use super::permissions::Subject;
use super::{Action, Permissions, Principal};
use crate::types::{LeaseId, Refusal};

/// The keys that hang on leases, for who applies entries.
pub trait AttachedKeys {
    /// The first key of a lease that is not before `from`; none of a lease that is not there.
    fn next(&self, lease: LeaseId, from: &[u8]) -> Option<&[u8]>;
}

/// For who serves a request: what hangs on a lease is known for certain when the entry is applied.
#[derive(Clone, Copy, Debug)]
pub struct NoAttachedKeys;

impl AttachedKeys for NoAttachedKeys {
    fn next(&self, _lease: LeaseId, _from: &[u8]) -> Option<&[u8]> {
        None
    }
}

/// The subject of a request, or why there is none. It is told with the first key that is looked at: a request without any
/// demands nothing.
type Resolved<'a> = Result<Subject<'a>, Refusal>;

impl Permissions {
    /// # Errors
    /// It may not write this key, or one that hangs on the same lease, or read what it was.
    pub fn check_put(
        &self,
        who: Option<Principal<'_>>,
        put: &PutRequest,
        attached: &impl AttachedKeys,
    ) -> Result<(), Refusal> {
        check_put(self.subject(who), put, attached)
    }

    /// # Errors
    /// It may not write these keys, or read what they were.
    pub fn check_delete_range(
        &self,
        who: Option<Principal<'_>>,
        delete: &DeleteRangeRequest,
    ) -> Result<(), Refusal> {
        let subject = self.subject(who)?;
        subject.check(Action::Write, &delete.key, &delete.range_end)?;
        match delete.prev_kv {
            true => subject.check(Action::Read, &delete.key, &delete.range_end),
            false => Ok(()),
        }
    }

    /// Both branches are checked, whichever will be taken.
    ///
    /// # Errors
    /// The first refusal: of compares, then of operations on success, then of those on failure.
    pub fn check_txn(
        &self,
        who: Option<Principal<'_>>,
        txn: &TxnRequest,
        attached: &impl AttachedKeys,
    ) -> Result<(), Refusal> {
        check_txn(self.subject(who), txn, attached)
    }

    /// Checks that this user may do this to all keys of a lease. Root may, at any revision.
    ///
    /// # Errors
    /// The first refusal; none if there are no keys.
    pub fn check_lease(
        &self,
        who: Option<Principal<'_>>,
        action: Action,
        lease: LeaseId,
        attached: &impl AttachedKeys,
    ) -> Result<(), Refusal> {
        if self.check_root(who).is_ok() {
            return Ok(());
        }
        check_attached(self.subject(who), action, lease, attached)
    }
}

/// Looks at one key in each range that the subject may use, not at each key: a lease may have a great many.
fn check_attached(
    subject: Resolved<'_>,
    action: Action,
    lease: LeaseId,
    attached: &impl AttachedKeys,
) -> Result<(), Refusal> {
    let mut key = attached.next(lease, b"");
    while let Some(at) = key {
        match subject?.reach(action, at)? {
            Some(end) => key = attached.next(lease, end),
            None => return Ok(()),
        }
    }
    Ok(())
}

fn check_put(
    subject: Resolved<'_>,
    put: &PutRequest,
    attached: &impl AttachedKeys,
) -> Result<(), Refusal> {
    let subject = subject?;
    if subject.is_unrestricted() {
        return Ok(());
    }
    subject.check(Action::Write, &put.key, b"")?;
    if put.lease != 0 {
        check_attached(Ok(subject), Action::Write, put.lease, attached)?;
    }
    if put.prev_kv { subject.check(Action::Read, &put.key, b"") } else { Ok(()) }
}

fn check_txn(
    subject: Resolved<'_>,
    txn: &TxnRequest,
    attached: &impl AttachedKeys,
) -> Result<(), Refusal> {
    if matches!(subject, Ok(subject) if subject.is_unrestricted()) {
        return Ok(());
    }
    for compare in &txn.compare {
        subject?.check(Action::Read, &compare.key, &compare.range_end)?;
    }
    let mut operations = txn.success.iter().chain(&txn.failure);
    operations.try_for_each(|operation| check_operation(subject, operation, attached))
}

fn check_operation(
    subject: Resolved<'_>,
    operation: &RequestOp,
    attached: &impl AttachedKeys,
) -> Result<(), Refusal> {
    match &operation.request {
        Some(Request::RequestRange(range)) => {
            subject?.check(Action::Read, &range.key, &range.range_end)
        }
        Some(Request::RequestPut(put)) => check_put(subject, put, attached),
        Some(Request::RequestDeleteRange(delete)) => {
            // The other way round than outside of transactions, as by etcd.
            if delete.prev_kv {
                subject?.check(Action::Read, &delete.key, &delete.range_end)?;
            }
            subject?.check(Action::Write, &delete.key, &delete.range_end)
        }
        Some(Request::RequestTxn(nested)) => check_txn(subject, nested, attached),
        None => Ok(()),
    }
}
