//! Messages as the bytes that they are: gRPC's framing alone is read.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// First size of a buffer: streams are many, and most have small messages.
const BUFFER_BYTES: usize = 1 << 10;
/// Bytes of a stream's messages that are sent together.
const YIELD_BYTES: usize = 32 << 10;

/// Bytes in both directions.
#[derive(Clone, Copy, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// A message of this type.
///
/// # Errors
/// The bytes are none, in grpc-go's words.
pub(super) fn decode<M: prost::Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes)
        .map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}

/// The bytes of a message.
pub(super) fn encode(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The status of a message that is too large, in grpc-go's words where tonic has its own.
pub(super) fn in_gos_words(status: Status) -> Status {
    let sizes = || {
        let rest =
            status.message().strip_prefix("Error, decoded message length too large: found ")?;
        let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
        Some((found.to_owned(), rest.strip_suffix(" bytes")?.to_owned()))
    };
    match sizes() {
        Some((found, limit)) => Status::resource_exhausted(format!(
            "grpc: received message larger than max ({found} vs. {limit})"
        )),
        None => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_too_large_is_refused_in_gos_words() {
        let text = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        let status = in_gos_words(Status::out_of_range(text));
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (9 vs. 4)");
        assert_eq!(in_gos_words(Status::not_found("a")).message(), "a");
    }
}
