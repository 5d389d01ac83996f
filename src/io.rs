//! The outside world: executors, files, sockets, the clock, the store on disk. The only room that names
//! glommio, epoll or lsm-tree, so that any of them could be exchanged.

mod bolt_file;
pub mod clock;
mod control_groups;
mod descriptors;
mod disk;
mod disk_probe;
mod durable;
mod executor;
mod export;
mod fair_queue;
mod host;
mod journal;
mod log_queue;
mod lsm;
mod memory;
mod net;
mod passwords;
mod placement;
mod pools;
mod preflight;
mod rate_limiter;
mod reactor;
mod removal;
mod rotated_file;
mod store_dir;
mod system;
mod thread;
mod tls;
mod vote_lease;
mod wal_file;
mod watchdog;

pub use self::bolt_file::BoltFile;
pub use self::descriptors::{Lane, raise_open_files};
pub use self::disk::{DiskMonitor, Fits, RequestBytes, disk_bytes};
pub use self::disk_probe::{DiskLatency, LatencyQuantiles, measure_disk};
pub use self::durable::{create_dir_durably, rename_durably, replace_durably, sync_dir};
pub use self::executor::{Executors, spawn, spawn_accept, spawn_client};
pub use self::export::{Piece, export};
pub use self::fair_queue::note_work;
pub use self::host::{
    DirectoryFacts, HostLimit, clock_source, cpu_quota, directory_facts, kernel_release,
    locked_memory, memory_limit, open_files_max, user_id,
};
pub use self::journal::Journal;
pub use self::log_queue::{
    LogKind, LogOutput, LogQueue, Reports, flush_log, reopen_logs, start_log,
};
pub use self::lsm::{Loader, LoaderView, LsmEngine, LsmView};
pub use self::memory::divide_memory;
pub use self::net::{
    Address, ClientKind, Closing, Connection, ConnectionSender, Dialer, Http2, Listener, MayStall,
    OpenConnection, Secure, UnsentBytes, UpgradedIo, Wire, close_connections, handover, listen,
    request_is_late, resolve, serve, serve_peer, set_stall_time, stall_time,
};
pub use self::passwords::{Attempt, PASSWORD_BYTES_MAX, PasswordError, Passwords};
pub use self::placement::{Placement, place_executors};
pub use self::pools::Pool;
pub use self::preflight::{
    UNFINISHED_RESTORE, is_in_use, is_readable_by_others, lock_data_dir, prepare_data_dir,
    refuse_foreign, refuse_unfinished,
};
pub use self::reactor::{Place, Reactor, ReactorChoice};
pub use self::rotated_file::{RotatedFile, Rotation};
pub use self::store_dir::{IncomingSnapshot, current_store, find_store, has_log};
pub use self::system::{end_by, fatal, leave, process_stats, random_u64};
pub use self::thread::spawn_blocking;
pub use self::tls::{
    CertificateEnd, Options as TlsOptions, PairFiles, PeerCertificate, TlsCredentials, TlsVersions,
    make_self_signed, reload_all,
};
pub use self::vote_lease::{note_vote_lease, vote_lease_ms};
pub use self::wal_file::{WalFile, WalOptions, begin_log, read_log};
pub use self::watchdog::{notify_ready, notify_stopping};
