//! The API over JSON: a POST to a path of the table is converted to a gRPC request, answered by the same service as any
//! other, and the response is converted to JSON. etcd has grpc-gateway in front of itself, over a socket; here two
//! bodies do the conversion.
//!
//! ```text
//!  POST /v3/… ─► Route ─► JSON ─► gRPC messages ─► Services ─► gRPC messages ─► JSON, or a line for each
//! ```
//!
//! Statuses, headers and the form of errors are those of grpc-gateway 2 as etcd 3.7 sets it up.

mod answers;
mod body_rate;
mod metadata;
mod requests;
mod routes;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use basalt_proto::DESCRIPTORS;
use basalt_proto::rpc::{Kind, METHODS, Rpc};
use bytes::Bytes;
use futures_lite::StreamExt as _;
use futures_lite::future::{or, poll_fn};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::{Code, Status};

use self::answers::{Lines, Messages};
use self::body_rate::BodyRate;
use super::page;
use crate::cluster;
use crate::io::PeerCertificate;
use crate::io::clock::{self, Instant};
use crate::io::{Closing, Pool, stall_time};
use crate::json::{MessageId, Schema, Spelling, Values, openapi, quote};
use crate::rpc::{FROM_GATEWAY, IncompleteBytes, MeteredResponse, Services, Source};
use crate::types::Refusal;
use crate::types::limits::{BODY_GRACE_PARTS, JSON_OVERHEAD_MAX};

const JSON: &str = "application/json";

/// Bytes that are converted on this core; longer ones are converted in the pool for computing, so that other tasks run.
const TRANSLATED_HERE_MAX: usize = 256 << 10;

/// Time that calls in flight get when the member begins to stop: less than it waits for its connections.
const LAST_CALLS_TIME: Duration = Duration::from_millis(250);

/// One for all ports and executors: it never changes.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    // From the build, like the services.
    Schema::new(&FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default())
});

/// The request and the response of an RPC.
fn types(rpc: Rpc) -> Result<(MessageId, MessageId), Status> {
    /// By the RPC's number.
    static TYPES: LazyLock<Vec<Option<(MessageId, MessageId)>>> = LazyLock::new(|| {
        METHODS.iter().map(|it| Some((SCHEMA.find(it.input)?, SCHEMA.find(it.output)?))).collect()
    });
    TYPES[rpc.number()].ok_or_else(|| Status::internal("the method has no descriptor"))
}

/// The description of the served API, for programs.
pub(super) fn description() -> Response<Body> {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let version = cluster::Version::SERVER.to_string();
        format!("{:#}\n", openapi(&SCHEMA, &version, &routes::operations()))
    });
    page(StatusCode::OK, JSON, DOCUMENT.as_str())
}

/// A client of the gateway.
pub(super) struct Caller {
    /// Its address.
    pub(super) peer: Arc<str>,
    /// Its certificate, if it has shown one.
    pub(super) certificate: Option<Arc<PeerCertificate>>,
}

/// Handles a request to a path of the gateway.
pub(super) async fn answer(
    services: &Services,
    caller: &Caller,
    head: &Parts,
    path: &str,
    body: Body,
) -> Response<Body> {
    let answer = match routes::find(path) {
        None => Err(Status::not_found("Not Found")),
        Some(_) if head.method != Method::POST => Err(Status::unimplemented("Method Not Allowed")),
        Some(rpc) => call(services, caller, head, body, rpc).await,
    };
    answer.unwrap_or_else(|status| refusal(&status))
}

/// Calls an RPC.
async fn call(
    services: &Services,
    Caller { peer, certificate }: &Caller,
    head: &Parts,
    body: Body,
    rpc: Rpc,
) -> Result<Response<Body>, Status> {
    let (input, output) = types(rpc)?;
    let timeout = metadata::timeout(&head.headers)?;
    let began = Instant::now();
    let max = services.receive_max();
    let is_unary = matches!(rpc, Rpc::Unary(_));
    let messages = match rpc.method().kind {
        Kind::BidiStream | Kind::ClientStream => {
            requests::stream(body, &SCHEMA, input, max, services.incomplete())
        }
        Kind::Unary | Kind::ServerStream => {
            let read = whole(body, input, max, services.incomplete());
            let message = unless_stopped(Duration::ZERO, read).await?;
            requests::one(&message)
        }
    };
    let mut request = Request::new(Source::Made(messages));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_static(rpc.method().path);
    *request.headers_mut() = metadata::of(head, peer);
    if let Some(certificate) = certificate {
        if certificate.user().is_some() {
            // The certificate is the client's own.
            request.headers_mut().remove(FROM_GATEWAY);
        }
        request.extensions_mut().insert(Arc::clone(certificate));
    }
    let answer = services.call(request, peer).then(|Ok(response)| first(response, is_unary));
    let answer = clock::deadline(timeout.unwrap_or(Duration::MAX), answer);
    let grace = if is_unary { LAST_CALLS_TIME } else { Duration::ZERO };
    let answered =
        unless_stopped(grace, answer.map(|answer| answer.unwrap_or_else(|| Err(late())))).await;
    let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
    match answered {
        answered if is_unary => unary(answered?, output).await,
        Ok(answered) => streamed(answered, output, left),
        Err(status) => {
            let line = format!("{}\n", error_line(&status));
            Ok(page(http_status(status.code()), JSON, line))
        }
    }
}

/// Go's status for a request whose deadline has passed.
fn late() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// The status of a request whose body comes too slowly.
fn too_slow() -> Status {
    Status::deadline_exceeded("the body of the request was not received in time")
}

/// The status of a refusal of its bytes.
fn too_much(refusal: Refusal) -> Status {
    Status::resource_exhausted(refusal.text())
}

/// grpc-gateway's status when its server has ended.
fn stopped() -> Status {
    Status::unavailable("error reading from server: EOF")
}

/// The output of `work`, unless the member stops and has waited too long for it.
fn unless_stopped<T>(
    grace: Duration,
    work: impl Future<Output = Result<T, Status>>,
) -> impl Future<Output = Result<T, Status>> {
    let closing = Closing::watch();
    let stopping = async move {
        poll_fn(|context| closing.poll(context)).await;
        clock::sleep(grace).await;
        Err(stopped())
    };
    or(work, stopping)
}

/// Reads the body, of which the first value is used; an empty body is an empty object.
async fn whole(
    mut body: Body,
    input: MessageId,
    max: usize,
    mut incomplete: IncompleteBytes,
) -> Result<Vec<u8>, Status> {
    let mut values = Values::default();
    let mut value = None;
    let (began, mut rate) = (Instant::now(), BodyRate::new(stall_time() / BODY_GRACE_PARTS));
    loop {
        let left = rate.left(began.elapsed()).ok_or_else(too_slow)?;
        let next = incomplete.unless_refused(clock::deadline(left, body.frame())).await;
        let frame = next.map_err(too_much)?.ok_or_else(too_slow)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Status::invalid_argument(error.message()))?;
        rate.came(frame.data_ref().map_or(0, Bytes::len));
        // Content after the first value is skipped, as far as it was read.
        if let (None, Some(data)) = (&value, frame.data_ref()) {
            values.push(data);
            bounded(&values, max)?;
            incomplete.came(values.waiting()).map_err(too_much)?;
            value = values.take().map_err(Status::invalid_argument)?;
        }
    }
    let value = match value {
        Some(value) => Some(value),
        None => values.last().map_err(Status::invalid_argument)?,
    };
    let Some(value) = value else { return Ok(Vec::new()) };
    let message = match value.len() <= TRANSLATED_HERE_MAX {
        true => SCHEMA.encode(input, &value),
        false => Pool::Cpu.run_if_wanted(move || SCHEMA.encode(input, &value)).await,
    };
    message.map_err(Status::invalid_argument)
}

/// Refuses a value that would exceed a message of `max` bytes, with grpc-go's text.
fn bounded(values: &Values, max: usize) -> Result<(), Status> {
    let bytes = values.waiting();
    if bytes <= max.saturating_mul(JSON_OVERHEAD_MAX) {
        return Ok(());
    }
    let text = format!("grpc: received message larger than max ({bytes} vs. {max})");
    Err(Status::resource_exhausted(text))
}

/// The first message of a response, if it has any, and the others.
type Answered = (Option<Bytes>, Messages);

/// Waits for the first message, which determines the status; of a unary call, for its end too.
async fn first(answer: Response<MeteredResponse>, is_unary: bool) -> Result<Answered, Status> {
    let (head, body) = answer.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers)
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    let mut messages = Messages::new(body);
    let first = messages.next().await.transpose()?;
    if is_unary {
        messages.next().await.transpose()?;
    }
    Ok((first, messages))
}

async fn unary((message, messages): Answered, output: MessageId) -> Result<Response<Body>, Status> {
    let message = message.unwrap_or_default();
    let text = match message.len() <= TRANSLATED_HERE_MAX {
        true => printed(output, &message, String::new()),
        false => {
            // Allocated by this thread, which frees it: the allocator returns memory freed by another thread only when
            // the owner allocates again, which a thread of the pool may not do for long. Unused pages are not touched.
            let room = String::with_capacity(message.len().saturating_mul(JSON_OVERHEAD_MAX));
            Pool::Cpu.run_if_wanted(move || printed(output, &message, room)).await
        }
    };
    // The response's part of the budget is held until it was sent.
    Ok(granted(Body::new(answers::Holding::new(text.map_err(Status::internal)?, messages))))
}

fn printed(output: MessageId, message: &[u8], mut text: String) -> Result<String, String> {
    SCHEMA.print(output, message, Spelling::Plain, &mut text).map(|()| text)
}

fn streamed(
    (first, messages): Answered,
    output: MessageId,
    left: Option<Duration>,
) -> Result<Response<Body>, Status> {
    let Some(first) = first else { return Ok(Response::new(Body::empty())) };
    let lines = Lines::new(messages, &SCHEMA, output, &first, left.map(clock::sleep));
    Ok(granted(Body::new(lines.map_err(Status::internal)?)))
}

fn granted(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let fixed = [
        (header::CONTENT_TYPE, JSON),
        (HeaderName::from_static("grpc-metadata-content-type"), "application/grpc"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A refusal as grpc-gateway sends it.
fn refusal(status: &Status) -> Response<Body> {
    let mut response = page(http_status(status.code()), JSON, error(status, Spelling::Plain));
    if status.code() == Code::Unauthenticated
        && let Ok(value) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

fn error(status: &Status, spelling: Spelling) -> String {
    let mut text = format!("{{\"code\":{},\"message\":", status.code() as i32);
    quote(status.message(), spelling, &mut text);
    text.push('}');
    text
}

/// A refusal as a line of a stream.
fn error_line(status: &Status) -> String {
    format!("{{\"error\":{}}}", error(status, Spelling::Html))
}

fn http_status(code: Code) -> StatusCode {
    let status = match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
