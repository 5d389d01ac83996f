//! The bounds that rooms share, each named, with its reason; relations that must hold are const asserts.

mod clients;

use std::time::Duration;

pub use self::clients::*;

/// Requests of one executor that wait for a response. Past it sessions wait, and through HTTP/2 flow control so
/// do their clients.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 65_536;

/// Executors of a member, one for each core: a request's id has eight bits for its executor.
pub const EXECUTORS_MAX: usize = 255;

/// Executors of a member that nothing limits: consensus and apply share one, and more sessions than these serve gain nothing.
pub const EXECUTORS_DEFAULT_MAX: usize = 16;

/// Bytes of a connection that leave in one call: as many as a segment of the loopback interface takes. As many stay with a
/// connection whose client takes nothing.
pub const SEND_BYTES_MAX: usize = 64 << 10;

/// Bytes of the requests of one executor that wait, however much memory there is; see [`super::Budgets`].
pub const REQUEST_BYTES_IN_FLIGHT_MAX: usize = 256 << 20;

/// Bundles of proposals and read requests waiting for consensus. Each executor sends one bundle a
/// round, so a few per executor is plenty.
pub const CONSENSUS_MAILBOX: usize = 1024;

/// Appends of other members waiting for consensus; past it their connection is not read, and TCP pushes back.
pub const APPENDS_MAILBOX: usize = 64;

/// Committed entries not yet applied past which appends wait: a member whose apply lags keeps no more in memory.
pub const APPENDS_UNAPPLIED_MAX: u64 = 16_384;

/// Batches of reads that wait for a leader; past it the oldest are dropped, which have timed out by then.
pub const READS_WAITING_MAX: usize = 65_536;

/// Bytes of proposals that wait for a leader past which clients wait, however much memory there is; see
/// [`super::Budgets`].
pub const DEFERRED_BYTES_MAX: usize = 256 << 20;

/// Records of the log looked at in one slice of compaction: about a millisecond.
pub const COMPACT_SLICE_RECORDS: usize = 250;

/// Records that an entry may look at to be applied at once; a larger one is applied in steps. About a millisecond.
pub const APPLY_AT_ONCE_RECORDS_MAX: usize = 256;

/// Bytes of entries after which a batch is committed to the store even if more entries wait: about a millisecond of its
/// time, as a commit does not yield.
pub const APPLY_BATCH_BYTES: usize = 256 * 1024;

/// Records that one step of a large entry looks at: a fraction of a millisecond, so that a caller with a time
/// budget can stop.
pub const APPLY_STEP_RECORDS: usize = 64;

/// Records that a deletion of many keys reads at once, before it deletes them: the cost of starting a scan is
/// shared by so many.
pub const DELETE_READ_RECORDS: usize = 256;

/// Writes of a large entry that are kept in memory beside the store before it takes them.
pub const STAGE_WRITES_MAX: usize = 1024;

/// Bytes of the events of one batch that are kept for watchers. The events of a larger batch are all read from history.
pub const BATCH_EVENTS_BYTES_MAX: usize = 16 << 20;

/// Changes of the members that wait for a leader, or for the one before them to be applied.
pub const CONF_CHANGES_WAITING_MAX: usize = 64;

/// Bytes of one frame between members: an append of a megabyte, or one entry of the largest size, plus header.
pub const PEER_FRAME_BYTES_MAX: usize = 256 << 20;

/// Heartbeats, votes and answers waiting for one member; past it they are dropped, raft sends again.
pub const PEER_URGENT_MAX: usize = 1024;

/// Appends waiting for one member, and their bytes, however much memory there is ([`super::Budgets`]); past it they are
/// dropped and raft is notified.
pub const PEER_BULK_MAX: usize = 512;
/// See [`PEER_BULK_MAX`].
pub const PEER_BULK_BYTES_MAX: usize = 64 << 20;

/// Bytes joined into one write to another member.
pub const PEER_WRITE_BYTES: usize = 1 << 20;

/// Questions of this member to others that wait for an answer, and answers in preparation for one connection; past it
/// questions are refused.
pub const PEER_QUESTIONS_MAX: usize = 4096;

/// Members that are unknown here and are answered on the connections that they dialed: those that joined after the last
/// entry that this member has applied.
pub const PEER_GUESTS_MAX: usize = 8;

/// Bytes of one frame of a snapshot that is sent to another member.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

/// Chunks of a snapshot that are read ahead of the sender, so that reading and sending overlap.
pub const SNAPSHOT_CHUNKS_AHEAD: usize = 4;

/// Bytes of a snapshot that a member sends in a second: the throughput of a network of a gigabit. A higher rate would
/// take a quarter of a core from the executors that serve clients, at both ends.
pub const SNAPSHOT_BYTES_PER_SECOND: usize = 100 << 20;

/// Bytes written in a second while a snapshot is turned into a store; each byte of the snapshot is written three times.
/// The store may share its disk with the log.
pub const SNAPSHOT_INSTALL_BYTES_PER_SECOND: usize = 200 << 20;

/// Bytes of entries that are proposed and not yet committed before raft returns proposals, however much memory there is.
pub const UNCOMMITTED_BYTES_MAX: usize = 256 << 20;

/// Bytes of applied entries that are kept in memory for followers that lag, however much memory there is.
pub const CATCH_UP_ENTRIES_BYTES_MAX: usize = 256 << 20;

/// Bytes of a memtable of the store, however much memory there is: while it is flushed the next one fills. After a crash
/// as much is applied again from the log.
pub const MEMTABLE_BYTES_MAX: u64 = 16 << 20;

/// Sealed memtables that wait for their flush above which commits wait.
pub const SEALED_MEMTABLES_MAX: usize = 4;

/// Raft readies handed to the WAL and not yet durable. A deeper queue would only add latency: all waiting readies are
/// joined into one write.
pub const READIES_IN_FLIGHT_MAX: usize = 256;

/// Messages waiting for the WAL actor: one for each ready in flight, and a stop.
pub const WAL_MAILBOX: usize = READIES_IN_FLIGHT_MAX + 1;

/// Bytes of one WAL write; the rest of the queue is written next.
pub const WAL_WRITE_BYTES_MAX: usize = 4 << 20;

/// Size of a WAL segment: written with zeros once, then recycled.
pub const WAL_SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes of applied entries after which the log is truncated in any case: with large values the pause between two truncations would
/// let it grow to gigabytes.
pub const LOG_BYTES_MAX: usize = 256 << 20;

/// Free WAL segments kept for recycling, beside the one that is ready to be next. `--max-wals` can only lower it: the
/// log is truncated often enough that more would only take space.
pub const WAL_FREE_SEGMENTS_MAX: usize = 1;

/// Free bytes in the log's current segment, when the disk has no space for a next one, below which nothing is accepted
/// that would be logged: votes, log starts and readies in flight still fit.
pub const WAL_ROOM_BYTES_MIN: u64 = 8 << 20;

/// The same, below which the member is reported as short of space: by then the store was synced and the log truncated,
/// which would have freed a segment.
pub const WAL_ROOM_BYTES_LOW: u64 = 24 << 20;

/// The part of a disk that is kept as a reserve, and again as a margin above it.
pub const DISK_SHARE: u64 = 16;

/// Bytes of the reserve, at least: the store may still write two memtables that it accepted, and the batches in flight.
pub const DISK_RESERVE_BYTES_MIN: u64 = 24 << 20;
/// See [`DISK_RESERVE_BYTES_MIN`].
pub const DISK_RESERVE_BYTES_MAX: u64 = 64 << 20;

/// Bytes that must be free beside the reserve: enough for the writes between two checks of the disk, and for requests
/// accepted before.
pub const DISK_MARGIN_BYTES_MIN: u64 = 16 << 20;
/// See [`DISK_MARGIN_BYTES_MIN`].
pub const DISK_MARGIN_BYTES_MAX: u64 = 64 << 20;

/// Jobs that wait for a thread of one pool for work that blocks; past it the callers wait.
pub const POOL_QUEUE_MAX: usize = 256;

/// Threads that resolve host names: a name server that does not answer blocks one and leaves others.
pub const DNS_THREADS: usize = 4;

/// Threads that make things durable: the truncation of the log, a change of members and a snapshot that comes in may
/// each wait for the disk at the same time.
pub const DURABLE_THREADS: usize = 4;

/// Threads that read a whole store or log: one for each core up to this.
pub const READS_THREADS_MAX: usize = 8;

/// Threads for long computations: one for each core up to this.
pub const CPU_THREADS_MAX: usize = 4;

/// Threads that make the files of snapshots. They give way to all others and work in slices, so that any number of
/// snapshots under way get their turns.
pub const EXPORTS_THREADS: usize = 2;

/// Threads that compute hashes of the store, in the same way.
pub const HASHES_THREADS: usize = 1;

/// Hashes that are computed at the same time; past it their callers wait.
pub const HASHES_RUNNING_MAX: usize = 4;

/// How long a slice of such work takes, in ms.
pub const POOL_SLICE_MS: u64 = 10;

/// Bytes of log lines that wait to be written; past it they are dropped and counted.
pub const LOG_QUEUE_BYTES_MAX: usize = 4 << 20;

/// Bytes beyond that for lines about errors, which give the reason why the process ends.
pub const LOG_QUEUE_BYTES_ERRORS: usize = 256 << 10;

/// Lines that one place in the code may write to the log in a second, as many as etcd's logger lets pass; further ones
/// are counted.
pub const LOG_LINES_PER_SECOND_MAX: u32 = 100;

/// Bytes that can be taken before a disk is low, above which requests rely on the last look at it.
pub const DISK_PLENTY_BYTES: u64 = 1 << 30;

/// Free bytes without which a member does not start: its store writes before it can tell anybody.
pub const DISK_START_BYTES_MIN: u64 = 8 << 20;

/// Time between two checks of the free disk space, in ms.
pub const DISK_LOOK_MS: u64 = 50;

/// A smaller disk has no space for segments that wait to be recycled beside the one that is next.
pub const DISK_SMALL_BYTES: u64 = 4 << 30;

/// Alignment and unit of direct I/O.
pub const WAL_BLOCK_BYTES: usize = 4096;

/// Entries in the log and not yet applied above which clients wait. Below etcd's limit, past which it refuses: a burst
/// is slowed down, not refused.
pub const UNAPPLIED_ENTRIES_MAX: usize = 4_096;

/// Proposals that an executor sends to consensus at once; a longer queue goes in several bundles.
pub const BUNDLE_PROPOSALS_MAX: usize = 512;

/// Bytes of such a bundle, except for a single larger proposal: the proposals of a bundle are sent to the leader as one
/// frame, and consensus can yield only between two bundles.
pub const BUNDLE_BYTES_MAX: usize = 4 << 20;

/// etcd's rule for `etcdserver: too many requests`: committed − applied above this.
pub const COMMITTED_UNAPPLIED_MAX: u64 = 5_000;

/// Events waiting for one hub; past it the hub's watchers catch up from history instead.
pub const HUB_MAILBOX: usize = 1024;

/// Distinct revisions that a catching-up watcher reads at once.
pub const CATCH_UP_REVISIONS_MAX: usize = 1000;

/// About how many bytes of events a catching-up watcher reads at once: a slice that lets others run.
pub const CATCH_UP_BYTES_MAX: usize = 2 << 20;

/// Encoded bytes that may wait in one watch stream before its watchers fall behind.
pub const WATCH_STREAM_BYTES_MAX: usize = 4 << 20;

/// Encoded bytes that may wait in all watch streams of one core, however much memory there is; past it each stream is
/// limited to its share, so that a thousand slow clients do not cost a thousand times the bound of one. Events that are not kept
/// are read again from the store, once for all streams at the same revision: with sixteen times as much, the load of a
/// thousand nodes and their four apiservers takes as long and as much of the processor.
pub const WATCH_HUB_BYTES_MAX: usize = 16 << 20;

/// Bytes that may wait in one stream while the streams of its core hold more than their bound; less if there are so many streams that
/// they would hold more than the bound together.
pub const WATCH_STREAM_BYTES_SHARE: usize = 64 << 10;

/// Revisions are joined into one watch response up to this size, below what clients usually accept.
pub const WATCH_RESPONSE_BYTES_MAX: usize = 1 << 20;

/// Bytes of a key. The store counts them, and the one that names the space, in 16 bits.
pub const KEY_BYTES_MAX: usize = 65_534;

/// Leases whose keys are looked at for one question to apply, which answers it between two batches.
pub const LEASES_CHECKED_MAX: usize = 256;

/// How long a token waits until the entry that made it is applied here.
pub const TOKEN_WAIT_MAX: Duration = Duration::from_secs(1);

/// Users, at most; more are refused. Applying a change copies a reference to each of them.
pub const AUTH_USERS_MAX: usize = 100_000;
/// Roles, at most.
pub const AUTH_ROLES_MAX: usize = 100_000;
/// Permissions of all roles together, at most.
pub const AUTH_PERMISSIONS_MAX: usize = 1_000_000;
/// Bytes of the record of one user or role, which is written as a whole with each change.
pub const AUTH_RECORD_BYTES_MAX: usize = 8 << 20;
/// Bytes of all such records, which are in memory, too.
pub const AUTH_BYTES_MAX: usize = 256 << 20;
/// Bytes of the name of a user or role, which is a key of etcd's file.
pub const AUTH_NAME_BYTES_MAX: usize = 32_768;

/// Bytes of a value up to which history holds it beside the newest record of its key; a larger one is stored once, and
/// history refers to it. Small ones are read back from history in one piece.
pub const INLINE_BYTES_MAX: usize = 512;

/// Bytes of records that the cache in front of the store may hold, however much memory there is.
pub const RECORD_CACHE_BYTES: u64 = 64 << 20;

/// Bytes of the store's cache of blocks, however much memory there is; see [`super::Budgets`].
pub const BLOCK_CACHE_BYTES_MAX: u64 = 96 << 20;

/// Bytes that the record cache counts for one record beside its data: key, links, allocation.
pub const RECORD_CACHE_OVERHEAD_BYTES: usize = 128;

/// Assumed bytes of a record, from which the record cache sizes its list of evicted keys.
pub const RECORD_CACHE_RECORD_BYTES: usize = 512;

/// Shards of the record cache, each with its lock; fixed, so that every machine behaves alike.
pub const RECORD_CACHE_SHARDS: usize = 16;

/// Bytes of lists that the cache in front of the store may hold, however much memory there is; see [`super::Budgets`].
pub const LIST_CACHE_BYTES_MAX: u64 = 96 << 20;

/// Bytes of one list in that cache; longer ones are read from the store. About as many as a core reads at once.
pub const LIST_BYTES_MAX: usize = 1 << 20;

/// Bytes that the list cache counts for one list beside its data: name, runs, links, allocations.
pub const LIST_CACHE_OVERHEAD_BYTES: usize = 512;

/// Assumed bytes of a list, from which the list cache sizes its list of evicted names.
pub const LIST_CACHE_LIST_BYTES: usize = 64 << 10;

/// Shards of the list cache, each with its lock; the longest list fits into one of the full cache.
pub const LIST_CACHE_SHARDS: usize = 16;

/// Records between two fences of the count index; past it a fence is split in the middle.
pub const FENCE_RECORDS_MAX: usize = 256;

/// Records of two neighbouring fences below which they are merged.
pub const FENCE_RECORDS_MIN: usize = 64;

/// Fences of one chunk, which is copied as a whole when one of them changes.
pub const FENCES_IN_CHUNK_MAX: usize = 128;

/// Fences of two neighbouring chunks below which the chunks are merged.
pub const FENCES_IN_CHUNK_MIN: usize = 32;

/// Records that one step of a range cursor may look at beyond the keys that it returns: deleted keys
/// are passed over, and a million of them must not stop a core.
pub const RANGE_STEP_RECORDS_MAX: usize = 4096;

/// etcd's limit on the time to live of a lease, in seconds.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// etcd's limit on lease revokes per second.
pub const LEASE_REVOKES_PER_SECOND: usize = 1000;

/// After how long an expired lease that is still there is revoked again, in ms; etcd's too.
pub const LEASE_REVOKE_RETRY_MS: u64 = 3000;

/// Rounds of heartbeats whose start is recorded for the leader lease; when there are more, the oldest are dropped
/// and renew nothing.
pub const READ_ROUNDS_MAX: usize = 64;

/// Revisions recorded for a retention by time, whatever the time: a year's, and more history than is worth its disk.
pub const RETENTION_NOTES_MAX: usize = 100_000;

/// Bytes of range responses that are being made or sent, of all cores together, however much memory there is: past it
/// requests wait, as a few hundred unlimited lists would otherwise exhaust the memory.
pub const RESPONSE_BYTES_IN_FLIGHT_MAX: usize = 1 << 30;

/// The inverse of the part of these that is for clients that have not taken a large response before. No single response
/// may have it beside the rest, so that the part is small in small containers, too.
pub const RESPONSE_PARTS_OF_NEW: usize = 16;

/// Range responses up to this size are not counted in [`RESPONSE_BYTES_IN_FLIGHT_MAX`].
pub const RESPONSE_BYTES_UNCOUNTED: usize = 16 << 10;

/// Requests that may wait for the budget of responses, and for how long; past either they are refused. Most clients
/// time out earlier.
pub const ANSWERS_WAITING_MAX: usize = 1024;
/// See [`ANSWERS_WAITING_MAX`].
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Time that a streamed range may take, in ms: as long as it runs, the store cannot free the versions that it reads.
pub const RANGE_STREAM_MS_MAX: u64 = 600_000;

/// File descriptors that connections leave to files and to connections of lane executors; etcd keeps as many.
pub const DESCRIPTORS_KEPT: usize = 150;

/// Further descriptors for each executor: its rings and eventfds.
pub const DESCRIPTORS_PER_EXECUTOR: usize = 8;

/// Connections of other members for which descriptors are kept: three each way for each of seven.
pub const PEER_CONNECTIONS_KEPT: usize = 42;

/// Connections to ports for metrics for which descriptors are kept.
pub const METRICS_CONNECTIONS_KEPT: usize = 16;

/// Connections to client ports that may ask for health when no other connection is accepted.
pub const HEALTH_CONNECTIONS_KEPT: usize = 8;

/// Tables that a store keeps open, at most and at least; the others are opened when they are read.
pub const STORE_DESCRIPTORS_MAX: usize = 900;
/// See [`STORE_DESCRIPTORS_MAX`].
pub const STORE_DESCRIPTORS_MIN: usize = 16;

/// Stores that are open at once: one, and while a snapshot is received the next one and its runs.
pub const STORES_OPEN_MAX: usize = 3;

/// The upper bound of `--max-request-bytes`: far beyond etcd's recommendation (10 MiB), and together with all headers
/// still less than a segment.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;

/// Nesting depth of transactions that is decoded, from a client, another member or the log. Counted without the
/// messages that contain them, so that a transaction that was decoded once can be decoded again.
pub const NESTED_TXNS_MAX: usize = basalt_proto::nested::DEPTH_MAX;

/// Factor by which a request in JSON may be longer than its message: base64 takes a third more, names and blanks the rest.
pub const JSON_OVERHEAD_MAX: usize = 4;

/// Bytes that are read at once from a websocket.
pub const WEBSOCKET_READ_BYTES: usize = 16 << 10;

/// The longest time that a client of the gateway can set for a request; a longer one means no timeout.
pub const GATEWAY_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Bytes added to `--max-request-bytes` for the largest message that gRPC accepts.
pub const GRPC_OVERHEAD_BYTES: usize = 512 << 10;

/// Operations of a transaction that a line of the audit log names; of the others it says how many they are.
pub const AUDIT_OPERATIONS_MAX: usize = 32;

/// The time for which lines of the audit log are gathered until they are written together.
pub const AUDIT_GATHER: Duration = Duration::from_millis(5);

/// Bytes of lines of the audit log that wait to be written; past it they are dropped and counted, or waited for.
pub const AUDIT_QUEUE_BYTES_MAX: usize = 16 << 20;

/// Simple tokens of one user; of more those go that end first. Each client of a user has at least one of its own, and Go's
/// asks for another one for each stream.
pub const TOKENS_OF_USER_MAX: usize = 100_000;

/// Bytes of the simple tokens of all users, as [`TOKEN_BYTES`] counts them; of more those go that end first. All members must
/// choose the same, so that this depends on no member's memory.
pub const TOKENS_BYTES_MAX: usize = 64 << 20;

/// Memory of a token beside the name of its user: itself, and its places in three sorted sets.
pub const TOKEN_BYTES: usize = 256;

const _: () = assert!(TOKENS_OF_USER_MAX * (TOKEN_BYTES + 64) < TOKENS_BYTES_MAX);

/// Simple tokens that one executor knows without a look at those of all.
pub const TOKENS_CACHED_MAX: usize = 4096;

/// Expired tokens that one entry removes.
pub const TOKENS_SWEPT_MAX: usize = 1000;

/// Tokens that are renewed by one entry.
pub const TOKEN_RENEWALS_MAX: usize = 1000;

/// Attempts to log in that wait for a thread; past it they are refused.
pub const LOGINS_WAITING_MAX: usize = 256;

/// Those of one user, so that attempts at its password leave room for other users.
pub const LOGINS_OF_USER_WAITING_MAX: usize = 32;

/// Requests that wait for these attempts. Equal ones wait for the same.
pub const LOGIN_WAITERS_MAX: usize = 65_536;

/// How often a login begins anew because users or roles changed while its password was checked.
pub const LOGIN_ROUNDS_MAX: usize = 16;

/// Users and addresses whose rates are known, if they are limited; past it requests of others are refused until some are idle.
pub const RATE_SUBJECTS_MAX: usize = 65_536;

/// Logins that were right within the last minute and are not computed again.
pub const LOGINS_REMEMBERED_MAX: usize = 16_384;

/// Wrong passwords for one user, or from one address, past which more are not looked at; and after how many ms one of
/// them is forgiven.
pub const LOGIN_FAILURES_BURST: u32 = 10;
/// See [`LOGIN_FAILURES_BURST`].
pub const LOGIN_FAILURE_REFILL_MS: u64 = 10_000;

/// Users and addresses whose failures are known.
pub const LOGIN_FAILURES_TRACKED_MAX: usize = 16_384;

/// Cores for each thread that hashes passwords; there is one thread at least.
pub const BCRYPT_CORES_PER_THREAD: usize = 4;

/// The highest cost of a stored hash that is checked, or `--bcrypt-cost` if that is more: a minute, where 10 takes 60 ms.
pub const BCRYPT_COST_CHECKED_MAX: u32 = 20;

/// Bytes of JSON web tokens that one executor keeps, so that it verifies each once.
pub const JWT_CACHE_BYTES_MAX: usize = 4 << 20;

/// Bytes of a JSON web token past which it is verified each time.
pub const JWT_CACHED_BYTES_MAX: usize = 8 << 10;

const _: () =
    assert!(UNAPPLIED_ENTRIES_MAX + BUNDLE_PROPOSALS_MAX < COMMITTED_UNAPPLIED_MAX as usize);
/// TLS handshakes of one thread under way at once, some 20 KB each; more wait for the first record of another to go.
pub const HANDSHAKES_MAX: usize = 512;
/// Accepted sockets on their way to such a thread; past it accepting waits.
pub const HANDSHAKES_QUEUED_MAX: usize = 1024;
/// Threads that make handshakes of clients, however many cores there are.
pub const HANDSHAKE_THREADS_MAX: usize = 4;

const _: () = assert!(BUNDLE_BYTES_MAX + REQUEST_BYTES_MAX < PEER_FRAME_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(AUTH_NAME_BYTES_MAX < KEY_BYTES_MAX);
const _: () = assert!(AUTH_RECORD_BYTES_MAX < AUTH_BYTES_MAX);
const _: () = assert!(PEER_WRITE_BYTES < PEER_BULK_BYTES_MAX);
const _: () = assert!(PEER_BULK_BYTES_MAX < PEER_FRAME_BYTES_MAX);
const _: () = assert!(RESPONSE_BYTES_UNCOUNTED < RESPONSE_BYTES_IN_FLIGHT_MAX);
const _: () = assert!(
    PEER_CONNECTIONS_KEPT + METRICS_CONNECTIONS_KEPT + HEALTH_CONNECTIONS_KEPT
        < DESCRIPTORS_KEPT / 2
);
const _: () = assert!(WAL_MAILBOX > READIES_IN_FLIGHT_MAX);
const _: () = assert!(WATCH_STREAM_BYTES_SHARE < WATCH_STREAM_BYTES_MAX);
const _: () = assert!(WATCH_STREAM_BYTES_MAX < WATCH_HUB_BYTES_MAX);
const _: () = assert!(WATCH_RESPONSE_BYTES_MAX < WATCH_STREAM_BYTES_MAX);
const _: () = assert!(WAL_SEGMENT_BYTES.is_multiple_of(WAL_BLOCK_BYTES as u64));
const _: () = assert!(REQUEST_BYTES_MAX <= WAL_SEGMENT_BYTES as usize / 2);
const _: () = assert!(WAL_WRITE_BYTES_MAX < WAL_SEGMENT_BYTES as usize);
const _: () = assert!(WAL_ROOM_BYTES_MIN >= 2 * BUNDLE_BYTES_MAX as u64);
const _: () = assert!(WAL_ROOM_BYTES_MIN < WAL_ROOM_BYTES_LOW);
const _: () = assert!(WAL_ROOM_BYTES_LOW < WAL_SEGMENT_BYTES / 2);
const _: () = assert!(DISK_START_BYTES_MIN <= DISK_RESERVE_BYTES_MIN / 3);
const _: () = assert!(FENCE_RECORDS_MIN < FENCE_RECORDS_MAX / 2);
const _: () = assert!(LIST_BYTES_MAX as u64 <= LIST_CACHE_BYTES_MAX / LIST_CACHE_SHARDS as u64);
const _: () = assert!(FENCES_IN_CHUNK_MIN < FENCES_IN_CHUNK_MAX / 2);
