//! Sessions over pipes that take and give random pieces, and bytes that were changed on the way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use gotls::{SkipVerification, Suites};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;

use super::*;

/// The bytes in transit in one direction. Takes and gives as much as chance likes.
#[derive(Default)]
struct Pipe(VecDeque<u8>);

/// More does not fit.
const PIPE_BYTES: usize = 50_000;

impl Pipe {
    fn write(&mut self, bytes: &[u8], random: &mut SmallRng) -> Poll<Result<usize>> {
        let room = PIPE_BYTES - self.0.len();
        if room == 0 || random.random_bool(0.1) {
            return Poll::Pending;
        }
        let count = random.random_range(1..=bytes.len().min(room));
        self.0.extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn read(&mut self, into: &mut [u8], random: &mut SmallRng) -> Poll<Result<usize>> {
        if self.0.is_empty() || random.random_bool(0.1) {
            return Poll::Pending;
        }
        let count = random.random_range(1..=into.len().min(self.0.len()));
        for (place, byte) in into.iter_mut().zip(self.0.drain(..count)) {
            *place = byte;
        }
        Poll::Ready(Ok(count))
    }
}

/// Both ends of a connection.
fn ends(
    versions: &'static [&'static rustls::SupportedProtocolVersion],
    change: impl FnOnce(&mut ServerConfig),
) -> [Session; 2] {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["a".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let pair = gotls::key_pair(certificate.as_bytes(), key.serialize_pem().as_bytes());
    let provider = gotls::provider(&Suites::All);
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.expect("a pair"))));
    change(&mut server);
    let skip = SkipVerification::new(provider);
    let client = gotls::client_config(&Suites::All, versions, skip, None, &[]).expect("a client");
    let name = "a".try_into().expect("a name");
    let client = UnbufferedClientConnection::new(Arc::new(client), name).expect("a client");
    let server = UnbufferedServerConnection::new(Arc::new(server)).expect("a server");
    [Session::new(Side::Client(client)), Session::new(Side::Server(server))]
}

/// The same with the handshake done.
fn connected(versions: &'static [&'static rustls::SupportedProtocolVersion]) -> [Session; 2] {
    let mut ends = ends(versions, |_| ());
    while ends.iter().any(|end| end.is_handshaking() || !end.to_send().is_empty()) {
        for at in 0..2 {
            ends[at].take_handshake(&[]).expect("it goes on");
            let bytes = ends[at].to_send().to_vec();
            ends[at].note_sent(bytes.len());
            // In pieces that know nothing of records.
            for piece in bytes.chunks(700) {
                ends[1 - at].take_handshake(piece).expect("it is understood");
            }
        }
    }
    ends
}

/// Sends random bytes both ways in random pieces, over pipes that take and give random pieces.
fn talk(versions: &'static [&'static rustls::SupportedProtocolVersion], seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut ends = connected(versions);
    let mut pipes = [Pipe::default(), Pipe::default()];
    let (mut sent, mut read) = ([vec![], vec![]], [vec![], vec![]]);
    let mut context = Context::from_waker(Waker::noop());
    let total = 400_000;
    let mut buffer = vec![0; 70_000];
    while (0..2).any(|at| read[1 - at].len() < sent[at].len() || sent[at].len() < total) {
        for at in 0..2 {
            if sent[at].len() < total {
                let most = if random.random_bool(0.2) { 90_000 } else { 300 };
                let length = random.random_range(1..=most);
                let mut bytes = vec![0; length];
                random.fill(&mut bytes[..]);
                let cut = random.random_range(0..=length);
                let slices = [IoSlice::new(&bytes[..cut]), IoSlice::new(&bytes[cut..])];
                let pipe = &mut pipes[at];
                let wrote = ends[at]
                    .poll_write(&mut context, &slices, |_, bytes| pipe.write(bytes, &mut random));
                if let Poll::Ready(count) = wrote {
                    sent[at].extend_from_slice(&bytes[..count.expect("it is sent")]);
                }
            }
            let pipe = &mut pipes[at];
            let flushed =
                ends[at].poll_flush(&mut context, |_, bytes| pipe.write(bytes, &mut random));
            assert!(!matches!(flushed, Poll::Ready(Err(_))));
            let most = if random.random_bool(0.3) { 70_000 } else { 4096 };
            let room = random.random_range(1..=most);
            let pipe = &mut pipes[1 - at];
            let came = ends[at].poll_read(&mut context, &mut buffer[..room], |_, into| {
                pipe.read(into, &mut random)
            });
            if let Poll::Ready(count) = came {
                read[at].extend_from_slice(&buffer[..count.expect("it is read")]);
            }
        }
    }
    assert!(read[1] == sent[0] && read[0] == sent[1], "bytes were changed (seed {seed})");
    for end in &ends {
        let held = [&end.partial, &end.plain, &end.out].map(Vec::capacity);
        assert_eq!(held, [0; 3], "an idle connection holds no buffer");
    }
    // The end is told, not just seen.
    let pipe = &mut pipes[0];
    while ends[0].poll_close(&mut context, |_, bytes| pipe.write(bytes, &mut random)).is_pending() {
    }
    let ended = loop {
        let read =
            ends[1].poll_read(&mut context, &mut buffer, |_, into| pipe.read(into, &mut random));
        if let Poll::Ready(ended) = read {
            break ended;
        }
    };
    assert_eq!(ended.expect("an end"), 0);
}

#[test]
fn bytes_come_as_they_were_sent_whatever_the_socket_does() {
    for seed in 0..6 {
        talk(gotls::VERSIONS, seed);
        talk(&gotls::VERSIONS[1..], seed);
    }
}

#[test]
fn changed_bytes_end_the_connection() {
    let mut ends = connected(gotls::VERSIONS);
    let (mut context, mut sent) = (Context::from_waker(Waker::noop()), Vec::new());
    let wrote = ends[0].poll_write(&mut context, &[IoSlice::new(b"abc")], |_, bytes| {
        sent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    });
    assert!(matches!(wrote, Poll::Ready(Ok(3))));
    *sent.last_mut().expect("some") ^= 1;
    let mut into = [0; 64];
    let read = ends[1].poll_read(&mut context, &mut into, |_, into| {
        into[..sent.len()].copy_from_slice(&sent);
        Poll::Ready(Ok(sent.len()))
    });
    assert!(matches!(read, Poll::Ready(Err(_))), "{read:?}");
    assert!(!ends[1].to_send().is_empty(), "an alert waits");
}

/// The server's tickets come in many small records, and in pieces of those: each time one ends in the middle of a
/// message, the client writes, and the bytes that rustls remembers must still be there.
#[test]
fn messages_in_pieces_do_not_keep_others_from_writing() {
    let mut ends = ends(gotls::VERSIONS, |server| {
        server.max_fragment_size = Some(48);
        server.send_tls13_tickets = 4;
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("a ticketer");
    });
    let (mut context, mut random) =
        (Context::from_waker(Waker::noop()), SmallRng::seed_from_u64(1));
    let (mut sent, mut came, mut into) = (Vec::new(), Vec::new(), [0; 999]);
    for _ in 0..1000 {
        for at in 0..2 {
            ends[at].take_handshake(&[]).expect("it goes on");
            let count = ends[at].to_send().len().min(random.random_range(1..30));
            let piece = ends[at].to_send()[..count].to_vec();
            ends[at].note_sent(count);
            ends[1 - at].take_handshake(&piece).expect("it is understood");
        }
        if !ends[0].is_handshaking() {
            let written = ends[0].encrypt(&[7; 10], &mut into).expect("it may write");
            ends[0].out.extend_from_slice(&into[..written]);
            sent.extend([7; 10]);
        }
        let read = ends[1].poll_read(&mut context, &mut into, |_, _| Poll::Pending);
        if let Poll::Ready(Ok(count)) = read {
            came.extend_from_slice(&into[..count]);
        }
    }
    assert!(came.len() > 100 && sent.starts_with(&came), "{} of {}", came.len(), sent.len());
}

/// Changed bytes of a handshake are refused or waited for; nothing panics.
#[test]
fn changed_handshakes_are_refused() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut ends = ends(gotls::VERSIONS, |_| ());
        let mut flips = 0;
        'rounds: for _ in 0..20 {
            for at in 0..2 {
                if ends[at].take_handshake(&[]).is_err() {
                    break 'rounds;
                }
                let mut bytes = ends[at].to_send().to_vec();
                ends[at].note_sent(bytes.len());
                if !bytes.is_empty() && random.random_bool(0.5) {
                    flips += 1;
                    let place = random.random_range(0..bytes.len());
                    bytes[place] ^= 1 << random.random_range(0..8);
                    bytes.truncate(random.random_range(0..=bytes.len()));
                }
                for piece in bytes.chunks(random.random_range(1..900)) {
                    if ends[1 - at].take_handshake(piece).is_err() {
                        break 'rounds;
                    }
                }
            }
        }
        let mut context = Context::from_waker(Waker::noop());
        for end in &mut ends {
            let _ = end.poll_close(&mut context, |_, bytes| Poll::Ready(Ok(bytes.len())));
        }
        assert!(flips < 40);
    }
}
