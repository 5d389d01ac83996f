//! Correct histories, and the detection of one wrong answer in them.

use std::collections::BTreeMap;

use super::{Call, Effect, Kv, Micros, Seen, check};

/// The version after a put: value and revisions.
fn kv(value: u64, create: i64, modified: i64, version: i64) -> Kv {
    Kv { value, create, modified, version }
}

fn heard(asked: Micros, answered: Micros, deed: Effect, revision: i64, kv: Option<Kv>) -> Call {
    Call { asked, answer: Some((answered, Seen { revision, kv, done: true })), deed }
}

fn unheard(asked: Micros, deed: Effect) -> Call {
    Call { asked, answer: None, deed }
}

const ONE: Effect = Effect::Put { value: 1 };
const TWO: Effect = Effect::Put { value: 2 };

/// Two puts at revisions 2 and 3, a delete at 4, a swap at 5, and a get during the second put.
fn right() -> (Vec<Call>, BTreeMap<u64, Kv>) {
    let (one, two, three) = (kv(1, 2, 2, 1), kv(2, 2, 3, 2), kv(3, 5, 5, 1));
    let calls = vec![
        heard(0, 10, ONE, 2, None),
        heard(20, 40, TWO, 3, Some(one)),
        heard(25, 35, Effect::Get, 2, Some(one)),
        heard(50, 60, Effect::Delete, 4, Some(two)),
        heard(70, 80, Effect::Swap { expected: 0, value: 3 }, 5, None),
        heard(90, 95, Effect::Get, 5, Some(three)),
    ];
    (calls, BTreeMap::from([(1, one), (2, two), (3, three)]))
}

#[test]
fn a_history_of_one_copy_is_explained() {
    let (calls, log) = right();
    assert_eq!(check(&calls, &log), Ok(()));
}

#[test]
fn each_planted_answer_is_found() {
    let (calls, log) = right();
    let (one, two) = (log[&1], log[&2]);
    let wrong = [
        ("a stale read", 5, heard(90, 95, Effect::Get, 2, Some(one))),
        ("a read of what was deleted", 5, heard(90, 95, Effect::Get, 3, Some(two))),
        ("a read of nothing", 5, heard(90, 95, Effect::Get, 5, None)),
        ("a read of what comes later", 2, heard(25, 35, Effect::Get, 5, Some(log[&3]))),
        ("a lost put", 3, heard(50, 60, Effect::Delete, 4, Some(one))),
        ("a delete of nothing", 3, heard(50, 60, Effect::Delete, 3, None)),
        (
            "a swap that should fail",
            4,
            heard(70, 80, Effect::Swap { expected: 3, value: 3 }, 5, Some(two)),
        ),
        ("a put that was made twice", 1, heard(20, 40, TWO, 3, Some(two))),
    ];
    for (what, at, call) in wrong {
        let mut calls = calls.clone();
        calls[at] = call;
        assert!(check(&calls, &log).is_err(), "{what} is not found");
    }
}

#[test]
fn unanswered_request_may_be_applied_but_not_before_it_was_made() {
    let (one, two) = (kv(1, 2, 2, 1), kv(2, 2, 3, 2));
    let log = BTreeMap::from([(1, one), (2, two)]);
    let then = |asked: Micros, seen: Kv| {
        let (first, second) = (heard(0, 10, ONE, 2, None), unheard(20, TWO));
        check(&[first, second, heard(asked, asked + 5, Effect::Get, 3, Some(seen))], &log)
    };
    assert_eq!(then(30, two), Ok(()), "it happened");
    assert_eq!(then(30, one), Ok(()), "it happens later");
    assert!(then(11, two).is_err(), "it happened before it was asked");
    // A delete without an answer explains one missing key.
    let deleted = [
        heard(0, 10, ONE, 2, None),
        unheard(20, Effect::Delete),
        heard(30, 35, Effect::Get, 3, None),
        heard(40, 45, Effect::Get, 3, Some(one)),
    ];
    assert_eq!(check(&deleted[..3], &log), Ok(()));
    assert!(check(&deleted, &log).is_err(), "it came back");
}
