//! Threads that make handshakes, for sockets that were accepted and for dialed ones. They step back behind executors,
//! so that clients that come back by the thousands delay nobody who is served; other members have a thread of their own
//! that does not.
//!
//! ```text
//!  socket ─► silent ─whole first record─► running ─► done: handed on
//!               │ (nothing is kept)          │ refused: the alert is sent, the rest is thrown away
//!               └── too late: closed         └── too late: closed
//! ```

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustls::pki_types::ServerName;
use slab::Slab;

use super::admission::{Accepting, Outcome, late, let_in, say_rejected};
use super::credentials::TlsCredentials;
use super::handshake::{self, Begin, Failure, Progress};
use super::session::Session;
use crate::io::clock::Instant;
use crate::io::{placement, thread};
use crate::types::Fault;
use crate::types::limits::{HANDSHAKE_THREADS_MAX, HANDSHAKES_MAX, HANDSHAKES_QUEUED_MAX};

/// How far the threads for clients step back.
const NICE: i32 = 5;
/// How long a connection may take until its handshake is done, silence included.
pub(in crate::io) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// After so long a handshake gives its place to another one, if there are too many.
const GIVE_WAY: Duration = Duration::from_secs(1);
/// How long the other end may take to read an alert.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// How often connections that are late are looked for.
const SWEEP: Duration = Duration::from_millis(250);
const EVENTS_MAX: usize = 256;
/// The event that says that there are new sockets.
const WAKE: u64 = u64::MAX;

type Told = flume::Sender<Result<(OwnedFd, Box<Session>), String>>;

/// A socket that was dialed.
struct Dialing {
    socket: OwnedFd,
    wait: Duration,
    began: Instant,
    done: Told,
}

enum Job {
    Accept(Accepting),
    Dial(Dialing),
}

/// A job on its way to the thread; a dialed one has its session already.
type Sent = (Job, Option<Box<Session>>);

impl Job {
    fn socket(&self) -> &OwnedFd {
        match self {
            Self::Accept(accepting) => &accepting.socket,
            Self::Dial(dialing) => &dialing.socket,
        }
    }

    fn is_late(&self) -> bool {
        match self {
            Self::Accept(accepting) => accepting.began.elapsed() >= HANDSHAKE_TIME,
            Self::Dial(dialing) => dialing.began.elapsed() >= dialing.wait,
        }
    }
}

/// The way to one thread.
#[derive(Clone)]
pub(in crate::io) struct Handshaker {
    jobs: flume::Sender<Sent>,
    wake: Arc<OwnedFd>,
}

impl Handshaker {
    fn start(name: &str, nice: i32) -> Result<Self, Fault> {
        let cannot = |error: rustix::io::Errno| {
            Fault::new(format!("a thread for TLS handshakes cannot start: {error}"))
        };
        let (jobs, inbox) = flume::bounded(HANDSHAKES_QUEUED_MAX);
        let wake =
            Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(cannot)?);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(cannot)?;
        epoll::add(&poll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)
            .map_err(cannot)?;
        let woken = Arc::clone(&wake);
        let (slots, ready) = (Slab::new(), VecDeque::new());
        let worker = Worker { poll, inbox, slots, running: 0, ready, filling: false };
        thread::start_nice(name, nice, move || worker.run(&woken))?;
        Ok(Self { jobs, wake })
    }

    /// Takes a socket; waits while too many are on their way to the thread.
    pub(in crate::io) async fn accept(&self, accepting: Accepting) {
        drop(self.jobs.send_async((Job::Accept(accepting), None)).await);
        self.wake();
    }

    fn wake(&self) {
        // A counter that is full wakes, too.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// The threads: those for clients, and the one for members.
pub(in crate::io) struct Handshakers {
    clients: Vec<Handshaker>,
    peers: Handshaker,
}

impl Handshakers {
    /// For clients, by turns.
    pub(in crate::io) fn client(&self, turn: usize) -> &Handshaker {
        &self.clients[turn % self.clients.len()]
    }

    pub(in crate::io) fn peers(&self) -> &Handshaker {
        &self.peers
    }
}

/// The threads, which begin with the first who asks.
///
/// # Errors
/// They cannot start.
pub(in crate::io) fn handshakers() -> Result<&'static Handshakers, Fault> {
    static THREADS: OnceLock<Handshakers> = OnceLock::new();
    if let Some(threads) = THREADS.get() {
        return Ok(threads);
    }
    let count = (placement::usable_cores() / 2).clamp(1, HANDSHAKE_THREADS_MAX);
    let clients = (0..count).map(|_| Handshaker::start("handshakes", NICE));
    let clients = clients.collect::<Result<_, _>>()?;
    let peers = Handshaker::start("peer-handshakes", 0)?;
    Ok(THREADS.get_or_init(|| Handshakers { clients, peers }))
}

/// Makes the handshake of a socket that was dialed, within `wait`.
///
/// # Errors
/// The other end is not who it should be, refuses this member or is late, in Go's words.
pub(in crate::io) async fn dial(
    socket: OwnedFd,
    credentials: &TlsCredentials,
    name: ServerName<'static>,
    wait: Duration,
) -> Result<(OwnedFd, Box<Session>), String> {
    let session = Box::new(handshake::connect(credentials.client(), name)?);
    let threads = handshakers().map_err(|fault| fault.to_string())?;
    let (done, outcome) = flume::bounded(1);
    let dialing = Job::Dial(Dialing { socket, wait, began: Instant::now(), done });
    let gone = || "the thread for handshakes is gone".to_owned();
    threads.peers.jobs.send_async((dialing, Some(session))).await.map_err(|_| gone())?;
    threads.peers.wake();
    outcome.recv_async().await.map_err(|_| gone())?
}

enum State {
    /// Not a whole record has come.
    Silent,
    /// One has, and too many handshakes are under way.
    Ready,
    Running(Box<Session>, Instant),
    /// Was refused; the alert is on its way.
    Draining(Instant),
}

struct Slot {
    job: Job,
    state: State,
}

/// The next state of a socket.
enum Verdict {
    Stays,
    /// It is done with, and leaves the thread.
    Leaves(Option<Finished>),
}

enum Finished {
    Plain,
    Session(Box<Session>),
    Failed(String),
}

struct Worker {
    poll: OwnedFd,
    inbox: flume::Receiver<Sent>,
    slots: Slab<Slot>,
    running: usize,
    /// Those that wait for a place, in order.
    ready: VecDeque<usize>,
    /// Places are being filled: what ends meanwhile leaves its place to the same loop.
    filling: bool,
}

impl Worker {
    fn run(mut self, wake: &OwnedFd) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut swept = Instant::now();
        let pause = Timespec { tv_sec: 0, tv_nsec: SWEEP.as_nanos() as i64 };
        loop {
            events.clear();
            // Interrupted, it is as if nothing had come.
            let limit = if self.slots.is_empty() { None } else { Some(&pause) };
            let _ = epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), limit);
            for event in events.iter().copied() {
                match event.data.u64() {
                    WAKE => {
                        let _ = rustix::io::read(wake, &mut [0; 8]);
                    }
                    key => self.advance(key as usize),
                }
            }
            if !self.take_jobs() && self.slots.is_empty() {
                return;
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.sweep();
            }
        }
    }

    /// Takes new sockets. False if no more can come.
    fn take_jobs(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(job) => self.begin(job),
                Err(flume::TryRecvError::Empty) => return true,
                Err(flume::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn begin(&mut self, (job, session): Sent) {
        let state = match session {
            None => State::Silent,
            Some(session) => {
                self.running += 1;
                State::Running(session, Instant::now())
            }
        };
        let key = self.slots.insert(Slot { job, state });
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(key as u64);
        if epoll::add(&self.poll, self.slots[key].job.socket(), data, flags).is_err() {
            return self.leave(key, Some(Finished::Failed("the socket cannot be watched".into())));
        }
        self.advance(key);
    }

    /// Goes on with a socket.
    fn advance(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let verdict = match &mut slot.state {
            State::Silent => self.begin_if_whole(key),
            State::Ready => Verdict::Stays,
            State::Running(session, _) => match handshake::advance(session, slot.job.socket()) {
                Ok(Progress::Waits) => Verdict::Stays,
                Ok(Progress::Done) => {
                    let state = std::mem::replace(&mut slot.state, State::Ready);
                    let State::Running(session, _) = state else { return };
                    self.running -= 1;
                    Verdict::Leaves(Some(Finished::Session(session)))
                }
                Err(Failure::Gone) => Verdict::Leaves(None),
                Err(Failure::Refused(why)) => return self.refuse(key, why),
            },
            State::Draining(_) => match handshake::drain(slot.job.socket()) {
                true => Verdict::Leaves(None),
                false => Verdict::Stays,
            },
        };
        if let Verdict::Leaves(finished) = verdict {
            self.leave(key, finished);
        }
    }

    /// Begins the handshake when the first record is whole, if there is a place for it.
    fn begin_if_whole(&mut self, key: usize) -> Verdict {
        let Job::Accept(accepting) = &self.slots[key].job else { return Verdict::Stays };
        match handshake::peek(&accepting.socket) {
            Begin::Unknown => Verdict::Stays,
            Begin::Ended => Verdict::Leaves(None),
            Begin::Other if accepting.rules.allows_plain => Verdict::Leaves(Some(Finished::Plain)),
            Begin::Other => Verdict::Leaves(Some(Finished::Failed(
                "tls: first record does not look like a TLS handshake".to_owned(),
            ))),
            Begin::Tls if self.running >= HANDSHAKES_MAX && !self.make_room() => {
                self.slots[key].state = State::Ready;
                self.ready.push_back(key);
                Verdict::Stays
            }
            Begin::Tls => self.start(key),
        }
    }

    fn start(&mut self, key: usize) -> Verdict {
        let Job::Accept(accepting) = &self.slots[key].job else { return Verdict::Stays };
        let Some(config) = accepting.rules.credentials.server() else {
            return Verdict::Leaves(None);
        };
        match handshake::accept(config) {
            Ok(session) => {
                self.running += 1;
                self.slots[key].state = State::Running(Box::new(session), Instant::now());
                self.advance(key);
                Verdict::Stays
            }
            Err(why) => Verdict::Leaves(Some(Finished::Failed(why))),
        }
    }

    /// Ends the handshake that has waited longest, if it has waited long enough.
    fn make_room(&mut self) -> bool {
        let running = self.slots.iter().filter_map(|(key, slot)| match &slot.state {
            State::Running(_, since) => Some((since.elapsed(), key)),
            State::Silent | State::Ready | State::Draining(_) => None,
        });
        match running.max() {
            Some((waited, key)) if waited >= GIVE_WAY => {
                self.leave(key, Some(Finished::Failed("too many handshakes are under way".into())));
                true
            }
            _ => false,
        }
    }

    /// Says that a socket is refused, and waits until the alert was read.
    fn refuse(&mut self, key: usize, why: String) {
        let slot = &mut self.slots[key];
        self.running -= 1;
        slot.state = State::Draining(Instant::now());
        match &slot.job {
            Job::Accept(accepting) => say_rejected(accepting, None, &why),
            Job::Dial(dialing) => drop(dialing.done.try_send(Err(why))),
        }
        handshake::end_sending(slot.job.socket());
        match handshake::drain(slot.job.socket()) {
            true => self.leave(key, None),
            false => self.fill(),
        }
    }

    /// Takes a socket out, and hands it on if it is done.
    fn leave(&mut self, key: usize, finished: Option<Finished>) {
        let Slot { job, state } = self.slots.remove(key);
        if matches!(state, State::Running(..)) {
            self.running -= 1;
        }
        let _ = epoll::delete(&self.poll, job.socket());
        match (job, finished) {
            (Job::Accept(_), None) => (),
            // Refused, it was told why.
            (Job::Dial(dialing), None) => drop(dialing.done.try_send(Err("EOF".to_owned()))),
            (Job::Accept(accepting), Some(Finished::Failed(why))) => {
                say_rejected(&accepting, None, &why);
            }
            (Job::Accept(accepting), Some(Finished::Plain)) => {
                (accepting.done)(Outcome::Plain(accepting.socket));
            }
            (Job::Accept(accepting), Some(Finished::Session(session))) => {
                let_in(accepting, session)
            }
            (Job::Dial(dialing), Some(Finished::Session(session))) => {
                drop(dialing.done.try_send(Ok((dialing.socket, session))));
            }
            (Job::Dial(dialing), Some(Finished::Failed(why))) => {
                drop(dialing.done.try_send(Err(why)));
            }
            (Job::Dial(_), Some(Finished::Plain)) => (),
        }
        self.fill();
    }

    /// Begins those that wait for a place, as far as there are places.
    fn fill(&mut self) {
        if std::mem::replace(&mut self.filling, true) {
            return;
        }
        while self.running < HANDSHAKES_MAX
            && let Some(next) = self.ready.pop_front()
        {
            let is_ready = |slot: &Slot| matches!(slot.state, State::Ready);
            if self.slots.get(next).is_some_and(is_ready)
                && let Verdict::Leaves(finished) = self.start(next)
            {
                self.leave(next, finished);
            }
        }
        self.filling = false;
    }

    /// Closes what is late.
    fn sweep(&mut self) {
        let is_over = |slot: &Slot| match &slot.state {
            State::Draining(since) => since.elapsed() >= DRAIN_TIME,
            State::Silent | State::Ready | State::Running(..) => slot.job.is_late(),
        };
        let over: Vec<_> =
            self.slots.iter().filter(|(_, slot)| is_over(slot)).map(|(key, _)| key).collect();
        for key in over {
            let Some(slot) = self.slots.get(key) else { continue };
            let finished = match &slot.state {
                State::Draining(_) => None,
                State::Silent | State::Ready | State::Running(..) => {
                    Some(Finished::Failed(late(slot.job.socket())))
                }
            };
            self.leave(key, finished);
        }
    }
}
