//! All groups by their range. One lock for all: what a watcher may join and what a group has sent change together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use basalt_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use bytes::Bytes;
use tokio::sync::Notify;

use super::receiver::Receiver;
use crate::grpc_proxy::codec::encode;
use crate::grpc_proxy::outbox::Outbox;
use crate::limits::PROGRESS_WAITING_MAX;

/// The keys of a watch as clients have them, and if it must end when its member has no leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Range {
    pub(super) key: Bytes,
    pub(super) end: Bytes,
    pub(super) requires_leader: bool,
}

/// The id of a watch that was not created, and of progress that is that of all watches.
pub(super) const NO_WATCH: i64 = -1;

/// The answer to a request for progress.
pub(super) fn progress(header: ResponseHeader) -> Bytes {
    let response =
        WatchResponse { header: Some(header), watch_id: NO_WATCH, ..WatchResponse::default() };
    encode(&response)
}

/// A request for progress, which waits for some groups.
pub(super) struct Progress {
    outbox: Outbox,
    waits_for: Mutex<(usize, i64)>,
}

impl Progress {
    pub(super) fn new(outbox: Outbox, groups: usize) -> Arc<Self> {
        Arc::new(Self { outbox, waits_for: Mutex::new((groups, i64::MAX)) })
    }

    /// A group has sent everything up to the header's revision. The last one answers with the least revision.
    pub(super) fn reached(&self, header: ResponseHeader) {
        let mut waits_for = self.waits_for.lock().expect("no holder panics");
        let (groups, revision) = &mut *waits_for;
        *groups = groups.saturating_sub(1);
        *revision = header.revision.min(*revision);
        if *groups == 0 {
            let header = ResponseHeader { revision: *revision, ..header };
            // Without room it is left out: the client asks again.
            let _ = self.outbox.push(progress(header));
        }
    }
}

/// One watch at a member, and who receives from it.
#[derive(Default)]
struct Group {
    /// Everything below has been sent.
    next: i64,
    /// The member has created the watch.
    is_open: bool,
    receivers: HashMap<u64, Arc<Receiver>>,
    progress: Vec<Arc<Progress>>,
    /// Wakes the group's task: a request for progress, or no receivers any more.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Groups {
    by_range: HashMap<Range, HashMap<u64, Group>>,
    numbers: u64,
}

/// All groups.
#[derive(Default)]
pub(super) struct Table {
    groups: Mutex<Groups>,
    events_coalesced: AtomicU64,
}

/// A group that its task has to run.
pub(super) struct NewGroup {
    pub(super) number: u64,
    pub(super) changed: Arc<Notify>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().expect("no holder panics")
    }

    /// A number for a receiver.
    pub(super) fn number(&self) -> u64 {
        let mut groups = self.lock();
        groups.numbers += 1;
        groups.numbers
    }

    /// Lets a watcher of events from `next` on join a group, or returns a new one. `created` is called before any event is
    /// sent to the watcher.
    pub(super) fn join(
        &self,
        range: &Range,
        receiver: Arc<Receiver>,
        next: i64,
        created: impl FnOnce(),
    ) -> Option<NewGroup> {
        let mut groups = self.lock();
        created();
        groups.numbers += 1;
        let number = groups.numbers;
        let of_range = groups.by_range.entry(range.clone()).or_default();
        // The one that is least behind: the watcher drops what it need not see.
        let fits = of_range.values_mut().filter(|it| it.next <= next).max_by_key(|it| it.next);
        if let Some(group) = fits {
            group.receivers.insert(receiver.number, receiver);
            return None;
        }
        let mut group = Group { next, ..Group::default() };
        group.receivers.insert(receiver.number, receiver);
        let changed = Arc::clone(&group.changed);
        of_range.insert(number, group);
        Some(NewGroup { number, changed })
    }

    /// Removes a watcher; a group without watchers ends.
    pub(super) fn leave(&self, range: &Range, receiver: u64) {
        let mut groups = self.lock();
        let Some(of_range) = groups.by_range.get_mut(range) else { return };
        of_range.retain(|_, group| {
            group.receivers.remove(&receiver);
            if group.receivers.is_empty() {
                group.changed.notify_one();
            }
            !group.receivers.is_empty()
        });
        if of_range.is_empty() {
            groups.by_range.remove(range);
        }
    }

    /// The next revision of a group and one of its receivers; none if the group has ended.
    pub(super) fn opening(&self, range: &Range, number: u64) -> Option<(i64, Arc<Receiver>)> {
        let mut groups = self.lock();
        let group = groups.by_range.get_mut(range)?.get_mut(&number)?;
        group.is_open = false;
        Some((group.next, Arc::clone(group.receivers.values().next()?)))
    }

    /// The member has created the watch.
    pub(super) fn opened(&self, range: &Range, number: u64) {
        let mut groups = self.lock();
        let group = groups.by_range.get_mut(range).and_then(|it| it.get_mut(&number));
        if let Some(group) = group {
            group.is_open = true;
        }
    }

    /// The receivers of what a group sends now, after which everything below `next` has been sent.
    pub(super) fn advance(&self, range: &Range, number: u64, next: i64) -> Vec<Arc<Receiver>> {
        let mut groups = self.lock();
        let group = groups.by_range.get_mut(range).and_then(|it| it.get_mut(&number));
        let Some(group) = group else { return Vec::new() };
        group.next = group.next.max(next);
        group.receivers.values().cloned().collect()
    }

    /// The receivers of a group.
    pub(super) fn receivers(&self, range: &Range, number: u64) -> Vec<Arc<Receiver>> {
        self.advance(range, number, 0)
    }

    /// Hands the receivers of a group, which have all that it has sent, to another one of the same range that is open and
    /// not ahead. Returns true if the group has ended by that.
    pub(super) fn hand_over(&self, range: &Range, number: u64) -> bool {
        let mut groups = self.lock();
        let Some(of_range) = groups.by_range.get_mut(range) else { return false };
        let Some(next) = of_range.get(&number).map(|it| it.next) else { return false };
        let fits = |(other, group): &(&u64, &Group)| {
            **other != number && group.is_open && group.next <= next
        };
        let Some(other) = of_range.iter().find(fits).map(|(other, _)| *other) else {
            return false;
        };
        let Some(mut ended) = of_range.remove(&number) else { return false };
        if let Some(group) = of_range.get_mut(&other) {
            group.receivers.extend(ended.receivers.drain());
            group.progress.append(&mut ended.progress);
            group.progress.truncate(PROGRESS_WAITING_MAX);
            group.changed.notify_one();
        }
        true
    }

    /// Ends a group; its receivers are returned.
    pub(super) fn end(&self, range: &Range, number: u64) -> Vec<Arc<Receiver>> {
        let mut groups = self.lock();
        let Some(of_range) = groups.by_range.get_mut(range) else { return Vec::new() };
        let ended = of_range.remove(&number);
        if of_range.is_empty() {
            groups.by_range.remove(range);
        }
        ended.map(|it| it.receivers.into_values().collect()).unwrap_or_default()
    }

    /// Asks the groups of these receivers for progress; returns how many groups there are.
    pub(super) fn ask_progress(
        &self,
        receivers: &[(Range, u64)],
        progress: impl FnOnce(usize) -> Arc<Progress>,
    ) {
        let mut groups = self.lock();
        let mut asked = Vec::new();
        for (range, receiver) in receivers {
            let of_range = groups.by_range.get(range).into_iter().flatten();
            let has = of_range.filter(|(_, group)| group.receivers.contains_key(receiver));
            asked.extend(has.map(|(number, _)| (range.clone(), *number)));
        }
        asked.sort_unstable_by_key(|it| it.1);
        asked.dedup_by_key(|it| it.1);
        let progress = progress(asked.len());
        for (range, number) in asked {
            let group = groups.by_range.get_mut(&range).and_then(|it| it.get_mut(&number));
            if let Some(group) = group
                && group.progress.len() < PROGRESS_WAITING_MAX
            {
                group.progress.push(Arc::clone(&progress));
                group.changed.notify_one();
            }
        }
    }

    /// Tells if a group has requests for progress; none if it has ended.
    pub(super) fn wants_progress(&self, range: &Range, number: u64) -> Option<bool> {
        let groups = self.lock();
        Some(!groups.by_range.get(range)?.get(&number)?.progress.is_empty())
    }

    /// The requests for progress, which are answered now.
    pub(super) fn take_progress(&self, range: &Range, number: u64) -> Vec<Arc<Progress>> {
        let mut groups = self.lock();
        let group = groups.by_range.get_mut(range).and_then(|it| it.get_mut(&number));
        group.map(|it| std::mem::take(&mut it.progress)).unwrap_or_default()
    }

    pub(super) fn count_coalesced(&self, events: usize) {
        self.events_coalesced.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn coalesced(&self) -> super::Coalesced {
        let groups = self.lock();
        let each = groups.by_range.values().flat_map(HashMap::values);
        let watchers = each.map(|it| it.receivers.len().saturating_sub(1)).sum();
        let events = self.events_coalesced.load(Ordering::Relaxed);
        super::Coalesced { watchers, events }
    }

    pub(super) fn groups(&self) -> usize {
        self.lock().by_range.values().map(HashMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::WatchCreateRequest;

    use super::*;

    fn range() -> Range {
        Range { key: "a".into(), end: Bytes::new(), requires_leader: false }
    }

    fn receiver(table: &Table, next: i64) -> Arc<Receiver> {
        let request = WatchCreateRequest::default();
        let (outbox, _) = Outbox::new();
        Arc::new(Receiver::new(table.number(), 0, next, None, outbox, &request))
    }

    fn join(table: &Table, next: i64) -> (u64, Option<u64>) {
        let receiver = receiver(table, next);
        let number = receiver.number;
        (number, table.join(&range(), receiver, next, || {}).map(|it| it.number))
    }

    #[test]
    fn watchers_join_a_group_that_is_not_ahead() {
        let table = Table::default();
        let (first, group) = join(&table, 5);
        let group = group.expect("a new one");
        assert_eq!(join(&table, 5).1, None);
        assert_eq!(join(&table, 9).1, None);
        assert!(join(&table, 4).1.is_some(), "it would miss an event");
        assert_eq!(table.advance(&range(), group, 8).len(), 3);
        assert_eq!(join(&table, 7).1, None, "the one that is behind");
        assert_eq!(table.advance(&range(), group, 8).len(), 3);
        assert_eq!((table.groups(), table.coalesced().watchers), (2, 3));
        table.leave(&range(), first);
        assert_eq!(table.coalesced().watchers, 2);
    }

    #[test]
    fn a_group_that_has_caught_up_hands_over() {
        let table = Table::default();
        let ahead = join(&table, 10).1.expect("a new one");
        let behind = join(&table, 3).1.expect("a new one");
        table.hand_over(&range(), behind);
        assert_eq!(table.groups(), 2, "it is behind, and the other one not open");
        table.opened(&range(), ahead);
        table.hand_over(&range(), behind);
        assert_eq!(table.groups(), 2, "it is behind");
        table.advance(&range(), behind, 10);
        table.hand_over(&range(), behind);
        assert_eq!(table.groups(), 1);
        assert_eq!(table.receivers(&range(), ahead).len(), 2);
        assert!(table.opening(&range(), behind).is_none(), "it has ended");
    }

    #[test]
    fn the_last_watcher_ends_its_group() {
        let table = Table::default();
        let (receiver, group) = join(&table, 5);
        table.leave(&range(), receiver);
        assert_eq!(table.wants_progress(&range(), group.expect("a new one")), None);
        assert!(table.lock().by_range.is_empty());
    }
}
