//! Watches: those of one range share one watch at a member.
//!
//! ```text
//!  client's stream ─► session: create ─► may the caller read it? ─► table: a group that has not passed the revision
//!                                                                     │ none: a new group
//!  outbox ◄── receiver ◄─┐                                            ▼
//!  outbox ◄── receiver ◄─┴── group ◄── upstream watch, made again at the next revision when it breaks
//! ```
//!
//! A group knows the next revision that it may send. A watcher joins a group that is not ahead of it; each receiver drops
//! what is before its own revision. A group that has caught up with another one of the same range hands its receivers over.

mod group;
mod receiver;
mod session;
mod table;

use std::sync::Arc;

use tonic::Streaming;

use self::session::Session;
use self::table::Table;
use super::caller::Caller;
use super::kv::Kv;
use super::namespace::Namespace;
use super::options::Options;
use super::outbox::{Outbox, Responses};
use super::upstream::Upstream;

/// The service; cheap to clone.
#[derive(Clone)]
pub(super) struct Watches {
    shared: Arc<Shared>,
}

/// The parts that sessions and groups need.
struct Shared {
    table: Table,
    upstream: Arc<Upstream>,
    namespace: Namespace,
    kv: Arc<Kv>,
    /// Log watchers as they come and go.
    has_debug_lines: bool,
}

impl Shared {
    fn debug(&self, caller: &str, message: &str, key: &[u8], watch_id: i64) {
        if self.has_debug_lines {
            gocompat::zap::Line::new("debug", "", caller)
                .message(message)
                .text("key", &String::from_utf8_lossy(key))
                .number("watcherId", watch_id)
                .write();
        }
    }
}

/// Numbers of the page of metrics.
pub(super) struct Coalesced {
    /// Watchers beyond the first of each group.
    pub(super) watchers: usize,
    /// Events that were sent and not received.
    pub(super) events: u64,
}

impl Watches {
    pub(super) fn new(
        options: &Options,
        upstream: &Arc<Upstream>,
        namespace: &Namespace,
        kv: &Arc<Kv>,
    ) -> Self {
        let shared = Shared {
            table: Table::default(),
            upstream: Arc::clone(upstream),
            namespace: namespace.clone(),
            kv: Arc::clone(kv),
            has_debug_lines: options.debug,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves one stream of a client.
    pub(super) fn serve(&self, caller: Caller, requests: Streaming<bytes::Bytes>) -> Responses {
        let (outbox, responses) = Outbox::new();
        let session = Session::new(Arc::clone(&self.shared), caller, outbox);
        tokio::spawn(session.run(requests));
        responses
    }

    pub(super) fn coalesced(&self) -> Coalesced {
        self.shared.table.coalesced()
    }

    /// The number of groups, each of which is a watch at a member.
    pub(super) fn groups(&self) -> usize {
        self.shared.table.groups()
    }
}
