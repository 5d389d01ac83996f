//! A range of one key at the newest revision.

use std::hint::black_box;

use basalt_proto::etcdserverpb::RangeRequest;

use super::Operation;
use super::apply::{KEYS, machine};
use super::codec::put_request;

pub(crate) fn one_key() -> Operation {
    let (mut machine, _) = machine();
    let read = machine.commit().expect("memory takes it").read;
    let request = |key| RangeRequest { key: put_request(key).key, ..RangeRequest::default() };
    let requests: Vec<_> = (0..KEYS).map(request).collect();
    let mut requests = requests.into_iter().cycle();
    Box::new(move || {
        let request = requests.next().expect("there is always another one");
        black_box(read.range(black_box(&request)).expect("it can be read"));
    })
}
