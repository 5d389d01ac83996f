//! Renewals of leases: those of all clients go over one stream for each token, and at most one for each lease is under way,
//! whose response serves everybody who asks meanwhile, or shortly after.
//!
//! A response that is shared later says how long the lease still lives, not how long it lived when it was renewed. It is
//! kept for a tenth of the TTL and a second at most, so that the end of a lease is noticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use basalt_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::caller::Caller;
use super::codec::{decode, encode};
use super::outbox::{Outbox, Responses};
use super::upstream::{Requests, Upstream, of_stream};
use crate::limits::{RENEWAL_SHARED_MAX, RENEWALS_MAX, STREAM_REQUESTS_MAX};

const METHOD: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
/// A TTL below is never shared later: a second is too much of it.
const SHARED_TTL_MIN: i64 = 5;

/// In whose name a stream is, and if it ends when its member has no leader.
type Name = (Option<String>, bool);

/// The service.
pub(super) struct KeepAlives {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Arc<Upstream>,
    streams: Mutex<HashMap<Name, Arc<Renewals>>>,
}

/// A client that waits for a response: the stream, and the permit for one more response in it.
struct Waiter {
    outbox: Outbox,
    _room: OwnedSemaphorePermit,
}

/// One lease.
#[derive(Default)]
struct Lease {
    waiting: Vec<Waiter>,
    last: Option<(Instant, LeaseKeepAliveResponse)>,
}

/// One stream to a member.
struct Renewals {
    requests: mpsc::Sender<Bytes>,
    leases: Mutex<HashMap<i64, Lease>>,
}

impl Renewals {
    fn leases(&self) -> MutexGuard<'_, HashMap<i64, Lease>> {
        self.leases.lock().expect("no holder panics")
    }

    /// True if the lease has to be renewed at the member; otherwise the waiter has been, or will be, answered.
    fn wait(&self, id: i64, waiter: Waiter, now: Instant) -> bool {
        let mut leases = self.leases();
        let lease = leases.entry(id).or_default();
        if let Some(response) = lease.last.as_ref().and_then(|(at, it)| still(it, now - *at)) {
            waiter.outbox.push_past_bound(encode(&response));
            return false;
        }
        lease.waiting.push(waiter);
        lease.waiting.len() == 1
    }

    /// A response of the member, for everybody who waits.
    fn answer(&self, response: LeaseKeepAliveResponse, now: Instant) {
        let mut leases = self.leases();
        let Some(lease) = leases.get_mut(&response.id) else { return };
        let message = encode(&response);
        for waiter in lease.waiting.drain(..) {
            // As many wait at most as there are permits.
            waiter.outbox.push_past_bound(message.clone());
        }
        lease.last = Some((now, response));
        if still(&response, std::time::Duration::ZERO).is_none() {
            leases.remove(&response.id);
        }
    }

    /// Drops leases that nobody has asked for lately.
    fn prune(&self, now: Instant) {
        let is_new = |lease: &Lease| {
            lease.last.as_ref().is_some_and(|(at, it)| still(it, now - *at).is_some())
        };
        self.leases().retain(|_, lease| !lease.waiting.is_empty() || is_new(lease));
    }
}

/// A response that was received some time ago, as it is now; none if it is too old to be shared.
fn still(
    response: &LeaseKeepAliveResponse,
    age: std::time::Duration,
) -> Option<LeaseKeepAliveResponse> {
    let ttl = u32::try_from(response.ttl).ok().filter(|_| response.ttl >= SHARED_TTL_MIN)?;
    let shared = RENEWAL_SHARED_MAX.min(std::time::Duration::from_secs(1) * ttl / 10);
    let passed = i64::from(!age.is_zero());
    (age < shared).then_some(LeaseKeepAliveResponse { ttl: response.ttl - passed, ..*response })
}

impl KeepAlives {
    pub(super) fn new(upstream: &Arc<Upstream>) -> Self {
        let streams = Mutex::default();
        Self { shared: Arc::new(Shared { upstream: Arc::clone(upstream), streams }) }
    }

    /// Serves one stream of a client.
    pub(super) fn serve(&self, caller: Caller, requests: Streaming<Bytes>) -> Responses {
        let (outbox, responses) = Outbox::new();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(status) = serve(&shared, &caller, &outbox, requests).await {
                outbox.end(Err(status));
            }
            outbox.end(Ok(()));
        });
        responses
    }

    /// A lease is gone: its last response is not shared any more.
    pub(super) fn forget(&self, id: i64) {
        for stream in self.shared.streams().values() {
            if let Some(lease) = stream.leases().get_mut(&id) {
                lease.last = None;
            }
        }
    }
}

async fn serve(
    shared: &Arc<Shared>,
    caller: &Caller,
    outbox: &Outbox,
    mut requests: Streaming<Bytes>,
) -> Result<(), Status> {
    let room = Arc::new(Semaphore::new(RENEWALS_MAX));
    loop {
        let next = tokio::select! {
            next = requests.message() => next,
            () = outbox.ended() => return Ok(()),
        };
        let Ok(Some(message)) = next else { break };
        let request: LeaseKeepAliveRequest = decode(message)?;
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => permit,
            () = outbox.ended() => return Ok(()),
        };
        let Ok(permit) = permit else { return Ok(()) };
        // Responses that were not read hold back requests, too.
        outbox.drained_if_full().await;
        let waiter = Waiter { outbox: outbox.clone(), _room: permit };
        let stream = shared.stream(caller);
        if stream.wait(request.id, waiter, Instant::now())
            && stream.requests.send(encode(&request)).await.is_err()
        {
            return Err(Status::unavailable("error reading from server: EOF"));
        }
    }
    // The responses that are still to come.
    let all = u32::try_from(RENEWALS_MAX).unwrap_or(u32::MAX);
    tokio::select! {
        _ = room.acquire_many(all) => {}
        () = outbox.ended() => {}
    }
    Ok(())
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<Name, Arc<Renewals>>> {
        self.streams.lock().expect("no holder panics")
    }

    /// The stream in the caller's name, which is opened if there is none.
    fn stream(self: &Arc<Self>, caller: &Caller) -> Arc<Renewals> {
        let name = (caller.token.clone(), caller.requires_leader);
        let mut streams = self.streams();
        if let Some(stream) = streams.get(&name) {
            return Arc::clone(stream);
        }
        let (requests, inbox) = mpsc::channel(STREAM_REQUESTS_MAX);
        let stream = Arc::new(Renewals { requests, leases: Mutex::default() });
        streams.insert(name.clone(), Arc::clone(&stream));
        tokio::spawn(Arc::clone(self).run(name, Arc::clone(&stream), inbox));
        stream
    }

    /// Reads the responses of one stream until it breaks, or nobody uses it.
    async fn run(self: Arc<Self>, name: Name, stream: Arc<Renewals>, inbox: mpsc::Receiver<Bytes>) {
        let caller = Caller::of_stream(name.0.clone(), name.1);
        let opened = self.upstream.stream(METHOD, &caller, Requests(inbox)).await;
        let end = match opened {
            Ok(responses) => read(&stream, responses).await,
            Err(status) => Some(status),
        };
        let mut streams = self.streams();
        streams.remove(&name);
        // Those who wait now fail, and those who come open another stream.
        let failed: Vec<Lease> = stream.leases().drain().map(|(_, lease)| lease).collect();
        drop(streams);
        if let Some(status) = end {
            for waiter in failed.iter().flat_map(|it| &it.waiting) {
                waiter.outbox.end(Err(status.clone()));
            }
        }
    }
}

/// Ends with none if the stream was not used for a while.
async fn read(stream: &Arc<Renewals>, mut responses: Streaming<Bytes>) -> Option<Status> {
    const UNUSED_MAX: std::time::Duration = std::time::Duration::from_secs(60);
    loop {
        let Ok(next) = tokio::time::timeout(UNUSED_MAX, responses.message()).await else {
            stream.prune(Instant::now());
            match stream.leases().is_empty() {
                true => return None,
                false => continue,
            }
        };
        match next.map(|it| it.map(decode::<LeaseKeepAliveResponse>)) {
            Ok(Some(Ok(response))) => stream.answer(response, Instant::now()),
            Ok(Some(Err(status))) => return Some(status),
            Ok(None) => return Some(Status::unavailable("error reading from server: EOF")),
            Err(status) => return Some(of_stream(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn renewals() -> (Renewals, mpsc::Receiver<Bytes>) {
        let (requests, inbox) = mpsc::channel(1);
        (Renewals { requests, leases: Mutex::default() }, inbox)
    }

    fn waiter() -> (Waiter, Responses) {
        let (outbox, responses) = Outbox::new();
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("one");
        (Waiter { outbox, _room: room }, responses)
    }

    #[tokio::test]
    async fn one_renewal_serves_all_who_wait() {
        let (renewals, _inbox) = renewals();
        let now = Instant::now();
        let (first, mut one) = waiter();
        let (second, mut two) = waiter();
        assert!(renewals.wait(7, first, now));
        assert!(!renewals.wait(7, second, now), "one is under way");
        renewals.answer(LeaseKeepAliveResponse { id: 7, ttl: 60, header: None }, now);
        use std::pin::Pin;

        use tonic::codegen::tokio_stream::Stream as _;
        for responses in [&mut one, &mut two] {
            let next = std::future::poll_fn(|it| Pin::new(&mut *responses).poll_next(it)).await;
            let response: LeaseKeepAliveResponse =
                decode(next.expect("one").expect("a response")).expect("a message");
            assert_eq!((response.id, response.ttl), (7, 60));
        }
        let (third, _three) = waiter();
        assert!(!renewals.wait(7, third, now + Duration::from_millis(999)));
        let (fourth, _four) = waiter();
        assert!(renewals.wait(7, fourth, now + Duration::from_millis(1001)), "too old");
    }

    #[test]
    fn a_shared_response_says_how_long_the_lease_still_lives() {
        let response = |ttl| LeaseKeepAliveResponse { id: 1, ttl, header: None };
        let ttl = |ttl, age| still(&response(ttl), Duration::from_millis(age)).map(|it| it.ttl);
        assert_eq!(ttl(60, 0), Some(60));
        assert_eq!(ttl(60, 1), Some(59));
        assert_eq!(ttl(60, 1000), None);
        assert_eq!(ttl(6, 500), Some(5));
        assert_eq!(ttl(6, 600), None);
        assert_eq!(ttl(4, 0), None, "too short");
        assert_eq!(ttl(0, 0), None, "there is no such lease");
    }
}
