//! Encodes and decodes the messages of the server's streams, with buffers of the messages' size.
//!
//! tonic's own codec allocates two buffers of 8 KiB for every stream, one for each direction, whatever their content: with
//! thousands of watches most of the server's memory would be empty. Here a request's buffer grows to the request, and a
//! response's has the right size before it is written, instead of being doubled and copied until it fits.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{self, BufferSettings, EncodeBuf};
use tonic_prost::ProstDecoder;

/// Initial buffer size for requests. Not zero: tonic divides by it if a request is compressed.
const REQUEST_BYTES: usize = 1;
/// Initial buffer size for responses: some small ones.
const ANSWER_BYTES: usize = 1 << 10;
/// Maximum number of bytes of a stream's responses that are sent together; tonic's number.
const YIELD_BYTES: usize = 32 << 10;

/// protobuf over gRPC: `T` is sent, `U` is received.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + 'static,
    U: Message + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Encoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Encoder<T> {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::new(BufferSettings::new(REQUEST_BYTES, YIELD_BYTES))
    }
}

/// Encodes messages.
pub struct Encoder<T>(PhantomData<T>);

impl<T: Message> codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ANSWER_BYTES, YIELD_BYTES)
    }
}
