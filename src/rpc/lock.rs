//! `v3lockpb.Lock`: a mutex that the server waits for, so that any client can have it with one call.

use basalt_proto::etcdserverpb::{RangeRequest, ResponseHeader};
use basalt_proto::server::v3lockpb::lock_server;
use basalt_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;
use tonic::{Request, Response, Status, async_trait};

use super::concurrency::{Caller, get, key_of, oldest, prefix, put, range, wait};
use crate::actors::Desk;

/// etcd's words for a lock whose key went away while it was waited for.
const EXPIRED: &str = "mutex: session is expired";

#[derive(Clone)]
pub(super) struct Lock(pub(super) Desk);

/// Waits for those who were there before `revision`; then the key itself must still be there.
async fn wait_for_turn(
    caller: &Caller,
    prefix: &Bytes,
    key: &Bytes,
    revision: i64,
) -> Result<Option<ResponseHeader>, Status> {
    caller.wait_for_older(prefix, revision - 1).await?;
    let found = caller.find(RangeRequest { key: key.clone(), ..RangeRequest::default() }).await?;
    match found.first {
        Some(_) => Ok(found.header),
        None => Err(Status::unknown(EXPIRED)),
    }
}

#[async_trait]
impl lock_server::Lock for Lock {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, LockRequest { name, lease }) = Caller::of(&self.0, request);
        let lease = caller.session(lease).await?;
        let prefix = prefix(&name);
        let key = key_of(&prefix, lease);
        // Who holds the lock is asked in the same breath: without others, one call is enough.
        let owner = || range(oldest(&prefix));
        let (then, otherwise) =
            (vec![put(&key, Bytes::new(), lease), owner()], vec![get(&key), owner()]);
        let queued = caller.if_created(&key, 0, then, otherwise).await?;
        let created = |at: usize| queued.found.get(at)?.as_ref().map(|found| found.create_revision);
        let revision = match queued.succeeded {
            true => queued.header.map_or(0, |header| header.revision),
            false => created(0).unwrap_or_default(),
        };
        if created(1).is_none_or(|oldest| oldest == revision) {
            return Ok(Response::new(LockResponse { header: queued.header, key }));
        }
        let (waiter, own) = (caller.clone(), key.clone());
        let waiting = async move {
            let turn = wait_for_turn(&waiter, &prefix, &own, revision).await;
            if turn.is_err() {
                drop(waiter.delete(own).await);
            }
            turn
        };
        let left = key.clone();
        let header = wait(waiting, move || async move { drop(caller.delete(left).await) }).await?;
        Ok(Response::new(LockResponse { header, key }))
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
