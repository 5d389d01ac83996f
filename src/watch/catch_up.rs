//! Reads of history: for unsynced watchers, and for the hub itself when batches are missing.

use std::ops::Bound;

use super::delivery::DeliveryScope;
use super::{History, Hub, Output, Side, StreamId, WatcherId};

impl Hub {
    /// Requests the next read, unless one is in progress or none is needed.
    pub(super) fn read_on(&mut self, out: &mut Vec<Output>) {
        if self.reading {
            return;
        }
        let after = (Bound::Excluded((self.turn, WatcherId::MAX)), Bound::Unbounded);
        let position = self.queue.range(after).next().or_else(|| self.queue.first());
        let position = position.map(|(position, _)| *position);
        // Alternates with the watchers: neither waits until the other has finished.
        self.read_for_hub = self.is_missing_some() && !(self.read_for_hub && position.is_some());
        let from = if self.read_for_hub { Some(self.revision + 1) } else { position };
        let Some(from) = from else { return };
        self.reading = true;
        out.push(Output::ReadHistory {
            from,
            revisions_max: self.config.read_revisions_max,
            bytes_max: self.config.read_bytes_max,
        });
    }

    /// Delivers the events of a read to all watchers whose position it covers.
    pub(super) fn history(&mut self, history: &History, out: &mut Vec<Output>) {
        self.reading = false;
        let (from, next) = (history.from, history.next);
        if from < history.published.compacted {
            self.cancel_compacted(history.published.compacted, out);
            return;
        }
        if !self.read_for_hub {
            self.turn = next;
        }
        self.serve_queue(history, out);
        if self.is_missing_some() && (from..next).contains(&(self.revision + 1)) {
            self.advance(&history.events, next - 1, out);
        }
    }

    fn is_missing_some(&self) -> bool {
        self.known > self.revision && !self.watchers.is_empty()
    }

    fn serve_queue(&mut self, history: &History, out: &mut Vec<Output>) {
        let (from, next) = (history.from, history.next);
        let served: Vec<_> = self.queue.range((from, 0)..(next, 0)).copied().collect();
        let stuck = self.deliver(&history.events, DeliveryScope::Read { from, next }, out);
        // These wait for their stream, at the position that delivery gave them.
        for id in stuck {
            self.watchers[id as usize].queued = false;
        }
        for (position, id) in served {
            self.queue.remove(&(position, id));
            let watcher = &mut self.watchers[id as usize];
            if !std::mem::replace(&mut watcher.queued, false) {
                continue;
            }
            watcher.next = next;
            if next > self.revision {
                self.change_side(id, Side::Synced);
            } else {
                self.enqueue(id);
            }
        }
    }

    /// Moves a watcher to the other side of its group.
    pub(super) fn change_side(&mut self, id: WatcherId, side: Side) {
        let watcher = &mut self.watchers[id as usize];
        let (group, old, position) = (watcher.group, watcher.side, watcher.position);
        assert_ne!(old, side, "watcher {id} changes to the side it is on");
        watcher.side = side;
        watcher.position = self.index.join(group, side, id);
        let stream = watcher.stream;
        if let Some(moved) = self.index.leave(group, old, position) {
            self.watchers[moved as usize].position = position;
        }
        self.count_side(stream, side);
        if side == Side::Unsynced {
            self.enqueue(id);
        }
    }

    fn count_side(&mut self, stream: StreamId, side: Side) {
        let change: isize = match side {
            Side::Unsynced => 1,
            Side::Synced => -1,
        };
        self.stats.behind = self.stats.behind.saturating_add_signed(change);
        if let Some(stream) = self.stream(stream) {
            stream.behind = stream.behind.saturating_add_signed(change);
        }
    }

    /// Queues an unsynced watcher for reading, if its stream has capacity.
    pub(super) fn enqueue(&mut self, id: WatcherId) {
        let watcher = &self.watchers[id as usize];
        let (position, stream) = (watcher.next, watcher.stream);
        if self.stream(stream).is_some_and(|stream| !stream.starved) {
            self.watchers[id as usize].queued = true;
            self.queue.insert((position, id));
        }
    }

    /// The stream has drained: its watchers continue to read.
    pub(super) fn resume(&mut self, id: StreamId) {
        let Some(stream) = self.stream(id) else { return };
        stream.starved = false;
        if stream.behind == 0 {
            return;
        }
        let watchers: Vec<_> = stream.watches.values().flatten().copied().collect();
        for id in watchers {
            let watcher = &self.watchers[id as usize];
            if watcher.side == Side::Unsynced && !watcher.queued {
                self.enqueue(id);
            }
        }
    }

    /// Ends the watches whose next events are compacted.
    fn cancel_compacted(&mut self, compacted: i64, out: &mut Vec<Output>) {
        let gone: Vec<_> = self.queue.range(..(compacted, 0)).map(|(_, id)| *id).collect();
        for id in gone {
            self.end_compacted(id, compacted, out);
        }
        if self.is_missing_some() && self.revision + 1 < compacted {
            // Synced watchers missed batches whose revisions are compacted.
            let needs = |next: i64| next.max(self.revision + 1) < compacted;
            let watchers = self.watchers.iter();
            let lost = watchers.filter(|(_, one)| one.side == Side::Synced && needs(one.next));
            let lost: Vec<_> = lost.map(|(id, _)| id as WatcherId).collect();
            for id in lost {
                self.end_compacted(id, compacted, out);
            }
            self.revision = compacted - 1;
        }
    }
}
