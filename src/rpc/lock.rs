//! `v3lockpb.Lock`: a mutex that the server waits for, so that any client can have it with one call.

use basalt_proto::etcdserverpb::{RangeRequest, ResponseHeader};
use basalt_proto::server::v3lockpb::lock_server;
use basalt_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;
use tonic::{Request, Response, Status, async_trait};

use super::concurrency::{Caller, Waiter, get, key_of, oldest, outliving, prefix, put, range};
use crate::actors::ReplicaClient;

/// etcd's words for a lock whose key went away while it was waited for.
const EXPIRED: &str = "mutex: session is expired";

#[derive(Clone)]
pub(super) struct Lock(pub(super) ReplicaClient);

/// One who queues up for a lock.
struct Contender {
    caller: Caller,
    prefix: Bytes,
    key: Bytes,
}

/// How a contender came into the queue.
struct Queued {
    header: Option<ResponseHeader>,
    /// When its key was created.
    revision: i64,
    /// By this call, not by an earlier one with the same lease.
    is_new: bool,
    /// Nobody was there before it.
    holds: bool,
}

impl Contender {
    async fn new(caller: Caller, request: LockRequest) -> Result<(Self, i64), Status> {
        let lease = caller.session(request.lease).await?;
        let prefix = prefix(&request.name);
        let key = key_of(&prefix, lease);
        Ok((Self { caller, prefix, key }, lease))
    }

    async fn enter(&self, lease: i64) -> Result<Queued, Status> {
        // Who holds the lock is asked in the same breath: without others, one call is enough.
        let owner = || range(oldest(&self.prefix));
        let (then, otherwise) =
            (vec![put(&self.key, Bytes::new(), lease), owner()], vec![get(&self.key), owner()]);
        let queued = self.caller.if_created(&self.key, 0, then, otherwise).await?;
        let created = |at: usize| queued.found.get(at)?.as_ref().map(|found| found.create_revision);
        let is_new = queued.succeeded;
        let revision = match is_new {
            true => queued.header.map_or(0, |header| header.revision),
            false => created(0).unwrap_or_default(),
        };
        let holds = created(1).is_none_or(|oldest| oldest == revision);
        Ok(Queued { header: queued.header, revision, is_new, holds })
    }

    /// Waits for those who were there before; then the key itself must still be there.
    async fn wait(&self, revision: i64) -> Result<Option<ResponseHeader>, Status> {
        self.caller.wait_for_older(&self.prefix, revision - 1).await?;
        let request = RangeRequest { key: self.key.clone(), ..RangeRequest::default() };
        let found = self.caller.find(request).await?;
        match found.first {
            Some(_) => Ok(found.header),
            None => Err(Status::unknown(EXPIRED)),
        }
    }

    async fn leave(&self) {
        drop(self.caller.delete(self.key.clone()).await);
    }
}

/// Serves a call of `Lock`, whose key leaves the queue if nobody takes the answer.
async fn lock(caller: Caller, request: LockRequest, waiter: Waiter<LockResponse>) {
    let entered = async {
        let (contender, lease) = Contender::new(caller, request).await?;
        let queued = contender.enter(lease).await?;
        Ok((contender, queued))
    };
    let (contender, queued) = match entered.await {
        Ok(entered) => entered,
        Err(error) => {
            waiter.answer(Err(error)).await;
            return;
        }
    };
    let turn = match queued.holds {
        true => Some(Ok(queued.header)),
        false => waiter.or_gone(contender.wait(queued.revision)).await,
    };
    let Some(turn) = turn else { return contender.leave().await };
    if turn.is_err() {
        contender.leave().await;
    }
    let key = contender.key.clone();
    let answer = turn.map(|header| LockResponse { header, key });
    let is_taken = waiter.answer(answer).await;
    // Held before by another call of the same lease, it still is.
    if !is_taken && (queued.is_new || !queued.holds) {
        contender.leave().await;
    }
}

#[async_trait]
impl lock_server::Lock for Lock {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, request) = Caller::of(&self.0, request);
        outliving(|waiter| lock(caller, request, waiter)).await.map(Response::new)
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (caller, UnlockRequest { key }) = Caller::of(&self.0, request);
        let header = caller.delete(key).await?;
        Ok(Response::new(UnlockResponse { header }))
    }
}
