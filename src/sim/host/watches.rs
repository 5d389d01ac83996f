//! Watches of clients, and the hub that serves them.

use std::task::{Poll, Waker};

use crate::mvcc;
use crate::sim::cluster::{Cluster, Event, MemberEvent};
use crate::sim::plan::MS;
use crate::sim::watchers::Next;
use crate::types::MemberId;
use crate::watch::{self, HistoryRead, Taken};

impl Cluster {
    pub(super) fn hub_soon(&mut self, id: MemberId) {
        let member = self.member(id);
        let time = member.random.skewed(10, 20 * MS);
        let Some(live) = member.live.as_mut() else { return };
        if !std::mem::replace(&mut live.hub_due, true) {
            self.schedule(id, time, MemberEvent::Hub);
        }
    }

    /// The hub handles a batch, requested history, or the loss of a batch.
    pub(super) fn hub_turn(&mut self, id: MemberId) {
        let history_first = self.member(id).random.chance(500);
        let live = self.live(id);
        live.hub_due = false;
        let published = live.published();
        let mut read = if history_first { live.streams.take_read() } else { None };
        let batch = if read.is_some() { None } else { live.batches.pop_front() };
        read = read.or_else(|| if batch.is_some() { None } else { live.streams.take_read() });
        let input = if let Some((events, revision)) = batch {
            watch::Input::Events { events, revision }
        } else if let Some(HistoryRead { from, revisions_max, bytes_max }) = read {
            let history = live.read.history(from, revisions_max, bytes_max);
            let history = history.unwrap_or(mvcc::History { events: Vec::new(), next: from });
            let mvcc::History { events, next } = history;
            watch::Input::History(watch::History { from, events, next, published })
        } else if std::mem::take(&mut live.missed) {
            watch::Input::Resync(published)
        } else {
            return;
        };
        live.streams.on(input);
        self.watched(id);
        self.hub_soon(id);
    }

    /// After a call of the streams: clients take their responses, and the hub reads history if it requested some.
    pub(in crate::sim) fn watched(&mut self, id: MemberId) {
        let live = self.live(id);
        drop(live.streams.take_wakers());
        let wants_read = live.streams.poll_read(Waker::noop()).is_ready();
        let waiting = live.watching.iter().filter(|(stream, _)| live.streams.waiting(**stream) > 0);
        let clients: Vec<_> = waiting.map(|(_, client)| *client).collect();
        clients.into_iter().for_each(|client| self.take_soon(client));
        if wants_read {
            self.hub_soon(id);
        }
    }

    fn take_soon(&mut self, client: usize) {
        let slowest = if self.is_healed() { 2 * MS } else { self.watchers[client].watch.slowness };
        let time = self.random.skewed(100, slowest);
        if !std::mem::replace(&mut self.watchers[client].taking, true) {
            self.after(time, Event::Take(client));
        }
    }

    /// A client creates its watch, or creates it again.
    pub(in crate::sim) fn watch(&mut self, client: usize) {
        if self.watchers[client].at.is_some() {
            return;
        }
        let id = self.random.between(1, self.members.len() as u64);
        let (bug, now) = (self.bug, self.now);
        if self.member(id).live.is_none() || self.member(id).paused_until > now {
            return self.after(200 * MS, Event::Watch(client));
        }
        let request = self.watchers[client].create(bug, &self.checks);
        let live = self.live(id);
        let stream = live.streams.open(false);
        live.watching.insert(stream, client);
        let (boot, published) = (live.boot, live.published());
        self.watchers[client].at = Some((id, boot, stream));
        self.say(|| format!("client {client} watches at {id} from {}", request.start_revision));
        self.live(id).streams.on(watch::Input::Create { stream, request, published });
        self.watched(id);
    }

    /// A client reads one answer.
    pub(in crate::sim) fn take(&mut self, client: usize) {
        self.watchers[client].taking = false;
        let Some((id, boot, number)) = self.watchers[client].at else { return };
        let (now, healed) = (self.now, self.is_healed());
        let member = self.member(id);
        if member.paused_until > now {
            return self.take_soon(client);
        }
        let Some(live) = member.live.as_mut().filter(|live| live.boot == boot) else { return };
        let polled = live.streams.poll_next(number, Waker::noop());
        let more = live.streams.waiting(number) > 0;
        let Poll::Ready(Ok(Taken { response, .. })) = polled else {
            if more {
                // Enough was taken at once.
                self.take_soon(client);
            }
            return;
        };
        let published = live.published();
        self.watched(id);
        let next = self.watchers[client].take(&response, &self.checks);
        let leaves = !healed && self.random.chance(20);
        if leaves || next == Next::Again {
            let live = self.live(id);
            live.streams.close(number);
            live.watching.remove(&number);
            self.watched(id);
            self.watchers[client].at = None;
            return self.after(10 * MS, Event::Watch(client));
        }
        if self.random.chance(100) {
            self.live(id).streams.on(watch::Input::Progress { stream: number, published });
            self.watched(id);
        }
        if more {
            self.take_soon(client);
        }
    }
}
