//! `grpc.health.v1.Health`: the process serves, so it is healthy.

use std::collections::HashMap;

use basalt_proto::health::health_check_response::ServingStatus;
use basalt_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use basalt_proto::server::health::health_server;
use futures_lite::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, async_trait};

#[derive(Clone, Copy)]
pub(super) struct Health;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: ServingStatus::Serving as i32 }
}

#[async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "" => Ok(Response::new(serving())),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let statuses = HashMap::from([(String::new(), serving())]);
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = match request.into_inner().service.as_str() {
            "" => ServingStatus::Serving,
            _ => ServingStatus::ServiceUnknown,
        };
        let first = HealthCheckResponse { status: status as i32 };
        // The status never changes while the process lives; the stream stays open.
        let stream = futures_lite::stream::once(Ok(first)).chain(futures_lite::stream::pending());
        Ok(Response::new(Box::pin(stream)))
    }
}
