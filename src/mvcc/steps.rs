//! Large requests, applied in steps. A step looks at a bounded number of records, so that others may run in between. All
//! steps are of one transaction: nobody may see the state before the last one was committed.

use std::collections::BTreeSet;

use basalt_proto::encoded::{DeleteRangeResponse, Response, TxnResponse};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{DeleteRangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;

use super::Mvcc;
use super::deletion::Deletion;
use super::read::RangeRead;
use super::txn::{self, TxnPath};
use super::write::{Position, Writer};
use crate::store::{Overlay, View};
use crate::types::{Error, KeyRange, LeaseId};

/// A request under way.
pub struct Steps {
    position: Position,
    work: Work,
}

enum Work {
    Delete(Deletion),
    Keys(Deletion),
    Txn(TxnSteps),
}

/// The answer to a request that was applied in steps.
pub enum Outcome {
    /// To [`Mvcc::begin_delete_range`].
    DeleteRange(DeleteRangeResponse),
    /// To [`Mvcc::begin_delete_keys`]: how many there were.
    Keys(i64),
    /// To [`Mvcc::begin_txn`].
    Txn(TxnResponse),
}

/// A transaction under way.
struct TxnSteps {
    request: TxnRequest,
    path: TxnPath,
    /// The operations of the branches taken that are still to run, the last one first; none for an empty operation.
    rest: Vec<Request>,
    current: Option<Operation>,
    responses: Vec<Response>,
}

/// An operation of a transaction that may be large.
enum Operation {
    Delete(Deletion),
    Range(Box<RangeRead>),
}

impl Mvcc {
    /// At most how many records a transaction looks at, both branches together; less work than that is for
    /// [`Mvcc::txn`].
    pub fn txn_records_max(&self, request: &TxnRequest) -> usize {
        let operations = request.success.iter().chain(&request.failure);
        operations.map(|operation| self.operation_records_max(operation)).sum()
    }

    fn operation_records_max(&self, operation: &RequestOp) -> usize {
        match &operation.request {
            Some(Request::RequestRange(range)) => {
                let records = self.records_max(&range.key, &range.range_end);
                if range.count_only { 1 } else { records }
            }
            Some(Request::RequestDeleteRange(delete)) => {
                self.records_max(&delete.key, &delete.range_end)
            }
            Some(Request::RequestTxn(nested)) => self.txn_records_max(nested),
            Some(Request::RequestPut(_)) => 1,
            None => 0,
        }
    }

    /// At most how many records, live and dead, there are in the range of a request.
    pub fn records_max(&self, key: &Bytes, range_end: &Bytes) -> usize {
        if range_end.is_empty() {
            return 1;
        }
        let range = KeyRange::new(key.clone(), range_end.clone());
        usize::try_from(self.count_index.records_max(&range)).unwrap_or(usize::MAX)
    }

    /// [`Mvcc::delete_range`] in steps.
    pub fn begin_delete_range(&self, request: &DeleteRangeRequest) -> Steps {
        let deletion = Deletion::of_range(&request.key, &request.range_end, request.prev_kv);
        Steps { position: Position::new(self), work: Work::Delete(deletion) }
    }

    /// Deletes the given keys in one revision; none make no revision. This is how a lease takes its keys along.
    pub fn begin_delete_keys(&self, keys: BTreeSet<Bytes>) -> Steps {
        Steps { position: Position::new(self), work: Work::Keys(Deletion::of_keys(keys)) }
    }

    /// [`Mvcc::txn`] in steps. What could refuse it is looked at here, all at once.
    ///
    /// # Errors
    /// Those of [`Mvcc::txn`].
    pub fn begin_txn<V: View>(
        &self,
        tx: &Overlay<V>,
        request: TxnRequest,
        lease_exists: &dyn Fn(LeaseId) -> bool,
    ) -> Result<Steps, Error> {
        let path = txn::prepare(&self.reader(&self.pending(tx)), &request, Some(lease_exists))?;
        let mut rest = txn::operations(&request, &path)?;
        rest.reverse();
        let responses = Vec::with_capacity(rest.len());
        let work = TxnSteps { request, path, rest, current: None, responses };
        Ok(Steps { position: Position::new(self), work: Work::Txn(work) })
    }

    /// Applies on until `budget` records were looked at, or a few more. Gives the answer when all is done.
    ///
    /// # Errors
    /// A fault of the store.
    pub fn step<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        steps: &mut Steps,
        mut budget: usize,
    ) -> Result<Option<Outcome>, Error> {
        let mut writer = Writer::go_on(self, tx, steps.position);
        let outcome = match &mut steps.work {
            Work::Delete(deletion) => deletion
                .step(&mut writer, &mut budget)?
                .then(|| Outcome::DeleteRange(response(deletion, &writer))),
            Work::Keys(deletion) => {
                let is_done = deletion.step(&mut writer, &mut budget)?;
                is_done.then_some(Outcome::Keys(deletion.deleted))
            }
            Work::Txn(txn) => txn.step(&mut writer, &mut budget)?.map(Outcome::Txn),
        };
        steps.position = writer.finish();
        Ok(outcome)
    }
}

/// The answer of a deletion that is over.
fn response<V: View>(deletion: &mut Deletion, writer: &Writer<'_, V>) -> DeleteRangeResponse {
    let prev_kvs = std::mem::take(&mut deletion.prev_kvs);
    DeleteRangeResponse { header: writer.header(), deleted: deletion.deleted, prev_kvs }
}

impl TxnSteps {
    fn step<V: View>(
        &mut self,
        writer: &mut Writer<'_, V>,
        budget: &mut usize,
    ) -> Result<Option<TxnResponse>, Error> {
        loop {
            if let Some(current) = &mut self.current {
                let Some(response) = current.step(writer, budget)? else { return Ok(None) };
                self.responses.push(response);
                self.current = None;
            }
            if *budget == 0 {
                return Ok(None);
            }
            let Some(request) = self.rest.pop() else { break };
            *budget -= 1;
            self.begin(request, writer)?;
        }
        let mut responses = std::mem::take(&mut self.responses).into_iter();
        let mut response = txn::execute(&self.request, &self.path, &mut |_| {
            Ok(responses.next().unwrap_or_else(|| Response::ResponseTxn(TxnResponse::default())))
        })?;
        response.header = writer.header();
        Ok(Some(response))
    }

    fn begin<V: View>(
        &mut self,
        request: Request,
        writer: &mut Writer<'_, V>,
    ) -> Result<(), Error> {
        match request {
            Request::RequestPut(put) => {
                self.responses.push(Response::ResponsePut(writer.put(&put)?));
            }
            Request::RequestDeleteRange(delete) => {
                let deletion = Deletion::of_range(&delete.key, &delete.range_end, delete.prev_kv);
                self.current = Some(Operation::Delete(deletion));
            }
            Request::RequestRange(range) => {
                let read = writer.read(|reader| reader.begin_range(&range))?;
                self.current = Some(Operation::Range(Box::new(read)));
            }
            // Those are unfolded.
            Request::RequestTxn(_) => (),
        }
        Ok(())
    }
}

impl Operation {
    fn step<V: View>(
        &mut self,
        writer: &mut Writer<'_, V>,
        budget: &mut usize,
    ) -> Result<Option<Response>, Error> {
        match self {
            Self::Delete(deletion) => {
                let is_done = deletion.step(writer, budget)?;
                Ok(is_done.then(|| Response::ResponseDeleteRange(response(deletion, writer))))
            }
            Self::Range(read) => {
                let answer = writer.read(|reader| reader.range_step(read, budget))?;
                Ok(answer.map(Response::ResponseRange))
            }
        }
    }
}
