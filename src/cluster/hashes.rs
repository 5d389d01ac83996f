//! Comparison of the members' hashes, to detect corruption; etcd's rules.

use std::collections::BTreeMap;

use crate::types::MemberId;

/// A member's hash of its keys and their history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HashKvReply {
    /// The checksum.
    pub hash: u32,
    /// The compaction revision that the hash covers; -1 for none.
    pub compact_revision: i64,
    /// The revision up to which the hash was computed.
    pub revision: i64,
    /// The member's newest revision.
    pub newest: i64,
}

impl HashKvReply {
    /// True if two hashes up to the same revision differ, so that one of the members is wrong. Hashes after different
    /// compactions cannot be compared.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.hash != other.hash && self.compact_revision == other.compact_revision
    }
}

/// The first corrupt member: the leader, whose hash was computed `before` the others were asked and again `after`, or a
/// member that is ahead of it or contradicts it.
pub fn corrupt_member(
    leader: MemberId,
    before: &HashKvReply,
    after: &HashKvReply,
    others: &[(MemberId, HashKvReply)],
) -> Option<MemberId> {
    if before.revision == after.revision && before.contradicts(after) {
        return Some(leader);
    }
    let is_corrupt = |other: &HashKvReply| {
        other.newest > after.newest
            || other.compact_revision > after.compact_revision
            || other.contradicts(before)
    };
    others.iter().find(|(_, hashed)| is_corrupt(hashed)).map(|(id, _)| *id)
}

/// Members that contradict a majority of `count` members about the same compaction. Without a majority the corrupt
/// member is unknown, which is reported as member 0.
pub fn minority(count: usize, hashes: &[(MemberId, HashKvReply)]) -> Vec<MemberId> {
    let mut by_hash: BTreeMap<u32, Vec<MemberId>> = BTreeMap::new();
    for (id, hashed) in hashes {
        by_hash.entry(hashed.hash).or_default().push(*id);
    }
    if by_hash.len() < 2 {
        return Vec::new();
    }
    match by_hash.iter().find(|(_, ids)| ids.len() > count / 2).map(|(hash, _)| *hash) {
        None => vec![0],
        Some(majority) => {
            by_hash.remove(&majority);
            by_hash.into_values().flatten().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(hash: u32, compact_revision: i64, newest: i64) -> HashKvReply {
        HashKvReply { hash, compact_revision, revision: 10, newest }
    }

    #[test]
    fn member_that_contradicts_or_is_ahead_of_the_leader_is_corrupt() {
        let leader = hashed(5, 2, 12);
        let found = |other| corrupt_member(1, &hashed(5, 2, 10), &leader, &[(2, other)]);
        assert_eq!(found(hashed(5, 2, 10)), None);
        assert_eq!(found(hashed(6, 2, 10)), Some(2));
        assert_eq!(found(hashed(6, 1, 10)), None, "it has not compacted yet");
        assert_eq!(found(hashed(6, 3, 10)), Some(2), "it has compacted what was not asked for");
        assert_eq!(found(hashed(5, 2, 13)), Some(2), "it has what was not written");
        let changed = HashKvReply { hash: 6, ..leader };
        assert_eq!(corrupt_member(1, &leader, &changed, &[]), Some(1), "its own past changed");
    }

    #[test]
    fn the_majority_is_right_and_without_one_nobody_knows() {
        let of = |hashes: &[u32]| {
            let hashes: Vec<_> = (1..).zip(hashes.iter().map(|it| hashed(*it, 2, 9))).collect();
            minority(3, &hashes)
        };
        assert_eq!(of(&[5, 5, 5]), [0; 0]);
        assert_eq!(of(&[5]), [0; 0]);
        assert_eq!(of(&[5, 5, 6]), [3]);
        assert_eq!(of(&[6, 5, 5]), [1]);
        assert_eq!(of(&[5, 6]), [0], "two of three are no majority if they differ");
        assert_eq!(of(&[5, 6, 7]), [0]);
    }
}
