//! An event that one of many watchers wants.

use std::hint::black_box;
use std::sync::Arc;

use basalt::machine::Published as Batch;
use basalt::store::MemoryView;
use basalt::watch::{Config, Hub, Input, Published};
use basalt_proto::etcdserverpb::WatchCreateRequest;

use super::Operation;
use super::apply::{KEYS, machine};
use super::codec::put_request;

pub(crate) fn one_of_many() -> Operation {
    let (mut machine, index) = machine();
    let before = machine.commit().expect("memory takes it").read.revision;
    machine.apply(&super::apply::entry(index, 1)).expect("memory takes it");
    let Batch::<MemoryView> { events, read, .. } = machine.commit().expect("memory takes it");
    let mut hub = Hub::new(Config::new(1 << 20), before);
    let published = Published { revision: before, compacted: -1 };
    let mut out = Vec::new();
    hub.on(Input::Open { stream: 0, progress_interval_ms: 1 << 40 }, &mut out);
    for key in 0..KEYS {
        let request = WatchCreateRequest { key: put_request(key).key, ..Default::default() };
        hub.on(Input::Create { stream: 0, request, published }, &mut out);
    }
    let mut revision = before;
    let event = events[0].clone();
    assert_eq!(read.revision, before + 1);
    Box::new(move || {
        revision += 1;
        let mut event = event.clone();
        event.revision.main = revision;
        hub.on(Input::Events { events: Arc::from([event]), revision }, &mut out);
        for output in out.drain(..) {
            if let basalt::watch::Output::Send { stream, cost, .. } = black_box(output) {
                hub.on(Input::Sent { stream, bytes: cost }, &mut Vec::new());
            }
        }
    })
}
