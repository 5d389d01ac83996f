//! The time of leases, told by hand.

use super::*;

fn leading(extend_ms: u64) -> Expiry {
    let mut expiry = Expiry::new(extend_ms);
    expiry.promote(0);
    expiry
}

#[test]
fn the_least_time_to_live_is_etcds() {
    assert_eq!(ttl_min(1000), 2);
    assert_eq!(ttl_min(100), 1);
    assert_eq!(ttl_min(2000), 3);
}

#[test]
fn a_lease_is_due_once_and_cannot_be_renewed_then() {
    let mut expiry = leading(0);
    expiry.granted(1, 2, 0);
    assert!(expiry.due(1999, 10).is_empty());
    assert_eq!(expiry.renew(1, 1999), Some(2));
    assert!(expiry.due(3000, 10).is_empty());
    assert_eq!(expiry.due(3999, 10), [1]);
    assert!(expiry.due(4500, 10).is_empty(), "it was handed out");
    assert_eq!(expiry.renew(1, 4500), None);
    assert_eq!(expiry.remaining(1, 4500), Some((2, -1)));
    expiry.revoked(1);
    assert_eq!(expiry.remaining(1, 4500), None);
}

#[test]
fn no_more_are_due_at_once_than_asked_for() {
    let mut expiry = leading(0);
    (1..=5).for_each(|id| expiry.granted(id, 1, 0));
    assert_eq!(expiry.due(1000, 2), [1, 2]);
    assert_eq!(expiry.due(1000, 9), [3, 4, 5]);
}

#[test]
fn a_member_that_does_not_lead_lets_no_lease_expire() {
    let mut expiry = Expiry::new(1000);
    expiry.granted(7, 2, 0);
    assert!(expiry.due(60_000, 10).is_empty());
    expiry.promote(60_000);
    assert_eq!(expiry.remaining(7, 60_000), Some((2, 3)), "what was left, and the extension");
    assert!(expiry.due(62_999, 10).is_empty());
    assert_eq!(expiry.due(63_000, 10), [7]);
    // Deposed before the revoke went through, elected again: it starts anew.
    expiry.demote(63_100);
    expiry.promote(70_000);
    assert!(expiry.due(70_000, 10).is_empty());
    assert_eq!(expiry.due(71_000, 10), [7]);
}

#[test]
fn leases_are_listed_by_expiry() {
    let mut expiry = leading(0);
    expiry.granted(1, 30, 0);
    expiry.granted(2, 10, 0);
    expiry.granted(3, 20, 0);
    assert_eq!(expiry.by_expiry(), [2, 3, 1]);
}
