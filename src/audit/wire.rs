//! As much of protobuf's encoding as finds fields in a message without reading the others.

use prost::encoding::decode_varint;

/// The value of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Fields of a message in their order, up to the first that does not read.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let tag = varint(&mut self.0)?;
            let number = u32::try_from(tag >> 3).ok()?;
            match tag & 7 {
                0 => return Some((number, Field::Number(varint(&mut self.0)?))),
                1 => self.0 = self.0.get(8..)?,
                2 => {
                    let length = usize::try_from(varint(&mut self.0)?).ok()?;
                    let (bytes, rest) = self.0.split_at_checked(length)?;
                    self.0 = rest;
                    return Some((number, Field::Bytes(bytes)));
                }
                5 => self.0 = self.0.get(4..)?,
                _ => return None,
            }
        }
    }
}

/// The bytes of the last field of this number, which is the one that counts; none if there is none.
pub(super) fn bytes(message: &[u8], wanted: u32) -> &[u8] {
    let [found] = several(message, [wanted]);
    found
}

/// The same for several fields at once.
pub(super) fn several<const N: usize>(message: &[u8], wanted: [u32; N]) -> [&[u8]; N] {
    let mut found: [&[u8]; N] = [&[]; N];
    for (number, field) in Fields(message) {
        if let (Some(at), Field::Bytes(bytes)) = (wanted.iter().position(|it| *it == number), field)
        {
            found[at] = bytes;
        }
    }
    found
}

/// The number of the last field of this number.
pub(super) fn number(message: &[u8], wanted: u32) -> u64 {
    let mut found = 0;
    for (number, field) in Fields(message) {
        if let (true, Field::Number(value)) = (number == wanted, field) {
            found = value;
        }
    }
    found
}

/// The revision in the header of a response, which is the first field of each.
pub fn response_revision(response: &[u8]) -> i64 {
    const HEADER: u32 = 1;
    const REVISION: u32 = 3;
    match Fields(response).next() {
        Some((HEADER, Field::Bytes(header))) => number(header, REVISION) as i64,
        Some(_) | None => 0,
    }
}

/// Most are one byte: tags, and lengths of keys.
#[inline(always)]
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    match bytes {
        [byte @ 0..0x80, rest @ ..] => {
            *bytes = rest;
            Some(u64::from(*byte))
        }
        _ => decode_varint(bytes).ok(),
    }
}
