//! Keys and values: reads by way of the cache, writes by way of the namespace.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use bytes::Bytes;
use tonic::Status;

use super::cache::{Cache, CacheKey, Found, Reading};
use super::caller::Caller;
use super::codec::{decode, encode};
use super::metrics::Metrics;
use super::namespace::Namespace;
use super::options::Options;
use super::upstream::Upstream;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";

/// Attempts at each member to read at least the revision that was read before.
const ORDER_ATTEMPTS: usize = 5;

/// The service.
pub(super) struct Kv {
    pub(super) upstream: Arc<Upstream>,
    namespace: Namespace,
    metrics: Arc<Metrics>,
    cache: Mutex<Cache>,
    /// The highest revision that was read, if reads must not go back.
    read_revision: Option<AtomicI64>,
}

impl Kv {
    pub(super) fn new(
        options: &Options,
        upstream: &Arc<Upstream>,
        namespace: &Namespace,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            upstream: Arc::clone(upstream),
            namespace: namespace.clone(),
            metrics: Arc::clone(metrics),
            cache: Mutex::default(),
            read_revision: options.ordered.then(AtomicI64::default),
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().expect("no holder panics")
    }

    /// A range of keys as the members have it.
    pub(super) fn namespaced(&self, key: &Bytes, end: &Bytes) -> (Bytes, Bytes) {
        self.namespace.range(key, end)
    }

    /// Number of ranges in the cache.
    pub(super) fn cached(&self) -> usize {
        self.cache().len()
    }

    /// Forgets the cached ranges, after a change that may have touched any of them.
    pub(super) fn forget(&self) {
        self.cache().clear();
    }

    /// # Errors
    /// The member's error, or the request is malformed.
    pub(super) async fn range(&self, caller: &Caller, message: Bytes) -> Result<Bytes, Status> {
        let request: RangeRequest = decode(message)?;
        let as_cached = RangeRequest { serializable: true, ..request.clone() };
        let key = CacheKey { token: caller.token.clone(), request: encode(&as_cached) };
        if request.serializable {
            match self.cache().get(&key, request.revision) {
                Found::Response(response) => {
                    Metrics::count(&self.metrics.cache_hits);
                    return Ok(response);
                }
                Found::Compacted => {
                    Metrics::count(&self.metrics.cache_hits);
                    let text = "etcdserver: mvcc: required revision has been compacted";
                    return Err(Status::out_of_range(text));
                }
                Found::Nothing => Metrics::count(&self.metrics.cache_misses),
            }
        }
        let reading = self.cache().begin(&request.key, &request.range_end);
        let reading = UnderWay { cache: &self.cache, reading };
        let revision = request.revision;
        let response = self.read(caller, request).await?;
        self.cache().add(&reading.reading, key, revision, response.clone());
        Ok(response)
    }

    /// A range from a member, not older than the last one if reads are ordered.
    async fn read(&self, caller: &Caller, mut request: RangeRequest) -> Result<Bytes, Status> {
        if !self.namespace.is_empty() {
            refuse_empty(&request.key)?;
            self.namespace.of_range(&mut request);
        }
        let message = encode(&request);
        let before = self.read_revision.as_ref().map(|it| it.load(Ordering::Relaxed));
        for _ in 0..=ORDER_ATTEMPTS * self.upstream.len() {
            let answer = self.upstream.unary(RANGE, caller, message.clone()).await?;
            if before.is_none() && self.namespace.is_empty() {
                return Ok(answer);
            }
            let mut response: RangeResponse = decode(answer)?;
            let revision = response.header.map_or(0, |it| it.revision);
            if before.is_some_and(|before| revision < before) {
                continue;
            }
            self.has_read(revision);
            self.namespace.strip_range(&mut response);
            return Ok(encode(&response));
        }
        Err(Status::unknown(
            "etcdclient: no cluster members have a revision higher than the previously received revision",
        ))
    }

    fn has_read(&self, revision: i64) {
        if let Some(read) = &self.read_revision {
            read.fetch_max(revision, Ordering::Relaxed);
        }
    }

    /// Reads one key, to see if that is possible.
    ///
    /// # Errors
    /// The member's error.
    pub(super) async fn probe(
        &self,
        key: &'static str,
        serializable: bool,
        caller: &Caller,
    ) -> Result<(), Status> {
        let request = RangeRequest {
            key: key.into(),
            keys_only: true,
            serializable,
            ..RangeRequest::default()
        };
        self.read(caller, request).await.map(drop)
    }

    /// Checks if the caller may read a range, at any member; the header is that of the response.
    ///
    /// # Errors
    /// The member's error: the caller lacks the permission.
    pub(super) async fn check(
        &self,
        caller: &Caller,
        key: &Bytes,
        end: &Bytes,
    ) -> Result<ResponseHeader, Status> {
        let first = Bytes::from_static(&[0]);
        let (key, end) = match key.is_empty() {
            true => (&first, if end.is_empty() { end } else { &first }),
            false => (key, end),
        };
        let (key, range_end) = self.namespace.range(key, end);
        let request = RangeRequest {
            key,
            range_end,
            serializable: true,
            count_only: true,
            limit: 1,
            ..RangeRequest::default()
        };
        let answer = self.upstream.unary(RANGE, caller, encode(&request)).await?;
        Ok(decode::<RangeResponse>(answer)?.header.unwrap_or_default())
    }

    /// # Errors
    /// The member's error, or the request is malformed.
    pub(super) async fn put(&self, caller: &Caller, message: Bytes) -> Result<Bytes, Status> {
        let mut request: PutRequest = decode(message.clone())?;
        let key = request.key.clone();
        let message = match self.namespace.is_empty() {
            true => message,
            false => {
                refuse_empty(&key)?;
                self.namespace.of_put(&mut request);
                encode(&request)
            }
        };
        let _written = Written { cache: &self.cache, spans: vec![(key, Bytes::new())] };
        let answer = self.upstream.unary(PUT, caller, message).await;
        self.stripped::<PutResponse>(answer?, Namespace::strip_put)
    }

    /// # Errors
    /// The member's error, or the request is malformed.
    pub(super) async fn delete(&self, caller: &Caller, message: Bytes) -> Result<Bytes, Status> {
        let mut request: DeleteRangeRequest = decode(message.clone())?;
        let (key, end) = (request.key.clone(), request.range_end.clone());
        let message = match self.namespace.is_empty() {
            true => message,
            false => {
                refuse_empty(&key)?;
                self.namespace.of_delete(&mut request);
                encode(&request)
            }
        };
        let _written = Written { cache: &self.cache, spans: vec![(key, end)] };
        let answer = self.upstream.unary(DELETE, caller, message).await;
        self.stripped::<DeleteRangeResponse>(answer?, Namespace::strip_delete)
    }

    /// # Errors
    /// The member's error, or the request is malformed.
    pub(super) async fn txn(&self, caller: &Caller, message: Bytes) -> Result<Bytes, Status> {
        let mut request: TxnRequest = decode(message.clone())?;
        let mut written = Written { cache: &self.cache, spans: Vec::new() };
        spans(&request, &mut written.spans);
        let message = match self.namespace.is_empty() {
            true => message,
            false => {
                self.namespace.of_txn(&mut request);
                encode(&request)
            }
        };
        let answer = self.upstream.unary(TXN, caller, message).await;
        self.stripped::<TxnResponse>(answer?, Namespace::strip_txn)
    }

    /// # Errors
    /// The member's error, or the request is malformed.
    pub(super) async fn compact(&self, caller: &Caller, message: Bytes) -> Result<Bytes, Status> {
        let request: CompactionRequest = decode(message.clone())?;
        let answer = self.upstream.unary(COMPACT, caller, message).await?;
        self.cache().compact(request.revision);
        Ok(answer)
    }

    fn stripped<M>(&self, answer: Bytes, strip: fn(&Namespace, &mut M)) -> Result<Bytes, Status>
    where
        M: prost::Message + Default,
    {
        if self.namespace.is_empty() {
            return Ok(answer);
        }
        let mut response: M = decode(answer)?;
        strip(&self.namespace, &mut response);
        Ok(encode(&response))
    }
}

/// A read that is under way; it ends with its caller, too.
struct UnderWay<'a> {
    cache: &'a Mutex<Cache>,
    reading: Reading,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.cache.lock().expect("no holder panics").give_up(&self.reading);
    }
}

/// Ranges that are being written. They are forgotten when that has ended, with an error, too, or when the caller has gone:
/// the write may have been made all the same.
struct Written<'a> {
    cache: &'a Mutex<Cache>,
    spans: Vec<(Bytes, Bytes)>,
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        let mut cache = self.cache.lock().expect("no holder panics");
        self.spans.iter().for_each(|(key, end)| cache.invalidate(key, end));
    }
}

/// An empty key is refused here if it would become the prefix.
fn refuse_empty(key: &Bytes) -> Result<(), Status> {
    match key.is_empty() {
        true => Err(Status::invalid_argument("etcdserver: key is not provided")),
        false => Ok(()),
    }
}

/// Ranges that a transaction may write, and those that it compares: a comparison may show that a cached range is old.
fn spans(request: &TxnRequest, into: &mut Vec<(Bytes, Bytes)>) {
    into.extend(request.compare.iter().map(|it| (it.key.clone(), it.range_end.clone())));
    for RequestOp { request } in request.success.iter().chain(&request.failure) {
        match request {
            Some(Request::RequestPut(it)) => into.push((it.key.clone(), Bytes::new())),
            Some(Request::RequestDeleteRange(it)) => {
                into.push((it.key.clone(), it.range_end.clone()));
            }
            Some(Request::RequestTxn(it)) => spans(it, into),
            Some(Request::RequestRange(_)) | None => {}
        }
    }
}
