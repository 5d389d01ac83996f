//! The commands that the replicated log holds, as one closed list. A [`Command`] is made where a request is proposed and
//! encoded there once; it is decoded once where its entry is applied. Everything that depends on the kind of a command is
//! a `match` without `_`, so that the compiler lists what a new command needs.
//!
//! ```text
//!  request ─► Command ─encode─► entry: etcd's InternalRaftRequest ─► log ─decode─► Command ─► machine
//! ```
//!
//! A new command needs a field of `InternalRaftRequest`, a variant here, and the [`FeatureLevel`] from which members
//! know it. A command that the level of the cluster does not cover is refused when it is proposed
//! ([`Command::check_level`]).

mod auth;
mod cost;
mod fields;
mod operation;
#[cfg(test)]
mod tests;
mod wire;

use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, FeatureLevelSetRequest,
    LeaseExpireRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RequestHeader,
    TokenIssueRequest, TokenRenewRequest, TokenSweepRequest, TxnRequest,
};
use basalt_proto::membershippb::{ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use bytes::{Bytes, BytesMut};
use prost::Message;

pub use self::auth::AuthCommand;
pub use self::cost::{LEASE_COST, put_cost, txn_cost};
pub use self::operation::Operation;
use crate::types::{Fault, FeatureLevel, Refusal};

/// A change of the replicated state.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Writes a key.
    Put(PutRequest),
    /// Deletes keys.
    DeleteRange(DeleteRangeRequest),
    /// Reads and writes keys under conditions.
    Txn(TxnRequest),
    /// Removes history.
    Compaction(CompactionRequest),
    /// Grants a lease.
    LeaseGrant(LeaseGrantRequest),
    /// Revokes a lease at a client's request.
    LeaseRevoke(LeaseRevokeRequest),
    /// Lists, raises or disarms alarms.
    Alarm(AlarmRequest),
    /// Changes users, roles or permissions, or turns auth on or off.
    Auth(AuthCommand),
    /// Sets the cluster version.
    ClusterVersionSet(ClusterVersionSetRequest),
    /// Sets the name and the client URLs of a member.
    ClusterMemberAttrSet(ClusterMemberAttrSetRequest),
    /// Revokes a lease whose time is up.
    LeaseExpire(LeaseExpireRequest),
    /// Raises the feature level of the cluster.
    FeatureLevelSet(FeatureLevelSetRequest),
    /// Keeps the hash of a token that a user was given.
    TokenIssue(TokenIssueRequest),
    /// Lets tokens live on that were used.
    TokenRenew(TokenRenewRequest),
    /// Removes tokens that have expired.
    TokenSweep(TokenSweepRequest),
}

/// The fields of `InternalRaftRequest` that are read, in the encoding of the whole.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, optional, tag = "100")]
    header: Option<RequestHeader>,
    #[prost(
        oneof = "Command",
        tags = "4, 5, 6, 7, 8, 9, 10, 1000, 1011, 1100, 1101, 1103, 1104, 1105, 1200, 1201, 1203, 1204, 1300, 1301, 10000, 10001, 10002, 10003, 10004"
    )]
    command: Option<Command>,
}

/// A command that touches as many records as are stored in its range, attached to its lease, or tokens that its user has; any
/// other touches a bounded few.
#[derive(Clone, Copy, Debug)]
pub enum Large<'a> {
    /// [`Command::DeleteRange`].
    DeleteRange(&'a DeleteRangeRequest),
    /// [`Command::Txn`].
    Txn(&'a TxnRequest),
    /// [`Command::LeaseRevoke`].
    LeaseRevoke(&'a LeaseRevokeRequest),
    /// [`Command::LeaseExpire`].
    LeaseExpire(&'a LeaseExpireRequest),
    /// [`AuthCommand::Disable`]: all tokens are dropped.
    AllTokens,
    /// A command that drops the tokens of this user.
    TokensOf(&'a str),
}

/// The part of the state that a command touches, which decides the alarms that refuse it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlarmClass {
    /// No keys: only the cluster's own state. Never refused.
    Control,
    /// Keys or leases, without taking space. Deletes, compactions and the end of leases give space back.
    Keys,
    /// Keys or leases, and takes space.
    Growth,
}

impl AlarmClass {
    /// True if a command of this class is refused while an alarm of this type is active.
    pub const fn is_refused_under(self, alarm: AlarmType) -> bool {
        match (self, alarm) {
            (Self::Control, _) | (_, AlarmType::None) => false,
            (Self::Keys, AlarmType::Nospace) => false,
            (Self::Growth, AlarmType::Nospace) => true,
            (Self::Keys | Self::Growth, AlarmType::Corrupt) => true,
        }
    }
}

impl Command {
    /// Decodes the payload of an entry: the header of the proposer, and the command.
    ///
    /// # Errors
    /// The payload is damaged, or contains a field that this version does not know; no field is skipped.
    pub fn decode(data: Bytes) -> Result<(RequestHeader, Self), Fault> {
        fields::check(&data)?;
        let envelope = Envelope::decode(data).map_err(|error| fields::unreadable(&error))?;
        let id = envelope.id;
        let header =
            envelope.header.unwrap_or_else(|| RequestHeader { id, ..RequestHeader::default() });
        let command = envelope.command.ok_or_else(fields::empty)?;
        Ok((header, command))
    }

    /// The payload of an entry, without a header: [`encode_header`] may append one.
    pub fn encode_with_room(&self, header_bytes: usize) -> BytesMut {
        let mut data = BytesMut::with_capacity(self.encoded_len() + header_bytes);
        self.encode(&mut data);
        data
    }

    /// The payload of an entry whose request has this id; 0 if no request waits for it.
    pub fn to_payload(&self, id: u64) -> Bytes {
        let mut data = self.encode_with_room(HEADER_BYTES_MAX);
        if id != 0 {
            encode_header(RequestHeader { id, ..RequestHeader::default() }, &mut data);
        }
        data.freeze()
    }

    /// The same, with this header.
    pub fn to_payload_with(&self, header: RequestHeader) -> Bytes {
        let mut data = self.encode_with_room(header_bytes_max(&header.username));
        encode_header(header, &mut data);
        data.freeze()
    }

    /// The kind, as metrics name it.
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Put(_) => Operation::Put,
            Self::DeleteRange(_) => Operation::DeleteRange,
            Self::Txn(_) => Operation::Txn,
            Self::Compaction(_) => Operation::Compaction,
            Self::LeaseGrant(_) => Operation::LeaseGrant,
            Self::LeaseRevoke(_) | Self::LeaseExpire(_) => Operation::LeaseRevoke,
            Self::Alarm(_) => Operation::Alarm,
            Self::Auth(auth) => auth.operation(),
            Self::ClusterVersionSet(_) => Operation::ClusterVersionSet,
            Self::ClusterMemberAttrSet(_) => Operation::ClusterMemberAttrSet,
            Self::FeatureLevelSet(_) => Operation::FeatureLevelSet,
            Self::TokenIssue(_) | Self::TokenRenew(_) | Self::TokenSweep(_) => {
                Operation::Authenticate
            }
        }
    }

    /// The command as a large one, if it is of such a kind.
    pub const fn large(&self) -> Option<Large<'_>> {
        match self {
            Self::DeleteRange(delete) => Some(Large::DeleteRange(delete)),
            Self::Txn(txn) => Some(Large::Txn(txn)),
            Self::LeaseRevoke(revoke) => Some(Large::LeaseRevoke(revoke)),
            Self::LeaseExpire(expire) => Some(Large::LeaseExpire(expire)),
            Self::Auth(auth) => auth.large(),
            Self::Put(_)
            | Self::Compaction(_)
            | Self::LeaseGrant(_)
            | Self::Alarm(_)
            | Self::ClusterVersionSet(_)
            | Self::ClusterMemberAttrSet(_)
            | Self::FeatureLevelSet(_)
            | Self::TokenIssue(_)
            | Self::TokenRenew(_)
            | Self::TokenSweep(_) => None,
        }
    }

    /// The first level at which members know the command.
    pub const fn level(&self) -> FeatureLevel {
        match self {
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::Compaction(_)
            | Self::LeaseGrant(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseExpire(_)
            | Self::Alarm(_)
            | Self::ClusterVersionSet(_)
            | Self::ClusterMemberAttrSet(_) => FeatureLevel::INITIAL,
            Self::FeatureLevelSet(_) => FeatureLevel::new(2),
            Self::Auth(_) | Self::TokenIssue(_) | Self::TokenRenew(_) | Self::TokenSweep(_) => {
                FeatureLevel::AUTH
            }
        }
    }

    /// The level that the cluster must have agreed on before the command is proposed. The command that raises the level
    /// is exempt from the level that introduced it: its proposer has asked all members.
    fn level_needed(&self) -> FeatureLevel {
        if let Self::FeatureLevelSet(_) = self {
            return FeatureLevel::INITIAL;
        }
        self.level()
    }

    /// Checks that all members of a cluster that agreed on this level know the command. Checked where it is proposed, and
    /// again where it is applied, with the same answer on every member.
    ///
    /// # Errors
    /// `FeatureLevelTooLow`.
    pub fn check_level(&self, agreed: FeatureLevel) -> Result<(), Refusal> {
        check_level(self.level_needed(), agreed)
    }

    /// Checks that a member that supports this level knows the command, whatever the cluster agreed on.
    ///
    /// # Errors
    /// This member must stop: it cannot apply the entry.
    pub fn check_supported(&self, supported: FeatureLevel) -> Result<(), Fault> {
        let mut level = self.level();
        if let Self::FeatureLevelSet(set) = self {
            level = level.max(FeatureLevel::new(set.level));
        }
        if level <= supported {
            return Ok(());
        }
        Err(Fault::new(format!(
            "it needs feature level {level}, and this version supports {supported}"
        )))
    }

    /// Bytes that it may add to the store, by the estimates of etcd's quota.
    pub fn cost(&self) -> u64 {
        match self {
            Self::Put(put) => put_cost(put),
            Self::Txn(txn) => txn_cost(txn),
            Self::LeaseGrant(_) => LEASE_COST,
            Self::DeleteRange(_)
            | Self::Compaction(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseExpire(_)
            | Self::Alarm(_)
            | Self::Auth(_)
            | Self::ClusterVersionSet(_)
            | Self::ClusterMemberAttrSet(_)
            | Self::FeatureLevelSet(_)
            | Self::TokenIssue(_)
            | Self::TokenRenew(_)
            | Self::TokenSweep(_) => 0,
        }
    }

    /// Checks the alarms that refuse it.
    ///
    /// # Errors
    /// One of them is active.
    pub fn check_alarms(&self, is_active: impl Fn(AlarmType) -> bool) -> Result<(), Refusal> {
        let class = self.alarm_class();
        let refused = |alarm| class.is_refused_under(alarm) && is_active(alarm);
        if refused(AlarmType::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        if refused(AlarmType::Nospace) { Err(Refusal::NoSpace) } else { Ok(()) }
    }

    /// The class, which decides the alarms that refuse it.
    pub fn alarm_class(&self) -> AlarmClass {
        match self {
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::Compaction(_)
            | Self::LeaseGrant(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseExpire(_) => {
                if self.cost() > 0 {
                    AlarmClass::Growth
                } else {
                    AlarmClass::Keys
                }
            }
            Self::Alarm(_)
            | Self::Auth(_)
            | Self::ClusterVersionSet(_)
            | Self::ClusterMemberAttrSet(_)
            | Self::FeatureLevelSet(_)
            | Self::TokenIssue(_)
            | Self::TokenRenew(_)
            | Self::TokenSweep(_) => AlarmClass::Control,
        }
    }
}

fn check_level(needed: FeatureLevel, agreed: FeatureLevel) -> Result<(), Refusal> {
    if needed <= agreed { Ok(()) } else { Err(Refusal::FeatureLevelTooLow) }
}

/// Bytes of a header that holds an id alone, at most: two bytes of tag, one of length, one of tag and the id.
pub const HEADER_BYTES_MAX: usize = 14;

/// Bytes of a header that names this user too, at most.
pub const fn header_bytes_max(user: &str) -> usize {
    // The length, tag and length of the name, tag and revision.
    HEADER_BYTES_MAX + 9 + 11 + user.len() + 11
}

/// Appends the header to an encoded command. Two encoded messages in a row are one that holds the fields of both.
pub fn encode_header(header: RequestHeader, data: &mut BytesMut) {
    Envelope { id: 0, header: Some(header), command: None }.encode_raw(data);
}
