//! Transactions. All compares, those of nested transactions too, are evaluated against the state before the
//! transaction; then every reason to refuse it is checked; only then it writes.

use basalt_proto::encoded::{Response, ResponseOp, TxnResponse};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest};

use super::Mvcc;
use super::choice::{Choice, TxnPath};
use super::read::Reader;
use super::write::{self, LeaseExists, Writer};
use crate::store::{Overlay, View};
use crate::types::{Error, Fault, LeaseId, Refusal};

impl Mvcc {
    /// Applies a transaction that passed [`check_txn`](super::check_txn). Headers contain the revision alone; those of
    /// nested transactions are empty.
    ///
    /// # Errors
    /// `EmptyKey`, `RequestTooLarge`, `LeaseNotFound`, `KeyNotFound`, `FutureRev` or `Compacted` if an operation of the
    /// branch that would run is invalid, or a fault of the store. A refused transaction changes nothing.
    pub fn txn<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        request: &TxnRequest,
        lease_exists: &dyn Fn(LeaseId) -> bool,
    ) -> Result<TxnResponse, Error> {
        let pending = self.pending(tx);
        let path = prepare(&self.reader(&pending), request, Some(lease_exists))?;
        let mut writer = Writer::new(self, tx);
        let mut response = execute(request, &path, &mut |request| match request {
            Request::RequestRange(range) => {
                writer.read(|reader| reader.range(range)).map(Response::ResponseRange)
            }
            Request::RequestPut(put) => writer.put(put).map(Response::ResponsePut),
            Request::RequestDeleteRange(delete) => {
                writer.delete_range(delete).map(Response::ResponseDeleteRange)
            }
            Request::RequestTxn(_) => Ok(Response::ResponseTxn(TxnResponse::default())),
        })?;
        response.header = writer.header();
        writer.finish();
        Ok(response)
    }
}

/// Runs a transaction that consists of ranges.
pub(super) fn read<V: View>(
    reader: &Reader<'_, V>,
    request: &TxnRequest,
) -> Result<TxnResponse, Error> {
    let path = prepare(reader, request, None)?;
    let mut response = execute(request, &path, &mut |request| match request {
        Request::RequestRange(range) => reader.range(range).map(Response::ResponseRange),
        Request::RequestPut(_) | Request::RequestDeleteRange(_) | Request::RequestTxn(_) => {
            Err(Fault::new("a transaction that writes came where only reads may").into())
        }
    })?;
    response.header = Some(ResponseHeader { revision: reader.revision, ..Default::default() });
    Ok(response)
}

/// Evaluates the compares, and checks that the chosen branches can run.
fn prepare<V: View>(
    reader: &Reader<'_, V>,
    request: &TxnRequest,
    lease_exists: Option<LeaseExists<'_>>,
) -> Result<TxnPath, Error> {
    let path = Choice::default().step(reader, request, &mut usize::MAX.clone())?;
    let path = path.ok_or_else(|| Fault::new("the compares of a transaction did not end"))?;
    check_path(reader, request, &path, lease_exists)?;
    Ok(path)
}

/// Checks that the chosen branches can run.
///
/// # Errors
/// The reason to refuse the transaction.
pub(super) fn check_path<V: View>(
    reader: &Reader<'_, V>,
    request: &TxnRequest,
    path: &TxnPath,
    lease_exists: Option<LeaseExists<'_>>,
) -> Result<(), Error> {
    check(reader, request, lease_exists, &mut path.0.iter().copied())
}

/// The operations of the chosen branches, in order; nested transactions flattened.
pub(super) fn operations(request: &TxnRequest, path: &TxnPath) -> Result<Vec<Request>, Error> {
    let mut operations = Vec::new();
    execute(request, path, &mut |request| {
        operations.push(request.clone());
        Ok(Response::ResponseTxn(TxnResponse::default()))
    })?;
    Ok(operations)
}

fn branch<'a>(
    request: &'a TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> (bool, &'a [RequestOp]) {
    let succeeded = path.next().unwrap_or(false);
    (succeeded, if succeeded { &request.success } else { &request.failure })
}

fn check<V: View>(
    reader: &Reader<'_, V>,
    request: &TxnRequest,
    lease_exists: Option<LeaseExists<'_>>,
    path: &mut impl Iterator<Item = bool>,
) -> Result<(), Error> {
    let (_, operations) = branch(request, path);
    for operation in operations {
        match &operation.request {
            Some(Request::RequestRange(range)) => check_revision(reader, range)?,
            Some(Request::RequestPut(put)) => check_put(reader, put, lease_exists)?,
            Some(Request::RequestTxn(nested)) => check(reader, nested, lease_exists, path)?,
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

fn check_revision<V>(reader: &Reader<'_, V>, range: &RangeRequest) -> Result<(), Refusal> {
    match range.revision {
        0 => Ok(()),
        future if future > reader.revision => Err(Refusal::FutureRev),
        past if past < reader.compacted => Err(Refusal::Compacted),
        _ => Ok(()),
    }
}

fn check_put<V: View>(
    reader: &Reader<'_, V>,
    put: &PutRequest,
    lease_exists: Option<LeaseExists<'_>>,
) -> Result<(), Error> {
    write::check_key(put)?;
    if let Some(lease_exists) = lease_exists {
        write::check_lease(put, lease_exists)?;
    }
    if put.ignore_value || put.ignore_lease {
        let previous = reader.one(&put.key, reader.revision)?;
        write::check_previous(put, previous.as_ref())?;
    }
    Ok(())
}

/// Runs the chosen branches; nested transactions are flattened here, all other operations are passed to `run`.
pub(super) fn execute(
    request: &TxnRequest,
    path: &TxnPath,
    run: &mut impl FnMut(&Request) -> Result<Response, Error>,
) -> Result<TxnResponse, Error> {
    execute_branch(request, &mut path.0.iter().copied(), run)
}

fn execute_branch(
    request: &TxnRequest,
    path: &mut impl Iterator<Item = bool>,
    run: &mut impl FnMut(&Request) -> Result<Response, Error>,
) -> Result<TxnResponse, Error> {
    let (succeeded, operations) = branch(request, path);
    let mut responses = Vec::with_capacity(operations.len());
    for operation in operations {
        let response = match &operation.request {
            Some(Request::RequestTxn(nested)) => {
                Some(Response::ResponseTxn(execute_branch(nested, path, run)?))
            }
            Some(request) => Some(run(request)?),
            None => None,
        };
        responses.push(ResponseOp { response });
    }
    Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
}
