//! Requests of clients: arrival at a member, waiting, and answers.

use std::task::{Poll, Waker};

use crate::replica::Delivery;
use crate::sim::clients::{Answer, takes_space};
use crate::sim::cluster::{Cluster, Event};
use crate::sim::member::EXECUTORS;
use crate::sim::plan::{ClientOp, MS};
use crate::types::{MemberId, Refusal};

/// Timeout of a request.
const REQUEST_TIMEOUT_MS: u64 = 7000;

impl Cluster {
    /// Answers for the clients of one executor.
    pub(super) fn deliver_to(&mut self, id: MemberId, executor: usize, delivery: Delivery) {
        let requests: Vec<_> = delivery.replies.iter().map(|(request, _)| *request).collect();
        let batches = delivery.reads.clone();
        self.live(id).pending[executor].deliver(delivery);
        requests.into_iter().for_each(|request| self.take_reply(id, executor, request));
        batches.into_iter().for_each(|batch| self.take_reads(id, executor, batch));
    }

    /// A client takes the answer to its request, if there is one.
    fn take_reply(&mut self, id: MemberId, executor: usize, request: u64) {
        let live = self.live(id);
        let Some(number) = live.waiting.get(&request).copied() else { return };
        let pending = &mut live.pending[executor];
        let Poll::Ready(reply) = pending.poll_reply(request, Waker::noop()) else { return };
        pending.release(request);
        live.waiting.remove(&request);
        match reply {
            // The request may still be applied.
            Err(Refusal::Timeout) => self.clients.give_up(number),
            reply => self.answer(id, number, Answer::Applied(reply)),
        }
    }

    /// Clients read, if their batch has its read index, or get the error that there is none.
    fn take_reads(&mut self, id: MemberId, executor: usize, batch: u64) {
        let live = self.live(id);
        let pending = &mut live.pending[executor];
        let Poll::Ready(ready) = pending.poll_read(batch, Waker::noop()) else { return };
        for number in live.reading.remove(&(executor, batch)).unwrap_or_default() {
            self.live(id).pending[executor].leave_read(batch);
            match ready {
                Ok(()) => self.read(id, number),
                Err(_) => self.answer(id, number, Answer::Failed),
            }
        }
    }

    /// Answers clients that have waited too long.
    pub(super) fn sweep(&mut self, id: MemberId) {
        let (now_ms, timeout_ms) = (self.now_ms(id), REQUEST_TIMEOUT_MS);
        let live = self.live(id);
        for pending in &mut live.pending {
            pending.sweep(now_ms, timeout_ms, |_| Refusal::Timeout);
        }
        let requests: Vec<_> = live.waiting.keys().copied().collect();
        let batches: Vec<_> = live.reading.keys().copied().collect();
        for request in requests {
            self.take_reply(id, (request >> 24) as usize & 0xff, request);
        }
        batches.into_iter().for_each(|(executor, batch)| self.take_reads(id, executor, batch));
    }

    /// A client's request arrives at its member.
    pub(in crate::sim) fn ask(&mut self, number: usize) {
        let operation = self.clients.operation(number);
        let (id, now) = (operation.member, self.now);
        if self.clients.ask(number, now) {
            self.say(|| format!("request {number} to {id}: {:?}", operation.ask));
            self.after(operation.timeout, Event::Timeout(number));
        }
        let member = self.member(id);
        if member.paused_until > now {
            let until = member.paused_until;
            return self.at(until, Event::ClientOp(number));
        }
        let Some(live) = member.live.as_mut() else {
            return self.answer(id, number, Answer::Failed);
        };
        if live.replica.lacks_space() && takes_space(operation.ask) {
            return self.answer(id, number, Answer::Failed);
        }
        let renews = matches!(operation.ask, ClientOp::KeepAlive { .. });
        let here = matches!(operation.ask, ClientOp::GetSerializable { .. });
        if renews && live.leads.is_none() {
            return self.pass_on(id, number);
        }
        if here {
            return self.read(id, number);
        }
        let executor = number % EXECUTORS;
        let pending = &mut live.pending[executor];
        if operation.ask.is_read() {
            let batch = pending.join_read();
            live.reading.entry((executor, batch)).or_default().push(number);
            return self.wake(id);
        }
        let request = pending.acquire();
        let payload = self.clients.payload(number, request).expect("a write has a payload");
        let live = self.live(id);
        live.pending[executor].propose(request, payload);
        live.waiting.insert(request, number);
        self.wake(id);
    }

    /// A follower forwards a renewal to the member that it knows as leader.
    fn pass_on(&mut self, id: MemberId, number: usize) {
        let leader = self.live(id).replica.role().leader.filter(|leader| *leader != id);
        let Some(leader) = leader else { return self.answer(id, number, Answer::Failed) };
        self.clients.move_to(number, leader);
        let time = self.member(id).random.skewed(100, 5 * MS);
        self.after(time, Event::ClientOp(number));
    }

    /// Answers from this member's published state.
    fn read(&mut self, id: MemberId, number: usize) {
        let ask = self.clients.operation(number).ask;
        let answer = if let ClientOp::KeepAlive { lease } = ask {
            let (keeper, now_ms) = self.keeper(id);
            let renewed = keeper.renew(lease, now_ms);
            renewed.map_or(Answer::Failed, Answer::Renewed)
        } else {
            let range = self.clients.range(number);
            let read = &self.live(id).read;
            let response = read.range(&range).expect("the newest revision can be read");
            Answer::Read(response, read.revision)
        };
        self.answer(id, number, answer);
    }

    fn answer(&mut self, id: MemberId, number: usize, answer: Answer) {
        let time = self.member(id).random.skewed(50, 5 * MS);
        self.after(time, Event::Answer(number, Box::new(answer)));
    }
}
