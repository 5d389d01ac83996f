//! Messages of DNS (RFC 1035, 2782, 6891) as bytes.

use super::{NO_SUCH_HOST, Service};

pub(super) const A: u16 = 1;
pub(super) const SRV: u16 = 33;
pub(super) const CANNOT_UNMARSHAL: &str = "cannot unmarshal DNS message";
/// The largest answer accepted over UDP (the DNS flag day of 2020).
pub(super) const UDP_BYTES_MAX: u16 = 1232;
const HEADER_BYTES: usize = 12;
const INTERNET: u16 = 1;
const OPTIONS: u16 = 41;
/// More labels than a name of 255 bytes has; it also ends a name that points to itself.
const LABELS_MAX: usize = 256;

/// One question with recursion desired and EDNS for larger answers. `name` is a domain name that ends with a dot.
pub(super) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.split('.').filter(|it| !it.is_empty()) {
        out.push(u8::try_from(label.len()).expect("a label is short"));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    for number in [kind, INTERNET] {
        out.extend(number.to_be_bytes());
    }
    out.push(0);
    for number in [OPTIONS, UDP_BYTES_MAX, 0, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    out
}

/// Checks that an answer has a record of this kind.
///
/// # Errors
/// Go's text for the fault of the answer or its server.
pub(super) fn verdict(answer: &[u8], kind: u16) -> Result<(), &'static str> {
    const FOUND: u8 = 0;
    const NO_SUCH_NAME: u8 = 3;
    let message = Message::new(answer).ok_or(CANNOT_UNMARSHAL)?;
    let [flags, code] = [answer[2], answer[3]];
    let (is_authority, recurses) = (flags & 4 != 0, code & 0x80 != 0);
    match code & 0xf {
        FOUND if message.is_bare() && !is_authority && !recurses => Err("lame referral"),
        FOUND => message.has(kind),
        NO_SUCH_NAME => Err(NO_SUCH_HOST),
        _ => Err("server misbehaving"),
    }
}

/// A message with a whole header and a whole first question.
pub(super) struct Message<'a> {
    bytes: &'a [u8],
    /// Offset of the first byte after the question.
    answers: usize,
}

impl<'a> Message<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let end = name(bytes, HEADER_BYTES)?.1 + 4;
        (bytes.len() >= end).then_some(Self { bytes, answers: end })
    }

    /// True if it answers that query: same id, and same question in any case.
    pub(super) fn is_answer_to(&self, query: &[u8]) -> bool {
        let question = |bytes: &[u8]| {
            let (name, end) = name(bytes, HEADER_BYTES)?;
            Some((name.to_ascii_lowercase(), bytes.get(end..end + 4)?.to_vec()))
        };
        let is_response = self.bytes[2] & 0x80 != 0;
        is_response && self.bytes[..2] == query[..2] && question(self.bytes) == question(query)
    }

    pub(super) fn is_cut_short(&self) -> bool {
        self.bytes[2] & 2 != 0
    }

    pub(super) fn has_one_question(&self) -> bool {
        self.count(4) == 1
    }

    /// True if the message has neither answers nor additional records.
    fn is_bare(&self) -> bool {
        self.count(6) == 0 && self.count(10) == 0
    }

    fn count(&self, at: usize) -> u16 {
        number(self.bytes, at).unwrap_or_default()
    }

    /// Reads up to the first record of this kind.
    fn has(&self, kind: u16) -> Result<(), &'static str> {
        for record in self.records() {
            match record.ok_or(CANNOT_UNMARSHAL)? {
                it if it.kind == kind => return Ok(()),
                it if it.end > self.bytes.len() => return Err(CANNOT_UNMARSHAL),
                _ => {}
            }
        }
        Err(NO_SUCH_HOST)
    }

    /// The answers; the last one is `None` if the message is truncated.
    fn records(&self) -> impl Iterator<Item = Option<Record>> {
        let mut at = Some(self.answers);
        (0..self.count(6)).map_while(move |_| {
            let record = self.record(at?);
            at = record.as_ref().map(|it| it.end);
            Some(record)
        })
    }

    fn record(&self, at: usize) -> Option<Record> {
        let behind = name(self.bytes, at)?.1;
        let (kind, size) = (number(self.bytes, behind)?, number(self.bytes, behind + 8)?);
        Some(Record { kind, at: behind + 10, end: behind + 10 + usize::from(size) })
    }

    /// The SRV records of the answer.
    pub(super) fn services(&self) -> Option<Vec<Service>> {
        let service = |at: usize| {
            Some(Service {
                priority: number(self.bytes, at)?,
                weight: number(self.bytes, at + 2)?,
                port: number(self.bytes, at + 4)?,
                target: name(self.bytes, at + 6)?.0,
            })
        };
        let mut found = Vec::new();
        for record in self.records() {
            let record = record.filter(|it| it.end <= self.bytes.len())?;
            if record.kind == SRV {
                found.push(service(record.at)?);
            }
        }
        Some(found)
    }
}

/// Position of the content of an answer.
struct Record {
    kind: u16,
    at: usize,
    end: usize,
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// A name, which may continue elsewhere in the message, and the offset after it.
fn name(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut out, mut at, mut behind) = (String::new(), at, None);
    for _ in 0..LABELS_MAX {
        let length = usize::from(*bytes.get(at)?);
        if length >= 0xc0 {
            behind.get_or_insert(at + 2);
            at = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
        } else if length == 0 {
            let name = if out.is_empty() { ".".to_owned() } else { out };
            return Some((name, behind.unwrap_or(at + 1)));
        } else {
            out.push_str(&String::from_utf8_lossy(bytes.get(at + 1..at + 1 + length)?));
            out.push('.');
            at += 1 + length;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with two servers, the second's name behind a pointer into the question.
    fn answer() -> Vec<u8> {
        let mut message = query(7, "_etcd-client._tcp.a.b.", SRV);
        message.truncate(message.len() - 11);
        message[2] |= 0x80;
        message[7] = 2;
        message[11] = 0;
        for (priority, port) in [(2, 2379_u16), (1, 2380)] {
            message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 11, 0, priority, 0, 9]);
            message.extend(port.to_be_bytes());
            message.extend([2, b'h', b'0' + priority, 0xc0, 30]);
        }
        message
    }

    #[test]
    fn records_are_read_with_pointers() {
        let bytes = answer();
        let message = Message::new(&bytes).unwrap();
        assert!(message.is_answer_to(&query(7, "_Etcd-client._tcp.a.b.", SRV)));
        assert!(!message.is_answer_to(&query(8, "_etcd-client._tcp.a.b.", SRV)));
        assert!(!message.is_answer_to(&query(7, "_etcd-client._tcp.a.c.", SRV)));
        let service = |target: &str, port, priority| Service {
            target: target.to_owned(),
            port,
            priority,
            weight: 9,
        };
        let wanted = [service("h2.a.b.", 2379, 2), service("h1.a.b.", 2380, 1)];
        assert_eq!(message.services().unwrap(), wanted);
        assert_eq!(verdict(&bytes, SRV), Ok(()));
        assert_eq!(verdict(&bytes, A), Err(NO_SUCH_HOST));
    }

    #[test]
    fn truncated_and_circular_messages_are_refused() {
        // Header, question, and the record's own header behind a pointer.
        const FIRST_RECORD_END: usize = 12 + 23 + 4 + 12;
        let whole = answer();
        for end in 0..whole.len() {
            let cut = &whole[..end];
            assert_eq!(Message::new(cut).and_then(|it| it.services()), None, "{end}");
            // The beginning of one of them is enough.
            let is_begun = end >= FIRST_RECORD_END;
            assert_eq!(verdict(cut, SRV).is_ok(), is_begun, "{end}");
        }
        let mut circle = whole;
        circle[12..14].copy_from_slice(&[0xc0, 12]);
        assert!(Message::new(&circle).is_none());
    }

    #[test]
    fn servers_that_do_not_serve_are_told_apart() {
        let mut bytes = answer();
        for (code, word) in
            [(2, "server misbehaving"), (3, NO_SUCH_HOST), (5, "server misbehaving")]
        {
            bytes[3] = code;
            assert_eq!(verdict(&bytes, SRV), Err(word));
        }
        (bytes[3], bytes[7]) = (0, 0);
        assert_eq!(verdict(&bytes, SRV), Err("lame referral"));
        bytes[2] |= 4;
        assert_eq!(verdict(&bytes, SRV), Err(NO_SUCH_HOST));
    }
}
