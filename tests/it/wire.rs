//! A gRPC client that sends and receives bytes, so that a test can send what no typed client would,
//! and sees every response unchanged. Typed helpers for the common calls sit on top.

use std::time::Duration;

use basalt_proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
};
use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub(crate) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(crate) const LEASE_TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
pub(crate) const LEASE_LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";
pub(crate) const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
pub(crate) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
pub(crate) const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
pub(crate) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
pub(crate) const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
pub(crate) const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";

/// Passes messages through as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// One connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Wire {
    grpc: Grpc<Channel>,
    needs_leader: bool,
    metadata: Vec<(&'static str, MetadataValue<Ascii>)>,
}

/// A bidirectional stream.
pub(crate) struct Talk {
    /// Dropped to half-close the stream.
    pub(crate) send: mpsc::Sender<Bytes>,
    pub(crate) answers: Streaming<Bytes>,
}

impl Wire {
    /// Does not wait for the server: the first call does.
    pub(crate) fn new(endpoint: &str) -> Self {
        Self::over(channel(endpoint).connect_lazy())
    }

    /// The same over TLS.
    pub(crate) fn with_tls(endpoint: &str, tls: ClientTlsConfig) -> Self {
        let channel = channel(endpoint).tls_config(tls).expect("its files are read");
        Self::over(channel.connect_lazy())
    }

    fn over(channel: Channel) -> Self {
        let grpc = Grpc::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Self { grpc, needs_leader: false, metadata: Vec::new() }
    }

    /// The same, but calls are refused at once by a member without a leader.
    pub(crate) fn needing_a_leader(self) -> Self {
        Self { needs_leader: true, ..self }
    }

    /// The same with a token.
    pub(crate) fn with_token(self, token: &str) -> Self {
        self.with_metadata("token", token)
    }

    /// The same with another header.
    pub(crate) fn with_metadata(mut self, name: &'static str, value: &str) -> Self {
        self.metadata.retain(|(known, _)| *known != name);
        self.metadata.push((name, value.parse().expect("a header's value")));
        self
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.metadata {
            request.metadata_mut().insert(*name, value.clone());
        }
        if self.needs_leader {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        request
    }

    pub(crate) async fn call(&self, path: &'static str, request: Bytes) -> Result<Bytes, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(self.request(request), path, Raw).await?.into_inner())
    }

    /// Every message of a server stream.
    pub(crate) async fn collect(
        &self,
        path: &'static str,
        request: Bytes,
    ) -> Result<Vec<Bytes>, Status> {
        self.stream(path, request).await?.collect::<Result<Vec<_>, _>>().await
    }

    /// A server stream, message by message.
    pub(crate) async fn stream(
        &self,
        path: &'static str,
        request: Bytes,
    ) -> Result<Streaming<Bytes>, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        Ok(grpc.server_streaming(self.request(request), path, Raw).await?.into_inner())
    }

    pub(crate) async fn talk(&self, path: &'static str, first: Bytes) -> Result<Talk, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let (send, receive) = mpsc::channel(64);
        send.send(first).await.expect("the other end is here");
        let requests = ReceiverStream(receive);
        let path = PathAndQuery::from_static(path);
        let answers = grpc.streaming(self.request(requests), path, Raw).await?.into_inner();
        Ok(Talk { send, answers })
    }

    /// A typed call.
    pub(crate) async fn ask<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        request: &Q,
    ) -> Result<A, Status> {
        let answer = self.call(path, request.encode_to_vec().into()).await?;
        A::decode(answer).map_err(|error| Status::internal(format!("client: {error}")))
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<PutResponse, Status> {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        self.ask(PUT, &PutRequest { key, value, ..Default::default() }).await
    }

    pub(crate) async fn get(&self, key: &str) -> Result<RangeResponse, Status> {
        let key = Bytes::from(key.to_owned());
        self.ask(RANGE, &RangeRequest { key, ..Default::default() }).await
    }

    /// Everything there is, at a revision (0 for the newest).
    pub(crate) async fn everything(&self, revision: i64) -> Result<RangeResponse, Status> {
        let all = Bytes::from_static(b"\0");
        let request =
            RangeRequest { key: all.clone(), range_end: all, revision, ..Default::default() };
        self.ask(RANGE, &request).await
    }

    pub(crate) async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, Status> {
        self.ask(HASH_KV, &HashKvRequest { revision }).await
    }
}

fn channel(endpoint: &str) -> Endpoint {
    Endpoint::from_shared(endpoint.to_owned())
        .expect("an endpoint is a URL")
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 24)
        .initial_connection_window_size(1 << 24)
}

/// The receiving half of a channel as a stream of requests.
struct ReceiverStream(mpsc::Receiver<Bytes>);

impl tonic::codegen::tokio_stream::Stream for ReceiverStream {
    type Item = Bytes;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Bytes>> {
        self.0.poll_recv(context)
    }
}
