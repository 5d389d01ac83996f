//! Requests of clients: opening streams, creating and canceling watches.

use basalt_proto::encoded::WatchResponse;
use basalt_proto::etcdserverpb::WatchCreateRequest;
use basalt_proto::etcdserverpb::watch_create_request::FilterType;
use bytes::Bytes;

use super::delivery::header;
use super::{
    Filter, Hub, INVALID_WATCH_ID, Output, Published, Side, Stream, StreamId, Watcher, WatcherId,
};
use crate::types::{KeyRange, Refusal};

const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// The reason of a watch that is not created for lack of room, as etcd writes reasons with a code.
fn too_many() -> String {
    let refusal = Refusal::TooManyWatches;
    format!("rpc error: code = {:?} desc = {}", refusal.code(), refusal.text())
}

impl Hub {
    pub(super) fn open(&mut self, id: StreamId, progress_interval_ms: u64) {
        let at = id as usize;
        if self.streams.len() <= at {
            self.streams.resize_with(at + 1, || None);
        }
        assert!(self.streams[at].is_none(), "stream {id} is open already");
        let progress_due_ms = self.now_ms + progress_interval_ms;
        self.due.insert((progress_due_ms, id));
        self.streams[at] =
            Some(Stream { progress_interval_ms, progress_due_ms, ..Stream::default() });
        self.stats.streams += 1;
    }

    pub(super) fn close(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id as usize).and_then(Option::take) else { return };
        self.due.remove(&(stream.progress_due_ms, id));
        if let Some(at) = stream.progress_at {
            self.progress.remove(&(at, id));
        }
        self.stats.bytes -= stream.bytes;
        self.stats.streams -= 1;
        for watcher in stream.watches.into_values().flatten() {
            self.forget(watcher);
        }
    }

    pub(super) fn create(
        &mut self,
        id: StreamId,
        request: &WatchCreateRequest,
        published: Published,
        out: &mut Vec<Output>,
    ) {
        // An empty key means the smallest one.
        let key =
            if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key.clone() };
        let range = KeyRange::new(key, request.range_end.clone());
        if request.start_revision < 0 {
            return self.refuse(id, Refusal::Compacted.text().to_owned(), published, out);
        }
        if range.is_empty() {
            return self.refuse(id, EMPTY_RANGE.to_owned(), published, out);
        }
        let watchers_max = self.config.watchers_max;
        let is_full = self.watchers.len() >= watchers_max;
        let Some(stream) = self.stream(id) else { return };
        // Ids of watches that ended by compaction stay in memory until their client cancels them.
        if is_full || stream.watches.len() >= watchers_max {
            return self.refuse(id, too_many(), published, out);
        }
        let Some(watch_id) = stream.free_id(request.watch_id) else {
            return self.refuse(id, DUPLICATE_ID.to_owned(), published, out);
        };
        stream.watches.insert(watch_id, None);
        let created = WatchResponse {
            header: header(published.revision),
            watch_id,
            created: true,
            ..WatchResponse::default()
        };
        self.send(id, created, out);
        if request.start_revision > 0 && request.start_revision < published.compacted {
            return self.tell_compacted(id, watch_id, published.compacted, out);
        }
        let watcher = self.add(id, watch_id, request, &range, published);
        if let Some(stream) = self.stream(id) {
            stream.watches.insert(watch_id, Some(watcher));
        }
    }

    fn add(
        &mut self,
        stream: StreamId,
        id: i64,
        request: &WatchCreateRequest,
        range: &KeyRange,
        published: Published,
    ) -> WatcherId {
        let start = request.start_revision;
        let next = if start == 0 { published.revision + 1 } else { start };
        let group = self.index.group(range);
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        let watcher = Watcher {
            stream,
            id,
            next,
            floor: start.max(published.revision),
            group,
            side: Side::Synced,
            position: 0,
            queued: false,
            idle: true,
            filter: Filter {
                prev_kv: request.prev_kv,
                no_put: has(FilterType::Noput),
                no_delete: has(FilterType::Nodelete),
            },
            fragment: request.fragment,
            progress_notify: request.progress_notify,
        };
        if self.watchers.is_empty() {
            // There were no watchers for earlier events.
            self.revision = self.revision.max(published.revision);
        }
        let watcher_id = self.watchers.insert(watcher) as WatcherId;
        let position = self.index.join(group, Side::Synced, watcher_id);
        self.watchers[watcher_id as usize].position = position;
        if next <= self.revision {
            self.change_side(watcher_id, Side::Unsynced);
        }
        watcher_id
    }

    /// Answers a create request that creates no watch.
    pub(super) fn refuse(
        &mut self,
        stream: StreamId,
        reason: String,
        published: Published,
        out: &mut Vec<Output>,
    ) {
        let response = WatchResponse {
            header: header(published.revision),
            watch_id: INVALID_WATCH_ID,
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..WatchResponse::default()
        };
        if self.stream(stream).is_some() {
            self.send(stream, response, out);
        }
    }

    pub(super) fn cancel(
        &mut self,
        id: StreamId,
        watch_id: i64,
        published: Published,
        out: &mut Vec<Output>,
    ) {
        let Some(watcher) = self.stream(id).and_then(|stream| stream.watches.remove(&watch_id))
        else {
            return;
        };
        if let Some(watcher) = watcher {
            self.forget(watcher);
        }
        let response = WatchResponse {
            header: header(published.revision),
            watch_id,
            canceled: true,
            ..WatchResponse::default()
        };
        self.send(id, response, out);
    }

    /// Ends a watch whose events are compacted; its id stays reserved until the client cancels it.
    pub(super) fn end_compacted(&mut self, id: WatcherId, compacted: i64, out: &mut Vec<Output>) {
        let watcher = self.forget(id);
        if let Some(stream) = self.stream(watcher.stream) {
            stream.watches.insert(watcher.id, None);
        }
        self.tell_compacted(watcher.stream, watcher.id, compacted, out);
    }

    fn tell_compacted(
        &mut self,
        stream: StreamId,
        watch_id: i64,
        compacted: i64,
        out: &mut Vec<Output>,
    ) {
        let response = WatchResponse {
            header: header(0),
            watch_id,
            canceled: true,
            compact_revision: compacted,
            ..WatchResponse::default()
        };
        self.send(stream, response, out);
    }

    /// Removes a watcher from everything but its stream's list.
    fn forget(&mut self, id: WatcherId) -> Watcher {
        if self.watchers[id as usize].side == Side::Unsynced {
            self.change_side(id, Side::Synced);
        }
        let watcher = self.watchers.remove(id as usize);
        self.queue.remove(&(watcher.next, id));
        if let Some(moved) = self.index.leave(watcher.group, Side::Synced, watcher.position) {
            self.watchers[moved as usize].position = watcher.position;
        }
        self.index.tidy(watcher.group);
        watcher
    }
}

impl Stream {
    /// The id of a new watch: the wanted one, or with 0 the next free one. `None` if the wanted one is in use.
    fn free_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.watches.contains_key(&wanted)).then_some(wanted);
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }
}
