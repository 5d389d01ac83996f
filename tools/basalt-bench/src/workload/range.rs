//! Ranges: one key, random keys of a key space, prefixes, pages, streams. Responses are walked, not
//! decoded: a list of ten thousand keys must not cost the generator ten thousand allocations.

use basalt_proto::etcdserverpb::{RangeRequest, ResponseHeader};
use bytes::Bytes;
use clap::Args;
use prost::Message;

use super::{Kind, Load};
use crate::error::Fatal;
use crate::generator::Workload;
use crate::keys::{KeySpec, Keys, prefix_end};
use crate::options::Globals;
use crate::report::Finished;
use crate::session;
use crate::walk::field;
use crate::{distribution, paths};

/// Kubernetes' watch cache reads pages of this size.
const PAGE_KEYS: i64 = 10_000;

/// Flags of `range`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// The key, and the end of the range if there is one
    #[arg(num_args = 0..=2, value_name = "KEY [END]")]
    pub keys: Vec<String>,
    /// Range requests per second, each sent at its scheduled time whatever the server does (0 is no limit)
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Total number of range requests
    #[arg(long, default_value_t = 10_000)]
    pub total: u64,
    /// Linearizable(l) or Serializable(s)
    #[arg(long, default_value = "l", value_parser = ["l", "s"])]
    pub consistency: String,
    /// Maximum number of results to return from range request (0 is no limit)
    #[arg(long, default_value_t = 0)]
    pub limit: i64,
    /// Only returns the count of keys
    #[arg(long)]
    pub count_only: bool,
    /// Only returns the keys
    #[arg(long)]
    pub keys_only: bool,
    /// Use RangeStream instead of unary Range
    #[arg(long, conflicts_with = "paginate")]
    pub stream: bool,
    /// Use paginated unary range with 10k-key pages
    #[arg(long)]
    pub paginate: bool,
    /// Range over all keys with the given key as prefix
    #[arg(long)]
    pub prefix: bool,
    /// Instead of one key: read keys that `put` made with the same flags, with KEY as their prefix
    #[arg(long, conflicts_with_all = ["prefix", "paginate"])]
    pub key_space_size: Option<u64>,
    /// Key size of that `put`
    #[arg(long, default_value_t = 8)]
    pub key_size: usize,
    /// How keys are chosen
    #[command(flatten)]
    pub choice: distribution::Flags,
    /// Number of keys that every answer must hold; another number is an error
    #[arg(long)]
    pub expect_keys: Option<u64>,
}

/// Counters of a connection's responses.
#[derive(Debug, Default)]
struct Seen {
    bytes: u64,
    keys: u64,
    keys_least: Option<u64>,
    keys_most: u64,
}

pub(super) struct Range {
    request: RangeRequest,
    /// Keys to read instead of the one in the request.
    keys: Option<Keys>,
    stream: bool,
    paginate: bool,
    expect_keys: Option<u64>,
    slots: Vec<Slot>,
    seen: Seen,
}

/// An operation's response so far.
#[derive(Clone, Debug, Default)]
struct Slot {
    keys: u64,
    /// Where the next page starts, and at which revision.
    page: Option<(Bytes, i64)>,
}

impl Workload for Range {
    fn begin(&mut self, slot: usize, index: u64, body: &mut Vec<u8>) -> &'static str {
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Slot::default());
        }
        self.slots[slot] = Slot::default();
        if let Some(keys) = &mut self.keys {
            self.request.key = keys.key(index);
        }
        self.request.encode(body).expect("a Vec takes everything");
        if self.stream { paths::RANGE_STREAM } else { paths::RANGE }
    }

    fn message(&mut self, slot: usize, body: &[u8]) -> Result<(), String> {
        self.seen.bytes += body.len() as u64;
        let answer = Answer::walk(body, self.stream).ok_or("an answer that does not decode")?;
        let slot = &mut self.slots[slot];
        slot.keys += answer.keys;
        slot.page = None;
        if self.paginate && answer.more && !answer.last_key.is_empty() {
            let next = [answer.last_key, b"\0"].concat();
            slot.page = Some((next.into(), answer.revision));
        }
        Ok(())
    }

    fn next(&mut self, slot: usize, body: &mut Vec<u8>) -> Result<Option<&'static str>, String> {
        let slot = &mut self.slots[slot];
        let Some((key, revision)) = slot.page.take() else {
            let keys = slot.keys;
            self.seen.keys += keys;
            self.seen.keys_least = Some(self.seen.keys_least.unwrap_or(keys).min(keys));
            self.seen.keys_most = self.seen.keys_most.max(keys);
            return match self.expect_keys {
                Some(expected) if keys != expected => {
                    Err(format!("an answer of {keys} keys instead of {expected}"))
                }
                _ => Ok(None),
            };
        };
        let request = RangeRequest { key, revision, ..self.request.clone() };
        request.encode(body).expect("a Vec takes everything");
        Ok(Some(paths::RANGE))
    }
}

/// The kinds of operations.
pub(super) fn kinds() -> Vec<Kind> {
    vec![Kind::new("range", 0)]
}

/// Makes the load of a connection.
///
/// # Errors
/// The flags are wrong.
pub(super) fn maker(
    globals: &Globals,
    flags: &Flags,
) -> Result<impl Fn(usize) -> Range + Sync + use<>, Fatal> {
    let request = request(flags)?;
    let spec = match flags.key_space_size {
        None => None,
        Some(space) => {
            let prefix = flags.keys.first().cloned().unwrap_or_default().into_bytes();
            let distribution = flags.choice.distribution(space)?;
            let spec = KeySpec { prefix, size: flags.key_size, space, distribution };
            spec.check()?;
            Some(spec)
        }
    };
    let (seed, stream, paginate) = (globals.seed, flags.stream, flags.paginate);
    let expect_keys = flags.expect_keys;
    Ok(move |conn: usize| Range {
        request: request.clone(),
        keys: spec.clone().map(|spec| Keys::new(spec, seed.wrapping_add(conn as u64))),
        stream,
        paginate,
        expect_keys,
        slots: Vec::new(),
        seen: Seen::default(),
    })
}

/// Reads and reports.
///
/// # Errors
/// The flags are wrong or the server cannot be reached.
pub fn run(globals: &Globals, flags: &Flags) -> Result<Finished, Fatal> {
    let make = maker(globals, flags)?;
    let dialer = session::dialer(globals)?;
    let load = Load { globals, total: flags.total, rate: flags.rate, kinds: kinds() };
    let (mut finished, ranges) = load.run(&dialer, make)?;
    let seen = ranges.into_iter().map(|range| range.seen).fold(Seen::default(), Seen::and);
    finished.prologue = prologue(&flags.consistency);
    let details = &mut finished.details;
    details.insert("consistency".into(), flags.consistency.clone().into());
    details.insert("bytes_received".into(), seen.bytes.into());
    details.insert("keys_received".into(), seen.keys.into());
    details.insert("keys_per_answer_least".into(), seen.keys_least.unwrap_or(0).into());
    details.insert("keys_per_answer_most".into(), seen.keys_most.into());
    finished.epilogue = format!("\nReceived: {} keys, {} bytes\n", seen.keys, seen.bytes);
    Ok(finished)
}

/// etcd's first line.
pub(super) fn prologue(consistency: &str) -> String {
    let word = if consistency == "s" { "serializable" } else { "linearizable" };
    format!("bench with {word} range\n")
}

fn request(flags: &Flags) -> Result<RangeRequest, Fatal> {
    if flags.keys.is_empty() && !flags.prefix && flags.key_space_size.is_none() {
        return Err("range needs a key, --prefix or --key-space-size".into());
    }
    if flags.paginate && flags.limit > 0 {
        return Err("--paginate and --limit are mutually exclusive".into());
    }
    if flags.count_only && flags.keys_only {
        return Err("`--keys-only` and `--count-only` cannot be set at the same time".into());
    }
    let key = flags.keys.first().cloned().unwrap_or_default().into_bytes();
    let end = match flags.prefix {
        true => prefix_end(&key),
        false => flags.keys.get(1).cloned().unwrap_or_default().into_bytes(),
    };
    // The empty key is no key: the range starts at the smallest one.
    let key = if key.is_empty() && flags.prefix { vec![0] } else { key };
    Ok(RangeRequest {
        key: key.into(),
        range_end: end.into(),
        limit: if flags.paginate { PAGE_KEYS } else { flags.limit },
        count_only: flags.count_only,
        keys_only: flags.keys_only,
        serializable: flags.consistency == "s",
        ..RangeRequest::default()
    })
}

impl Seen {
    fn and(self, other: Self) -> Self {
        let least = [self.keys_least, other.keys_least].into_iter().flatten().min();
        Self {
            bytes: self.bytes + other.bytes,
            keys: self.keys + other.keys,
            keys_least: least,
            keys_most: self.keys_most.max(other.keys_most),
        }
    }
}

/// The fields of a `RangeResponse` that are checked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) revision: i64,
    pub(super) keys: u64,
    pub(super) last_key: &'a [u8],
    pub(super) more: bool,
}

impl<'a> Answer<'a> {
    /// Reads the outer fields; `stream` unwraps a `RangeStreamResponse` first.
    pub(super) fn walk(body: &'a [u8], stream: bool) -> Option<Self> {
        let mut body = body;
        if stream {
            let mut inner: &[u8] = &[];
            while let Some((field, value)) = field(&mut body)? {
                if field == 1 {
                    inner = value.bytes()?;
                }
            }
            body = inner;
        }
        let mut answer = Self::default();
        let mut last: &[u8] = &[];
        while let Some((number, value)) = field(&mut body)? {
            match number {
                1 => answer.revision = ResponseHeader::decode(value.bytes()?).ok()?.revision,
                2 => {
                    answer.keys += 1;
                    last = value.bytes()?;
                }
                3 => answer.more = value.number()? != 0,
                _ => {}
            }
        }
        while let Some((number, value)) = field(&mut last)? {
            if number == 1 {
                answer.last_key = value.bytes()?;
            }
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::{RangeResponse, RangeStreamResponse};
    use basalt_proto::mvccpb::KeyValue;

    use super::*;

    fn response(keys: u8, more: bool) -> RangeResponse {
        let kv = |number| KeyValue {
            key: vec![b'k', number].into(),
            value: vec![9; 300].into(),
            mod_revision: 7,
            ..KeyValue::default()
        };
        RangeResponse {
            header: Some(ResponseHeader { revision: 42, ..ResponseHeader::default() }),
            kvs: (0..keys).map(kv).collect(),
            more,
            count: 1000,
        }
    }

    #[test]
    fn a_walk_sees_what_a_decoder_sees() {
        let body = response(3, true).encode_to_vec();
        let expected = Answer { revision: 42, keys: 3, last_key: b"k\x02", more: true };
        assert_eq!(Answer::walk(&body, false), Some(expected));
        assert_eq!(Answer::walk(&body[..body.len() - 40], false), None);
        let stream = RangeStreamResponse { range_response: Some(response(2, false)) };
        assert_eq!(Answer::walk(&stream.encode_to_vec(), true).unwrap().keys, 2);
    }

    fn workload(paginate: bool, expect_keys: Option<u64>) -> Range {
        Range {
            request: RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() },
            keys: None,
            stream: false,
            paginate,
            expect_keys,
            slots: Vec::new(),
            seen: Seen::default(),
        }
    }

    #[test]
    fn pages_go_on_after_the_last_key_at_the_first_revision() {
        let mut range = workload(true, None);
        let mut body = Vec::new();
        range.begin(3, 0, &mut body);
        range.message(3, &response(2, true).encode_to_vec()).unwrap();
        body.clear();
        assert_eq!(range.next(3, &mut body), Ok(Some(paths::RANGE)));
        let request = RangeRequest::decode(&body[..]).unwrap();
        assert_eq!((&request.key[..], request.revision), (&b"k\x01\0"[..], 42));
        range.message(3, &response(1, false).encode_to_vec()).unwrap();
        assert_eq!(range.next(3, &mut body), Ok(None));
        assert_eq!((range.seen.keys, range.seen.keys_least), (3, Some(3)));
    }

    #[test]
    fn an_answer_of_other_size_is_an_error() {
        let mut range = workload(false, Some(2));
        let mut body = Vec::new();
        range.begin(0, 0, &mut body);
        range.message(0, &response(1, false).encode_to_vec()).unwrap();
        assert!(range.next(0, &mut body).is_err());
        range.begin(0, 1, &mut body);
        range.message(0, &response(2, false).encode_to_vec()).unwrap();
        assert_eq!(range.next(0, &mut body), Ok(None));
    }
}
