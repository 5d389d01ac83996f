//! Lookup of the watchers of a key. Watchers of the same range share a group; single keys are found by hash and ranges
//! by an interval tree, so that neither 10,000 watchers of one key nor 100,000 prefixes make an event slow.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use bytes::Bytes;
use slab::Slab;

use super::intervals::Intervals;
use crate::mvcc::Event;
use crate::types::KeyRange;

/// Position of a watcher in the hub.
pub(super) type WatcherId = u32;
/// Position of a group in the index.
pub(super) type GroupId = u32;

/// The two halves of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// Receives every batch as it is applied.
    Synced,
    /// Has to read history first.
    Unsynced,
}

/// The watchers of one range.
struct Group {
    range: KeyRange,
    /// By [`Side`].
    members: [Vec<WatcherId>; 2],
    /// Scratch of [`Index::select`].
    selected: Vec<u32>,
}

/// All watchers of a hub, by their ranges.
#[derive(Default)]
pub(super) struct Index {
    groups: Slab<Group>,
    /// Used for lookups only, never iterated, so that the order in it has no effect. The hasher has no seed.
    keys: HashMap<Bytes, GroupId, BuildHasherDefault<DefaultHasher>>,
    ranges: Intervals,
}

/// The events of a batch for one group.
pub(super) struct Selection {
    pub(super) group: GroupId,
    /// Positions in the batch, ascending.
    pub(super) events: Vec<u32>,
}

impl Index {
    /// The group of a range, created if necessary.
    pub(super) fn group(&mut self, range: &KeyRange) -> GroupId {
        let (start, end) = ends(range);
        let known = match range {
            KeyRange::One(key) => self.keys.get(key).copied(),
            KeyRange::Span(..) | KeyRange::From(_) => {
                self.ranges.get(start, end.map(|end| &end[..]))
            }
        };
        if let Some(group) = known {
            return group;
        }
        let group =
            Group { range: range.clone(), members: [Vec::new(), Vec::new()], selected: Vec::new() };
        let group = self.groups.insert(group) as GroupId;
        match range {
            KeyRange::One(key) => drop(self.keys.insert(key.clone(), group)),
            KeyRange::Span(..) | KeyRange::From(_) => {
                self.ranges.insert(start.clone(), end.cloned(), group);
            }
        }
        group
    }

    /// Adds a watcher to one side of its group; returns its position there.
    pub(super) fn join(&mut self, group: GroupId, side: Side, watcher: WatcherId) -> u32 {
        let members = &mut self.groups[group as usize].members[side as usize];
        members.push(watcher);
        (members.len() - 1) as u32
    }

    /// Removes a watcher; returns the one that now has its position, if any.
    pub(super) fn leave(&mut self, group: GroupId, side: Side, position: u32) -> Option<WatcherId> {
        let members = &mut self.groups[group as usize].members[side as usize];
        members.swap_remove(position as usize);
        members.get(position as usize).copied()
    }

    /// Removes a group without watchers.
    pub(super) fn tidy(&mut self, group: GroupId) {
        if !self.groups[group as usize].members.iter().all(Vec::is_empty) {
            return;
        }
        let range = self.groups.remove(group as usize).range;
        match &range {
            KeyRange::One(key) => drop(self.keys.remove(key)),
            KeyRange::Span(..) | KeyRange::From(_) => {
                let (start, end) = ends(&range);
                self.ranges.remove(start, end.map(|end| &end[..]));
            }
        }
    }

    /// The groups with watchers on `side` and their events, in the order of their first event.
    pub(super) fn select(&mut self, events: &[Event], side: Side) -> Vec<Selection> {
        let mut touched = Vec::new();
        let groups = &mut self.groups;
        for (at, event) in events.iter().enumerate() {
            let mut select = |group: GroupId| {
                let entry = &mut groups[group as usize];
                if entry.members[side as usize].is_empty() {
                    return;
                }
                if entry.selected.is_empty() {
                    touched.push(group);
                }
                entry.selected.push(at as u32);
            };
            if let Some(group) = self.keys.get(&event.key) {
                select(*group);
            }
            self.ranges.stab(&event.key, &mut select);
        }
        let mut take = |group: GroupId| std::mem::take(&mut groups[group as usize].selected);
        touched.into_iter().map(|group| Selection { group, events: take(group) }).collect()
    }

    /// Takes the list of one side of a group; to be returned by [`Index::put_back`].
    pub(super) fn take_members(&mut self, group: GroupId, side: Side) -> Vec<WatcherId> {
        std::mem::take(&mut self.groups[group as usize].members[side as usize])
    }

    pub(super) fn put_back(&mut self, group: GroupId, side: Side, members: Vec<WatcherId>) {
        self.groups[group as usize].members[side as usize] = members;
    }
}

fn ends(range: &KeyRange) -> (&Bytes, Option<&Bytes>) {
    match range {
        KeyRange::Span(start, end) => (start, Some(end)),
        KeyRange::One(start) | KeyRange::From(start) => (start, None),
    }
}
