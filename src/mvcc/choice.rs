//! The branches that a transaction takes: its compares, those of nested transactions too, are evaluated against the
//! state before it. A compare of a range may read many keys, and can be evaluated in steps.

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{Compare, TxnRequest};

use super::read::Reader;
use super::record::RecordHeader;
use crate::store::View;
use crate::types::{Fault, KeyRange};

/// Records read at once; a key among them that does not satisfy the compare ends the search.
const LOOK_RECORDS: usize = 64;

/// The branch that each transaction takes: true for success; outermost first, nested ones in order.
pub(super) struct TxnPath(pub(super) Vec<bool>);

/// Progress of a transaction's compares.
#[derive(Default)]
pub(super) struct Choice {
    /// Results of the evaluated compares, in their order.
    outcomes: Vec<bool>,
    /// The next one, if a part of its range was read.
    begun: Option<Begun>,
}

struct Begun {
    rest: KeyRange,
    /// True as long as no key was found.
    is_empty: bool,
}

impl Choice {
    /// Continues until about `budget` records were read, which are subtracted from it. Returns the path at the end.
    pub(super) fn step<V: View>(
        &mut self,
        reader: &Reader<'_, V>,
        request: &TxnRequest,
        budget: &mut usize,
    ) -> Result<Option<TxnPath>, Fault> {
        let mut path = Vec::with_capacity(1);
        let is_done = self.choose(reader, request, &mut 0, &mut path, budget)?;
        Ok(is_done.then_some(TxnPath(path)))
    }

    /// Visits the compares from the first one on; `number` counts them.
    fn choose<V: View>(
        &mut self,
        reader: &Reader<'_, V>,
        request: &TxnRequest,
        number: &mut usize,
        path: &mut Vec<bool>,
        budget: &mut usize,
    ) -> Result<bool, Fault> {
        let mut holds = true;
        for compare in &request.compare {
            let Some(outcome) = self.outcome(reader, compare, *number, budget)? else {
                return Ok(false);
            };
            *number += 1;
            holds = outcome;
            if !holds {
                break;
            }
        }
        path.push(holds);
        let operations = if holds { &request.success } else { &request.failure };
        for operation in operations {
            if let Some(Request::RequestTxn(nested)) = &operation.request
                && !self.choose(reader, nested, number, path, budget)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn outcome<V: View>(
        &mut self,
        reader: &Reader<'_, V>,
        compare: &Compare,
        number: usize,
        budget: &mut usize,
    ) -> Result<Option<bool>, Fault> {
        if let Some(known) = self.outcomes.get(number) {
            return Ok(Some(*known));
        }
        let outcome = self.look(reader, compare, budget)?;
        self.outcomes.extend(outcome);
        Ok(outcome)
    }

    /// True if every key of the compare's range satisfies it; without a key, if a missing key satisfies it.
    fn look<V: View>(
        &mut self,
        reader: &Reader<'_, V>,
        compare: &Compare,
        budget: &mut usize,
    ) -> Result<Option<bool>, Fault> {
        let begin = || Begun {
            rest: KeyRange::new(compare.key.clone(), compare.range_end.clone()),
            is_empty: true,
        };
        let mut begun = self.begun.take().unwrap_or_else(begin);
        while *budget > 0 {
            let (mut all, records) = (true, LOOK_RECORDS.min(*budget));
            *budget -= records;
            let rest = reader.each_some(&begun.rest, reader.revision, records, |record| {
                begun.is_empty = false;
                let kv = record.into_key_value();
                all &= satisfies(compare, &RecordHeader::new(&kv)?, &kv);
                Ok(())
            })?;
            match rest {
                _ if !all => return Ok(Some(false)),
                Some(rest) => begun.rest = rest,
                None if begun.is_empty => return Ok(Some(satisfies_nothing(compare))),
                None => return Ok(Some(true)),
            }
        }
        self.begun = Some(begun);
        Ok(None)
    }
}

/// A missing value differs from every value, the empty one included.
fn satisfies_nothing(compare: &Compare) -> bool {
    compare.target != CompareTarget::Value as i32
        && satisfies(compare, &RecordHeader::default(), &[])
}

fn satisfies(compare: &Compare, header: &RecordHeader, kv: &[u8]) -> bool {
    let wanted = compare.target_union.as_ref();
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => header.version.cmp(&match wanted {
            Some(TargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => header.create.cmp(&match wanted {
            Some(TargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => header.modified.cmp(&match wanted {
            Some(TargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Lease) => header.lease.cmp(&match wanted {
            Some(TargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => kv[header.value.clone()].cmp(match wanted {
            Some(TargetUnion::Value(value)) => value,
            _ => &[][..],
        }),
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        // etcd accepts unknown results.
        Err(_) => true,
    }
}
