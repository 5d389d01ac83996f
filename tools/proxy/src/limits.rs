//! Every bound of the two programs, with its reason.

use std::time::Duration;

/// Bytes of one connection of the gateway that were read and not yet written, in each direction.
pub(crate) const GATEWAY_BUFFER_BYTES: usize = 32 << 10;
/// Time until an endpoint counts as one that does not answer, as long as grpc-go waits.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);
/// Pause after a failed accept: descriptors are missing, and come back when connections end.
pub(crate) const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Time for a TLS handshake of a client.
pub(crate) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// A request is no larger: grpc-go's default, which etcd's proxy does not change.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Responses of one stream that wait for its client: as many as etcd's proxy holds.
pub(crate) const OUTBOX_RESPONSES_MAX: usize = 1024;
/// Their bytes; one response may be larger.
pub(crate) const OUTBOX_BYTES_MAX: usize = 16 << 20;
/// Time that watchers of one range wait for the slowest of them.
pub(crate) const SLOW_WATCHER_WAIT: Duration = Duration::from_millis(50);
/// Requests for progress that wait for one shared watch; a client asks again.
pub(crate) const PROGRESS_WAITING_MAX: usize = 1024;
/// Pause before a member that has not answered a request for progress is asked again: twice as long as an etcd takes
/// between two looks at watches that catch up.
pub(crate) const PROGRESS_RETRY: Duration = Duration::from_millis(200);

/// Ranges in the cache, as many as etcd's proxy caches.
pub(crate) const CACHE_ENTRIES_MAX: usize = 2048;
/// Bytes of cached requests and responses.
pub(crate) const CACHE_BYTES_MAX: usize = 64 << 20;

/// Renewals of one stream without a response; further requests are not read until one comes.
pub(crate) const RENEWALS_MAX: usize = 1024;
/// Requests on their way to one upstream stream.
pub(crate) const STREAM_REQUESTS_MAX: usize = 1024;
/// A response to a renewal serves others for a tenth of its TTL, and no longer than this.
pub(crate) const RENEWAL_SHARED_MAX: Duration = Duration::from_secs(1);

/// Attempts to reach a member for one call, as many as etcd's client makes.
pub(crate) const ATTEMPTS_MAX: usize = 100;
/// Pause between two rounds over all endpoints.
pub(crate) const ROUND_BACKOFF: Duration = Duration::from_millis(25);
/// Time in which an endpoint that could not be reached is left out while others can be.
pub(crate) const ENDPOINT_DOWN: Duration = Duration::from_secs(1);
/// Pause before a broken upstream stream is opened again.
pub(crate) const REOPEN_BACKOFF: Duration = Duration::from_millis(100);
/// The same after many failures.
pub(crate) const REOPEN_BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Bytes of a member's page of metrics.
pub(crate) const PAGE_BYTES_MAX: usize = 16 << 20;
