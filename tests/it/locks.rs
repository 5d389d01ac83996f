//! The services for locks and elections under contention: clients that give up or are killed while they hold, and servers
//! that are killed. Two holders never overlap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse,
};
use basalt_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use basalt_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};
use tonic::codegen::tokio_stream::StreamExt;

use crate::compare::{from_environment, runtime};
use crate::process::{self, Setup};
use crate::wire::{LEASE_GRANT, LEASE_REVOKE, Wire};

const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const PROCLAIM: &str = "/v3electionpb.Election/Proclaim";
const RESIGN: &str = "/v3electionpb.Election/Resign";
const OBSERVE: &str = "/v3electionpb.Election/Observe";

const CLIENTS: u64 = 12;
const KILLS: u64 = 3;
/// Far longer than the test: leases end by revoking.
const LEASE_SECONDS: i64 = 600;
/// Time without progress after which the queue counts as stuck.
const STUCK: Duration = Duration::from_secs(30);

/// State that all contenders share.
#[derive(Default)]
struct Shared {
    held: AtomicBool,
    /// Revision of the header of the last grant: it never decreases.
    revision: AtomicI64,
    acquired: AtomicU64,
    wanted: u64,
}

impl Shared {
    fn goes_on(&self) -> bool {
        self.acquired.load(Ordering::SeqCst) < self.wanted
    }

    fn enter(&self, who: u64, revision: i64) {
        assert!(!self.held.swap(true, Ordering::SeqCst), "{who} holds, and someone else does");
        let before = self.revision.swap(revision, Ordering::SeqCst);
        assert!(revision >= before, "{who} holds at {revision}, after {before}");
        self.acquired.fetch_add(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.held.store(false, Ordering::SeqCst);
    }
}

/// Repeats a request until it is answered: the server may be down for a moment.
async fn surely<Q: Message, A: Message + Default>(wire: &Wire, path: &'static str, ask: &Q) -> A {
    loop {
        match wire.ask(path, ask).await {
            Ok(answer) => return answer,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn lease(wire: &Wire) -> i64 {
    let request = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
    surely::<_, LeaseGrantResponse>(wire, LEASE_GRANT, &request).await.id
}

/// Revokes a lease, as the expiry does for a client that has ended.
async fn end(wire: &Wire, id: i64) {
    loop {
        let revoked: Result<LeaseRevokeResponse, _> =
            wire.ask(LEASE_REVOKE, &LeaseRevokeRequest { id }).await;
        match revoked {
            Ok(_) => return,
            Err(status) if status.code() == tonic::Code::NotFound => return,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn contend(who: u64, wire: Wire, shared: Arc<Shared>) {
    let mut rng = StdRng::seed_from_u64(who);
    let name = Bytes::from_static(b"contended");
    let mut own = lease(&wire).await;
    while shared.goes_on() {
        let patient = rng.random_ratio(4, 5);
        let patience = match patient {
            true => STUCK,
            false => Duration::from_millis(rng.random_range(0..30)),
        };
        let request = LockRequest { name: name.clone(), lease: own };
        let asked = timeout(patience, wire.ask::<_, LockResponse>(LOCK, &request)).await;
        if patient && asked.is_err() {
            let queue = wire.everything(0).await.map(|all| all.kvs);
            panic!("{who} waited for {STUCK:?} with lease {own:x}, in the queue {queue:?}");
        }
        let Ok(Ok(granted)) = asked else {
            // The call may still take effect: on its lease, which is not used again.
            end(&wire, own).await;
            own = lease(&wire).await;
            continue;
        };
        shared.enter(who, granted.header.map_or(0, |header| header.revision));
        sleep(Duration::from_micros(rng.random_range(0..1500))).await;
        shared.leave();
        if rng.random_ratio(1, 20) {
            end(&wire, own).await;
            own = lease(&wire).await;
        } else {
            let request = UnlockRequest { key: granted.key };
            surely::<_, UnlockResponse>(&wire, UNLOCK, &request).await;
        }
    }
    end(&wire, own).await;
}

#[test]
fn two_holders_never_overlap() {
    let wanted = from_environment("LOCK_ACQUISITIONS", 600);
    let mut server = Setup::new(process::basalt()).start();
    runtime().block_on(async {
        let shared = Arc::new(Shared { wanted, ..Shared::default() });
        let contenders: Vec<_> = (0..CLIENTS)
            .map(|who| {
                let wire = Wire::new(&server.endpoint());
                tokio::spawn(contend(who, wire, Arc::clone(&shared)))
            })
            .collect();
        for kill in 1..=KILLS {
            while shared.acquired.load(Ordering::SeqCst) < wanted * kill / (KILLS + 1)
                && contenders.iter().all(|task| !task.is_finished())
            {
                sleep(Duration::from_millis(5)).await;
            }
            server.kill();
            server.start();
        }
        for task in contenders {
            task.await.expect("nobody overlaps, nobody is stuck");
        }
        let wire = Wire::new(&server.endpoint());
        let left = wire.everything(0).await.expect("it is served").kvs;
        assert!(left.is_empty(), "keys are left behind: {left:?}");
    });
}

/// Leads for a while, proclaims a few values, and ends in one of several ways.
async fn stand(who: u64, wire: Wire, shared: Arc<Shared>) {
    let mut rng = StdRng::seed_from_u64(who);
    let name = Bytes::from_static(b"office");
    let mut own = lease(&wire).await;
    while shared.goes_on() {
        let value = Bytes::from(format!("{who} stands"));
        let request = CampaignRequest { name: name.clone(), lease: own, value };
        let asked = timeout(STUCK, wire.ask::<_, CampaignResponse>(CAMPAIGN, &request)).await;
        let won = asked.expect("its turn comes").expect("it is served");
        let leader = won.leader.expect("its own key");
        // The header is that of the time when the candidate began to campaign.
        shared.enter(who, shared.revision.load(Ordering::SeqCst).max(leader.rev));
        for word in 0..rng.random_range(0..3) {
            let value = Bytes::from(format!("{who} says {word}"));
            let request = ProclaimRequest { leader: Some(leader.clone()), value };
            let said: ProclaimResponse = wire.ask(PROCLAIM, &request).await.expect("it leads");
            assert!(said.header.is_some());
        }
        shared.leave();
        if rng.random_ratio(1, 4) {
            end(&wire, own).await;
            own = lease(&wire).await;
        } else {
            let request = ResignRequest { leader: Some(leader) };
            let _: ResignResponse = wire.ask(RESIGN, &request).await.expect("anyone may");
        }
    }
    end(&wire, own).await;
}

#[test]
fn leaders_follow_one_another_and_are_observed() {
    let wanted = from_environment("ELECTIONS", 300);
    let server = Setup::new(process::basalt()).start();
    runtime().block_on(async {
        let wire = Wire::new(&server.endpoint());
        let name = Bytes::from_static(b"office");
        let observed = LeaderRequest { name: name.clone() }.encode_to_vec().into();
        let mut heard = wire.stream(OBSERVE, observed).await.expect("it is served");
        let shared = Arc::new(Shared { wanted, ..Shared::default() });
        let candidates: Vec<_> = (0..CLIENTS)
            .map(|who| {
                let wire = Wire::new(&server.endpoint());
                tokio::spawn(stand(who, wire, Arc::clone(&shared)))
            })
            .collect();
        let observer = tokio::spawn(async move {
            let (mut last, mut leaders) = ((0, 0), 0);
            while let Some(told) = heard.next().await {
                let told = LeaderResponse::decode(told.expect("it goes on")).expect("a leader");
                let kv = told.kv.expect("its key");
                let now = (kv.create_revision, kv.mod_revision);
                assert!(now > last, "{now:?} is told after {last:?}");
                leaders += u64::from(now.0 != last.0);
                last = now;
                if kv.value == "the end" {
                    break;
                }
            }
            leaders
        });
        for task in candidates {
            task.await.expect("two never lead, nobody is stuck");
        }
        let own = lease(&wire).await;
        let request = CampaignRequest { name, lease: own, value: Bytes::from_static(b"the end") };
        let _: CampaignResponse = wire.ask(CAMPAIGN, &request).await.expect("nobody is left");
        let leaders = timeout(STUCK, observer).await.expect("the last one is told").unwrap();
        assert!(leaders > 1, "{leaders} leaders were told");
    });
}
