//! Measures the time without a leader after the leader is lost, as clients of the others observe it.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::members::Members;
use crate::process::PATIENCE;
use crate::wire::{self, Wire};
use basalt_proto::etcdserverpb::{StatusRequest, StatusResponse};

/// Interval between two requests.
const STEP: Duration = Duration::from_millis(10);

/// One period without a leader.
#[derive(Clone, Copy)]
pub(super) struct Absence {
    /// Time until a remaining member reports itself as the leader.
    pub(super) led: Duration,
    /// Time until the acknowledgement of a write that was sent after the leader was lost.
    pub(super) wrote: Duration,
}

impl Absence {
    /// Begins when the leader is lost and ends when both times are known.
    pub(super) async fn measure(members: &Members, gone: usize) -> Self {
        let began = Instant::now();
        let others: Vec<_> =
            (0..members.0.len()).filter(|at| *at != gone).map(|at| members.wire(at)).collect();
        let led = async {
            let mut asking: JoinSet<_> = others.iter().cloned().map(until_it_leads).collect();
            asking.join_next().await.expect("somebody asks").expect("asking goes well");
            began.elapsed()
        };
        let wrote = async {
            until_one_writes(&others).await;
            began.elapsed()
        };
        let both = async { tokio::join!(led, wrote) };
        let (led, wrote) =
            tokio::time::timeout(PATIENCE, both).await.expect("somebody leads again");
        Self { led, wrote }
    }
}

async fn until_it_leads(wire: Wire) {
    loop {
        let status: Result<StatusResponse, _> = wire.ask(wire::STATUS, &StatusRequest {}).await;
        if status.is_ok_and(|it| it.header.is_some_and(|header| header.member_id == it.leader)) {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Sends new requests at intervals, as those sent to the lost leader are lost.
async fn until_one_writes(wires: &[Wire]) {
    let mut writing: JoinSet<bool> = JoinSet::new();
    for wire in wires.iter().cycle() {
        let wire = wire.clone();
        writing.spawn(async move { wire.put("absence", "").await.is_ok() });
        let wait = tokio::time::sleep(STEP);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                Some(written) = writing.join_next() => if written.expect("asking goes well") { return },
                () = &mut wait => break,
            }
        }
    }
}

/// The median.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().expect("there are some")
}
