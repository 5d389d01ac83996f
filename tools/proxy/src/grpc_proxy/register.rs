//! `--resolver-prefix`: the proxy's address under a key of the prefix, as long as the proxy runs, in the form of etcd's
//! `naming/endpoints`; and the reader of such keys.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    PutRequest, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use basalt_proto::mvccpb::{Event, KeyValue};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::{Status, Streaming};

use super::caller::Caller;
use super::codec::{decode, encode};
use super::kv::Kv;
use super::options::Registration;
use super::upstream::Requests;
use crate::{info, warn};

/// At most one attempt a second.
const RETRY: Duration = Duration::from_secs(1);
/// Time for a call.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);

/// The value of a key: who can be reached where.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Update {
    /// 0: the address is there.
    #[serde(rename = "Op", default)]
    op: u8,
    #[serde(rename = "Addr", default)]
    pub(super) addr: String,
    /// JSON in a string.
    #[serde(rename = "Metadata", default)]
    metadata: serde_json::Value,
}

/// The metadata of a proxy.
#[derive(Default, Serialize, Deserialize)]
struct Meta {
    #[serde(default)]
    name: String,
}

impl Update {
    fn of_this_host(addr: &str) -> Self {
        let meta = serde_json::to_string(&Meta { name: host_name() }).unwrap_or_default();
        Self { op: 0, addr: addr.to_owned(), metadata: meta.into() }
    }

    /// The host's name.
    pub(super) fn name(&self) -> String {
        let meta = self.metadata.as_str().and_then(|it| serde_json::from_str::<Meta>(it).ok());
        meta.unwrap_or_default().name
    }
}

/// The name of this host.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Registers the proxy, again and again when the lease has ended.
pub(super) async fn keep_registered(kv: Arc<Kv>, registration: Registration) {
    loop {
        match register(&kv, &registration).await {
            Ok(()) => {
                let message = "session expired; possible network partition or server restart";
                warn("grpcproxy/register.go:54", message).write();
                warn("grpcproxy/register.go:55", "creating a new session to rejoin").write();
            }
            Err(status) => warn("grpcproxy/register.go:45", "failed to create a session")
                .text("error", status.message())
                .write(),
        }
        sleep(RETRY).await;
    }
}

/// Ends well when the lease has ended.
async fn register(kv: &Kv, registration: &Registration) -> Result<(), Status> {
    let Registration { prefix, address, ttl_s } = registration;
    let caller = Caller::hasty(CALL_TIME_MAX);
    let request = encode(&LeaseGrantRequest { ttl: *ttl_s, id: 0 });
    let answer = kv.upstream.unary("/etcdserverpb.Lease/LeaseGrant", &caller, request).await?;
    let lease = decode::<LeaseGrantResponse>(answer)?.id;
    let value = serde_json::to_vec(&Update::of_this_host(address)).unwrap_or_default();
    let put = PutRequest {
        key: format!("{prefix}/{address}").into(),
        value: value.into(),
        lease,
        ..PutRequest::default()
    };
    kv.put(&caller, encode(&put)).await?;
    let message = "registered session with lease";
    info("grpcproxy/register.go:82", message)
        .text("addr", address)
        .number("lease-ttl", *ttl_s)
        .write();
    keep_alive(kv, lease, *ttl_s).await;
    Ok(())
}

/// Renews a lease until it has ended.
async fn keep_alive(kv: &Kv, lease: i64, ttl_s: i64) {
    let ttl = Duration::from_secs(ttl_s.unsigned_abs());
    let mut renewed = tokio::time::Instant::now();
    while renewed.elapsed() < ttl {
        if let Ok(ended) = renew_while_possible(kv, lease, ttl / 3, &mut renewed).await
            && ended
        {
            return;
        }
        sleep(RETRY.min(ttl / 3)).await;
    }
}

/// Over one stream; true if there is no such lease any more.
async fn renew_while_possible(
    kv: &Kv,
    lease: i64,
    pause: Duration,
    renewed: &mut tokio::time::Instant,
) -> Result<bool, Status> {
    let method = "/etcdserverpb.Lease/LeaseKeepAlive";
    let (requests, inbox) = mpsc::channel(1);
    let request = encode(&LeaseKeepAliveRequest { id: lease });
    let _ = requests.try_send(request.clone());
    let mut responses = kv.upstream.stream(method, &Caller::proxy(), Requests(inbox)).await?;
    loop {
        let late = |_| Status::deadline_exceeded("a renewal was not answered");
        let response = timeout(CALL_TIME_MAX, responses.message()).await.map_err(late)??;
        let Some(response) = response else { return Ok(false) };
        if decode::<LeaseKeepAliveResponse>(response)?.ttl <= 0 {
            return Ok(true);
        }
        *renewed = tokio::time::Instant::now();
        sleep(pause).await;
        if requests.send(request.clone()).await.is_err() {
            return Ok(false);
        }
    }
}

/// All keys of a prefix, and their changes from then on.
pub(super) struct Follower {
    pub(super) first: Vec<KeyValue>,
    responses: Streaming<Bytes>,
    /// The stream lives as long as its requests may.
    _requests: mpsc::Sender<Bytes>,
}

impl Follower {
    /// # Errors
    /// The member's error.
    pub(super) async fn open(kv: &Kv, prefix: &str) -> Result<Self, Status> {
        let key = Bytes::copy_from_slice(prefix.as_bytes());
        // A prefix that ends with a slash: the next byte ends it.
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let (key, range_end) = kv.namespaced(&key, &end.into());
        let request = RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            serializable: true,
            ..RangeRequest::default()
        };
        let caller = Caller::hasty(CALL_TIME_MAX);
        let answer = kv.upstream.unary("/etcdserverpb.KV/Range", &caller, encode(&request)).await?;
        let found: RangeResponse = decode(answer)?;
        let start_revision = found.header.map_or(0, |it| it.revision) + 1;
        let create =
            WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
        let union = RequestUnion::CreateRequest(create);
        let (requests, inbox) = mpsc::channel(1);
        let _ = requests.try_send(encode(&WatchRequest { request_union: Some(union) }));
        let method = "/etcdserverpb.Watch/Watch";
        let responses = kv.upstream.stream(method, &Caller::proxy(), Requests(inbox)).await?;
        Ok(Self { first: found.kvs, responses, _requests: requests })
    }

    /// The next changes; none when the watch is over.
    ///
    /// # Errors
    /// The member's error.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Event>>, Status> {
        let Some(message) = self.responses.message().await? else { return Ok(None) };
        let response: WatchResponse = decode(message)?;
        match response.canceled {
            true => Err(Status::unknown(response.cancel_reason)),
            false => Ok(Some(response.events)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_has_etcds_form() {
        let update = Update { metadata: r#"{"name":"h"}"#.into(), ..Update::of_this_host("a:1") };
        let text = serde_json::to_string(&update).expect("JSON");
        assert_eq!(text, r#"{"Op":0,"Addr":"a:1","Metadata":"{\"name\":\"h\"}"}"#);
        let back: Update = serde_json::from_str(&text).expect("an update");
        assert_eq!((back.addr.as_str(), back.name().as_str()), ("a:1", "h"));
    }
}
