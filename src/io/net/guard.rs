//! Judges the HTTP/2 frames of a connection: a client that costs much and asks for nothing is told so and disconnected.
//!
//! ```text
//!  received bytes ─► FrameHeads ─► Guard::received ─┬─► h2, as ever
//!  sent bytes ─────► FrameHeads ─► Guard::sent      └─► a verdict: GOAWAY (ENHANCE_YOUR_CALM), and the end
//! ```
//!
//! h2 answers pings and settings by itself, and forgets a stream that its client resets. So it counts neither, beyond
//! streams that are reset before they are accepted. Only the heads of frames are looked at.

use std::time::Duration;

/// Length, type, flags and stream of a frame (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const SETTINGS_TIMEOUT: u32 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;
/// The setting of a stream's window, and the bytes of a setting.
const INITIAL_WINDOW_SIZE: u16 = 4;
const SETTING_BYTES: usize = 6;
/// Windows of a connection, and of a stream of a client that asks for no other.
const WINDOW: u32 = 65_535;
/// Bytes of a connection's window below which it is about to be used up: a frame.
const WINDOW_MIN: i64 = 16 << 10;

/// Pings that come too early until a connection ends, and the least time between two while nothing is asked: grpc-go's.
const PING_STRIKES_MAX: u32 = 2;
const IDLE_PING_MIN: Duration = Duration::from_secs(2 * 60 * 60);
/// Frames that are neither requests nor their data, since the last frame of a request or an answer. A client that
/// cancels all of its streams at once, or raises the windows of all of them, stays below.
const CONTROL_FRAMES_MAX: u32 = 200_000;
/// Streams that are opened and reset within one window of time, past which a connection ends if they are more than half of all.
const RESETS_MAX: u32 = 10_000;
const RESETS_WINDOW: Duration = Duration::from_secs(10);

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
}

/// A part of a sequence of bytes.
enum Found<'a> {
    Head(Head),
    /// A part of the payload of a frame.
    Payload(Head, &'a [u8]),
}

/// Finds the heads of frames in a sequence of bytes.
#[derive(Clone, Copy, Default, Debug)]
struct FrameHeads {
    current: Head,
    /// Bytes of the current frame's payload that are still to come.
    left: usize,
    head: [u8; HEAD_BYTES],
    filled: usize,
}

impl FrameHeads {
    /// Calls `each` with the heads that end in these bytes, and with the parts of payloads.
    fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(Found<'_>)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                each(Found::Payload(self.current, payload));
                (self.left, bytes) = (self.left - payload.len(), rest);
                continue;
            }
            let taken = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            (self.filled, bytes) = (self.filled + taken, &bytes[taken..]);
            if self.filled == HEAD_BYTES {
                let [high, middle, low, kind, flags, stream @ ..] = self.head;
                let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                (self.left, self.filled) = (length, 0);
                self.current = Head { kind, flags, stream, length };
                each(Found::Head(self.current));
            }
        }
    }

    /// True between two frames.
    fn is_between(&self) -> bool {
        self.left == 0 && self.filled == 0
    }
}

/// The reason why a connection ends: too many of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// By grpc-go's rule.
    Pings,
    /// Streams that were reset soon after they were opened.
    Resets,
    /// Frames that ask for nothing.
    Frames,
    /// Neither a request nor an acknowledgement of the settings has come in time.
    Unsettled,
    /// The window of the connection stays used up.
    Window,
}

impl Verdict {
    /// The debug data of the GOAWAY frame. grpc-go's clients know the first, and send fewer pings then.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Pings => "too_many_pings",
            Self::Resets => "too_many_resets",
            Self::Frames => "too_many_frames",
            Self::Unsettled => "settings_timeout",
            Self::Window => "window_stays_used_up",
        }
    }

    const fn code(self) -> u32 {
        match self {
            Self::Unsettled => SETTINGS_TIMEOUT,
            Self::Pings | Self::Resets | Self::Frames | Self::Window => ENHANCE_YOUR_CALM,
        }
    }
}

/// The judge of one connection.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    received: FrameHeads,
    sent: FrameHeads,
    /// `--grpc-keepalive-min-time`.
    ping_min: Duration,
    /// The time of the last ping.
    pinged: Option<Duration>,
    ping_strikes: u32,
    /// A frame of an answer was sent since the last ping.
    has_answered: bool,
    control_frames: u32,
    /// The newest stream that the client has opened.
    last_stream: u32,
    /// Streams without the end of an answer. Those that a client resets count on, as the end of their answer may have
    /// been sent before: too many are better than too few here.
    open: u64,
    window: Window,
    settling: Settling,
    flow: Flow,
    verdict: Option<Verdict>,
}

/// A client that sends its first bytes and then nothing is no client. One that acknowledges the settings is, even if it asks
/// for nothing: those of Go connect to all members, and may ask each of them much later.
#[derive(Clone, Copy, Debug)]
enum Settling {
    Since(Duration),
    Done,
}

/// Flow control in the direction of the client.
#[derive(Clone, Copy, Default, Debug)]
struct Flow {
    /// The window of the connection.
    left: i64,
    /// Since then that is nearly used up.
    low: Option<Duration>,
    /// A stream's window was less than usual once.
    is_small: bool,
    /// The first bytes of a setting, or of the increment of a window.
    begun: [u8; SETTING_BYTES],
    filled: usize,
}

impl Flow {
    /// Reads a part of a frame's payload.
    fn read(&mut self, head: Head, payload: &[u8]) {
        let length = match head.kind {
            SETTINGS => SETTING_BYTES,
            WINDOW_UPDATE if head.stream == 0 => 4,
            _ => return,
        };
        for byte in payload {
            self.begun[self.filled] = *byte;
            self.filled += 1;
            if self.filled == length {
                self.filled = 0;
                self.apply(head.kind);
            }
        }
    }

    fn apply(&mut self, kind: u8) {
        let [first, second, third, fourth, fifth, sixth] = self.begun;
        if kind == WINDOW_UPDATE {
            let increment = u32::from_be_bytes([first, second, third, fourth]) & (u32::MAX >> 1);
            self.left = self.left.saturating_add(i64::from(increment));
        } else if u16::from_be_bytes([first, second]) == INITIAL_WINDOW_SIZE {
            self.is_small |= u32::from_be_bytes([third, fourth, fifth, sixth]) < WINDOW;
        }
    }

    fn is_low(&self) -> bool {
        self.left < WINDOW_MIN
    }
}

/// Streams since a time.
#[derive(Clone, Copy, Default, Debug)]
struct Window {
    began: Duration,
    /// The newest stream before.
    after: u32,
    opened: u32,
    reset: u32,
}

impl Guard {
    /// The judge of a new connection whose next bytes are frames.
    pub(super) fn new(ping_min: Duration, now: Duration) -> Self {
        Self {
            received: FrameHeads::default(),
            sent: FrameHeads::default(),
            ping_min,
            pinged: None,
            ping_strikes: 0,
            has_answered: false,
            control_frames: 0,
            last_stream: 0,
            open: 0,
            window: Window::default(),
            settling: Settling::Since(now),
            flow: Flow { left: i64::from(WINDOW), ..Flow::default() },
            verdict: None,
        }
    }

    /// Looks at received bytes.
    pub(super) fn received(&mut self, bytes: &[u8], now: Duration) {
        let mut heads = self.received;
        heads.scan(bytes, |found| match found {
            Found::Head(head) => self.judge(head, now),
            Found::Payload(head, payload) => self.flow.read(head, payload),
        });
        self.received = heads;
    }

    /// True if the client may be one that does not do what it has to.
    pub(super) fn may_stall(&self) -> bool {
        matches!(self.settling, Settling::Since(_)) || self.flow.is_low()
    }

    /// Judges what did not come for `time`, with so many bytes of answers waiting for it.
    pub(super) fn sweep(
        &mut self,
        now: Duration,
        time: Duration,
        unsent: usize,
    ) -> Option<Verdict> {
        if let Settling::Since(since) = self.settling
            && now.saturating_sub(since) >= time
        {
            self.verdict = self.verdict.or(Some(Verdict::Unsettled));
        }
        // Answers that wait for the window are given up after the same time, and their bytes with them.
        let is_low = self.flow.is_low() && unsent > 0;
        let low = is_low.then(|| self.flow.low.unwrap_or(now));
        self.flow.low = low;
        if low.is_some_and(|since| now.saturating_sub(since) >= 2 * time) {
            self.verdict = self.verdict.or(Some(Verdict::Window));
        }
        self.verdict
    }

    /// True if the client allows answers to be sent in small pieces only.
    pub(super) fn has_small_windows(&self) -> bool {
        self.flow.is_small
    }

    /// Looks at bytes that are about to be sent.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let mut heads = self.sent;
        heads.scan(bytes, |found| {
            let Found::Head(head) = found else { return };
            if head.kind == DATA {
                self.flow.left -= i64::try_from(head.length).unwrap_or_default();
            }
            if head.kind == DATA || head.kind == HEADERS {
                self.has_answered = true;
                self.control_frames = 0;
                self.open = self.open.saturating_sub(u64::from(head.flags & END_STREAM));
            }
            if head.kind == RST_STREAM {
                self.open = self.open.saturating_sub(1);
            }
        });
        self.sent = heads;
    }

    /// The reason to end the connection, if there is one.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// The last frame of a connection that ends by a verdict; `None` within another frame.
    pub(super) fn goaway(&self) -> Option<Vec<u8>> {
        let text = self.verdict?.text();
        let length = u32::try_from(8 + text.len()).expect("a short text");
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&self.last_stream.to_be_bytes());
        frame.extend_from_slice(&self.verdict?.code().to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        self.sent.is_between().then_some(frame)
    }

    fn judge(&mut self, head: Head, now: Duration) {
        self.flow.filled = 0;
        if head.kind == HEADERS || (head.kind == SETTINGS && head.flags & ACK != 0) {
            self.settling = Settling::Done;
        }
        let verdict = match head.kind {
            HEADERS if head.stream > self.last_stream => {
                self.last_stream = head.stream;
                self.open += 1;
                self.control_frames = 0;
                self.window_at(now).opened += 1;
                None
            }
            HEADERS | DATA | CONTINUATION => None,
            PING if head.flags & ACK == 0 => self.ping(now).or_else(|| self.control()),
            RST_STREAM => self.reset(head.stream, now).or_else(|| self.control()),
            _ => self.control(),
        };
        self.verdict = self.verdict.or(verdict);
    }

    /// grpc-go's rule: a ping is too early within two hours of the last one while no stream is open, and within the least
    /// time otherwise. Anything that was answered since forgives all.
    fn ping(&mut self, now: Duration) -> Option<Verdict> {
        let before = self.pinged.replace(now);
        if std::mem::take(&mut self.has_answered) {
            self.ping_strikes = 0;
            return None;
        }
        let least = if self.open == 0 { IDLE_PING_MIN } else { self.ping_min };
        let is_early = before.is_some_and(|before| now < before + least);
        self.ping_strikes += u32::from(is_early);
        (self.ping_strikes > PING_STRIKES_MAX).then_some(Verdict::Pings)
    }

    fn reset(&mut self, stream: u32, now: Duration) -> Option<Verdict> {
        let window = self.window_at(now);
        window.reset += u32::from(stream > window.after);
        let is_most = u64::from(window.reset) * 2 > u64::from(window.opened);
        (window.reset > RESETS_MAX && is_most).then_some(Verdict::Resets)
    }

    fn control(&mut self) -> Option<Verdict> {
        self.control_frames += 1;
        (self.control_frames > CONTROL_FRAMES_MAX).then_some(Verdict::Frames)
    }

    fn window_at(&mut self, now: Duration) -> &mut Window {
        if now >= self.window.began + RESETS_WINDOW {
            self.window = Window { began: now, after: self.last_stream, opened: 0, reset: 0 };
        }
        &mut self.window
    }
}

#[cfg(test)]
mod tests;
