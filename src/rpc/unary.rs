//! Unary calls: the request is read completely, answered, and the response is written at once.
//!
//! ```text
//!  body ─► read ─► unpack ─► decode ─► a service's method ─► encode ─► one frame, and the trailers
//! ```
//!
//! tonic serves them as streams of one: a decoder and an encoder on the heap, a buffer for each, and four kilobytes of
//! state for as long as the call waits. Nearly all calls are unary and thousands of them wait at once, so here a call
//! keeps only its headers until its message was received, and then only the state of its service. Malformed calls are
//! refused as grpc-go refuses them.

use std::io::Read as _;

use basalt_proto::grpc_frame::{COMPRESSED, HEAD_BYTES, Head};
use basalt_proto::rpc::Unary;
use bytes::{Buf as _, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::{Extensions, Request, Response, Status};

use super::body::ResponseBody;
use super::call::MeteredRequest;
use super::encode::{Encoded, framed};
use super::go_errors::{NO_ENCODING, not_decompressed, unknown_encoding, unknown_format};
use super::policy::Observed;
use super::{CallHead, Inner, door, status};

pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Answers a call with this head, if services look at any of it.
pub(super) async fn answer(
    services: &Inner,
    rpc: Unary,
    head: Option<Box<CallHead>>,
    body: &mut MeteredRequest,
    observed: &mut Option<Box<Observed>>,
) -> hyper::Response<ResponseBody> {
    let attempt = async {
        let gzip = is_gzip(head.as_deref().map(|head| &head.headers))?;
        let message = read(body, gzip, services.receive_max).await?;
        if let Some(observed) = observed {
            observed.admit(&message).map_err(status)?;
        }
        let answer = services.unary(rpc, head, message).await?;
        if let Some(observed) = observed {
            observed.answered(answer.get_ref().begin());
        }
        Ok(write(answer, gzip))
    };
    let answer: Result<_, Status> = attempt.await;
    if let Some(observed) = observed {
        observed.finish(answer.as_ref().err().map_or(0, |status| status.code() as i32)).await;
    }
    answer.unwrap_or_else(|status| status.into_http().map(ResponseBody::Stream))
}

/// Reads the message of a call whose answer is a stream, for the audit log and for limits. tonic reads it once more.
pub(super) async fn read_ahead(
    services: &Inner,
    request: hyper::Request<MeteredRequest>,
) -> Result<(hyper::Request<MeteredRequest>, Bytes), Status> {
    let (head, mut body) = request.into_parts();
    let gzip = is_gzip(Some(&head.headers))?;
    let message = read(&mut body, gzip, services.receive_max).await?;
    let body = body.with_message(framed(&message)?);
    Ok((hyper::Request::from_parts(head, body), message))
}

/// True if messages may be compressed, and the response is to be.
fn is_gzip(headers: Option<&HeaderMap>) -> Result<bool, Status> {
    let encoding = headers.and_then(|headers| headers.get(ENCODING));
    match encoding.map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(other) => {
            Err(Status::unimplemented(unknown_encoding(&String::from_utf8_lossy(other))))
        }
    }
}

/// The one message of a call, of at most `max` bytes. Reads to the end of the body, too, and drops further content.
async fn read(body: &mut MeteredRequest, gzip: bool, max: usize) -> Result<Bytes, Status> {
    let mut came = BytesMut::new();
    let length = loop {
        let length = whole(&came, max)?;
        if let Some(length) = length.filter(|length| came.len() >= *length) {
            break length;
        }
        let Some(piece) = body.next().await? else {
            return Err(Status::unknown(if length.is_none() { "EOF" } else { "unexpected EOF" }));
        };
        came.extend_from_slice(&piece);
    };
    came.truncate(length);
    while body.next().await?.is_some() {}
    unpack(came.freeze(), gzip, max)
}

/// Bytes of the frame that begins so, its header included, if that is known already.
fn whole(begin: &[u8], max: usize) -> Result<Option<usize>, Status> {
    let Some(head) = Head::read(begin) else { return Ok(None) };
    if head.flag > COMPRESSED {
        return Err(Status::internal(unknown_format(head.flag)));
    }
    let length = head.length as usize;
    if length > max {
        return Err(Status::resource_exhausted(format!(
            "grpc: received message larger than max ({length} vs. {max})"
        )));
    }
    Ok(Some(head.framed_length()))
}

/// A message without its frame header, decompressed.
fn unpack(mut message: Bytes, gzip: bool, max: usize) -> Result<Bytes, Status> {
    let is_compressed = message.get_u8() == COMPRESSED;
    message.advance(HEAD_BYTES - 1);
    match (is_compressed, gzip) {
        (false, _) => Ok(message),
        (true, false) => Err(Status::internal(NO_ENCODING)),
        (true, true) => inflate(&message, max),
    }
}

/// Decompresses to at most `max` bytes, whatever length the input claims.
fn inflate(compressed: &[u8], max: usize) -> Result<Bytes, Status> {
    let (mut message, mut reader) = (Vec::new(), MultiGzDecoder::new(compressed));
    let read = reader.by_ref().take(max as u64 + 1).read_to_end(&mut message);
    if let Err(error) = read {
        let begins = reader.header().is_some();
        return Err(Status::internal(not_decompressed(&error.to_string(), begins)));
    }
    if message.len() > max {
        return Err(Status::resource_exhausted(format!(
            "grpc: received message after decompression larger than max {max}"
        )));
    }
    Ok(message.into())
}

/// A response with its headers.
fn write(answer: Response<Encoded>, gzip: bool) -> hyper::Response<ResponseBody> {
    let (metadata, message, extensions) = answer.into_parts();
    let message = if gzip { message.compressed() } else { message };
    let mut response = hyper::Response::new(message.into_body());
    *response.extensions_mut() = extensions;
    let headers = response.headers_mut();
    *headers = metadata.into_headers();
    headers.insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    if gzip {
        headers.insert(ENCODING, GZIP);
    }
    response
}

/// Decodes a request for its service.
pub(super) fn decode<Q: Message + Default>(
    head: Option<Box<CallHead>>,
    message: Bytes,
) -> Result<Request<Q>, Status> {
    let message = door::read(message)?;
    let CallHead { headers, certificate, address } = head.map(|it| *it).unwrap_or_default();
    let mut extensions = Extensions::default();
    if let Some(address) = address {
        extensions.insert(address);
    }
    if let Some(certificate) = certificate {
        extensions.insert(certificate);
    }
    Ok(Request::from_parts(MetadataMap::from_headers(headers), extensions, message))
}

#[cfg(test)]
mod tests {
    use super::super::encode::tests::packed;
    use super::*;
    use basalt_proto::grpc_frame::PLAIN;

    const MAX: usize = 1000;

    fn refused<T>(outcome: Result<T, Status>) -> (tonic::Code, String) {
        let status = outcome.err().expect("a refusal");
        (status.code(), status.message().to_owned())
    }

    #[test]
    fn a_message_is_as_long_as_its_head_says() {
        assert_eq!(whole(&[], MAX).ok(), Some(None));
        assert_eq!(whole(&[0, 0, 0, 0], MAX).ok(), Some(None));
        assert_eq!(whole(&[0, 0, 0, 3, 232], MAX).ok(), Some(Some(MAX + 5)));
        let text = "grpc: received message larger than max (1001 vs. 1000)";
        let too_large = refused(whole(&[0, 0, 0, 3, 233], MAX));
        assert_eq!(too_large, (tonic::Code::ResourceExhausted, text.to_owned()));
        let text = "grpc: received unexpected payload format 2";
        let unknown = refused(whole(&[2, 0, 0, 0, 0], MAX));
        assert_eq!(unknown, (tonic::Code::Internal, text.to_owned()));
    }

    #[test]
    fn compressed_messages_are_unpacked() {
        assert_eq!(unpack(packed(MAX), true, MAX).expect("unpacked"), vec![7; MAX]);
        let plain = Bytes::from_static(&[PLAIN, 0, 0, 0, 1, 9]);
        for gzip in [false, true] {
            assert_eq!(unpack(plain.clone(), gzip, MAX).expect("unpacked"), vec![9]);
        }
    }

    #[test]
    fn malformed_frames_are_refused() {
        let packed = packed(MAX + 1);
        let bomb = refused(unpack(packed.clone(), true, MAX));
        let text = "grpc: received message after decompression larger than max 1000";
        assert_eq!(bomb, (tonic::Code::ResourceExhausted, text.to_owned()));
        let text = "grpc: failed to read decompressed data: unexpected EOF";
        let cut = refused(unpack(packed.slice(..packed.len() - 9), true, MAX));
        assert_eq!(cut, (tonic::Code::Internal, text.to_owned()));
        let text = "grpc: compressed flag set with identity or empty encoding";
        let unnamed = refused(unpack(packed, false, MAX));
        assert_eq!(unnamed, (tonic::Code::Internal, text.to_owned()));
    }
}
