//! The outside world: executors, files, sockets, the clock, the store on disk. The only room that names
//! glommio or fjall, so that either could be exchanged.

mod bolt_file;
pub mod clock;
mod disk;
mod executor;
mod export;
mod fjall;
mod net;
mod pace;
mod place;
mod preflight;
mod promise;
mod removal;
mod system;
mod thread;
mod wal_file;

pub use self::bolt_file::BoltFile;
pub use self::disk::{DiskMonitor, disk_bytes};
pub use self::executor::{Executors, blocking, spawn};
pub use self::export::{Piece, export};
pub use self::fjall::{FjallEngine, FjallView, Loader, LoaderView};
pub use self::net::{
    Address, Connection, Door, Http2, Listener, Switched, Wire, close_connections, get, handover,
    listen, resolve, serve, serve_peer,
};
pub use self::place::{Incoming, find_store, has_log};
pub use self::preflight::{lock_data_dir, preflight, prepare_data_dir, refuse_foreign};
pub use self::promise::{note_promise, promised_ms};
pub use self::system::{fatal, leave, own_cores, process_stats, random_u64};
pub use self::thread::aside;
pub use self::wal_file::{WalFile, WalOptions, begin_log};
