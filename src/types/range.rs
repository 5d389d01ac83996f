//! Ranges of keys.

use std::ops::Bound;

use bytes::Bytes;

/// The keys that a request's `key` and `range_end` name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyRange {
    /// `range_end` is empty: this key alone.
    One(Bytes),
    /// From the first key up to, not including, the second; empty when they are out of order.
    Span(Bytes, Bytes),
    /// `range_end` is one zero byte: this key and all after it.
    From(Bytes),
}

impl KeyRange {
    /// Reads a request's pair of fields. A `key` of one zero byte together with an open end is
    /// every key.
    pub fn new(key: Bytes, range_end: Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Span(key, range_end),
        }
    }

    /// True if `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one.as_ref() == key,
            Self::Span(start, end) => start.as_ref() <= key && key < end.as_ref(),
            Self::From(start) => start.as_ref() <= key,
        }
    }

    /// The first key that could be in the range.
    pub fn start(&self) -> &Bytes {
        match self {
            Self::One(start) | Self::Span(start, _) | Self::From(start) => start,
        }
    }

    /// True if no key can be in the range.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Span(start, end) if start >= end)
    }

    /// The bounds to scan a sorted store with; never in the wrong order.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            Self::One(key) => (Bound::Included(key), Bound::Included(key)),
            Self::Span(start, end) => (Bound::Included(start), Bound::Excluded(end.max(start))),
            Self::From(start) => (Bound::Included(start), Bound::Unbounded),
        }
    }
}
