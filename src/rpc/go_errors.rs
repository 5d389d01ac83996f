//! Errors of the transport with the texts of grpc-go, which clients and scripts match, instead of those of tonic,
//! prost and flate2.

use hyper::header::{HeaderMap, HeaderValue};
use tonic::{Code, Status};

/// The status code in these headers, if there is one.
fn code_of(headers: &HeaderMap) -> Option<i32> {
    headers.get(Status::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Returns the code, if the headers have one, and replaces tonic's error text by grpc-go's.
pub(super) fn in_go_words(headers: &mut HeaderMap, max: usize) -> Option<i32> {
    let code = code_of(headers)?;
    if code == Code::Ok as i32 {
        return Some(code);
    }
    let status = Status::from_header_map(headers)?;
    let (code, message) = translated(&status, max);
    headers.insert(Status::GRPC_STATUS, HeaderValue::from(code as i32));
    let message = HeaderValue::from_bytes(&escaped(&message)).expect("printable ASCII");
    headers.insert(Status::GRPC_MESSAGE, message);
    Some(code as i32)
}

/// grpc-go's code and text for tonic's refusals of malformed messages.
fn translated(status: &Status, max: usize) -> (Code, String) {
    let message = status.message();
    let after = |words| message.split_once(words).map(|(_, rest)| rest);
    let number = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    if let Some(rest) = after("message length too large: found ") {
        let found = number(rest);
        let text = format!("grpc: received message larger than max ({found} vs. {max})");
        (Code::ResourceExhausted, text)
    } else if let Some(rest) = after("Error decompressing: size limit, of ") {
        let max = number(rest);
        let text = format!("grpc: received message after decompression larger than max {max}");
        (Code::ResourceExhausted, text)
    } else if let Some(rest) = after("Error decompressing: ") {
        let why = rest.strip_suffix(", while sending request").unwrap_or(rest);
        (Code::Internal, not_decompressed(why, false))
    } else if let Some(rest) = after("Content is compressed with `") {
        let encoding = rest.split('`').next().unwrap_or_default();
        (Code::Unimplemented, unknown_encoding(encoding))
    } else if message.contains("received message with compressed-flag but no grpc-encoding") {
        (Code::Internal, NO_ENCODING.to_owned())
    } else if let Some(rest) = after("received message with invalid compression flag: ") {
        (Code::Internal, unknown_format(number(rest)))
    } else if message == "Unexpected EOF decoding stream." {
        (Code::Internal, "unexpected EOF".to_owned())
    } else if message == "Missing request message." {
        let text =
            "cardinality violation: received no request message from non-client-streaming RPC";
        (Code::Internal, text.to_owned())
    } else if message.starts_with("failed to decode Protobuf message") {
        let why = decode_error(message);
        let text = format!("grpc: failed to unmarshal the received message: {why}");
        (Code::Internal, text)
    } else {
        (status.code(), message.to_owned())
    }
}

/// Go's text for a compressed message in a call without a compression.
pub(super) const NO_ENCODING: &str = "grpc: compressed flag set with identity or empty encoding";

/// Go's text for an unknown compression.
pub(super) fn unknown_encoding(name: &str) -> String {
    format!("grpc: Decompressor is not installed for grpc-encoding {name:?}")
}

/// Go's text for a message that is not compressed as its call states, or is truncated, given flate2's.
pub(super) fn not_decompressed(why: &str, begins: bool) -> String {
    let what = if begins { "read decompressed data" } else { "decompress the message" };
    let why = match why {
        "unexpected end of file" | "incomplete deflate stream" => "unexpected EOF",
        "invalid gzip header" => "gzip: invalid header",
        "corrupt gzip stream does not have a matching checksum" => "gzip: invalid checksum",
        other => other,
    };
    format!("grpc: failed to {what}: {why}")
}

/// Go's text for a message with an unknown flag.
pub(super) fn unknown_format(flag: impl std::fmt::Display) -> String {
    format!("grpc: received unexpected payload format {flag}")
}

/// A message as headers carry it: only bytes other than printable ASCII, and the percent sign, are escaped (gRPC over
/// HTTP/2, "Status-Message"). tonic escapes blanks and quotes, too.
fn escaped(message: &str) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => escaped.push(byte),
            _ => escaped.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    escaped
}

/// Go's reason why bytes are not a message, given prost's.
pub(super) fn decode_error(why: &str) -> &'static str {
    match why.contains("UTF-8") {
        true => "string field contains invalid UTF-8",
        false => "proto: cannot parse invalid wire-format data",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_printed_is_escaped() {
        let mut headers = HeaderMap::new();
        Status::not_found("\"a b\" <100 %>\n\u{e4}").add_header(&mut headers).expect("escaped");
        assert_eq!(in_go_words(&mut headers, 0), Some(Code::NotFound as i32));
        assert_eq!(headers[Status::GRPC_MESSAGE], "\"a b\" <100 %25>%0A%C3%A4");
    }

    #[test]
    fn too_large_a_message_is_refused_in_gos_words() {
        let text = "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes";
        let mut headers = HeaderMap::new();
        Status::out_of_range(text).add_header(&mut headers).expect("plain text");
        in_go_words(&mut headers, 2_097_152);
        let status = Status::from_header_map(&headers).expect("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (3000000 vs. 2097152)"
        );
    }
}
