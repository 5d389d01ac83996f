//! Large transactions: in steps they give the same replies as at once, and no step looks at many records, be it for a
//! compare, for a sort or for a count.

use basalt_proto::etcdserverpb::compare::TargetUnion;
use basalt_proto::etcdserverpb::{Compare, RequestOp};

use super::facts::put_of;
use super::*;
use crate::machine::StepLimits;

const KEYS: u64 = 500;
/// Records of one step.
const BUDGET: usize = 16;

/// A machine with keys of different versions, some of which are deleted; and the next index.
fn filled(at_once_records: usize) -> (Machine<Memory>, LogIndex) {
    let steps = StepLimits { at_once_records, ..StepLimits::DEFAULT };
    let mut machine = bootstrapped_with(&Config { steps, ..CONFIG });
    let mut index = FIRST;
    for number in (0..KEYS).chain((0..KEYS).filter(|it| it % 3 == 0)) {
        machine.apply(&entry(index, put_of(&format!("k{:03}", number * 7 % KEYS), 0))).unwrap();
        index += 1;
    }
    machine.commit().unwrap();
    (machine, index)
}

fn compare(result: i32, version: i64) -> Compare {
    let target_union = Some(TargetUnion::Version(version));
    let (key, range_end) = (bytes("k"), bytes("l"));
    Compare { result, target: 0, key, range_end, target_union }
}

fn range(request: RangeRequest) -> RequestOp {
    let request = RangeRequest { key: bytes("k"), range_end: bytes("l"), ..request };
    RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

/// Transactions that look at all keys, each in another way.
fn large() -> Vec<TxnRequest> {
    // All versions are above 0; some are 1.
    let compares = [compare(1, 0), compare(0, 1), compare(3, 5)];
    let compares = compares.map(|it| TxnRequest { compare: vec![it], ..TxnRequest::default() });
    let mut ranges = Vec::new();
    for sort_target in 0..5 {
        for (sort_order, limit) in [(0, 0), (1, 0), (2, 0), (0, 9), (1, 9), (2, 9)] {
            let sorted = RangeRequest { sort_target, sort_order, limit, ..RangeRequest::default() };
            ranges.push(RangeRequest { keys_only: true, ..sorted.clone() });
            ranges.push(RangeRequest { min_mod_revision: 90, ..sorted.clone() });
            ranges.push(RangeRequest { revision: 300, ..sorted.clone() });
            ranges.push(sorted);
        }
    }
    ranges.push(RangeRequest { count_only: true, revision: 200, ..RangeRequest::default() });
    let ranges = ranges
        .into_iter()
        .map(|it| TxnRequest { success: vec![range(it)], ..TxnRequest::default() });
    compares.into_iter().chain(ranges).collect()
}

#[test]
fn large_transactions_give_the_same_replies_in_steps() {
    let (mut at_once, mut index) = filled(usize::MAX);
    let (mut in_steps, _) = filled(1);
    for request in large() {
        let entry = entry(index, txn(request.clone()));
        let expected = at_once.apply(&entry).unwrap();
        let mut steps = 0;
        let mut applied = in_steps.begin(&entry).unwrap();
        assert!(applied.is_none(), "it is large: {request:?}");
        while applied.is_none() {
            applied = in_steps.step(BUDGET).unwrap();
            steps += 1;
        }
        assert_eq!(applied.unwrap().reply, expected.reply, "{request:?}");
        // All keys are looked at, unless a compare fails before or a limit is reached.
        let looks_at_all = match (&request.compare[..], &request.success[..]) {
            ([compare], _) => compare.result == 1,
            (_, [operation]) => match &operation.request {
                Some(request_op::Request::RequestRange(range)) => range.limit == 0,
                Some(_) | None => false,
            },
            _ => false,
        };
        let least = if looks_at_all { KEYS as usize / BUDGET / 2 } else { 1 };
        assert!(steps >= least, "{steps} steps of {request:?}");
        at_once.commit().unwrap();
        in_steps.commit().unwrap();
        index += 1;
    }
}
