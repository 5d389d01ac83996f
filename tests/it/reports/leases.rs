//! Leases end in time whatever happens to users.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    AuthUserChangePasswordRequest, AuthUserChangePasswordResponse, LeaseGrantRequest,
    LeaseGrantResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
};
use tokio::time::sleep;

use super::{PATIENCE, USER_CHANGE_PASSWORD, disable_auth, enable_auth};
use crate::compare::runtime;
use crate::logins::{enable, login};
use crate::process::{self, Server, Setup};
use crate::wire::{self, Wire};

const LEASES: i64 = 15;
/// Before this time none of them ends.
const TTL: i64 = 3;

/// Leases that end, with a key each.
async fn grant(wire: &Wire) {
    for id in 1..=LEASES {
        let grant = LeaseGrantRequest { ttl: TTL, id };
        wire.ask::<_, LeaseGrantResponse>(wire::LEASE_GRANT, &grant).await.expect("a lease");
        let key = format!("leased/{id}").into();
        let put = PutRequest { key, lease: id, ..Default::default() };
        wire.ask::<_, PutResponse>(wire::PUT, &put).await.expect("a key");
    }
}

async fn leased(wire: &Wire) -> i64 {
    let (key, range_end) = ("leased/".into(), "leased0".into());
    let range = RangeRequest { key, range_end, count_only: true, ..Default::default() };
    wire.ask::<_, RangeResponse>(wire::RANGE, &range).await.expect("root may").count
}

/// etcd-io/etcd#13975: the password of root changes and auth is switched off and on under load; leases must end.
async fn passwords_change(server: &Server) {
    enable(server, &[("root", "old"), ("writer", "w")]);
    let root = login(server, "root", "old").await.expect("it is right");
    let wire = Wire::new(&server.endpoint());
    let as_root = wire.clone().with_token(&root);
    grant(&as_root).await;
    let (over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = login(server, "writer", "w").await.expect("it is right");
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let wire = wire.clone().with_token(&writer);
            let (over, written) = (Arc::clone(&over), Arc::clone(&written));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    // Refused once its token has ended.
                    if wire.put(&format!("load/{number}"), "x").await.is_ok() {
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    while written.load(Ordering::Relaxed) < 20 {
        sleep(Duration::from_millis(5)).await;
    }
    let (name, password) = ("root".to_owned(), "new".to_owned());
    let change = AuthUserChangePasswordRequest { name, password, ..Default::default() };
    let path = USER_CHANGE_PASSWORD;
    let changed = as_root.ask::<_, AuthUserChangePasswordResponse>(path, &change).await;
    changed.expect("root may");
    let root = login(server, "root", "new").await.expect("it is right");
    disable_auth(&wire.clone().with_token(&root)).await;
    enable_auth(&wire).await;
    let root = login(server, "root", "new").await.expect("it is right");
    let as_root = wire.with_token(&root);
    let until = Instant::now() + PATIENCE;
    while leased(&as_root).await > 0 {
        assert!(Instant::now() < until, "leases live on");
        sleep(Duration::from_millis(50)).await;
    }
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("it ends");
    }
}

#[test]
fn leases_end_though_passwords_and_auth_change_under_load() {
    runtime().block_on(async {
        let [own, other] = [process::basalt(), process::etcd()]
            .map(|binary| Setup::new(binary).flag("bcrypt-cost", "4").start());
        tokio::join!(passwords_change(&own), passwords_change(&other));
    });
}
