//! The encoding of a command as one of the fields of `InternalRaftRequest`: the methods that prost derives for an enum, by hand,
//! because those about users are an enum of their own.

use prost::DecodeError;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, message};

use super::{AuthCommand, Command};

/// From the tags of messages.
macro_rules! fields {
    ($($tag:literal $name:ident;)*) => {
        impl Command {
            /// Appends the command's field.
            pub(super) fn encode(&self, buffer: &mut impl BufMut) {
                match self {
                    $(Self::$name(content) => message::encode($tag, content, buffer),)*
                    Self::Auth(auth) => auth.encode(buffer),
                }
            }

            /// Bytes of the command's field.
            pub(super) fn encoded_len(&self) -> usize {
                match self {
                    $(Self::$name(content) => message::encoded_len($tag, content),)*
                    Self::Auth(auth) => auth.encoded_len(),
                }
            }

            /// Reads a field with this tag. One that is there already is continued, as prost does it.
            pub(super) fn merge(
                field: &mut Option<Self>,
                tag: u32,
                wire_type: WireType,
                buffer: &mut impl Buf,
                context: DecodeContext,
            ) -> Result<(), DecodeError> {
                let before = field.take();
                match tag {
                    $($tag => {
                        let mut content = Default::default();
                        if let Some(Self::$name(known)) = before {
                            content = known;
                        }
                        message::merge(wire_type, &mut content, buffer, context)?;
                        *field = Some(Self::$name(content));
                    })*
                    _ => {
                        let mut auth = None;
                        if let Some(Self::Auth(known)) = before {
                            auth = Some(known);
                        }
                        AuthCommand::merge(&mut auth, tag, wire_type, buffer, context)?;
                        *field = auth.map(Self::Auth);
                    }
                }
                Ok(())
            }
        }
    };
}

fields! {
    4 Put;
    5 DeleteRange;
    6 Txn;
    7 Compaction;
    8 LeaseGrant;
    9 LeaseRevoke;
    10 Alarm;
    1300 ClusterVersionSet;
    1301 ClusterMemberAttrSet;
    10000 LeaseExpire;
    10001 FeatureLevelSet;
    10002 TokenIssue;
    10003 TokenRenew;
    10004 TokenSweep;
}
