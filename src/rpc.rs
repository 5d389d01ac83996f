//! One file per etcd service: message in, handle call, message out. What can be refused by looking at the
//! request alone is refused here; everything else is asked of the [`Desk`].

mod auth;
mod cluster;
mod health;
mod kv;
mod lease;
mod maintenance;
mod reflection;
mod watch;

use std::future::Future;
use std::pin::Pin;

use basalt_proto::etcdserverpb::ResponseHeader;
use basalt_proto::server::etcdserverpb::auth_server::AuthServer;
use basalt_proto::server::etcdserverpb::cluster_server::ClusterServer;
use basalt_proto::server::etcdserverpb::kv_server::KvServer;
use basalt_proto::server::etcdserverpb::lease_server::LeaseServer;
use basalt_proto::server::etcdserverpb::maintenance_server::MaintenanceServer;
use basalt_proto::server::etcdserverpb::watch_server::WatchServer;
use basalt_proto::server::health::health_server::HealthServer;
use basalt_proto::server::reflection::server_reflection_server::ServerReflectionServer;
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service as _;

use crate::actors::Desk;
use crate::io::fatal;
use crate::types::limits::GRPC_OVERHEAD_BYTES;
use crate::types::{Error, Refusal};

/// The version of etcd whose contract is kept.
pub const ETCD_VERSION: &str = "3.7.1";
/// The cluster and storage version that goes with it.
pub const ETCD_CLUSTER_VERSION: &str = "3.7.0";

/// All services of one executor. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    desk: Desk,
    receive_max: usize,
    kv: KvServer<kv::Kv>,
    watch: WatchServer<watch::Watch>,
    lease: LeaseServer<lease::Lease>,
    cluster: ClusterServer<cluster::Cluster>,
    maintenance: MaintenanceServer<maintenance::Maintenance>,
    auth: AuthServer<auth::Auth>,
    health: HealthServer<health::Health>,
    reflection: ServerReflectionServer<reflection::Reflection>,
}

type Answer = Pin<Box<dyn Future<Output = hyper::Response<Body>>>>;

macro_rules! serve {
    ($service:expr, $request:expr) => {{
        let mut service = $service.clone();
        Box::pin(async move {
            match service.call($request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }};
}

impl Services {
    /// All services, asking this desk.
    pub fn new(desk: &Desk) -> Self {
        let receive_max = desk.node().max_request_bytes + GRPC_OVERHEAD_BYTES;
        macro_rules! sized {
            ($server:ident, $service:expr) => {
                $server::new($service)
                    .max_decoding_message_size(receive_max)
                    .max_encoding_message_size(i32::MAX as usize)
            };
        }
        Self {
            receive_max,
            kv: sized!(KvServer, kv::Kv(desk.clone())),
            watch: sized!(WatchServer, watch::Watch(desk.hub().clone())),
            lease: sized!(LeaseServer, lease::Lease(desk.clone())),
            cluster: sized!(ClusterServer, cluster::Cluster(desk.clone())),
            maintenance: sized!(MaintenanceServer, maintenance::Maintenance(desk.clone())),
            auth: sized!(AuthServer, auth::Auth(desk.clone())),
            health: HealthServer::new(health::Health),
            reflection: ServerReflectionServer::new(reflection::Reflection::default()),
            desk: desk.clone(),
        }
    }

    /// Answers one gRPC request.
    pub fn call(&self, request: hyper::Request<Incoming>) -> Answer {
        if request.headers().contains_key("hasleader") && self.desk.status().leader == 0 {
            let refused = status(Refusal::NoLeader).into_http();
            return Box::pin(async move { refused });
        }
        let path = request.uri().path().to_owned();
        let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let answer: Answer = match service {
            "etcdserverpb.KV" => serve!(self.kv, request),
            "etcdserverpb.Watch" => serve!(self.watch, request),
            "etcdserverpb.Lease" => serve!(self.lease, request),
            "etcdserverpb.Cluster" => serve!(self.cluster, request),
            "etcdserverpb.Maintenance" => serve!(self.maintenance, request),
            "etcdserverpb.Auth" => serve!(self.auth, request),
            "grpc.health.v1.Health" => serve!(self.health, request),
            "grpc.reflection.v1.ServerReflection" => serve!(self.reflection, request),
            unknown => {
                let refused =
                    Status::unimplemented(format!("unknown service {unknown}")).into_http();
                Box::pin(async move { refused })
            }
        };
        let receive_max = self.receive_max;
        Box::pin(async move { as_grpc_go(answer.await, &path, receive_max) })
    }
}

/// Says what is wrong with a message in the words of grpc-go, which clients look for, instead of tonic's.
fn as_grpc_go(response: hyper::Response<Body>, path: &str, max: usize) -> hyper::Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let message = status.message();
    if status.code() == Code::Unimplemented && message.is_empty() {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let text = format!("unknown method {method} for service {service}");
        return Status::unimplemented(text).into_http();
    }
    if message.starts_with("failed to decode Protobuf message") {
        let text =
            "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data";
        return Status::internal(text).into_http();
    }
    let Some((_, found)) = message.split_once("message length too large: found ") else {
        return response;
    };
    let found: String = found.chars().take_while(char::is_ascii_digit).collect();
    let text = format!("grpc: received message larger than max ({found} vs. {max})");
    Status::resource_exhausted(text).into_http()
}

/// A refusal as gRPC sends it.
fn status(refusal: Refusal) -> Status {
    Status::new(Code::from_i32(refusal.code() as i32), refusal.text())
}

/// A refusal goes to the client; a fault stops this member.
fn refused(error: Error) -> Status {
    match error {
        Error::Refused(refusal) => status(refusal),
        Error::Faulty(fault) => fatal(&fault),
    }
}

/// Completes a response's header: who answers, in which term, and the newest revision if there is none yet.
fn complete(desk: &Desk, header: &mut Option<ResponseHeader>) {
    let header = header.get_or_insert_default();
    header.cluster_id = desk.node().cluster_id;
    header.member_id = desk.node().member_id;
    header.raft_term = desk.status().term;
    if header.revision == 0 {
        header.revision = desk.state().read.revision;
    }
}

/// A complete header with the newest revision.
fn header(desk: &Desk) -> Option<ResponseHeader> {
    let mut header = None;
    complete(desk, &mut header);
    header
}

/// A service that a later version brings.
fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("basalt does not serve {what} yet"))
}
