//! A lease that is kept alive as long as a lock is held or an election goes on.

use std::time::Duration;

use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::client::error::Refusal;
use crate::client::watch::Inbox;

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
/// Another server is tried after this time without an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause before a broken stream is made again.
const BACKOFF: Duration = Duration::from_millis(500);

/// Keeps one lease alive.
pub(crate) struct KeepAlive<'a> {
    client: &'a Client,
    id: i64,
    open: Option<(mpsc::Sender<LeaseKeepAliveRequest>, tonic::Streaming<LeaseKeepAliveResponse>)>,
}

impl<'a> KeepAlive<'a> {
    pub(crate) fn new(client: &'a Client, id: i64) -> Self {
        Self { client, id, open: None }
    }

    /// Renews the lease once; the response's TTL is 0 if there is no such lease.
    ///
    /// # Errors
    /// The server refused; a lost connection is made again.
    pub(crate) async fn renew(&mut self) -> Result<LeaseKeepAliveResponse, Refusal> {
        loop {
            match Box::pin(self.try_renew()).await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(it) if it.status.code() == tonic::Code::Unavailable => {}
                Err(refusal) => return Err(refusal),
            }
            self.open = None;
            self.client.forget_link();
            sleep(BACKOFF).await;
        }
    }

    async fn try_renew(&mut self) -> Result<Option<LeaseKeepAliveResponse>, Refusal> {
        let request = LeaseKeepAliveRequest { id: self.id };
        match &self.open {
            Some((orders, _)) => {
                let _ = orders.send(request).await;
            }
            None => {
                let (orders, inbox) = mpsc::channel(1);
                let _ = orders.send(request).await;
                let answers = self.client.conversation(KEEP_ALIVE, Inbox(inbox), false).await?;
                self.open = Some((orders, answers));
            }
        }
        let Some((_, answers)) = &mut self.open else { return Ok(None) };
        match timeout(ANSWER_TIME_MAX, answers.message()).await {
            Ok(answer) => answer.map_err(Refusal::of),
            Err(_) => Ok(None),
        }
    }

    /// Renews the lease at intervals; ends when the lease does not exist any more.
    pub(crate) async fn run(&mut self) {
        while let Ok(answer) = self.renew().await {
            if answer.ttl <= 0 {
                return;
            }
            sleep(pause(answer.ttl)).await;
        }
    }
}

/// A third of the lease's time to live.
pub(crate) fn pause(ttl: i64) -> Duration {
    Duration::from_millis(u64::try_from(ttl).unwrap_or_default() * 1000 / 3)
}

/// Grants a lease.
///
/// # Errors
/// The server refused.
pub(crate) async fn grant(client: &Client, ttl: i64) -> Result<i64, Refusal> {
    let request = LeaseGrantRequest { ttl, id: 0 };
    let answer: LeaseGrantResponse =
        client.call("/etcdserverpb.Lease/LeaseGrant", &request, None).await?;
    Ok(answer.id)
}
