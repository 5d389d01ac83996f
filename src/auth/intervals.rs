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
pub struct Intervals {
    /// Sorted.
    spans: Vec<Span>,
    /// The first bytes that all starts have in common.
    common: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Span {
    /// [`first_bytes`] of the start behind the common ones: most comparisons of a search are of these numbers.
    first: u64,
    start: Bytes,
    end: End,
}

/// The first eight bytes as a number, whose order is that of the bytes as far as it goes.
fn first_bytes(key: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = key.len().min(first.len());
    first[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(first)
}

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
        let common = match (merged.first(), merged.last()) {
            // They are sorted: what these two have in common is in all between them.
            (Some((first, _)), Some((last, _))) => {
                first.iter().zip(last).take_while(|(left, right)| left == right).count()
            }
            (None, _) | (_, None) => 0,
        };
        let span = |(start, end): (Bytes, End)| {
            let first = first_bytes(&start[common..]);
            Span { first, start, end }
        };
        Self { spans: merged.into_iter().map(span).collect(), common }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The end of the range that holds a key, the inner `None` for a range without end; `None` if no range holds it.
    pub(super) fn around(&self, key: &[u8]) -> Option<Option<&Bytes>> {
        let common = &self.spans.first()?.start[..self.common];
        let (head, rest) = key.split_at(self.common.min(key.len()));
        let next = match head.cmp(common) {
            Ordering::Less => return None,
            Ordering::Equal => {
                let first = first_bytes(rest);
                let is_before = |span: &Span| {
                    span.first < first || (span.first == first && span.start.as_ref() <= key)
                };
                self.spans.partition_point(is_before)
            }
            Ordering::Greater => self.spans.len(),
        };
        let Span { end, .. } = self.spans.get(next.checked_sub(1)?)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of a few letters: many have eight bytes and more in common, or begin with another one.
    fn keys() -> Vec<Bytes> {
        let mut keys = vec![Bytes::new()];
        for beginning in ["", "/registry/", "/registry/pods/a"] {
            for letters in ["", "a", "\0", "b", "aaaaaaa", "aaaaaaaa", "aaaaaaaa\0", "aaaaaaaaa"] {
                for last in ["", "\0", "b", "z"] {
                    keys.push([beginning, letters, last].concat().into());
                }
            }
        }
        keys.push(Bytes::from_static(&[0xff; 20]));
        keys
    }

    #[test]
    fn a_search_finds_what_a_look_at_all_ranges_does() {
        let keys = keys();
        let count = keys.len();
        for seed in 0..2_000 {
            // All keys, or those with one beginning.
            let beginning = ["", "/registry/", "/registry/pods/"][seed % 3];
            let ranges: Vec<(&Bytes, &Bytes)> = (0..1 + seed % 7)
                .map(|number| (seed * 31 + number * 17, seed * 13 + number * 7))
                .map(|(key, end)| (&keys[key % count], &keys[end % count]))
                .filter(|(key, _)| key.starts_with(beginning.as_bytes()))
                .collect();
            let union = Intervals::new(ranges.iter().copied());
            let is_in_any = |key: &Bytes| {
                let holds = |(start, end): &(&Bytes, &Bytes)| {
                    *start <= key && end_of(start, end).is_none_or(|end| *key < end)
                };
                ranges.iter().any(holds)
            };
            for key in &keys {
                let around = union.around(key);
                assert_eq!(around.is_some(), is_in_any(key), "{ranges:?} {key:?}");
                let Some(end) = around else { continue };
                // All keys up to the end are in ranges, and the end is in none.
                let is_before_end = |other: &&Bytes| end.is_none_or(|end| *other < end);
                assert!(keys.iter().filter(|it| *it >= key).filter(is_before_end).all(is_in_any));
                assert!(!end.is_some_and(is_in_any), "{ranges:?} {key:?} {end:?}");
            }
        }
    }
}
