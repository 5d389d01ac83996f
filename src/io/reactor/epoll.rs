//! An executor on epoll.
//!
//! ```text
//!  tasks woken here ───────────────► ready (the member's first) ──► run a few ─┐
//!  tasks woken by other threads ─► woken, and the bell if it sleeps ─┘  ▲      │
//!                                                                       └─ epoll: take events, wake their tasks
//! ```
//!
//! Sockets are registered once, for both directions and edge-triggered: an operation is tried first, and only one that
//! would block waits for the next edge. A round runs [`TASKS_MAX`] tasks at most before it takes events, and takes
//! [`EVENTS_MAX`] of those, so that neither ten thousand ready sockets nor tasks that wake each other keep the other
//! side waiting. A task is never interrupted: what computes for long yields, or runs in a [`crate::io::Pool`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use async_task::Runnable;
use concurrent_queue::ConcurrentQueue;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use slab::Slab;

use super::{Place, Rank};
use crate::io::thread;
use crate::types::Fault;

/// Tasks that run until events are taken again.
const TASKS_MAX: usize = 32;
/// Tasks of the member that run until one of a client does, if there are any.
const MEMBER_TASKS_MAX: usize = 8;
/// Events that are taken at once.
const EVENTS_MAX: usize = 256;
/// The bell's number among those of sockets.
const BELL: u64 = u64::MAX;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The part of an executor that other threads see.
struct Shared {
    /// Tasks that other threads woke. Bounded by the number of tasks: each is in one queue at most.
    woken: ConcurrentQueue<(Rank, Runnable)>,
    /// It sleeps, or is about to: whoever wakes a task rings.
    sleeps: AtomicBool,
    bell: OwnedFd,
}

impl Shared {
    fn wake(&self, rank: Rank, task: Runnable) {
        // Refused only by a queue that is closed, which this one never is.
        drop(self.woken.push((rank, task)));
        // Either this sees that it sleeps, or it sees the task before it does.
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::Relaxed) {
            // It fails only when the counter is full, and then it rings all the same.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }
}

/// Tasks that are ready, by their rank.
#[derive(Default)]
struct Ready {
    member: VecDeque<Runnable>,
    client: VecDeque<Runnable>,
    /// Tasks of the member that ran since one of a client did.
    ran: usize,
}

impl Ready {
    fn push(&mut self, rank: Rank, task: Runnable) {
        match rank {
            Rank::Member => self.member.push_back(task),
            Rank::Client => self.client.push_back(task),
        }
    }

    fn pop(&mut self) -> Option<Runnable> {
        let is_clients_turn = self.ran >= MEMBER_TASKS_MAX && !self.client.is_empty();
        match self.member.pop_front_if(|_| !is_clients_turn) {
            Some(task) => {
                self.ran += 1;
                Some(task)
            }
            None => {
                self.ran = 0;
                self.client.pop_front()
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.member.is_empty() && self.client.is_empty()
    }
}

/// The executor of this thread.
struct Local {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    ready: RefCell<Ready>,
    sources: RefCell<Slab<Rc<Source>>>,
    /// Wakers of all tasks that have not ended.
    tasks: RefCell<Slab<Waker>>,
}

thread_local! {
    static HERE: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

/// The executor of this thread; `None` if it has none, or is going down.
fn here() -> Option<Rc<Local>> {
    HERE.try_with(|here| here.borrow().clone()).ok().flatten()
}

/// True if this thread runs such an executor.
pub(super) fn is_here() -> bool {
    HERE.try_with(|here| here.borrow().is_some()).unwrap_or(false)
}

/// Starts an executor on a thread of its own. Waits until it has begun.
pub(super) fn start<F>(
    place: Place,
    start: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<Result<(), Fault>>, Fault>
where
    F: Future<Output = Result<(), Fault>> + 'static,
{
    let (begun, has_begun) = flume::bounded(1);
    let running = thread::start(&place.thread_name(), move || {
        let made = place.bind().and_then(|()| Local::new().map_err(|error| place.cannot(&error)));
        match made {
            Ok(local) => {
                let _ = begun.send(Ok(()));
                Rc::new(local).run(start)
            }
            Err(fault) => {
                let _ = begun.send(Err(fault));
                Ok(())
            }
        }
    })?;
    has_begun.recv().map_err(|_| place.cannot(&"its thread ended"))??;
    Ok(running)
}

/// Runs a task on the executor of this thread, in the background.
pub(super) fn spawn(rank: Rank, task: impl Future<Output = ()> + 'static) {
    // Asked for where there is one: `is_here` is looked at before.
    if let Some(local) = here() {
        local.spawn(rank, task);
    }
}

/// The place of a task among those that have not ended.
struct Alive(usize);

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(local) = here() {
            let waker = local.tasks.borrow_mut().try_remove(self.0);
            drop(waker);
        }
    }
}

impl Local {
    fn new() -> rustix::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Never read: each write to it is an edge.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), edge)?;
        let shared =
            Shared { woken: ConcurrentQueue::unbounded(), sleeps: AtomicBool::new(false), bell };
        Ok(Self {
            shared: Arc::new(shared),
            epoll,
            ready: RefCell::default(),
            sources: RefCell::default(),
            tasks: RefCell::default(),
        })
    }

    fn spawn(&self, rank: Rank, task: impl Future<Output = ()> + 'static) {
        let (mut tasks, shared) = (self.tasks.borrow_mut(), Arc::clone(&self.shared));
        let entry = tasks.vacant_entry();
        let alive = Alive(entry.key());
        let task = async move {
            let _alive = alive;
            task.await;
        };
        let schedule = move |woken| {
            let own = HERE.try_with(|here| {
                let here = here.borrow();
                here.as_ref().filter(|local| Arc::ptr_eq(&local.shared, &shared)).cloned()
            });
            match own.ok().flatten() {
                Some(local) => local.ready.borrow_mut().push(rank, woken),
                None => shared.wake(rank, woken),
            }
        };
        let (runnable, handle) = async_task::spawn_local(task, schedule);
        entry.insert(runnable.waker());
        drop(tasks);
        handle.detach();
        runnable.schedule();
    }

    /// Runs tasks until the one that `start` makes has ended; drops those that are left.
    fn run<F>(self: Rc<Self>, start: impl FnOnce() -> F) -> Result<(), Fault>
    where
        F: Future<Output = Result<(), Fault>> + 'static,
    {
        HERE.set(Some(Rc::clone(&self)));
        let ended = Rc::new(Cell::new(None));
        let (end, main) = (Rc::clone(&ended), start());
        self.spawn(Rank::Member, async move { end.set(Some(main.await)) });
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let outcome = loop {
            self.run_some();
            if let Some(outcome) = ended.take() {
                break outcome;
            }
            if let Err(error) = self.take_events(&mut events) {
                break Err(Fault::new(format!("epoll fails: {error}")));
            }
        };
        self.end();
        outcome
    }

    /// Runs a few of the tasks that are ready.
    fn run_some(&self) {
        for _ in 0..TASKS_MAX {
            self.take_woken();
            let next = self.ready.borrow_mut().pop();
            let Some(task) = next else { return };
            task.run();
        }
    }

    fn take_woken(&self) {
        while let Ok((rank, task)) = self.shared.woken.pop() {
            self.ready.borrow_mut().push(rank, task);
        }
    }

    /// Takes events, and waits for some if no task is ready.
    fn take_events(&self, events: &mut Vec<epoll::Event>) -> rustix::io::Result<()> {
        let mut timeout = Some(&AT_ONCE);
        if self.ready.borrow().is_empty() {
            self.shared.sleeps.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.shared.woken.is_empty() {
                timeout = None;
            }
        }
        events.clear();
        let waited = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout);
        self.shared.sleeps.store(false, Ordering::Relaxed);
        match waited {
            Ok(_) | Err(Errno::INTR) => (),
            Err(error) => return Err(error),
        }
        for event in events.drain(..) {
            let (data, flags) = (event.data, event.flags);
            // Out of the slab first: a waker may be the last reference to a task with sockets of its own.
            let source = self.sources.borrow().get(data.u64() as usize).cloned();
            if let Some(source) = source {
                source.note(flags);
            }
        }
        Ok(())
    }

    /// Drops all tasks, those included that begin meanwhile.
    fn end(&self) {
        while !self.tasks.borrow().is_empty() {
            let wakers: Vec<Waker> =
                self.tasks.borrow().iter().map(|(_, waker)| waker.clone()).collect();
            wakers.into_iter().for_each(Waker::wake);
            self.take_woken();
            // Another thread may be about to hand in a task that it woke: then this goes round once more.
            let ready = self.ready.take();
            drop(ready);
            std::thread::yield_now();
        }
        HERE.set(None);
    }
}

/// Readiness of a socket, and the wakers of the tasks that wait for it.
#[derive(Default)]
struct Source {
    read: Direction,
    write: Direction,
    /// The other end has closed, or the connection is broken: no further edge will come.
    ended: Cell<bool>,
}

#[derive(Default)]
struct Direction {
    /// It would block: nothing is tried until the next edge.
    blocks: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Direction {
    fn open(&self) {
        self.blocks.set(false);
        let waker = self.waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn wait(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }
}

impl Source {
    fn note(&self, flags: epoll::EventFlags) {
        use epoll::EventFlags as Flags;
        let broken = Flags::HUP | Flags::ERR;
        if flags.intersects(broken | Flags::RDHUP) {
            self.ended.set(true);
        }
        if flags.intersects(Flags::IN | Flags::RDHUP | broken) {
            self.read.open();
        }
        if flags.intersects(Flags::OUT | broken) {
            self.write.open();
        }
    }
}

/// A descriptor that does not block, known to the executor of this thread.
pub(in crate::io) struct Socket {
    fd: OwnedFd,
    key: usize,
    source: Rc<Source>,
}

/// Which way.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Read,
    Write,
}

impl Socket {
    /// Registers a descriptor that does not block.
    ///
    /// # Errors
    /// The kernel has no room for it.
    pub(super) fn new(fd: OwnedFd) -> std::io::Result<Self> {
        use epoll::EventFlags as Flags;
        let local = here().ok_or(std::io::ErrorKind::NotConnected)?;
        let source = Rc::<Source>::default();
        let key = local.sources.borrow_mut().insert(Rc::clone(&source));
        let socket = Self { fd, key, source };
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        epoll::add(&local.epoll, &socket.fd, epoll::EventData::new_u64(key as u64), flags)?;
        Ok(socket)
    }

    /// Tries an operation, which gives a number of bytes and is partly done if it is less than `room`: then there is no
    /// more for now.
    pub(super) fn poll(
        &self,
        context: &Context<'_>,
        way: Way,
        room: usize,
        mut attempt: impl FnMut(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<std::io::Result<usize>> {
        let direction = self.direction(way);
        while !direction.blocks.get() {
            match attempt(&self.fd) {
                Ok(count) => {
                    // An end has no edge of its own after the one that told of it.
                    direction.blocks.set(0 < count && count < room && !self.source.ended.get());
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::INTR) => (),
                Err(Errno::WOULDBLOCK) => direction.blocks.set(true),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        direction.wait(context);
        Poll::Pending
    }

    /// Ready after the next edge.
    pub(super) async fn next_edge(&self, way: Way) {
        let direction = self.direction(way);
        direction.blocks.set(true);
        std::future::poll_fn(|context| match direction.blocks.get() {
            true => {
                direction.wait(context);
                Poll::Pending
            }
            false => Poll::Ready(()),
        })
        .await;
    }

    fn direction(&self, way: Way) -> &Direction {
        match way {
            Way::Read => &self.source.read,
            Way::Write => &self.source.write,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(local) = here() else { return };
        // Closing alone would do, unless something else holds the same descriptor.
        let _ = epoll::delete(&local.epoll, &self.fd);
        drop(local.sources.borrow_mut().try_remove(self.key));
    }
}
