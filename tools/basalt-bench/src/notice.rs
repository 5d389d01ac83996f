//! A watch response, read as far as a benchmark needs it: watch id, kind, and its events one by one
//! without decoding them.

use crate::walk::field;

/// One answer of a watch stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notice<'a> {
    /// The watcher on its stream.
    pub id: i64,
    /// It was just created.
    pub created: bool,
    /// The watcher was canceled.
    pub canceled: bool,
    /// Reason of the cancellation.
    pub reason: &'a [u8],
    body: &'a [u8],
}

impl<'a> Notice<'a> {
    /// Reads an encoded `WatchResponse`; `None` if it is malformed.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut notice = Self { body, ..Self::default() };
        let mut rest = body;
        while let Some((number, value)) = field(&mut rest)? {
            match number {
                2 => notice.id = value.number()?.cast_signed(),
                3 => notice.created = value.number()? == 1,
                4 => notice.canceled = value.number()? == 1,
                6 => notice.reason = value.bytes()?,
                _ => {}
            }
        }
        Some(notice)
    }

    /// Its events: of each the value that was put, empty for a deletion.
    pub fn values(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            // The body was walked once already: it is well-formed on this level.
            while let Some((number, event)) = field(&mut rest).flatten() {
                if number == 11 {
                    return Some(event.bytes().and_then(value).unwrap_or_default());
                }
            }
            None
        })
    }
}

/// The value in an encoded `Event`: field 5 of its `KeyValue`, which is field 2.
fn value(event: &[u8]) -> Option<&[u8]> {
    let kv = bytes_of(event, 2)?;
    bytes_of(kv, 5)
}

fn bytes_of(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    while let Some((number, value)) = field(&mut message)? {
        if number == wanted {
            return value.bytes();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::WatchResponse;
    use basalt_proto::mvccpb::{Event, KeyValue};
    use prost::Message;

    use super::*;

    #[test]
    fn events_give_their_values() {
        let event = |value: &'static str| {
            let kv = KeyValue { key: "k".into(), value: value.into(), ..KeyValue::default() };
            Event { kv: Some(kv), prev_kv: Some(KeyValue::default()), ..Event::default() }
        };
        let events = vec![event("one"), event(""), event("three")];
        let body =
            WatchResponse { watch_id: 7, events, ..WatchResponse::default() }.encode_to_vec();
        let notice = Notice::read(&body).unwrap();
        assert_eq!((notice.id, notice.created, notice.canceled), (7, false, false));
        assert_eq!(notice.values().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn the_end_of_a_watcher_has_its_reason() {
        let body = WatchResponse {
            canceled: true,
            cancel_reason: "compacted".into(),
            ..WatchResponse::default()
        };
        let body = body.encode_to_vec();
        let notice = Notice::read(&body).unwrap();
        assert_eq!((notice.canceled, notice.reason), (true, &b"compacted"[..]));
        assert_eq!(Notice::read(&body[..body.len() - 1]), None);
    }
}
