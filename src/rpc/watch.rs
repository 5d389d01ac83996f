//! `etcdserverpb.Watch`.
use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::WatchRequest;
use basalt_proto::server::etcdserverpb::watch_server;
use futures_lite::Stream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::not_yet;
use crate::actors::Desk;

#[derive(Clone)]
pub(super) struct Watch(pub(super) Desk);

#[async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(not_yet("watches"))
    }
}
