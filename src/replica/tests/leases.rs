//! Leases, and the member that may renew them.

use crate::lease::Grant;
use crate::replica::LeaseKeeper;

const LEASE: Grant = Grant { id: 7, ttl: 10, at: 3 };

fn keeper() -> LeaseKeeper {
    LeaseKeeper::new(1000, [LEASE].into_iter(), 0)
}

#[test]
fn only_a_leader_renews_and_revokes() {
    let mut keeper = keeper();
    assert_eq!(keeper.renew(LEASE.id, 0), None, "a follower's time means nothing to the leader");
    assert_eq!(keeper.due(60_000), None);
    keeper.set_leadership(Some(3), 60_000);
    assert_eq!(keeper.renew(LEASE.id, 60_500), Some(10));
    assert_eq!(keeper.due(70_400), None, "renewed half a second ago");
    let (term, revokes) = keeper.due(70_500).expect("its time is up");
    assert_eq!((term, revokes.len()), (3, 1));
    keeper.set_leadership(None, 70_600);
    assert_eq!(keeper.renew(LEASE.id, 70_600), None);
}

#[test]
fn each_term_gives_all_leases_their_full_time() {
    let mut keeper = keeper();
    keeper.set_leadership(Some(3), 0);
    // Another member led in term 4 and may have renewed the lease.
    keeper.set_leadership(Some(5), 9_000);
    assert_eq!(keeper.due(19_999), None, "its time and the extension begin anew");
    assert!(keeper.due(20_000).is_some_and(|(term, _)| term == 5));
}

#[test]
fn a_snapshot_replaces_all_leases() {
    let mut keeper = keeper();
    keeper.replaced([Grant { id: 8, ttl: 5, at: 9 }], 0);
    assert_eq!(keeper.by_expiry(), [8]);
    assert_eq!(keeper.remaining(LEASE.id, 0), None);
}
