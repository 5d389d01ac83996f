//! Unions of ranges of keys: sorted, disjoint, and as few as can be.

use std::cmp::Ordering;

use bytes::Bytes;

/// Where a range ends: before a key, or nowhere.
type End = Option<Bytes>;

/// Which of two ends is further.
fn compare(left: &End, right: &End) -> Ordering {
    match (left, right) {
        (Some(left), Some(right)) => left.cmp(right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// A union of ranges. Ranges that overlap or touch are one: `[a, b)` and `[b, c)` cover `[a, c)`. The key `k` alone is
/// `[k, k\0)`, between whose ends there is no other key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Intervals(Vec<(Bytes, End)>);

impl Intervals {
    /// The union of ranges, each a key and a `range_end` as requests have them.
    pub fn new<'a>(ranges: impl IntoIterator<Item = (&'a Bytes, &'a Bytes)>) -> Self {
        let mut spans: Vec<_> =
            ranges.into_iter().map(|(key, end)| (key.clone(), end_of(key, end))).collect();
        spans.sort_by(|left, right| left.0.cmp(&right.0));
        let mut merged: Vec<(Bytes, End)> = Vec::new();
        for (start, end) in spans {
            match merged.last_mut() {
                Some((_, last)) if last.as_ref().is_none_or(|last| start <= last) => {
                    if compare(&end, last) == Ordering::Greater {
                        *last = end;
                    }
                }
                Some(_) | None => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The end of the range that holds a key, the inner `None` for a range without end; `None` if no range holds it.
    pub(super) fn around(&self, key: &[u8]) -> Option<Option<&Bytes>> {
        let next = self.0.partition_point(|(start, _)| start.as_ref() <= key);
        let (_, end) = self.0.get(next.checked_sub(1)?)?;
        end.as_ref().is_none_or(|end| key < end.as_ref()).then_some(end.as_ref())
    }
}

/// Where the range of a permission ends. One that is upside down counts as its key alone.
fn end_of(key: &Bytes, range_end: &Bytes) -> End {
    match range_end.as_ref() {
        [0] => None,
        end if end <= key.as_ref() => Some([key, &b"\0"[..]].concat().into()),
        _ => Some(range_end.clone()),
    }
}

/// The end of the range around a key that leads furthest, `Some(None)` for one that leads to the end; nothing if there is none.
pub(super) fn furthest<'a>(
    unions: impl Iterator<Item = &'a Intervals>,
    key: &[u8],
) -> Option<Option<&'a [u8]>> {
    let mut furthest = None;
    for end in unions.filter_map(|union| union.around(key)) {
        let Some(end) = end else { return Some(None) };
        furthest = furthest.max(Some(&end[..]));
    }
    furthest.map(Some)
}

/// True if unions cover the range from `key` to `range_end` together, each part in any of them.
pub(super) fn cover<'a>(
    unions: impl Iterator<Item = &'a Intervals> + Clone,
    key: &[u8],
    range_end: &[u8],
) -> bool {
    let is_open = range_end == [0];
    let is_point = !is_open && range_end <= key;
    let mut end = furthest(unions.clone(), key);
    loop {
        match end {
            None => return false,
            Some(None) => return true,
            Some(Some(at)) if is_point || (!is_open && range_end <= at) => return true,
            // Whatever else covers what is behind, the one that leads furthest does up to there.
            Some(Some(at)) => end = furthest(unions.clone(), at),
        }
    }
}
