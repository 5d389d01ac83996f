//! One client connection: opens streams, frames gRPC messages into them, and turns received bytes
//! into messages and ends of streams. Never does I/O and has no clock.
//!
//! ```text
//!  open/send ─► out ─► outgoing() ─► socket          socket ─► receive() ─► Event::Message, Event::End
//!                 ▲ bytes beyond the peer's windows wait in their stream
//! ```

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use basalt_proto::codes::code_name;
use basalt_proto::grpc_frame::{HEAD_BYTES, Head, PLAIN};

use super::frame::{self, Header};
use super::hpack;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Windows so large that the server never waits for ours; half of it is given back at a time.
const RECEIVE_WINDOW: u32 = 1 << 30;
const WINDOW_AT_START: u32 = 65_535;
/// The largest frame we accept: the initial value of SETTINGS_MAX_FRAME_SIZE.
const FRAME_BYTES_MAX: usize = 16_384;
/// A message above this is refused: a length prefix must not make us reserve all memory.
const MESSAGE_BYTES_MAX: usize = 2 << 30;
/// Buffers of large responses that are kept for the next ones.
const SPARE_BUFFERS_MAX: usize = 64;

/// Meaning of a received frame; `token` is the caller's own name for the stream.
#[derive(Debug)]
pub enum Event<'a> {
    /// A whole gRPC message.
    Message {
        /// As given to [`Connection::open`].
        token: u64,
        /// The protobuf bytes.
        body: &'a [u8],
    },
    /// The stream has ended; nothing follows.
    End {
        /// As given to [`Connection::open`].
        token: u64,
        /// `Ok` only for HTTP 200 with gRPC status 0.
        outcome: Result<(), Failure>,
    },
}

/// A call that did not end with gRPC status OK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The gRPC code; 14 (unavailable) for failures below gRPC.
    pub code: u32,
    /// Error text of the server, or of the layer that failed.
    pub message: String,
}

impl Failure {
    /// The call was lost with its connection or stream.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: 14, message: message.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.message.starts_with("etcdserver: ") {
            return f.write_str(&self.message);
        }
        let name = code_name(i32::try_from(self.code).unwrap_or(-1));
        write!(f, "rpc error: code = {name} desc = {}", self.message)
    }
}

impl std::error::Error for Failure {}

/// The peer broke the protocol, or closed the connection; the connection cannot be used any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

fn violation<T>(what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(what.into()))
}

#[derive(Debug)]
struct Stream {
    token: u64,
    /// The start of a message that is not yet complete.
    received: Vec<u8>,
    /// Bytes since the last window update for this stream.
    unreturned: u32,
    window: i64,
    /// Framed bytes that the windows held back, from `unsent_at` on.
    unsent: Vec<u8>,
    unsent_at: usize,
    end_after: bool,
    http_status: u32,
    grpc_status: Option<u32>,
    grpc_message: String,
}

/// An HTTP/2 client connection; see the module's description.
#[derive(Debug)]
pub struct Connection {
    authority: String,
    scheme: &'static str,
    /// Extra fields of every request, such as the token of a user.
    metadata: Vec<(String, String)>,
    out: Vec<u8>,
    out_at: usize,
    partial: Vec<u8>,
    streams: HashMap<u32, Stream, BuildHasherDefault<StreamHasher>>,
    /// Streams with unsent bytes, oldest first.
    held: VecDeque<u32>,
    next_stream: u32,
    encoder: hpack::Encoder,
    decoder: hpack::Decoder,
    /// Encoded request headers by path.
    blocks: Vec<Block>,
    /// A header block whose CONTINUATION frames are still to come.
    block: Option<(Header, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    window: i64,
    unreturned: u32,
    settled: bool,
    leaving: bool,
    peer_streams_max: usize,
    peer_window: i64,
    peer_frame_max: usize,
}

#[derive(Debug)]
struct Block {
    path: &'static str,
    generation: (usize, bool),
    bytes: Vec<u8>,
}

impl Connection {
    /// A connection whose output already holds the client preface and settings.
    pub fn new(
        authority: impl Into<String>,
        secure: bool,
        metadata: Vec<(String, String)>,
    ) -> Self {
        let mut this = Self {
            authority: authority.into(),
            scheme: if secure { "https" } else { "http" },
            metadata,
            out: Vec::with_capacity(64 << 10),
            out_at: 0,
            partial: Vec::new(),
            streams: HashMap::default(),
            held: VecDeque::new(),
            next_stream: 1,
            encoder: hpack::Encoder::new(),
            decoder: hpack::Decoder::new(),
            blocks: Vec::new(),
            block: None,
            spare: Vec::new(),
            window: i64::from(WINDOW_AT_START),
            unreturned: 0,
            settled: false,
            leaving: false,
            peer_streams_max: usize::MAX,
            peer_window: i64::from(WINDOW_AT_START),
            peer_frame_max: FRAME_BYTES_MAX,
        };
        this.out.extend_from_slice(PREFACE);
        Header { length: 12, kind: frame::SETTINGS, flags: 0, stream: 0 }.write(&mut this.out);
        for (name, value) in
            [(frame::SETTING_ENABLE_PUSH, 0), (frame::SETTING_INITIAL_WINDOW_SIZE, RECEIVE_WINDOW)]
        {
            this.out.extend_from_slice(&name.to_be_bytes());
            this.out.extend_from_slice(&value.to_be_bytes());
        }
        this.give_window(0, RECEIVE_WINDOW - WINDOW_AT_START);
        this
    }

    /// True if the peer's settings have been received and permit one more stream.
    pub fn can_open(&self) -> bool {
        self.settled && !self.leaving && self.streams.len() < self.peer_streams_max
    }

    /// True if the peer's settings have been received.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// True if the peer accepts no new streams, or the stream numbers are used up: after the streams
    /// that are open have ended, a new connection is needed.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Streams that have not ended.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Starts a call with its first message; `last` closes our half. Returns the stream for
    /// [`Self::send`].
    pub fn open(&mut self, token: u64, path: &'static str, message: &[u8], last: bool) -> u32 {
        debug_assert!(self.can_open(), "the caller asks can_open first");
        let id = self.next_stream;
        self.next_stream += 2;
        self.leaving |= self.next_stream > u32::MAX >> 2;
        self.write_headers(id, path);
        let mut stream = Stream {
            token,
            received: Vec::new(),
            unreturned: 0,
            window: self.peer_window,
            unsent: Vec::new(),
            unsent_at: 0,
            end_after: last,
            http_status: 0,
            grpc_status: None,
            grpc_message: String::new(),
        };
        let length = message.len() + HEAD_BYTES;
        let room = self.window.min(stream.window);
        if self.held.is_empty() && length <= self.peer_frame_max && length as i64 <= room {
            // The usual case: one frame, written straight into the output.
            let flags = if last { frame::END_STREAM } else { 0 };
            Header { length, kind: frame::DATA, flags, stream: id }.write(&mut self.out);
            grpc_frame(message, &mut self.out);
            self.window -= length as i64;
            stream.window -= length as i64;
            self.streams.insert(id, stream);
        } else {
            grpc_frame(message, &mut stream.unsent);
            self.streams.insert(id, stream);
            self.held.push_back(id);
            self.pump();
        }
        id
    }

    /// Sends one more message on a stream that was opened without `last`. Does nothing if the
    /// stream has ended; its [`Event::End`] reports that.
    pub fn send(&mut self, id: u32, message: &[u8]) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.unsent.is_empty() {
            self.held.push_back(id);
        }
        grpc_frame(message, &mut stream.unsent);
        self.pump();
    }

    /// Resets a stream that is no longer wanted, and forgets it. Returns false if there was none.
    pub fn cancel(&mut self, id: u32) -> bool {
        if self.streams.remove(&id).is_none() {
            return false;
        }
        Header { length: 4, kind: frame::RST_STREAM, flags: 0, stream: id }.write(&mut self.out);
        self.out.extend_from_slice(&frame::ERROR_CANCEL.to_be_bytes());
        true
    }

    /// The bytes to write to the socket next.
    pub fn outgoing(&self) -> &[u8] {
        &self.out[self.out_at..]
    }

    /// The socket took `bytes` of [`Self::outgoing`].
    pub fn sent(&mut self, bytes: usize) {
        self.out_at += bytes;
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
        }
    }

    /// Takes bytes from the socket and passes the resulting events to `on`.
    ///
    /// # Errors
    /// The peer broke the protocol; [`Self::fail`] then ends the open streams.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        if self.partial.is_empty() {
            let used = self.frames(bytes, on)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        let used = self.frames(&joined, on)?;
        joined.drain(..used);
        self.partial = joined;
        Ok(())
    }

    /// The connection has failed: ends every stream with this failure.
    pub fn fail(&mut self, why: &Failure, on: &mut impl FnMut(Event<'_>)) {
        self.leaving = true;
        for (_, stream) in self.streams.drain() {
            on(Event::End { token: stream.token, outcome: Err(why.clone()) });
        }
    }

    fn write_headers(&mut self, stream: u32, path: &'static str) {
        let generation = self.encoder.generation();
        let known = self.blocks.iter().position(|block| block.path == path);
        let stale = known.is_none_or(|at| self.blocks[at].generation != generation);
        if !stale && let Some(at) = known {
            write_block(stream, &self.blocks[at].bytes, &mut self.out);
            return;
        }
        let mut fields = vec![
            (":method", "POST"),
            (":scheme", self.scheme),
            (":path", path),
            (":authority", self.authority.as_str()),
            ("content-type", "application/grpc"),
            ("user-agent", concat!("basalt-bench/", env!("CARGO_PKG_VERSION"))),
            ("te", "trailers"),
        ];
        fields.extend(self.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut bytes = Vec::new();
        self.encoder.encode(&fields, &mut bytes);
        write_block(stream, &bytes, &mut self.out);
        // The block just sent inserted fields; a copy for later uses refers to them instead.
        let mut bytes = Vec::new();
        self.encoder.encode(&fields, &mut bytes);
        let block = Block { path, generation: self.encoder.generation(), bytes };
        match known {
            Some(at) => self.blocks[at] = block,
            None => self.blocks.push(block),
        }
    }

    /// Sends held bytes as far as the windows allow, oldest stream first.
    fn pump(&mut self) {
        for _ in 0..self.held.len() {
            let Some(id) = self.held.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            while stream.unsent_at < stream.unsent.len() {
                let rest = stream.unsent.len() - stream.unsent_at;
                let room = usize::try_from(self.window.min(stream.window)).unwrap_or(0);
                let length = rest.min(room).min(self.peer_frame_max);
                if length == 0 {
                    break;
                }
                let last = length == rest && stream.end_after;
                let flags = if last { frame::END_STREAM } else { 0 };
                Header { length, kind: frame::DATA, flags, stream: id }.write(&mut self.out);
                let from = stream.unsent_at;
                self.out.extend_from_slice(&stream.unsent[from..from + length]);
                stream.unsent_at += length;
                stream.window -= length as i64;
                self.window -= length as i64;
            }
            if stream.unsent_at == stream.unsent.len() {
                stream.unsent.clear();
                stream.unsent_at = 0;
            } else {
                self.held.push_back(id);
            }
        }
    }

    fn give_window(&mut self, stream: u32, bytes: u32) {
        Header { length: 4, kind: frame::WINDOW_UPDATE, flags: 0, stream }.write(&mut self.out);
        self.out.extend_from_slice(&bytes.to_be_bytes());
    }

    fn frames(&mut self, bytes: &[u8], on: &mut impl FnMut(Event<'_>)) -> Result<usize, Violation> {
        let mut used = 0;
        while bytes.len() - used >= frame::HEADER_BYTES {
            let header = Header::read(&bytes[used..]);
            if header.length > FRAME_BYTES_MAX {
                return violation(format!("a frame of {} bytes", header.length));
            }
            let start = used + frame::HEADER_BYTES;
            let Some(payload) = bytes.get(start..start + header.length) else { break };
            self.frame(header, payload, on)?;
            used = start + header.length;
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        header: Header,
        payload: &[u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        if self.block.is_some() && header.kind != frame::CONTINUATION {
            return violation("a header block was interrupted");
        }
        match header.kind {
            frame::DATA => self.on_data(header, payload, on),
            frame::HEADERS => {
                let Some(block) = frame::unpadded(header, payload) else {
                    return violation("padding longer than its frame");
                };
                if header.has(frame::END_HEADERS) {
                    return self.on_block(header, block, on);
                }
                self.block = Some((header, block.to_vec()));
                Ok(())
            }
            frame::CONTINUATION => {
                let Some((first, mut block)) = self.block.take() else {
                    return violation("a continuation of nothing");
                };
                block.extend_from_slice(payload);
                if header.has(frame::END_HEADERS) {
                    return self.on_block(first, &block, on);
                }
                self.block = Some((first, block));
                Ok(())
            }
            frame::RST_STREAM if payload.len() == 4 => {
                let why = format!("the server reset the stream: {}", frame::number(payload));
                self.end(header.stream, Some(Failure::unavailable(why)), on);
                Ok(())
            }
            frame::SETTINGS => self.on_settings(header, payload),
            frame::PING if payload.len() == 8 && !header.has(frame::ACK) => {
                Header { flags: frame::ACK, ..header }.write(&mut self.out);
                self.out.extend_from_slice(payload);
                Ok(())
            }
            frame::GOAWAY if payload.len() >= 8 => self.on_goaway(payload, on),
            frame::WINDOW_UPDATE if payload.len() == 4 => {
                let more = i64::from(frame::number(payload) & 0x7fff_ffff);
                if header.stream == 0 {
                    self.window += more;
                } else if let Some(stream) = self.streams.get_mut(&header.stream) {
                    stream.window += more;
                }
                self.pump();
                Ok(())
            }
            frame::PUSH_PROMISE => violation("a push that was declined"),
            // Unknown frame types are ignored (RFC 9113, 4.1), and so is an answer to a ping.
            _ => Ok(()),
        }
    }

    fn on_data(
        &mut self,
        header: Header,
        payload: &[u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        let Some(data) = frame::unpadded(header, payload) else {
            return violation("padding longer than its frame");
        };
        let length = u32::try_from(payload.len()).expect("a frame is below 16 MiB");
        self.unreturned += length;
        if self.unreturned > RECEIVE_WINDOW / 2 {
            let bytes = std::mem::take(&mut self.unreturned);
            self.give_window(0, bytes);
        }
        let Some(stream) = self.streams.get_mut(&header.stream) else { return Ok(()) };
        stream.unreturned += length;
        let give = stream.unreturned > RECEIVE_WINDOW / 2 && !header.has(frame::END_STREAM);
        let bytes = if give { std::mem::take(&mut stream.unreturned) } else { 0 };
        messages(stream, data, &mut self.spare, on)?;
        if give {
            self.give_window(header.stream, bytes);
        }
        if header.has(frame::END_STREAM) {
            self.end(header.stream, None, on);
        }
        Ok(())
    }

    fn on_block(
        &mut self,
        header: Header,
        block: &[u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        // A header block of a stream that is already forgotten still changes the table.
        let mut stream = self.streams.get_mut(&header.stream);
        let decoded = self.decoder.decode(block, |name, value| {
            let Some(stream) = stream.as_deref_mut() else { return };
            match name {
                b":status" => stream.http_status = decimal(value),
                b"grpc-status" => stream.grpc_status = Some(decimal(value)),
                b"grpc-message" => stream.grpc_message = percent_decoded(value),
                _ => {}
            }
        });
        if decoded.is_none() {
            return violation("a header block that does not decode");
        }
        if header.has(frame::END_STREAM) {
            self.end(header.stream, None, on);
        }
        Ok(())
    }

    fn on_settings(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        if header.has(frame::ACK) {
            return Ok(());
        }
        if !payload.len().is_multiple_of(6) {
            return violation("settings of odd length");
        }
        for setting in payload.chunks_exact(6) {
            let value = frame::number(&setting[2..]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                frame::SETTING_HEADER_TABLE_SIZE if (value as usize) < hpack::TABLE_BYTES => {
                    self.encoder.stop_indexing();
                    self.blocks.clear();
                }
                frame::SETTING_MAX_CONCURRENT_STREAMS => self.peer_streams_max = value as usize,
                frame::SETTING_INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - self.peer_window;
                    self.peer_window = i64::from(value);
                    self.streams.values_mut().for_each(|stream| stream.window += change);
                }
                frame::SETTING_MAX_FRAME_SIZE => self.peer_frame_max = value as usize,
                _ => {}
            }
        }
        self.settled = true;
        Header { length: 0, kind: frame::SETTINGS, flags: frame::ACK, stream: 0 }
            .write(&mut self.out);
        self.pump();
        Ok(())
    }

    fn on_goaway(
        &mut self,
        payload: &[u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        self.leaving = true;
        let last = frame::number(payload) & 0x7fff_ffff;
        let code = frame::number(&payload[4..]);
        let said = String::from_utf8_lossy(&payload[8..]);
        if code != 0 {
            return violation(format!("the server closed the connection: {code} {said}"));
        }
        let unseen: Vec<u32> = self.streams.keys().copied().filter(|&id| id > last).collect();
        for id in unseen {
            self.end(id, Some(Failure::unavailable("the server is going away")), on);
        }
        Ok(())
    }

    fn end(&mut self, id: u32, failure: Option<Failure>, on: &mut impl FnMut(Event<'_>)) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        let outcome = match (failure, stream.grpc_status, stream.http_status) {
            (Some(failure), _, _) => Err(failure),
            (None, Some(0), 200) => Ok(()),
            (None, Some(code), 200) => {
                Err(Failure { code, message: std::mem::take(&mut stream.grpc_message) })
            }
            (None, _, status) => {
                Err(Failure::unavailable(format!("HTTP status {status} without a gRPC status")))
            }
        };
        if stream.received.capacity() > 0 && self.spare.len() < SPARE_BUFFERS_MAX {
            self.spare.push(stream.received);
        }
        on(Event::End { token: stream.token, outcome });
    }
}

fn write_block(stream: u32, block: &[u8], out: &mut Vec<u8>) {
    let header =
        Header { length: block.len(), kind: frame::HEADERS, flags: frame::END_HEADERS, stream };
    header.write(out);
    out.extend_from_slice(block);
}

fn grpc_frame(message: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(message.len()).expect("requests are below 4 GiB");
    out.extend_from_slice(&Head { flag: PLAIN, length }.to_bytes());
    out.extend_from_slice(message);
}

/// Splits `data` of a stream into gRPC messages; the last may be incomplete and is kept.
fn messages(
    stream: &mut Stream,
    mut data: &[u8],
    spare: &mut Vec<Vec<u8>>,
    on: &mut impl FnMut(Event<'_>),
) -> Result<(), Violation> {
    let token = stream.token;
    loop {
        if stream.received.is_empty() {
            // Whole messages are passed on without a copy.
            while let Some(length) = message_length(data)? {
                let end = HEAD_BYTES + length;
                let Some(message) = data.get(HEAD_BYTES..end) else { break };
                on(Event::Message { token, body: message });
                data = &data[end..];
            }
            if !data.is_empty() {
                if stream.received.capacity() == 0 {
                    stream.received = spare.pop().unwrap_or_default();
                    stream.received.clear();
                }
                stream.received.extend_from_slice(data);
            }
            return Ok(());
        }
        let missing = HEAD_BYTES.saturating_sub(stream.received.len()).min(data.len());
        stream.received.extend_from_slice(&data[..missing]);
        data = &data[missing..];
        let Some(length) = message_length(&stream.received)? else { return Ok(()) };
        let end = HEAD_BYTES + length;
        let missing = (end - stream.received.len()).min(data.len());
        stream.received.reserve(end - stream.received.len());
        stream.received.extend_from_slice(&data[..missing]);
        data = &data[missing..];
        if stream.received.len() < end {
            return Ok(());
        }
        on(Event::Message { token, body: &stream.received[HEAD_BYTES..] });
        stream.received.clear();
    }
}

/// The length in a message's prefix, once the prefix is whole.
fn message_length(data: &[u8]) -> Result<Option<usize>, Violation> {
    let Some(head) = Head::read(data) else { return Ok(None) };
    let length = head.length as usize;
    if head.flag != PLAIN || length > MESSAGE_BYTES_MAX {
        return violation("a compressed or oversized message");
    }
    Ok(Some(length))
}

fn decimal(text: &[u8]) -> u32 {
    text.iter().fold(0, |number: u32, digit| {
        number.wrapping_mul(10).wrapping_add(u32::from(digit.wrapping_sub(b'0')))
    })
}

fn percent_decoded(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) if byte == b'%' => {
                out.push(code);
                rest = &tail[2..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Stream numbers come from us and count upwards: spreading their bits is enough.
#[derive(Debug, Default)]
struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collected events, as short texts.
    fn receive(connection: &mut Connection, bytes: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut on = |event: Event<'_>| {
            seen.push(match event {
                Event::Message { token, body } => format!("{token}: {} bytes", body.len()),
                Event::End { token, outcome: Ok(()) } => format!("{token}: ok"),
                Event::End { token, outcome: Err(failure) } => format!("{token}: {failure}"),
            });
        };
        if let Err(violation) = connection.receive(bytes, &mut on) {
            seen.push(format!("violation: {violation}"));
        }
        seen
    }

    fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Header { length: payload.len(), kind, flags, stream }.write(&mut bytes);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn fields(list: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        let mut encoder = hpack::Encoder::new();
        encoder.stop_indexing();
        encoder.encode(list, &mut block);
        block
    }

    fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (name, value) in pairs {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        frame_of(frame::SETTINGS, 0, 0, &payload)
    }

    fn settled(pairs: &[(u16, u32)]) -> Connection {
        let mut connection = Connection::new("host:1", false, Vec::new());
        assert!(!connection.can_open());
        receive(&mut connection, &settings(pairs));
        assert!(connection.can_open());
        let length = connection.outgoing().len();
        connection.sent(length);
        connection
    }

    fn answer(stream: u32, message: &[u8], status: &str) -> Vec<u8> {
        let mut data = Vec::new();
        grpc_frame(message, &mut data);
        let mut bytes = Vec::new();
        let head = fields(&[(":status", "200"), ("content-type", "application/grpc")]);
        bytes.extend(frame_of(frame::HEADERS, frame::END_HEADERS, stream, &head));
        bytes.extend(frame_of(frame::DATA, 0, stream, &data));
        let tail = fields(&[("grpc-status", status), ("grpc-message", "etcdserver: no%20leader")]);
        let flags = frame::END_HEADERS | frame::END_STREAM;
        bytes.extend(frame_of(frame::HEADERS, flags, stream, &tail));
        bytes
    }

    #[test]
    fn an_answer_is_a_message_and_an_end_however_it_is_cut() {
        let bytes = answer(1, &[7; 300], "0");
        for cut in 0..bytes.len() {
            let mut connection = settled(&[]);
            connection.open(42, "/a/B", b"hello", true);
            let mut seen = receive(&mut connection, &bytes[..cut]);
            seen.extend(receive(&mut connection, &bytes[cut..]));
            assert_eq!(seen, ["42: 300 bytes", "42: ok"], "cut at {cut}");
            assert_eq!(connection.streams(), 0);
        }
    }

    #[test]
    fn a_status_other_than_ok_is_a_failure_even_with_http_200() {
        let mut connection = settled(&[]);
        connection.open(1, "/a/B", b"", true);
        let seen = receive(&mut connection, &answer(1, b"", "14"));
        assert_eq!(seen, ["1: 0 bytes", "1: etcdserver: no leader"]);
    }

    #[test]
    fn a_message_over_many_frames_is_put_together() {
        let mut connection = settled(&[]);
        connection.open(5, "/a/B", b"", true);
        let mut data = Vec::new();
        grpc_frame(&[1; 40_000], &mut data);
        grpc_frame(&[2; 10], &mut data);
        let mut seen = Vec::new();
        for part in data.chunks(9_999) {
            seen.extend(receive(&mut connection, &frame_of(frame::DATA, 0, 1, part)));
        }
        assert_eq!(seen, ["5: 40000 bytes", "5: 10 bytes"]);
    }

    #[test]
    fn bytes_beyond_the_windows_wait_for_updates() {
        let mut connection = settled(&[(frame::SETTING_INITIAL_WINDOW_SIZE, 10)]);
        let id = connection.open(1, "/a/B", &[0; 20], true);
        let before = connection.outgoing().len();
        receive(&mut connection, &frame_of(frame::WINDOW_UPDATE, 0, id, &100_u32.to_be_bytes()));
        assert_eq!(connection.outgoing().len() - before, frame::HEADER_BYTES + 15);
        assert!(connection.held.is_empty());
        let last = &connection.outgoing()[before..];
        assert!(Header::read(last).has(frame::END_STREAM));
    }

    #[test]
    fn the_peers_bound_on_streams_is_kept() {
        let mut connection = settled(&[(frame::SETTING_MAX_CONCURRENT_STREAMS, 1)]);
        connection.open(1, "/a/B", b"", true);
        assert!(!connection.can_open());
        receive(&mut connection, &answer(1, b"", "0"));
        assert!(connection.can_open());
    }

    #[test]
    fn a_lost_connection_ends_every_stream() {
        let mut connection = settled(&[]);
        connection.open(1, "/a/B", b"", true);
        connection.open(2, "/a/B", b"", true);
        let mut ends = 0;
        connection.fail(&Failure::unavailable("gone"), &mut |event| {
            ends += usize::from(matches!(event, Event::End { outcome: Err(_), .. }));
        });
        assert_eq!(ends, 2);
        assert!(connection.is_leaving());
    }

    #[test]
    fn a_canceled_stream_is_reset_once_and_says_nothing_more() {
        let mut connection = settled(&[]);
        let id = connection.open(1, "/a/B", b"", false);
        let length = connection.outgoing().len();
        connection.sent(length);
        assert!(connection.cancel(id));
        assert_eq!(connection.outgoing(), frame_of(frame::RST_STREAM, 0, id, &[0, 0, 0, 8]));
        assert!(!connection.cancel(id));
        assert!(receive(&mut connection, &answer(id, b"late", "0")).is_empty());
    }

    #[test]
    fn a_second_request_needs_few_header_bytes() {
        let mut connection = settled(&[]);
        connection.open(1, "/etcdserverpb.KV/Put", b"", true);
        let length = connection.outgoing().len();
        connection.sent(length);
        connection.open(2, "/etcdserverpb.KV/Put", b"", true);
        assert_eq!(connection.outgoing().len(), 2 * frame::HEADER_BYTES + 7 + HEAD_BYTES);
    }

    #[test]
    fn a_ping_is_answered_with_its_own_bytes() {
        let mut connection = settled(&[]);
        receive(&mut connection, &frame_of(frame::PING, 0, 0, b"12345678"));
        assert_eq!(connection.outgoing(), frame_of(frame::PING, frame::ACK, 0, b"12345678"));
    }
}
