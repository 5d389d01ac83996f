//! Progress responses: on request, and at intervals to watches without events.

use basalt_proto::encoded::WatchResponse;

use super::delivery::{has_room, header};
use super::{Hub, INVALID_WATCH_ID, Output, Published, Side, StreamId, Watcher};

impl Hub {
    /// A request for progress: answered once the hub has reached the revision that was published when it was made, so
    /// that a client that read at a revision before its request gets at least that one.
    pub(super) fn ask_progress(
        &mut self,
        id: StreamId,
        published: Published,
        out: &mut Vec<Output>,
    ) {
        let Some(stream) = self.stream(id) else { return };
        if stream.watches.is_empty() || stream.behind > 0 {
            return;
        }
        let at = published.revision.max(stream.progress_at.unwrap_or(0));
        if let Some(earlier) = stream.progress_at.replace(at) {
            self.progress.remove(&(earlier, id));
        }
        self.progress.insert((at, id));
        self.tell_progress(out);
    }

    /// Answers requests for progress whose revision the hub has reached.
    pub(super) fn tell_progress(&mut self, out: &mut Vec<Output>) {
        while let Some((at, id)) = self.progress.first().copied()
            && at <= self.revision
        {
            self.progress.remove(&(at, id));
            if let Some(stream) = self.stream(id) {
                stream.progress_at = None;
            }
            if self.all_have_come_here(id) {
                self.send_progress(id, INVALID_WATCH_ID, out);
            }
        }
    }

    fn all_have_come_here(&mut self, id: StreamId) -> bool {
        let revision = self.revision;
        let Some(stream) = self.streams.get(id as usize).and_then(Option::as_ref) else {
            return false;
        };
        let mut watchers = stream.watches.values().flatten().map(|id| &self.watchers[*id as usize]);
        stream.behind == 0
            && stream.watches.values().any(Option::is_some)
            && watchers.all(|watcher| watcher.has_come_to(revision))
    }

    /// Progress notifications of all streams that are due.
    pub(super) fn tick(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        self.now_ms = now_ms;
        while let Some((due_ms, id)) = self.due.first().copied()
            && due_ms <= now_ms
        {
            self.due.remove(&(due_ms, id));
            self.notify(id, out);
            if let Some(stream) = self.stream(id) {
                let interval_ms = stream.progress_interval_ms;
                let next_ms = due_ms + interval_ms;
                // After a long pause one notification is enough.
                stream.progress_due_ms =
                    if next_ms > now_ms { next_ms } else { now_ms + interval_ms };
                let due_ms = stream.progress_due_ms;
                self.due.insert((due_ms, id));
            }
        }
    }

    /// Notifies each watch of a stream that wants it and has had no events since the last time.
    fn notify(&mut self, id: StreamId, out: &mut Vec<Output>) {
        let Some(stream) = self.stream(id) else { return };
        let watchers: Vec<_> = stream.watches.values().flatten().copied().collect();
        for watcher in watchers {
            let revision = self.revision;
            let watcher = &mut self.watchers[watcher as usize];
            if !watcher.progress_notify {
                continue;
            }
            let was_idle = std::mem::replace(&mut watcher.idle, true);
            let watch_id = watcher.id;
            if was_idle && watcher.has_come_to(revision) {
                self.send_progress(id, watch_id, out);
            }
        }
    }

    /// A stream without capacity is skipped: its queued responses report later revisions anyway.
    fn send_progress(&mut self, id: StreamId, watch_id: i64, out: &mut Vec<Output>) {
        let Some(stream) = self.streams.get_mut(id as usize).and_then(Option::as_mut) else {
            return;
        };
        if has_room(&self.config, &self.stats, stream) {
            let response = WatchResponse {
                header: header(self.revision),
                watch_id,
                ..WatchResponse::default()
            };
            self.send(id, response, out);
        }
    }
}

impl Watcher {
    /// True if it has been sent all events up to `revision`, and may be notified.
    fn has_come_to(&self, revision: i64) -> bool {
        self.side == Side::Synced && self.floor <= revision && self.next <= revision + 1
    }
}
