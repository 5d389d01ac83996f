//! Transactions: conditions first, checks next, then the operations of the branch that was chosen.

use std::cmp::Ordering;

use basalt_proto::encoded::{Response, ResponseOp, TxnResponse};
use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{Compare, RangeRequest, RequestOp, ResponseHeader, TxnRequest};

use super::range::Source;
use super::record::Record;
use super::{Mvcc, ReadView};
use crate::store::{Overlay, View};
use crate::types::{Error, Fault, KeyRange, LeaseId, Refusal};

/// Which branch each transaction of a tree takes: itself first, then those nested in the chosen branch, in
/// order. Decided before anything is written, by the state before the transaction.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn choose<V: View>(source: &Source<'_, V>, request: &TxnRequest) -> Result<Self, Fault> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded = succeeded && source.holds(compare)?;
        }
        let mut nested = Vec::new();
        for op in branch(request, succeeded) {
            if let Some(Request::RequestTxn(txn)) = &op.request {
                nested.push(Self::choose(source, txn)?);
            }
        }
        Ok(Self { succeeded, nested })
    }
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

impl<V: View> Source<'_, V> {
    fn holds(&self, compare: &Compare) -> Result<bool, Fault> {
        let range = KeyRange::new(compare.key.clone(), compare.range_end.clone());
        if let KeyRange::One(key) = &range {
            return Ok(match self.get(key, self.revision)? {
                Some(record) => satisfies(compare, Some(&record)),
                None => satisfies(compare, None),
            });
        }
        let mut any = false;
        for record in self.records(&range, self.revision) {
            any = true;
            if !satisfies(compare, Some(&record?)) {
                return Ok(false);
            }
        }
        Ok(any || satisfies(compare, None))
    }

    fn check_revision(&self, request: &RangeRequest) -> Result<(), Refusal> {
        match request.revision {
            0 => Ok(()),
            later if later > self.revision => Err(Refusal::FutureRev),
            earlier if earlier < self.compacted => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }
}

/// Whether one key, or the absence of any, satisfies a condition. A missing key compares as zeroes, except
/// that no value is equal to, less or greater than a value that is not there.
fn satisfies(compare: &Compare, record: Option<&Record>) -> bool {
    let number = |of: fn(&Record) -> i64| record.map_or(0, of);
    let wanted = compare.target_union.as_ref();
    let order = match (CompareTarget::try_from(compare.target), wanted) {
        (Ok(CompareTarget::Value), wanted) => {
            let Some(record) = record else { return false };
            match wanted {
                Some(TargetUnion::Value(value)) => record.value().cmp(value),
                _ => record.value().cmp(&[]),
            }
        }
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(wanted))) => {
            number(|record| record.version).cmp(wanted)
        }
        (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(wanted))) => {
            number(|record| record.create).cmp(wanted)
        }
        (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(wanted))) => {
            number(|record| record.modified).cmp(wanted)
        }
        (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(wanted))) => {
            number(|record| record.lease).cmp(wanted)
        }
        // The condition names one number and brings another: etcd compares with zero.
        (Ok(CompareTarget::Version), _) => number(|record| record.version).cmp(&0),
        (Ok(CompareTarget::Create), _) => number(|record| record.create).cmp(&0),
        (Ok(CompareTarget::Mod), _) => number(|record| record.modified).cmp(&0),
        (Ok(CompareTarget::Lease), _) => number(|record| record.lease).cmp(&0),
        // What etcd does not know is equal.
        (Err(_), _) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order == Ordering::Equal,
        Ok(CompareResult::NotEqual) => order != Ordering::Equal,
        Ok(CompareResult::Greater) => order == Ordering::Greater,
        Ok(CompareResult::Less) => order == Ordering::Less,
        // etcd lets conditions that it does not know hold.
        Err(_) => true,
    }
}

impl Mvcc {
    /// Applies a transaction, all of it or nothing.
    ///
    /// # Errors
    /// A range at a revision that cannot be read, a put with an unknown lease or without a key to take from.
    pub fn txn<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        request: &TxnRequest,
        lease_exists: &dyn Fn(LeaseId) -> bool,
    ) -> Result<TxnResponse, Error> {
        let path = Path::choose(&self.source(tx), request)?;
        self.check(tx, request, &path, lease_exists)?;
        let mut response = self.execute(tx, request, &path)?;
        self.finish();
        response.header = header(self.revision);
        Ok(response)
    }

    fn check<V: View>(
        &self,
        tx: &Overlay<V>,
        request: &TxnRequest,
        path: &Path,
        lease_exists: &dyn Fn(LeaseId) -> bool,
    ) -> Result<(), Error> {
        let mut nested = path.nested.iter();
        for op in branch(request, path.succeeded) {
            match &op.request {
                Some(Request::RequestRange(range)) => self.source(tx).check_revision(range)?,
                Some(Request::RequestPut(put)) => self.check_put(tx, put, lease_exists)?,
                Some(Request::RequestTxn(txn)) => {
                    if let Some(path) = nested.next() {
                        self.check(tx, txn, path, lease_exists)?;
                    }
                }
                Some(Request::RequestDeleteRange(_)) | None => (),
            }
        }
        Ok(())
    }

    fn execute<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        request: &TxnRequest,
        path: &Path,
    ) -> Result<TxnResponse, Error> {
        let mut nested = path.nested.iter();
        let mut responses = Vec::new();
        for op in branch(request, path.succeeded) {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => {
                    Some(Response::ResponseRange(self.source(tx).range(range)?))
                }
                Some(Request::RequestPut(put)) => {
                    Some(Response::ResponsePut(self.put_checked(tx, put)?))
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    Some(Response::ResponseDeleteRange(self.delete_checked(tx, delete)?))
                }
                Some(Request::RequestTxn(txn)) => match nested.next() {
                    Some(path) => Some(Response::ResponseTxn(self.execute(tx, txn, path)?)),
                    None => None,
                },
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        let header = Some(ResponseHeader::default());
        Ok(TxnResponse { header, succeeded: path.succeeded, responses })
    }
}

impl<V: View> ReadView<V> {
    /// Answers a transaction of nothing but ranges (see [`super::is_read_only`]); other operations are
    /// left unanswered.
    ///
    /// # Errors
    /// A range at a revision that cannot be read.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        let source = self.source();
        let path = Path::choose(&source, request)?;
        let ranges = || branch(request, path.succeeded).iter();
        for op in ranges() {
            if let Some(Request::RequestRange(range)) = &op.request {
                source.check_revision(range)?;
            }
        }
        let mut responses = Vec::new();
        for op in ranges() {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => {
                    Some(Response::ResponseRange(source.range(range)?))
                }
                Some(
                    Request::RequestPut(_)
                    | Request::RequestDeleteRange(_)
                    | Request::RequestTxn(_),
                )
                | None => None,
            };
            responses.push(ResponseOp { response });
        }
        let header = header(self.revision);
        Ok(TxnResponse { header, succeeded: path.succeeded, responses })
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}
