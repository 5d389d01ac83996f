//! Responses of unary calls, encoded: a frame in one buffer, or in several if it is a long list of keys.

use std::any::Any;
use std::io::Write as _;

use basalt_proto::encoded::RangeResponse;
use basalt_proto::grpc_frame::{COMPRESSED, HEAD_BYTES, Head, PLAIN};
use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use tonic::{Response, Status};

use super::body::ResponseBody;
use crate::io::Pool;

/// Upper bound of a response's bytes, as etcd sets it.
const SEND_MAX: usize = i32::MAX as usize;
/// Upper bound of a response's bytes that are compressed: some ten milliseconds.
const COMPRESS_MAX: usize = 1 << 20;
/// Upper bound of a response's bytes that are copied into one buffer, although they are in runs: a frame of HTTP/2.
const COPIED_MAX: usize = 16 << 10;
/// Upper bound of a response's bytes that are encoded on this core: less than a millisecond.
const ENCODED_HERE_MAX: usize = 1 << 20;

/// A message with its frame header.
pub(super) struct Encoded {
    /// Begins with the header of the frame, and contains the response's header.
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Encoded {
    /// The first bytes of the message, its response header among them.
    pub(super) fn begin(&self) -> &[u8] {
        &self.first[HEAD_BYTES..]
    }

    /// The same message, compressed. An empty one never is, as by grpc-go, nor one so large that compression would
    /// block the core.
    pub(super) fn compressed(self) -> Self {
        let length = self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>();
        if !(HEAD_BYTES + 1..=COMPRESS_MAX).contains(&length) {
            return self;
        }
        let parts = std::iter::once(self.begin()).chain(self.rest.iter().map(|it| &it[..]));
        Self { first: deflate(parts), rest: Vec::new() }
    }

    /// The body of its response.
    pub(super) fn into_body(self) -> ResponseBody {
        if self.rest.is_empty() {
            return ResponseBody::Message(self.first);
        }
        let mut pieces = Vec::with_capacity(1 + self.rest.len());
        pieces.push(self.first);
        pieces.extend(self.rest);
        ResponseBody::Pieces(pieces.into_iter())
    }
}

/// Encodes a response. Runs of key-values go out as they are. Another large response is encoded and dropped in a pool: a
/// sorted list of a million keys takes a tenth of a second.
///
/// # Errors
/// It is larger than a frame can be.
pub(super) async fn encode<M: Message + 'static>(
    answer: Response<M>,
) -> Result<Response<Encoded>, Status> {
    let (metadata, mut message, extensions) = answer.into_parts();
    let length = message.encoded_len();
    let head = head(PLAIN, length)?;
    let range = (&mut message as &mut dyn Any).downcast_mut::<RangeResponse>();
    let encoded = match range.filter(|range| range.kvs.has_runs()) {
        Some(range) if length > COPIED_MAX => in_runs(head, std::mem::take(range)),
        _ if length <= ENCODED_HERE_MAX => in_one(head, &message, length),
        // On the heap, because the future of every call would have this state.
        _ => Box::pin(Pool::Cpu.run_if_wanted(move || in_one(head, &message, length))).await,
    };
    Ok(Response::from_parts(metadata, encoded, extensions))
}

/// A message of this length that was encoded before, as a frame.
///
/// # Errors
/// It is larger than a frame can be.
pub(super) fn framed(message: &[u8]) -> Result<Bytes, Status> {
    let head = head(PLAIN, message.len())?;
    Ok([&head[..], message].concat().into())
}

/// The header of a frame.
fn head(flag: u8, length: usize) -> Result<[u8; HEAD_BYTES], Status> {
    let fits = u32::try_from(length).ok().filter(|_| length <= SEND_MAX);
    let length = fits.ok_or_else(|| {
        Status::resource_exhausted(format!(
            "grpc: trying to send message larger than max ({length} vs. {SEND_MAX})"
        ))
    })?;
    Ok(Head { flag, length }.to_bytes())
}

fn in_one(head: [u8; HEAD_BYTES], message: &impl Message, length: usize) -> Encoded {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + length);
    bytes.put_slice(&head);
    message.encode_raw(&mut bytes);
    Encoded { first: bytes.freeze(), rest: Vec::new() }
}

/// The fields before the key-values, the runs, the fields behind.
fn in_runs(head: [u8; HEAD_BYTES], range: RangeResponse) -> Encoded {
    let RangeResponse { header, kvs, more, count } = range;
    let before = RangeResponse { header, ..RangeResponse::default() };
    let behind = RangeResponse { more, count, ..RangeResponse::default() };
    let mut rest = kvs.into_runs();
    rest.push(behind.encode_to_vec().into());
    Encoded { rest, ..in_one(head, &before, before.encoded_len()) }
}

/// The compressed message as a frame.
fn deflate<'a>(mut parts: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut packed = GzEncoder::new(vec![0; HEAD_BYTES], Compression::fast());
    let written = parts.try_for_each(|part| packed.write_all(part));
    let mut packed = written.and_then(|()| packed.finish()).expect("memory takes what is written");
    let head = head(COMPRESSED, packed.len() - HEAD_BYTES).expect("it was short before");
    packed[..HEAD_BYTES].copy_from_slice(&head);
    packed.into()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read as _;
    use std::sync::{Arc, Mutex};
    use std::thread::ThreadId;

    use basalt_proto::encoded::KeyValues;
    use flate2::read::MultiGzDecoder;
    use futures_lite::future::block_on;
    use prost::DecodeError;
    use prost::bytes::{Buf, BufMut};
    use prost::encoding::{DecodeContext, WireType};

    use super::*;

    /// A message of so many bytes, which notes the thread that encodes it.
    #[derive(Clone, Debug, Default)]
    struct Noted(usize, Arc<Mutex<Option<ThreadId>>>);

    impl Message for Noted {
        fn encode_raw(&self, buf: &mut impl BufMut) {
            *self.1.lock().unwrap() = Some(std::thread::current().id());
            buf.put_bytes(7, self.0);
        }

        fn merge_field(
            &mut self,
            _: u32,
            _: WireType,
            _: &mut impl Buf,
            _: DecodeContext,
        ) -> Result<(), DecodeError> {
            unreachable!("is never decoded")
        }

        fn encoded_len(&self) -> usize {
            self.0
        }

        fn clear(&mut self) {}
    }

    fn encoded(message: Noted) -> Encoded {
        block_on(encode(Response::new(message))).expect("encoded").into_inner()
    }

    fn whole(message: &Encoded) -> Vec<u8> {
        [&message.first[..], &message.rest.concat()].concat()
    }

    /// A compressed message of so many bytes.
    pub(in super::super) fn packed(length: usize) -> Bytes {
        encoded(Noted(length, Arc::default())).compressed().first
    }

    #[test]
    fn runs_go_out_as_they_are() {
        let kvs: Vec<_> = (0..5000u32).map(|it| Bytes::from(it.to_be_bytes().repeat(10))).collect();
        let mut range = RangeResponse { more: true, count: 9000, ..RangeResponse::default() };
        range.header.get_or_insert_default().revision = 7;
        for gzip in [false, true] {
            range.kvs = kvs.clone().into();
            let expected = range.encode_to_vec();
            range.kvs = KeyValues::default();
            kvs.iter().cloned().for_each(|kv| range.kvs.push(kv));
            let message = block_on(encode(Response::new(range.clone()))).expect("encoded");
            let message = message.into_inner();
            assert_eq!(
                RangeResponse::decode(message.begin()).expect("a head").header,
                range.header
            );
            let head = Head { flag: PLAIN, length: u32::try_from(expected.len()).unwrap() };
            assert!(whole(&message) == [&head.to_bytes()[..], &expected].concat());
            assert!(message.rest.len() > 3, "{}", message.rest.len());
            if gzip {
                let packed = message.compressed();
                let mut unpacked = Vec::new();
                let read =
                    MultiGzDecoder::new(&packed.first[HEAD_BYTES..]).read_to_end(&mut unpacked);
                assert!(read.is_ok() && unpacked == expected);
            }
        }
    }

    #[test]
    fn some_messages_are_compressed() {
        let lengths =
            [(0, false), (1, true), (COMPRESS_MAX - HEAD_BYTES, true), (COMPRESS_MAX, false)];
        for (length, is_worth_it) in lengths {
            let message = encoded(Noted(length, Arc::default())).compressed();
            let head = Head::read(&message.first).expect("a head");
            assert_eq!(head.flag == COMPRESSED, is_worth_it, "{length}");
            assert_eq!(head.framed_length(), whole(&message).len(), "{length}");
        }
    }

    #[test]
    fn large_responses_are_encoded_in_the_pool() {
        for (length, is_here) in
            [(0, true), (ENCODED_HERE_MAX, true), (ENCODED_HERE_MAX + 1, false)]
        {
            let by = Arc::default();
            let message = encoded(Noted(length, Arc::clone(&by)));
            assert!(message.begin() == vec![7; length], "{length}");
            let by = by.lock().unwrap().expect("it was encoded");
            assert_eq!(by == std::thread::current().id(), is_here, "{length}");
        }
    }

    #[test]
    fn what_no_frame_can_hold_is_refused() {
        let refused = head(PLAIN, SEND_MAX + 1).expect_err("a refusal");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let text = "grpc: trying to send message larger than max (2147483648 vs. 2147483647)";
        assert_eq!(refused.message(), text);
    }
}
