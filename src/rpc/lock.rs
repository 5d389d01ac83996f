//! `v3lockpb.Lock`: a mutex implemented by the server, so that any client can acquire it with one call.

use basalt_proto::etcdserverpb::{RangeRequest, ResponseHeader};
use basalt_proto::server::v3lockpb::lock_server;
use basalt_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;
use tonic::{Request, Response, Status, async_trait};

use super::concurrency::{Caller, Waiter, get, key_of, oldest, outliving, prefix, put, range};
use crate::actors::ReplicaClient;

/// etcd's text for a lock whose key was deleted while the caller waited.
const EXPIRED: &str = "mutex: session is expired";

#[derive(Clone)]
pub(super) struct Lock(pub(super) ReplicaClient);

/// A caller that queues for a lock.
struct Contender {
    caller: Caller,
    prefix: Bytes,
    key: Bytes,
}

/// A contender's key in the queue.
struct Queued {
    header: Option<ResponseHeader>,
    /// The creation revision of its key.
    revision: i64,
    /// True if this call created the key, false for an earlier one with the same lease.
    is_new: bool,
    /// True if the queue was empty before.
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
        // The owner is read in the same transaction: without other contenders, one call is enough.
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

    /// Waits until the older keys are deleted; then the own key must still exist.
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

/// Handles a call of `Lock`, whose key is deleted if the caller does not take the answer.
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
    // If an earlier call of the same lease acquired the lock, it still owns it.
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
