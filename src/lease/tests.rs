//! Expiry of leases step by step; and random operations on it and on leases, compared with naive twins.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::store::{Engine, Memory, Overlay};
use crate::types::limits::{LEASE_REVOKE_RETRY_MS, LEASE_TTL_MAX};
use crate::types::{Error, LeaseId, Refusal};

fn grant(id: LeaseId, ttl: i64) -> Grant {
    Grant { id, at: 10, ttl }
}

/// Up to `max` leases whose time is up.
fn due(expiry: &mut Expiry, now_ms: u64, max: usize) -> Vec<LeaseId> {
    expiry.due(now_ms, max).into_iter().map(|grant| grant.id).collect()
}

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
    expiry.granted(grant(1, 2), 0);
    assert!(expiry.due(1999, 10).is_empty());
    assert_eq!(expiry.renew(1, 1999), Some(2));
    assert!(expiry.due(3000, 10).is_empty());
    assert_eq!(due(&mut expiry, 3999, 10), [1]);
    assert!(expiry.due(4500, 10).is_empty(), "it was handed out");
    assert_eq!(expiry.renew(1, 4500), None);
    assert_eq!(expiry.remaining(1, 4500), Some((2, -1)));
    expiry.revoked(1);
    assert_eq!(expiry.remaining(1, 4500), None);
}

#[test]
fn no_more_are_due_at_once_than_asked_for() {
    let mut expiry = leading(0);
    (1..=5).for_each(|id| expiry.granted(grant(id, 1), 0));
    assert_eq!(due(&mut expiry, 1000, 2), [1, 2]);
    assert_eq!(due(&mut expiry, 1000, 9), [3, 4, 5]);
}

#[test]
fn a_member_that_does_not_lead_lets_no_lease_expire() {
    let mut expiry = Expiry::new(1000);
    expiry.granted(grant(7, 2), 0);
    assert!(expiry.due(60_000, 10).is_empty());
    expiry.promote(60_000);
    assert_eq!(expiry.remaining(7, 60_000), Some((2, 3)), "what was left, and the extension");
    assert!(expiry.due(62_999, 10).is_empty());
    assert_eq!(due(&mut expiry, 63_000, 10), [7]);
    // Deposed before the revoke was committed: the next leader may have renewed the lease, so its time starts again.
    expiry.demote(63_100);
    expiry.promote(70_000);
    assert!(expiry.due(72_999, 10).is_empty());
    assert_eq!(due(&mut expiry, 73_000, 10), [7]);
}

#[test]
fn a_lease_that_another_leader_may_have_renewed_does_not_end_early() {
    let mut expiry = leading(0);
    expiry.granted(grant(1, 10), 0);
    // Another member leads from 9 s on and renews the lease at 15 s: its owner relies on 25 s.
    expiry.demote(9_000);
    expiry.promote(16_000);
    assert!(expiry.due(25_000, 10).is_empty());
}

#[test]
fn a_lease_whose_revoke_was_lost_is_due_again() {
    let mut expiry = leading(0);
    expiry.granted(grant(1, 1), 0);
    assert_eq!(due(&mut expiry, 1000, 10), [1]);
    assert!(expiry.due(1000 + LEASE_REVOKE_RETRY_MS - 1, 10).is_empty());
    assert_eq!(due(&mut expiry, 1000 + LEASE_REVOKE_RETRY_MS, 10), [1]);
}

#[test]
fn leases_are_listed_by_expiry() {
    let mut expiry = leading(0);
    expiry.granted(grant(1, 30), 0);
    expiry.granted(grant(2, 10), 0);
    expiry.granted(grant(3, 20), 0);
    assert_eq!(expiry.by_expiry(), [2, 3, 1]);
}

/// State of a lease in the twin, as time left.
struct TwinLease {
    ttl: i64,
    left_ms: i64,
    /// Time since it was last listed as due.
    handed_ms: Option<i64>,
}

/// A twin whose leases are updated with each step of time.
#[derive(Default)]
struct Naive {
    leases: BTreeMap<LeaseId, TwinLease>,
    leads: bool,
}

impl Naive {
    fn pass(&mut self, ms: i64) {
        for lease in self.leases.values_mut().filter(|_| self.leads) {
            lease.left_ms -= ms;
            lease.handed_ms.iter_mut().for_each(|ago| *ago += ms);
        }
    }

    fn lead(&mut self, leads: bool, extend_ms: i64) {
        if leads != self.leads {
            self.leads = leads;
            for lease in self.leases.values_mut() {
                lease.left_ms = lease.ttl * 1000 + if leads { extend_ms } else { 0 };
                lease.handed_ms = None;
            }
        }
    }

    /// Ids in the order of expiry.
    fn sorted(&self) -> Vec<LeaseId> {
        let mut ids: Vec<_> = self.leases.iter().map(|(id, lease)| (lease.left_ms, *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    fn due(&mut self, max: usize) -> Vec<LeaseId> {
        let mut due = self.sorted();
        due.retain(|id| {
            let lease = &self.leases[id];
            let waits = lease.handed_ms.is_some_and(|ago| ago < LEASE_REVOKE_RETRY_MS as i64);
            self.leads && lease.left_ms <= 0 && !waits
        });
        due.truncate(max);
        for id in &due {
            self.leases.get_mut(id).unwrap().handed_ms = Some(0);
        }
        due
    }
}

#[test]
fn time_agrees_with_counting_down() {
    let (mut expired, mut late) = (0, 0);
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let extend_ms = random.random_range(0..20) * 100;
        let mut expiry = Expiry::new(extend_ms);
        let mut naive = Naive::default();
        let mut now_ms = random.random_range(0..1_000_000);
        for _ in 0..300 {
            let ms = if random.random() { 0 } else { random.random_range(0..25) * 100 };
            now_ms += ms;
            naive.pass(ms as i64);
            let id = random.random_range(1..12);
            match random.random_range(0..12) {
                0..3 => {
                    let ttl = random.random_range(1..9);
                    expiry.granted(grant(id, ttl), now_ms);
                    let told = TwinLease { ttl, left_ms: ttl * 1000, handed_ms: None };
                    naive.leases.insert(id, told);
                }
                3 => {
                    expiry.revoked(id);
                    naive.leases.remove(&id);
                }
                4..7 => {
                    let live = naive.leases.get_mut(&id).filter(|lease| lease.left_ms > 0);
                    let expected = live.map(|lease| {
                        lease.left_ms = lease.ttl * 1000;
                        lease.ttl
                    });
                    late += usize::from(expected.is_none() && naive.leases.contains_key(&id));
                    assert_eq!(expiry.renew(id, now_ms), expected, "seed {seed}");
                }
                7 => {
                    let leads = random.random_bool(0.8);
                    if leads {
                        expiry.promote(now_ms)
                    } else {
                        expiry.demote(now_ms)
                    }
                    naive.lead(leads, extend_ms as i64);
                }
                _ => {
                    let max = random.random_range(0..5);
                    let due = due(&mut expiry, now_ms, max);
                    assert_eq!(due, naive.due(max), "seed {seed}");
                    expired += due.len();
                }
            }
            for id in 1..12 {
                let expected = naive.leases.get(&id).map(|lease| match lease.left_ms {
                    ..=0 => (lease.ttl, -1),
                    left_ms => (lease.ttl, left_ms / 1000),
                });
                assert_eq!(expiry.remaining(id, now_ms), expected, "seed {seed}");
            }
            assert_eq!(expiry.by_expiry(), naive.sorted(), "seed {seed}");
        }
    }
    assert!(expired > 1000 && late > 1000, "{expired} expired, {late} came late");
}

#[test]
fn leases_agree_with_a_map_of_sets() {
    type Twin = BTreeMap<LeaseId, (Grant, BTreeSet<Bytes>)>;
    let (mut expired, mut spared) = (0, 0);
    for seed in 0..100 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut engine = Memory::default();
        let mut tx = Overlay::new(engine.view());
        let mut leases = Leases::open(&tx).unwrap();
        let mut twin = Twin::new();
        for at in 1..200 {
            let (id, other) = (random.random_range(0..6), random.random_range(0..6));
            let key = Bytes::from(vec![b'a' + random.random_range(0..4)]);
            match random.random_range(0..10) {
                0..2 => {
                    let ttl = [-1, 0, 1, 2, 60, LEASE_TTL_MAX, LEASE_TTL_MAX + 1];
                    let ttl = ttl[random.random_range(0..ttl.len())];
                    let expected = match (id, ttl) {
                        (0, _) => Err(Refusal::LeaseNotFound),
                        (_, ttl) if ttl > LEASE_TTL_MAX => Err(Refusal::LeaseTTLTooLarge),
                        _ if twin.contains_key(&id) => Err(Refusal::LeaseExist),
                        _ => Ok(Grant { id, at, ttl }),
                    };
                    let granted = Error::refusal(leases.grant(&mut tx, id, ttl, at)).unwrap();
                    assert_eq!(granted, expected, "seed {seed}");
                    granted.into_iter().for_each(|it| drop(twin.insert(id, (it, [].into()))));
                }
                2 => {
                    let keys = Error::refusal(leases.revoke(&mut tx, id)).unwrap();
                    let expected = twin.remove(&id).map(|(_, keys)| keys);
                    assert_eq!(keys.ok(), expected, "seed {seed}");
                }
                3 => {
                    // Its own grant, or another one of the same id.
                    let at = match twin.get(&id) {
                        Some((grant, _)) if random.random() => grant.at,
                        _ => random.random_range(0..at),
                    };
                    let is_it = twin.get(&id).is_some_and(|(grant, _)| grant.at == at);
                    let keys = Error::refusal(leases.expire(&mut tx, id, at)).unwrap();
                    let expected = if is_it { twin.remove(&id) } else { None };
                    assert_eq!(keys.ok(), expected.map(|(_, keys)| keys), "seed {seed}");
                    expired += usize::from(is_it);
                    spared += usize::from(twin.contains_key(&id));
                }
                4 => {
                    // Its keys are not in the store: they are attached again by those who read them.
                    engine.commit(tx.take()).unwrap();
                    tx.rebase(engine.view());
                    leases = Leases::open(&engine.view()).unwrap();
                    for (id, (_, keys)) in &twin {
                        keys.iter().for_each(|key| leases.attach(key, 0, *id));
                    }
                }
                _ => {
                    leases.attach(&key, id, other);
                    twin.get_mut(&id).into_iter().for_each(|(_, keys)| {
                        keys.remove(&key);
                    });
                    twin.get_mut(&other).into_iter().for_each(|(_, keys)| {
                        keys.insert(key.clone());
                    });
                }
            }
            let all: Vec<_> = twin.values().map(|(grant, _)| *grant).collect();
            assert_eq!(leases.all().collect::<Vec<_>>(), all, "seed {seed}");
            for id in 0..6 {
                let keys = twin.get(&id).map(|(_, keys)| Vec::from_iter(keys.iter().cloned()));
                assert_eq!(leases.keys(id), keys.unwrap_or_default(), "seed {seed}");
                assert_eq!(leases.exists(id), twin.contains_key(&id), "seed {seed}");
            }
        }
    }
    assert!(expired > 100 && spared > 100, "{expired} expired, {spared} were spared");
}

#[test]
fn a_lease_does_not_keep_the_records_of_its_keys_in_memory() {
    let engine = Memory::default();
    let mut tx = Overlay::new(engine.view());
    let mut leases = Leases::open(&tx).unwrap();
    leases.grant(&mut tx, 1, 60, 1).unwrap();
    let record = Bytes::from(vec![b'k'; 2000]);
    leases.attach(&record.slice(..3), 0, 1);
    assert_eq!(leases.keys(1), ["kkk"]);
    assert!(record.is_unique(), "somebody holds the record beside this test");
}
