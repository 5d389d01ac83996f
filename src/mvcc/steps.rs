//! Large requests, applied in steps. A step reads a bounded number of records, so that other work may run in between.
//! All steps belong to one transaction: the state before the last one must not be published.

use std::collections::BTreeSet;

use basalt_proto::encoded::{DeleteRangeResponse, Response, TxnResponse};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{DeleteRangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;

use super::Mvcc;
use super::choice::{Choice, TxnPath};
use super::deletion::Deletion;
use super::range::RangeRead;
use super::read::Reader;
use super::txn;
use super::write::{LeaseExists, Position, Writer};
use crate::store::{Overlay, View};
use crate::types::{Error, KeyRange};

/// A request in progress.
pub struct Steps {
    position: Position,
    work: Work,
}

enum Work {
    Delete(Deletion),
    Keys(Deletion),
    Txn(Box<TxnSteps>),
}

/// The answer to a request that was applied in steps.
pub enum Outcome {
    /// Response to [`Mvcc::begin_delete_range`].
    DeleteRange(DeleteRangeResponse),
    /// Number of keys deleted by [`Mvcc::begin_delete_keys`].
    Keys(i64),
    /// Response to [`Mvcc::begin_txn`].
    Txn(TxnResponse),
}

/// A transaction in progress.
struct TxnSteps {
    request: TxnRequest,
    /// Its compares, which are evaluated first.
    choice: Choice,
    /// The chosen branches, once the compares are evaluated.
    path: Option<TxnPath>,
    /// The operations of the chosen branches that have not run yet, the last one first; none for an empty operation.
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
    /// Upper bound of the records that a transaction reads, both branches together; one that reads few is for [`Mvcc::txn`].
    pub fn txn_records_max(&self, request: &TxnRequest) -> usize {
        let compares = request.compare.iter().filter(|compare| !compare.range_end.is_empty());
        let compares = compares.map(|compare| self.records_max(&compare.key, &compare.range_end));
        let operations = request.success.iter().chain(&request.failure);
        let operations = operations.map(|operation| self.operation_records_max(operation));
        compares.chain(operations).fold(0, usize::saturating_add)
    }

    fn operation_records_max(&self, operation: &RequestOp) -> usize {
        match &operation.request {
            Some(Request::RequestRange(range)) => {
                let records = self.records_max(&range.key, &range.range_end);
                // The present number of keys is computed without reading them.
                if range.count_only && range.revision == 0 { 1 } else { records }
            }
            Some(Request::RequestDeleteRange(delete)) => {
                self.records_max(&delete.key, &delete.range_end)
            }
            Some(Request::RequestTxn(nested)) => self.txn_records_max(nested),
            Some(Request::RequestPut(_)) => 1,
            None => 0,
        }
    }

    /// Upper bound of the records, live and dead, in the range of a request.
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

    /// Deletes the given keys in one revision; an empty set creates no revision. Used for the keys of a revoked lease.
    pub fn begin_delete_keys(&self, keys: BTreeSet<Bytes>) -> Steps {
        Steps { position: Position::new(self), work: Work::Keys(Deletion::of_keys(keys)) }
    }

    /// [`Mvcc::txn`] in steps. All reasons to refuse it are checked before anything is written.
    pub fn begin_txn(&self, request: TxnRequest) -> Steps {
        let work = TxnSteps {
            request,
            choice: Choice::default(),
            path: None,
            rest: Vec::new(),
            current: None,
            responses: Vec::new(),
        };
        Steps { position: Position::new(self), work: Work::Txn(Box::new(work)) }
    }

    /// Continues until about `budget` records were read. Returns the answer at the end.
    ///
    /// # Errors
    /// A fault of the store; those of [`Mvcc::txn`], before anything was written.
    pub fn step<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        steps: &mut Steps,
        mut budget: usize,
        lease_exists: LeaseExists<'_>,
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
            Work::Txn(txn) => txn.step(&mut writer, &mut budget, lease_exists)?.map(Outcome::Txn),
        };
        steps.position = writer.finish();
        Ok(outcome)
    }
}

/// The response to a complete deletion.
fn response<V: View>(deletion: &mut Deletion, writer: &Writer<'_, V>) -> DeleteRangeResponse {
    let prev_kvs = std::mem::take(&mut deletion.prev_kvs);
    DeleteRangeResponse { header: writer.header(), deleted: deletion.deleted, prev_kvs }
}

impl TxnSteps {
    fn step<V: View>(
        &mut self,
        writer: &mut Writer<'_, V>,
        budget: &mut usize,
        lease_exists: LeaseExists<'_>,
    ) -> Result<Option<TxnResponse>, Error> {
        if self.path.is_none() {
            self.path = writer.read(|reader| self.choose(reader, budget, lease_exists))?;
        }
        if self.path.is_none() {
            return Ok(None);
        }
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
        let Some(path) = &self.path else { return Ok(None) };
        let mut responses = std::mem::take(&mut self.responses).into_iter();
        let mut response = txn::execute(&self.request, path, &mut |_| {
            Ok(responses.next().unwrap_or_else(|| Response::ResponseTxn(TxnResponse::default())))
        })?;
        response.header = writer.header();
        Ok(Some(response))
    }

    /// Evaluates the compares, and then checks the operations.
    fn choose<V: View>(
        &mut self,
        reader: &Reader<'_, V>,
        budget: &mut usize,
        lease_exists: LeaseExists<'_>,
    ) -> Result<Option<TxnPath>, Error> {
        let Some(path) = self.choice.step(reader, &self.request, budget)? else { return Ok(None) };
        txn::check_path(reader, &self.request, &path, Some(lease_exists))?;
        self.rest = txn::operations(&self.request, &path)?;
        self.rest.reverse();
        Ok(Some(path))
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
            // Nested transactions were flattened before.
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
