//! One connection's share of the load.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::schedule::NextOperation;
use super::{Shared, Workload};
use crate::clock::{self, Alarm};
use crate::http2::{Event, Failure};
use crate::paths;
use crate::report::Recorder;
use crate::wire::{self, Channel};

/// Time for which a lost connection is dialed again, and the pause between attempts.
const REDIAL_FOR: Duration = Duration::from_secs(10);
const REDIAL_EVERY: Duration = Duration::from_millis(100);

/// State of a client.
#[derive(Clone, Debug)]
struct Slot {
    intended: Instant,
    /// The stream of its present request.
    stream: u32,
    /// Error that the workload found in the response.
    wrong: Option<String>,
}

/// A request that waits for the server to allow one more stream.
struct Held {
    slot: usize,
    method: &'static str,
    body: Vec<u8>,
}

pub(super) struct Drive {
    shared: Arc<Shared>,
    recorders: Rc<RefCell<Vec<Recorder>>>,
    number: usize,
    start: Instant,
    /// Seconds of 1970 at the start, for samples.
    start_unix: Duration,
    slots: Vec<Slot>,
    free: Vec<usize>,
    held: VecDeque<Held>,
    taken: u64,
    finished: bool,
    body: Vec<u8>,
    ended: Vec<(usize, Result<(), Failure>)>,
    /// Clients whose response is long enough.
    enough: Vec<usize>,
}

impl Drive {
    /// The drive of connection `number`, after the start was set.
    pub(super) fn new(
        shared: Arc<Shared>,
        recorders: Rc<RefCell<Vec<Recorder>>>,
        number: usize,
    ) -> Self {
        let (clients, conns) = (shared.plan.clients, shared.plan.conns);
        let clients = clients / conns + usize::from(number < clients % conns);
        let start = *shared.start.get_or_init(clock::now);
        Self {
            recorders,
            number,
            start,
            start_unix: clock::unix().saturating_sub(clock::now().duration_since(start)),
            slots: vec![Slot { intended: start, stream: 0, wrong: None }; clients],
            free: (0..clients).rev().collect(),
            held: VecDeque::new(),
            taken: 0,
            finished: false,
            body: Vec::new(),
            ended: Vec::new(),
            enough: Vec::new(),
            shared,
        }
    }

    /// Runs until no operation is due or in flight.
    pub(super) async fn run<W: Workload>(
        mut self,
        mut channel: Channel,
        mut workload: W,
    ) -> io::Result<W> {
        let alarm = Alarm::new()?;
        let mut dials = 0;
        loop {
            let due = self.fill(&mut channel, &mut workload);
            if self.finished && self.free.len() == self.slots.len() {
                return Ok(workload);
            }
            if let Some(at) = due {
                alarm.set(at)?;
            }
            let turned = self.turn(&mut channel, &mut workload, due.map(|_| &alarm)).await;
            if let Err(error) = &turned {
                let ended = &mut self.ended;
                let why = wire::lost(error);
                channel.connection.fail(&why, &mut |event| {
                    if let Event::End { token, outcome } = event {
                        ended.push((token as usize, outcome));
                    }
                });
            }
            self.cancel(&mut channel);
            self.settle(&mut channel, &mut workload);
            if channel.connection.is_leaving() && channel.connection.streams() == 0 {
                dials += 1;
                let Some(next) = self.redial(dials).await else {
                    self.abandon();
                    return Ok(workload);
                };
                channel = next;
            }
        }
    }

    /// Gives free clients the operations that are due. If none is due, returns the time of the next one.
    fn fill<W: Workload>(&mut self, channel: &mut Channel, workload: &mut W) -> Option<Instant> {
        while channel.connection.can_open() {
            let Some(held) = self.held.pop_front() else { break };
            self.slots[held.slot].stream = start(channel, held.slot, held.method, &held.body);
        }
        while !self.finished
            && let Some(&slot) = self.free.last()
        {
            let now = clock::now();
            let conn = self.number as u64;
            match self.shared.schedule.take(conn, self.taken, self.start, now) {
                NextOperation::Wait(at) => return Some(at),
                NextOperation::Finished => self.finished = true,
                NextOperation::Send { index, intended } => {
                    self.free.pop();
                    self.taken += 1;
                    self.slots[slot] = Slot { intended, stream: 0, wrong: None };
                    self.body.clear();
                    let method = workload.begin(slot, index, &mut self.body);
                    self.open(channel, slot, method);
                }
            }
        }
        None
    }

    fn open(&mut self, channel: &mut Channel, slot: usize, method: &'static str) {
        if channel.connection.can_open() {
            self.slots[slot].stream = start(channel, slot, method, &self.body);
        } else {
            self.held.push_back(Held { slot, method, body: self.body.clone() });
        }
    }

    /// Sends and receives once, or waits until the alarm.
    async fn turn<W: Workload>(
        &mut self,
        channel: &mut Channel,
        workload: &mut W,
        alarm: Option<&Alarm>,
    ) -> io::Result<()> {
        let Self { slots, ended, enough, .. } = self;
        let mut on = |event: Event<'_>| match event {
            Event::Message { token, body } => {
                let slot = token as usize;
                if let Err(wrong) = workload.message(slot, body) {
                    slots[slot].wrong = Some(wrong);
                }
                if workload.is_enough(slot) {
                    enough.push(slot);
                }
            }
            Event::End { token, outcome } => ended.push((token as usize, outcome)),
        };
        poll_fn(|context| {
            if let Poll::Ready(turned) = channel.poll_turn(context, &mut on) {
                return Poll::Ready(turned);
            }
            alarm.map_or(Poll::Pending, |alarm| alarm.poll(context))
        })
        .await
    }

    /// Cancels the streams whose responses are long enough, unless the server has ended them.
    fn cancel(&mut self, channel: &mut Channel) {
        for slot in self.enough.drain(..) {
            if channel.connection.cancel(self.slots[slot].stream) {
                self.ended.push((slot, Ok(())));
            }
        }
    }

    /// Records finished operations, or continues those that have another request.
    fn settle<W: Workload>(&mut self, channel: &mut Channel, workload: &mut W) {
        if self.ended.is_empty() {
            return;
        }
        let now = clock::now();
        let mut ended = std::mem::take(&mut self.ended);
        let mut count = 0;
        for (slot, outcome) in ended.drain(..) {
            let wrong = self.slots[slot].wrong.take();
            self.body.clear();
            let next = match (outcome, wrong) {
                (Err(failure), _) => Err(failure.to_string()),
                (Ok(()), Some(wrong)) => Err(wrong),
                (Ok(()), None) => workload.next(slot, &mut self.body),
            };
            if let Ok(Some(method)) = next {
                self.open(channel, slot, method);
                continue;
            }
            self.free.push(slot);
            count += 1;
            self.record(workload.kind(slot), slot, now, next.map(|_| ()));
        }
        self.ended = ended;
        self.shared.done.fetch_add(count, Ordering::Relaxed);
    }

    fn record(&self, kind: usize, slot: usize, now: Instant, outcome: Result<(), String>) {
        let mut recorders = self.recorders.borrow_mut();
        let recorder = &mut recorders[kind];
        let intended = self.slots[slot].intended;
        match outcome {
            Ok(()) => {
                let since = self.start_unix + intended.saturating_duration_since(self.start);
                recorder.record(clock::nanos(intended, now), since.as_secs());
            }
            Err(what) => recorder.error(what, 1),
        }
    }

    /// A new connection in place of a lost one, to the endpoints in turn.
    async fn redial(&self, attempt: usize) -> Option<Channel> {
        if self.finished && self.held.is_empty() && self.free.len() == self.slots.len() {
            return None;
        }
        let until = clock::now() + REDIAL_FOR;
        let mut number = self.number + attempt;
        while clock::now() < until {
            if let Ok(channel) = self.shared.dialer.dial(number).await {
                return Some(channel);
            }
            number += 1;
            tokio::time::sleep(REDIAL_EVERY).await;
        }
        None
    }

    /// No connection can be made: the requests that were held back count as failed.
    fn abandon(&mut self) {
        let mut recorders = self.recorders.borrow_mut();
        recorders[0].error("connection lost: it cannot be made again", self.held.len() as u64);
    }
}

/// Opens a call. A watch is one request, too, but a server ends it when our half is closed.
fn start(channel: &mut Channel, slot: usize, method: &'static str, body: &[u8]) -> u32 {
    channel.connection.open(slot as u64, method, body, method != paths::WATCH)
}
