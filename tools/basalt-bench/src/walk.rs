//! Walks over the outer fields of an encoded message without decoding it: counting ten thousand
//! keys or events must not cost ten thousand allocations.

/// One protobuf value of the two kinds that occur.
pub enum Field<'a> {
    /// A varint.
    Number(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// The bytes, if the field has this kind.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }

    /// The number, if the field has this kind.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Bytes(_) => None,
        }
    }
}

/// The next field of a message: `Some(None)` at its end, `None` if it is malformed.
#[allow(clippy::option_option, reason = "the outer one carries `?` through the walk")]
pub fn field<'a>(message: &mut &'a [u8]) -> Option<Option<(u64, Field<'a>)>> {
    if message.is_empty() {
        return Some(None);
    }
    let tag = prost::encoding::decode_varint(message).ok()?;
    let number = prost::encoding::decode_varint(message).ok()?;
    match tag & 7 {
        0 => Some(Some((tag >> 3, Field::Number(number)))),
        2 => {
            let (bytes, rest) = message.split_at_checked(usize::try_from(number).ok()?)?;
            *message = rest;
            Some(Some((tag >> 3, Field::Bytes(bytes))))
        }
        _ => None,
    }
}
