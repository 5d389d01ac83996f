//! The connections between members under the test's control: every member is reached through a proxy, which learns from the
//! hello of a connection which member dialed it, and treats the bytes from one member to another as the [`Wire`] demands.
//!
//! ```text
//!  m1 ──dials──► the address that m2 advertises ── pump(m1 → m2) ──► where m2 listens
//!                                               ◄─ pump(m2 → m1) ──
//! ```
//!
//! Bytes that are held back are kept and delivered when the wire is restored, as TCP would send them again; a lost chunk
//! delays the bytes behind it, as it does in TCP. Clients are not affected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt::peer::{Decoder, Hello, Kind, MAGIC};
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::ports;

/// Time after which TCP retransmits a lost packet; Linux's minimum.
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Chunks in transit from one member to another, on one connection; then the sender waits.
const CHUNKS_MAX: usize = 64;
const CHUNK_BYTES: usize = 16 * 1024;

/// Properties of the connection from one member to another.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(super) struct Wire {
    /// All bytes are held back.
    pub(super) is_cut: bool,
    /// Minimum delay of each chunk; the maximum is half as much again.
    pub(super) delay: Duration,
    /// The share of chunks that are lost once.
    pub(super) loss: f64,
    /// Bytes per second; 0 for no limit.
    pub(super) bytes_per_second: u32,
}

type Direction = (usize, usize);

#[derive(Clone, Default)]
struct Wires {
    /// The directions that are impaired.
    bad: BTreeMap<Direction, Wire>,
    /// Incremented to break the connections made before.
    epoch: u64,
}

/// All connections between members that reach each other through the proxies.
pub(super) struct Links {
    wires: watch::Sender<Wires>,
    /// The proxy's URL of each member, by the number of the member.
    urls: Vec<String>,
}

impl Links {
    /// Between members that listen on these ports. Must be called in a runtime.
    pub(super) fn between(peer_ports: &[u16], scheme: &'static str) -> Self {
        let (wires, seen) = watch::channel(Wires::default());
        let mut listeners = Vec::new();
        for _ in peer_ports {
            let listener = std::net::TcpListener::bind(("127.0.0.1", ports::free()));
            listeners.push(listener.expect("the port is free"));
        }
        let url = |listener: &std::net::TcpListener| {
            format!("{scheme}://{}", listener.local_addr().expect("it is bound"))
        };
        let urls: Vec<_> = listeners.iter().map(url).collect();
        let known = Known { urls: urls.clone(), ports: peer_ports.to_vec() };
        let known = Arc::new(known);
        for (to, listener) in listeners.into_iter().enumerate() {
            tokio::spawn(accept(listener, to, Arc::clone(&known), seen.clone()));
        }
        Self { wires, urls }
    }

    pub(super) fn url(&self, at: usize) -> &str {
        &self.urls[at]
    }

    /// Sets the properties of these directions.
    pub(super) fn set(&self, directions: impl IntoIterator<Item = Direction>, wire: Wire) {
        self.wires.send_modify(|wires| {
            wires.bad.extend(directions.into_iter().map(|direction| (direction, wire)));
        });
    }

    /// Removes all impairments.
    pub(super) fn heal(&self) {
        self.wires.send_modify(|wires| wires.bad.clear());
    }

    /// The impairments as text.
    pub(super) fn tell(&self) -> String {
        let wires = self.wires.borrow();
        let one = |((from, to), wire): (&Direction, &Wire)| {
            let Wire { is_cut, delay, loss, bytes_per_second } = wire;
            let how = match is_cut {
                true => "cut".to_owned(),
                false => format!("{delay:?} {loss} {bytes_per_second}/s"),
            };
            format!("m{}>m{} {how}", from + 1, to + 1)
        };
        wires.bad.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Breaks every open connection.
    pub(super) fn reset(&self) {
        self.wires.send_modify(|wires| wires.epoch += 1);
    }
}

/// The members, by their numbers.
struct Known {
    /// Their proxies.
    urls: Vec<String>,
    /// Where they listen.
    ports: Vec<u16>,
}

impl Known {
    /// The member whose process has a socket at this local port.
    fn dialed_from(&self, port: u16) -> Option<usize> {
        let socket = format!("socket:[{}]", inode(port)?);
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        processes.map(|process| process.path()).find_map(|process| {
            let line = std::fs::read(process.join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let listens = |port: &u16| {
                line.contains(&format!("--listen-peer-urls=https://127.0.0.1:{port}\0"))
            };
            let at = self.ports.iter().position(listens)?;
            let mut files = std::fs::read_dir(process.join("fd")).ok()?.flatten();
            let has = files.any(|file| {
                std::fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == &*socket)
            });
            has.then_some(at)
        })
    }
}

/// The inode of the socket at a local port of 127.0.0.1.
fn inode(port: u16) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!("0100007F:{port:04X}");
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(1).is_some_and(|it| *it == local))?;
    line.get(9).map(|it| (*it).to_owned())
}

async fn accept(
    listener: std::net::TcpListener,
    to: usize,
    known: Arc<Known>,
    wires: watch::Receiver<Wires>,
) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = TcpListener::from_std(listener).expect("a socket");
    loop {
        let Ok((dialer, _)) = listener.accept().await else { continue };
        let (known, wires) = (Arc::clone(&known), wires.clone());
        tokio::spawn(async move {
            // The end of a connection is seen by its two ends alone.
            let _ = carry(dialer, to, &known, wires).await;
        });
    }
}

/// Forwards one connection until an end closes it, or it is broken.
async fn carry(
    mut dialer: TcpStream,
    to: usize,
    known: &Known,
    mut wires: watch::Receiver<Wires>,
) -> std::io::Result<()> {
    dialer.set_nodelay(true)?;
    let (begin, from) = who(&mut dialer, known).await?;
    let epoch = wires.borrow().epoch;
    let listener = TcpStream::connect(("127.0.0.1", known.ports[to])).await?;
    listener.set_nodelay(true)?;
    let (dialer_in, dialer_out) = dialer.into_split();
    let (listener_in, listener_out) = listener.into_split();
    let there = pump(begin, dialer_in, listener_out, (from, to), wires.clone());
    let back = pump(Vec::new(), listener_in, dialer_out, (to, from), wires.clone());
    let broken = wires.wait_for(|wires| wires.epoch != epoch);
    // When one direction ends, the other one has no use.
    tokio::select! {
        () = there => (),
        () = back => (),
        _ = broken => (),
    }
    Ok(())
}

/// Reads until the dialing member is known; returns the bytes read. A connection without a hello belongs to no member,
/// and is not impaired. The hello of one over TLS cannot be read: the process at its other end tells the member.
async fn who(dialer: &mut TcpStream, known: &Known) -> std::io::Result<(Vec<u8>, usize)> {
    let nobody = known.urls.len();
    let urls = &known.urls;
    if urls[0].starts_with("https") {
        let port = dialer.peer_addr()?.port();
        return Ok((Vec::new(), known.dialed_from(port).unwrap_or(nobody)));
    }
    let mut begin = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let count = dialer.read(&mut chunk).await?;
        begin.extend_from_slice(&chunk[..count]);
        let known = begin.len().min(MAGIC.len());
        if count == 0 || begin[..known] != MAGIC[..known] {
            return Ok((begin, nobody));
        }
        let mut decoder = Decoder::default();
        decoder.take(&begin[known..]);
        if let Ok(Some(frame)) = decoder.next_frame() {
            let hello: Hello = frame.read(Kind::Hello).unwrap_or_default();
            let from = urls.iter().position(|url| hello.urls.contains(url));
            return Ok((begin, from.unwrap_or(nobody)));
        }
    }
}

/// Forwards bytes in one direction until the end of the stream.
async fn pump(
    begin: Vec<u8>,
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut wires: watch::Receiver<Wires>,
) {
    let (chunks_in, mut chunks) = mpsc::channel(CHUNKS_MAX);
    let take = take(begin, from, direction, wires.clone(), chunks_in);
    let give = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            tokio::time::sleep_until(due).await;
            let is_whole = |wires: &Wires| !wires.bad.get(&direction).is_some_and(|it| it.is_cut);
            let whole = wires.wait_for(is_whole).await.is_ok();
            if !whole || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The end comes after the bytes sent before it.
        let _ = to.shutdown().await;
    };
    tokio::join!(take, give);
}

/// Reads bytes, and attaches the time of their arrival.
async fn take(
    begin: Vec<u8>,
    mut from: OwnedReadHalf,
    direction: Direction,
    wires: watch::Receiver<Wires>,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
) {
    let mut random = SmallRng::seed_from_u64((direction.0 * 16 + direction.1) as u64);
    let (mut chunk, mut latest) = (begin, Instant::now());
    loop {
        let wire = wires.borrow().bad.get(&direction).copied().unwrap_or_default();
        let mut takes = wire.delay.mul_f64(random.random_range(1.0..1.5));
        if wire.loss > 0.0 && random.random_bool(wire.loss) {
            takes += SENT_AGAIN_AFTER;
        }
        latest = latest.max(Instant::now() + takes);
        if wire.bytes_per_second > 0 {
            latest +=
                Duration::from_secs_f64(chunk.len() as f64 / f64::from(wire.bytes_per_second));
        }
        if !chunk.is_empty() && chunks.send((latest, chunk)).await.is_err() {
            return;
        }
        chunk = vec![0; CHUNK_BYTES];
        match from.read(&mut chunk).await {
            Ok(count) if count > 0 => chunk.truncate(count),
            _ => return,
        }
    }
}
