//! An interval tree: ranges of keys, found by a key that they contain.
//!
//! A treap over (start, end) in which every node knows the furthest end below it, so that a lookup skips the subtrees
//! that end too early: O(log n) for each range found, 100,000 of them or ten. It never holds the same range twice.
//! Priorities come from a fixed sequence: same calls, same tree.

use std::cmp::Ordering;

use bytes::Bytes;

/// Stands for no node.
const NIL: u32 = u32::MAX;

/// The value of a range.
pub(super) type Value = u32;

struct Node {
    start: Bytes,
    /// Not included; `None` for no end.
    end: Option<Bytes>,
    value: Value,
    priority: u64,
    left: u32,
    right: u32,
    /// The node with the furthest end in this subtree.
    furthest: u32,
}

/// A set of ranges, each with a value.
pub(super) struct Intervals {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    seed: u64,
}

impl Default for Intervals {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NIL, seed: 0 }
    }
}

impl Intervals {
    /// The value of exactly this range.
    pub(super) fn get(&self, start: &[u8], end: Option<&[u8]>) -> Option<Value> {
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            at = match order(start, end, node) {
                Ordering::Less => node.left,
                Ordering::Equal => return Some(node.value),
                Ordering::Greater => node.right,
            };
        }
        None
    }

    /// Adds a range that must not be there yet.
    pub(super) fn insert(&mut self, start: Bytes, end: Option<Bytes>, value: Value) {
        // SplitMix64: a fixed sequence that looks random; a treap needs no more.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let priority = mixed ^ (mixed >> 27);
        let node = Node { start, end, value, priority, left: NIL, right: NIL, furthest: NIL };
        let new = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.root = self.insert_below(self.root, new);
    }

    /// Removes a range, if it is there.
    pub(super) fn remove(&mut self, start: &[u8], end: Option<&[u8]>) {
        self.root = self.remove_below(self.root, start, end);
    }

    /// Calls `found` with the value of every range that contains `key`, in order of (start, end).
    pub(super) fn stab(&self, key: &[u8], found: &mut impl FnMut(Value)) {
        self.stab_below(self.root, key, found);
    }

    fn stab_below(&self, at: u32, key: &[u8], found: &mut impl FnMut(Value)) {
        if at == NIL {
            return;
        }
        let node = self.node(at);
        if !ends_after(&self.node(node.furthest).end, key) {
            return;
        }
        self.stab_below(node.left, key, found);
        if &node.start[..] <= key {
            if ends_after(&node.end, key) {
                found(node.value);
            }
            self.stab_below(node.right, key, found);
        }
    }

    fn insert_below(&mut self, at: u32, new: u32) -> u32 {
        if at == NIL {
            return self.refreshed(new);
        }
        if self.node(new).priority > self.node(at).priority {
            let (left, right) = self.split(at, new);
            self.nodes[new as usize].left = left;
            self.nodes[new as usize].right = right;
            return self.refreshed(new);
        }
        if self.is_before(new, at) {
            self.nodes[at as usize].left = self.insert_below(self.node(at).left, new);
        } else {
            self.nodes[at as usize].right = self.insert_below(self.node(at).right, new);
        }
        self.refreshed(at)
    }

    /// Splits a subtree into the ranges before `pivot` and those after it.
    fn split(&mut self, at: u32, pivot: u32) -> (u32, u32) {
        if at == NIL {
            return (NIL, NIL);
        }
        if self.is_before(pivot, at) {
            let (before, after) = self.split(self.node(at).left, pivot);
            self.nodes[at as usize].left = after;
            (before, self.refreshed(at))
        } else {
            let (before, after) = self.split(self.node(at).right, pivot);
            self.nodes[at as usize].right = before;
            (self.refreshed(at), after)
        }
    }

    fn remove_below(&mut self, at: u32, start: &[u8], end: Option<&[u8]>) -> u32 {
        if at == NIL {
            return NIL;
        }
        let (left, right) = (self.node(at).left, self.node(at).right);
        match order(start, end, self.node(at)) {
            Ordering::Less => {
                self.nodes[at as usize].left = self.remove_below(left, start, end);
            }
            Ordering::Greater => {
                self.nodes[at as usize].right = self.remove_below(right, start, end);
            }
            Ordering::Equal => {
                self.nodes[at as usize].start = Bytes::new();
                self.nodes[at as usize].end = None;
                self.free.push(at);
                return self.merge(left, right);
            }
        }
        self.refreshed(at)
    }

    /// Joins two subtrees, all of `left` sorting before all of `right`.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL || right == NIL {
            return left.min(right);
        }
        if self.node(left).priority > self.node(right).priority {
            self.nodes[left as usize].right = self.merge(self.node(left).right, right);
            self.refreshed(left)
        } else {
            self.nodes[right as usize].left = self.merge(left, self.node(right).left);
            self.refreshed(right)
        }
    }

    /// Recomputes the furthest end after a child changed.
    fn refreshed(&mut self, at: u32) -> u32 {
        let node = self.node(at);
        let mut furthest = at;
        for child in [node.left, node.right] {
            if child == NIL {
                continue;
            }
            let candidate = self.node(child).furthest;
            if compare_ends(&self.node(candidate).end, &self.node(furthest).end).is_gt() {
                furthest = candidate;
            }
        }
        self.nodes[at as usize].furthest = furthest;
        at
    }

    fn is_before(&self, left: u32, right: u32) -> bool {
        let left = self.node(left);
        order(&left.start, left.end.as_deref(), self.node(right)).is_lt()
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }
}

fn order(start: &[u8], end: Option<&[u8]>, node: &Node) -> Ordering {
    start.cmp(&node.start).then_with(|| compare_ends(&end, &node.end.as_deref()))
}

fn compare_ends<T: Ord>(left: &Option<T>, right: &Option<T>) -> Ordering {
    match (left, right) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => left.cmp(right),
    }
}

fn ends_after(end: &Option<Bytes>, key: &[u8]) -> bool {
    end.as_ref().is_none_or(|end| &end[..] > key)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    #[test]
    fn finds_what_a_list_finds() {
        let mut random = StdRng::seed_from_u64(7);
        let mut tree = Intervals::default();
        let mut list: Vec<(Vec<u8>, Option<Vec<u8>>, u32)> = Vec::new();
        for step in 0..3_000 {
            let key =
                |random: &mut StdRng| vec![random.random_range(0..40u8); random.random_range(1..3)];
            let start = key(&mut random);
            let end = Some(key(&mut random)).filter(|_| random.random_bool(0.9));
            let known = list.iter().position(|(s, e, _)| (s, e) == (&start, &end));
            assert_eq!(tree.get(&start, end.as_deref()), known.map(|at| list[at].2));
            match known {
                Some(at) => {
                    list.swap_remove(at);
                    tree.remove(&start, end.as_deref());
                }
                None => {
                    tree.insert(start.clone().into(), end.clone().map(Bytes::from), step);
                    list.push((start, end, step));
                }
            }
            let probe = key(&mut random);
            let mut found = Vec::new();
            tree.stab(&probe, &mut |value| found.push(value));
            let holds = |start: &Vec<u8>, end: &Option<Vec<u8>>| {
                *start <= probe && end.as_ref().is_none_or(|end| *end > probe)
            };
            let mut expected: Vec<_> =
                list.iter().filter(|(start, end, _)| holds(start, end)).collect();
            expected.sort_by(|(s, e, _), (t, f, _)| s.cmp(t).then_with(|| compare_ends(e, f)));
            assert_eq!(found, expected.into_iter().map(|(_, _, value)| *value).collect::<Vec<_>>());
        }
    }
}
