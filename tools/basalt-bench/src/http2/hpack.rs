//! Header compression (RFC 7541): an encoder for the few fields of a gRPC request, which after the
//! first request are one byte each, and a full decoder for servers' responses.

use std::collections::VecDeque;

/// Both directions keep HTTP/2's initial table size.
pub(super) const TABLE_BYTES: usize = 4096;
const ENTRY_OVERHEAD: usize = 32;
const STATIC_ENTRIES: usize = 61;

/// The fixed table of RFC 7541, appendix A.
const STATIC: [(&str, &str); STATIC_ENTRIES] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Code length in bits of each byte in the Huffman code of RFC 7541, appendix B. The code is
/// canonical: these lengths and the order of the bytes determine every code word.
#[rustfmt::skip]
const CODE_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const CODE_BITS_MAX: usize = 30;

/// Encodes request fields. A field that is not in the tables is inserted when first seen, so it
/// must be one of a small constant set.
#[derive(Debug)]
pub(super) struct Encoder {
    inserted: Vec<(String, String)>,
    indexing: bool,
    shrink: bool,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { inserted: Vec::new(), indexing: true, shrink: false }
    }

    /// The peer keeps a smaller table than ours: sends literals only from now on, and announces it.
    pub(super) fn stop_indexing(&mut self) {
        if self.indexing {
            self.indexing = false;
            self.shrink = true;
            self.inserted.clear();
        }
    }

    /// Grows with every inserted field: an encoded block stays valid while this stays the same.
    pub(super) fn generation(&self) -> (usize, bool) {
        (self.inserted.len(), self.indexing)
    }

    /// Appends the block for `fields`.
    pub(super) fn encode(&mut self, fields: &[(&str, &str)], out: &mut Vec<u8>) {
        if self.shrink {
            self.shrink = false;
            out.push(0x20);
        }
        for &(name, value) in fields {
            if let Some(at) = STATIC.iter().position(|&entry| entry == (name, value)) {
                integer(0x80, 7, at + 1, out);
            } else if let Some(at) =
                self.inserted.iter().position(|entry| entry.0 == name && entry.1 == value)
            {
                integer(0x80, 7, STATIC_ENTRIES + self.inserted.len() - at, out);
            } else {
                let room = self.size() + name.len() + value.len() + ENTRY_OVERHEAD <= TABLE_BYTES;
                out.push(if self.indexing && room { 0x40 } else { 0x00 });
                for text in [name, value] {
                    integer(0, 7, text.len(), out);
                    out.extend_from_slice(text.as_bytes());
                }
                if self.indexing && room {
                    self.inserted.push((name.to_owned(), value.to_owned()));
                }
            }
        }
    }

    fn size(&self) -> usize {
        self.inserted.iter().map(|(name, value)| name.len() + value.len() + ENTRY_OVERHEAD).sum()
    }
}

fn integer(mark: u8, bits: u32, value: usize, out: &mut Vec<u8>) {
    let full = (1_usize << bits) - 1;
    if value < full {
        out.push(mark | u8::try_from(value).expect("below the prefix"));
        return;
    }
    out.push(mark | u8::try_from(full).expect("a prefix has at most 8 bits"));
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(0x80 | u8::try_from(rest & 0x7f).expect("seven bits"));
        rest >>= 7;
    }
    out.push(u8::try_from(rest).expect("below 0x80"));
}

/// Name and value.
type Field = (Box<[u8]>, Box<[u8]>);

/// Decodes response fields.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Newest first, as the indices count.
    table: VecDeque<Field>,
    size: usize,
    limit: usize,
    huffman: Huffman,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { table: VecDeque::new(), size: 0, limit: TABLE_BYTES, huffman: Huffman::new() }
    }

    /// Passes each field of a block to `on`. Returns `None` if the block is malformed.
    pub(super) fn decode(
        &mut self,
        mut block: &[u8],
        mut on: impl FnMut(&[u8], &[u8]),
    ) -> Option<()> {
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let at = read_integer(&mut block, 7)?;
                let (name, value) = self.entry(at)?;
                on(name, value);
            } else if first & 0xe0 == 0x20 {
                let limit = read_integer(&mut block, 5)?;
                if limit > TABLE_BYTES {
                    return None;
                }
                self.limit = limit;
                self.evict();
            } else {
                let keep = first & 0x40 != 0;
                let at = read_integer(&mut block, if keep { 6 } else { 4 })?;
                let name = match at {
                    0 => self.text(&mut block)?,
                    _ => self.entry(at)?.0.to_vec(),
                };
                let value = self.text(&mut block)?;
                on(&name, &value);
                if keep {
                    self.insert(name, value);
                }
            }
        }
        Some(())
    }

    fn entry(&self, at: usize) -> Option<(&[u8], &[u8])> {
        let at = at.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        self.table.get(at - STATIC_ENTRIES).map(|(name, value)| (&**name, &**value))
    }

    fn text(&self, block: &mut &[u8]) -> Option<Vec<u8>> {
        let coded = *block.first()? & 0x80 != 0;
        let length = read_integer(block, 7)?;
        let (text, rest) = block.split_at_checked(length)?;
        *block = rest;
        if coded { self.huffman.decode(text) } else { Some(text.to_vec()) }
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.size += name.len() + value.len() + ENTRY_OVERHEAD;
        self.table.push_front((name.into(), value.into()));
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let Some((name, value)) = self.table.pop_back() else { return };
            self.size -= name.len() + value.len() + ENTRY_OVERHEAD;
        }
    }
}

fn read_integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let full = (1_usize << bits) - 1;
    let (&first, mut rest) = block.split_first()?;
    let mut value = usize::from(first) & full;
    if value == full {
        let mut shift = 0;
        loop {
            let (&byte, tail) = rest.split_first()?;
            rest = tail;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return None;
            }
        }
    }
    *block = rest;
    Some(value)
}

/// The canonical code, by length: the first code word of each, and the bytes that they encode.
#[derive(Debug)]
struct Huffman {
    first: [u32; CODE_BITS_MAX + 1],
    start: [usize; CODE_BITS_MAX + 1],
    count: [usize; CODE_BITS_MAX + 1],
    bytes: Vec<u8>,
}

impl Huffman {
    fn new() -> Self {
        let mut this = Self {
            first: [0; CODE_BITS_MAX + 1],
            start: [0; CODE_BITS_MAX + 1],
            count: [0; CODE_BITS_MAX + 1],
            bytes: Vec::with_capacity(256),
        };
        let mut code = 0;
        for bits in 1..=CODE_BITS_MAX {
            code <<= 1;
            this.first[bits] = code;
            this.start[bits] = this.bytes.len();
            let of_length = |byte: &u8| usize::from(CODE_BITS[usize::from(*byte)]) == bits;
            this.bytes.extend((0..=u8::MAX).filter(of_length));
            this.count[bits] = this.bytes.len() - this.start[bits];
            code += u32::try_from(this.count[bits]).expect("at most 256");
        }
        this
    }

    fn decode(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len() * 2);
        let (mut code, mut bits) = (0_u32, 0_usize);
        for byte in text {
            for shift in (0..8).rev() {
                code = code << 1 | u32::from(byte >> shift & 1);
                bits += 1;
                let offset = code.wrapping_sub(self.first[bits]) as usize;
                if offset < self.count[bits] {
                    out.push(self.bytes[self.start[bits] + offset]);
                    (code, bits) = (0, 0);
                } else if bits == CODE_BITS_MAX {
                    return None;
                }
            }
        }
        // The remaining bits must be the start of the end mark: up to seven ones.
        (bits < 8 && code == (1 << bits) - 1).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder.decode(block, |name, value| fields.push((text(name), text(value)))).unwrap();
        fields
    }

    #[test]
    fn the_code_is_the_one_of_the_rfc() {
        // RFC 7541, C.4.1 and C.6.1.
        let huffman = Huffman::new();
        let domain = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(huffman.decode(&domain).unwrap(), b"www.example.com");
        assert_eq!(huffman.decode(&[0x64, 0x02]).unwrap(), b"302");
        assert_eq!(huffman.decode(&[0xff, 0xff]), None, "padding of more than seven bits");
    }

    #[test]
    fn repeated_fields_become_one_byte_each() {
        let fields = [(":method", "POST"), (":path", "/a/B"), ("te", "trailers")];
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        encoder.encode(&fields, &mut first);
        let generation = encoder.generation();
        encoder.encode(&fields, &mut second);
        assert_eq!(encoder.generation(), generation);
        assert_eq!(second.len(), 3);
        assert_eq!(decoded(&mut decoder, &first), decoded(&mut decoder, &second));
    }

    #[test]
    fn a_peer_without_a_table_gets_literals() {
        let mut encoder = Encoder::new();
        encoder.stop_indexing();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        encoder.encode(&[("te", "trailers")], &mut first);
        encoder.encode(&[("te", "trailers")], &mut second);
        assert_eq!(first[0], 0x20, "says that the table is empty");
        assert_eq!(first[1..], second);
    }

    #[test]
    fn table_evicts_the_oldest_and_long_integers_are_read() {
        let mut decoder = Decoder::new();
        let mut block = Vec::new();
        let long = "v".repeat(3000);
        let mut encoder = Encoder::new();
        encoder.encode(&[("a", &long)], &mut block);
        assert_eq!(decoded(&mut decoder, &block)[0].1.len(), 3000);
        let mut encoder = Encoder::new();
        block.clear();
        encoder.encode(&[("b", &long)], &mut block);
        decoded(&mut decoder, &block);
        assert_eq!(decoder.table.len(), 1);
        assert_eq!(decoder.decode(&[0x80 | 63], |_, _| ()), None, "the evicted entry");
    }
}
