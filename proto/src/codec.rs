//! How the messages of the server's streams become bytes, with buffers as large as messages are.
//!
//! tonic's own codec takes two buffers of 8 KiB for every stream, one for each way, whatever is in them: with thousands
//! of watches most of what the server holds is empty. Here a request's buffer grows to the request, and an answer's
//! is of the right size before it is written, instead of being doubled and copied until it fits.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{self, BufferSettings, EncodeBuf};
use tonic_prost::ProstDecoder;

/// Bytes for requests at first. Not none: tonic divides by it when a request is compressed.
const REQUEST_BYTES: usize = 1;
/// Bytes for answers at first: some small ones.
const ANSWER_BYTES: usize = 1 << 10;
/// Bytes of a stream's answers that leave together at the latest; tonic's number.
const YIELD_BYTES: usize = 32 << 10;

/// protobuf over gRPC: `T` goes out, `U` comes in.
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

/// Writes messages.
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
