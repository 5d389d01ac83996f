//! Transactions. All compares, those of nested transactions too, are evaluated against the state
//! before the transaction; then everything that could refuse it is checked; only then it writes.

use basalt_proto::encoded::{Response, ResponseOp, TxnResponse};
use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
};

use super::Mvcc;
use super::read::Reader;
use super::record::{Record, RecordHeader};
use super::write::{self, LeaseExists, Writer};
use crate::store::{Overlay, View};
use crate::types::{Error, Fault, KeyRange, LeaseId, Refusal};

impl Mvcc {
    /// Applies a transaction that passed [`check_txn`](super::check_txn). Headers hold the revision
    /// alone; those of nested transactions are empty.
    ///
    /// # Errors
    /// `EmptyKey`, `RequestTooLarge`, `LeaseNotFound`, `KeyNotFound`, `FutureRev` or `Compacted` if an operation of the branch that
    /// would run has that fault, or a fault of the store. A refused transaction changes nothing.
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

/// Runs a transaction of ranges alone.
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

/// Which branch each transaction takes, outermost first, nested ones in order.
pub(super) struct TxnPath(Vec<bool>);

/// Chooses the branches, after making sure that they can run.
pub(super) fn prepare<V: View>(
    reader: &Reader<'_, V>,
    request: &TxnRequest,
    lease_exists: Option<LeaseExists<'_>>,
) -> Result<TxnPath, Error> {
    let mut path = Vec::with_capacity(1);
    choose(reader, request, &mut path)?;
    check(reader, request, lease_exists, &mut path.iter().copied())?;
    Ok(TxnPath(path))
}

/// The operations of the branches taken, in order; nested transactions unfolded.
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

fn choose<V: View>(
    reader: &Reader<'_, V>,
    request: &TxnRequest,
    path: &mut Vec<bool>,
) -> Result<(), Fault> {
    let mut holds = true;
    for compare in &request.compare {
        if !self::holds(reader, compare)? {
            holds = false;
            break;
        }
    }
    path.push(holds);
    let operations = if holds { &request.success } else { &request.failure };
    for operation in operations {
        if let Some(Request::RequestTxn(nested)) = &operation.request {
            choose(reader, nested, path)?;
        }
    }
    Ok(())
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

/// Runs the chosen branches; nested transactions are unfolded here, all else is `run`'s.
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

/// Whether every key of the compare's range satisfies it; without one, whether no key would.
fn holds<V: View>(reader: &Reader<'_, V>, compare: &Compare) -> Result<bool, Fault> {
    let range = KeyRange::new(compare.key.clone(), compare.range_end.clone());
    let mut empty = true;
    let all = reader.each(&range, reader.revision, false, |record: Record| {
        empty = false;
        let kv = record.into_key_value();
        Ok(satisfies(compare, &RecordHeader::new(&kv)?, &kv))
    })?;
    if !empty {
        return Ok(all);
    }
    // A value that is not there is different from every value, and not by being empty.
    Ok(compare.target != CompareTarget::Value as i32
        && satisfies(compare, &RecordHeader::default(), &[]))
}

fn satisfies(compare: &Compare, header: &RecordHeader, kv: &[u8]) -> bool {
    let wanted = compare.target_union.as_ref();
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => header.version.cmp(&match wanted {
            Some(TargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => header.create.cmp(&match wanted {
            Some(TargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => header.modified.cmp(&match wanted {
            Some(TargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Lease) => header.lease.cmp(&match wanted {
            Some(TargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => kv[header.value.clone()].cmp(match wanted {
            Some(TargetUnion::Value(value)) => value,
            _ => &[][..],
        }),
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        // etcd lets what it does not know pass.
        Err(_) => true,
    }
}
