//! The limit of file descriptors, and its division among files and connections.
//!
//! ```text
//!  limit ─┬─ DESCRIPTORS_KEPT, more for each executor and for the store's tables: files, and connections of a lane
//!         │  of their own
//!         └─ the pool: all other connections
//! ```
//!
//! A member that lacks a descriptor for a file of the log or the store must stop, so connections never take those. Each
//! lane has a share that connections of the others cannot take: however many clients there are, other members, metrics
//! and health checks are served.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::types::Fault;
use crate::types::limits::{
    DESCRIPTORS_KEPT, DESCRIPTORS_PER_EXECUTOR, HEALTH_CONNECTIONS_KEPT, METRICS_CONNECTIONS_KEPT,
    PEER_CONNECTIONS_KEPT, STORE_DESCRIPTORS_MAX, STORE_DESCRIPTORS_MIN, STORES_OPEN_MAX,
};

/// The inverse of the store's share of descriptors that are not reserved otherwise.
const STORE_PART: usize = 16;

/// The inverse of the share of descriptors that is reserved for connections of other members, if that is more than
/// [`PEER_CONNECTIONS_KEPT`]: strangers who connect to their port leave room for members, too.
const PEERS_PART: usize = 100;

/// The kind of a connection, by its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Connections of clients.
    Clients,
    /// Connections of clients that may ask for health only, when there is no room for others.
    Health,
    /// Connections to a port for metrics and health.
    Metrics,
    /// Connections of other members.
    Peers,
}

const LANES: [Lane; 4] = [Lane::Clients, Lane::Health, Lane::Metrics, Lane::Peers];

impl Lane {
    /// Connections for which a descriptor is reserved.
    const fn kept(self) -> usize {
        match self {
            Self::Clients => 0,
            Self::Health => HEALTH_CONNECTIONS_KEPT,
            Self::Metrics => METRICS_CONNECTIONS_KEPT,
            Self::Peers => PEER_CONNECTIONS_KEPT,
        }
    }
}

/// The division of descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Division {
    /// All descriptors.
    limit: usize,
    /// Connections beyond the reserved ones of their lanes.
    pool: usize,
    /// Connections of other members beyond [`PEER_CONNECTIONS_KEPT`] for which descriptors are reserved.
    peers: usize,
    /// Tables that each store keeps open.
    store: usize,
}

impl Division {
    /// Divides `limit` descriptors.
    ///
    /// # Errors
    /// There are too few to serve anybody.
    fn new(limit: usize, executors: usize) -> Result<Self, Fault> {
        let kept = DESCRIPTORS_KEPT + executors * DESCRIPTORS_PER_EXECUTOR;
        let rest = limit.saturating_sub(kept);
        let store = (rest / STORE_PART).clamp(STORE_DESCRIPTORS_MIN, STORE_DESCRIPTORS_MAX);
        let peers = (limit / PEERS_PART).saturating_sub(PEER_CONNECTIONS_KEPT);
        let pool = rest.saturating_sub(STORES_OPEN_MAX * store).saturating_sub(peers);
        if pool == 0 {
            let least = kept + STORES_OPEN_MAX * STORE_DESCRIPTORS_MIN;
            return Err(Fault::new(format!(
                "file descriptor limit of the process is too low ({limit}); please set it higher than {least} \
                 (`ulimit -n`, or LimitNOFILE in the systemd unit)"
            )));
        }
        Ok(Self { limit, pool, peers, store })
    }
}

static DIVISION: OnceLock<Division> = OnceLock::new();

/// Raises the soft limit of open files to the hard one, as Go's runtime does, and divides it for so many executors.
///
/// # Errors
/// There are too few to serve anybody.
pub fn raise_open_files(executors: usize) -> Result<(), Fault> {
    let limits = getrlimit(Resource::Nofile);
    // If this is refused, the existing limit is used.
    let _ =
        setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let division = Division::new(usize::try_from(limit).unwrap_or(usize::MAX), executors)?;
    DIVISION.get_or_init(|| division);
    Ok(())
}

/// The limit of descriptors.
pub(super) fn limit() -> usize {
    DIVISION.get().map_or(usize::MAX, |division| division.limit)
}

/// Tables that a store may keep open.
pub(super) fn of_store() -> usize {
    DIVISION.get().map_or(STORE_DESCRIPTORS_MAX, |division| division.store)
}

/// Open connections by lane. Relaxed: they are bounds and order nothing. Only the accepting executor increments them.
struct Open([AtomicUsize; LANES.len()]);

static OPEN: Open = Open([const { AtomicUsize::new(0) }; LANES.len()]);

impl Open {
    fn count(&self, lane: Lane) -> usize {
        self.0[lane as usize].load(Relaxed)
    }

    /// Counts a connection, if there is room for it: in the pool, or among those reserved for its lane, `peers` more for
    /// members.
    fn enter(&self, lane: Lane, pool: usize, peers: usize) -> bool {
        let kept = |lane: Lane| lane.kept() + if lane == Lane::Peers { peers } else { 0 };
        let beyond = |lane: Lane| self.count(lane).saturating_sub(kept(lane));
        let pooled: usize = LANES.into_iter().map(beyond).sum();
        let is_kept = self.count(lane) < kept(lane);
        let enters = is_kept || (lane != Lane::Health && pooled < pool);
        if enters {
            self.0[lane as usize].fetch_add(1, Relaxed);
        }
        enters
    }

    fn leave(&self, lane: Lane) {
        self.0[lane as usize].fetch_sub(1, Relaxed);
    }
}

/// A descriptor for one connection.
#[derive(Debug)]
pub(super) struct Entered(Lane);

impl Entered {
    /// A descriptor, if one is left for this lane.
    pub(super) fn attempt(lane: Lane) -> Option<Self> {
        let (pool, peers) =
            DIVISION.get().map_or((usize::MAX, 0), |division| (division.pool, division.peers));
        OPEN.enter(lane, pool, peers).then(|| Self(lane))
    }

    /// The lane from which it was taken.
    pub(super) fn lane(&self) -> Lane {
        self.0
    }

    /// Number of open connections.
    pub(super) fn open() -> usize {
        LANES.into_iter().map(|lane| OPEN.count(lane)).sum()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        OPEN.leave(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_what_others_need() {
        let open = Open([const { AtomicUsize::new(0) }; LANES.len()]);
        let fill = |lane| (0..10_000).take_while(|_| open.enter(lane, 100, 7)).count();
        assert_eq!(fill(Lane::Clients), 100);
        for lane in [Lane::Health, Lane::Metrics, Lane::Peers] {
            let more = if lane == Lane::Peers { 7 } else { 0 };
            assert_eq!(fill(lane), lane.kept() + more, "{lane:?}");
        }
        // A descriptor that a connection gives back may be used by any lane except health.
        open.leave(Lane::Clients);
        assert!(!open.enter(Lane::Health, 100, 7));
        assert!(open.enter(Lane::Peers, 100, 7));
        assert!(!open.enter(Lane::Clients, 100, 7));
        // A port beyond its share takes from the pool, and gives back to it first.
        open.leave(Lane::Peers);
        assert!(open.enter(Lane::Clients, 100, 7));
    }

    #[test]
    fn all_parts_are_within_the_limit() {
        assert!(Division::new(DESCRIPTORS_KEPT, 2).is_err());
        assert!(Division::new(usize::MAX, 2).is_ok());
        for limit in [256, 1024, 4096, 20_000, 1 << 20] {
            let division = Division::new(limit, 2).expect("enough");
            let kept: usize = LANES.into_iter().map(Lane::kept).sum();
            assert!(PEER_CONNECTIONS_KEPT + division.peers >= limit / 100, "{limit}");
            let files = limit - division.pool - division.peers - kept;
            assert!(files > STORES_OPEN_MAX * division.store + 64, "{limit}: {division:?}");
            assert!(limit < 1024 || division.pool > limit * 6 / 10, "{limit}: {division:?}");
        }
    }
}
