//! Leases that a load needs before it starts, and keeps while it runs.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse,
};
use tokio::runtime;

use crate::error::Fatal;
use crate::paths;
use crate::wire::Dialer;

/// Grants `count` leases of `ttl` seconds.
///
/// # Errors
/// The server refuses one or cannot be reached.
pub fn grant(dialer: &Dialer, count: usize, ttl: i64) -> Result<Vec<i64>, Fatal> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut channel = dialer.dial(0).await?;
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            let request = LeaseGrantRequest { ttl, ..LeaseGrantRequest::default() };
            let granted: LeaseGrantResponse = channel.call(paths::LEASE_GRANT, &request).await?;
            ids.push(granted.id);
        }
        Ok(ids)
    })
}

/// Leases that live until this is stopped: renewed three times in their time to live, then revoked.
#[derive(Debug)]
pub struct Kept {
    ids: Vec<i64>,
    /// Nothing is sent: dropping the sender is the signal.
    stop: SyncSender<()>,
    keeper: JoinHandle<Result<(), String>>,
}

impl Kept {
    /// Grants `count` leases of `ttl` seconds and begins to renew them.
    ///
    /// # Errors
    /// The server refuses one or cannot be reached.
    pub fn start(dialer: &Dialer, count: usize, ttl: i64) -> Result<Self, Fatal> {
        let ids = grant(dialer, count, ttl)?;
        let (stop, stopped) = sync_channel::<()>(1);
        let (dialer, kept) = (dialer.clone(), ids.clone());
        let every = Duration::from_secs(u64::try_from(ttl).unwrap_or(1).max(3) / 3);
        let keeper = thread::spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                renew(&dialer, &kept).map_err(|error| format!("a session was lost: {error}"))?;
            }
            revoke(&dialer, &kept).map_err(|error| format!("a session does not end: {error}"))
        });
        Ok(Self { ids, stop, keeper })
    }

    /// Their ids.
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// Revokes them.
    ///
    /// # Errors
    /// A lease could not be renewed in time, or not be revoked.
    pub fn stop(self) -> Result<(), Fatal> {
        drop(self.stop);
        Ok(self.keeper.join().map_err(|_| "the thread that renews leases panicked")??)
    }
}

fn renew(dialer: &Dialer, ids: &[i64]) -> Result<(), Fatal> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut channel = dialer.dial(0).await?;
        for &id in ids {
            let request = LeaseKeepAliveRequest { id };
            let answer: LeaseKeepAliveResponse =
                channel.call(paths::LEASE_KEEP_ALIVE, &request).await?;
            if answer.ttl <= 0 {
                return Err("etcdserver: requested lease not found".into());
            }
        }
        Ok(())
    })
}

fn revoke(dialer: &Dialer, ids: &[i64]) -> Result<(), Fatal> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut channel = dialer.dial(0).await?;
        for &id in ids {
            let request = LeaseRevokeRequest { id };
            let _: LeaseRevokeResponse = channel.call(paths::LEASE_REVOKE, &request).await?;
        }
        Ok(())
    })
}
