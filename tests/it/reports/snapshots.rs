//! Members that were away, and came back by a snapshot: they know the users of now, and end leases in time as leaders.

use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesRequest, LeaseLeasesResponse, PutRequest,
    PutResponse,
};
use tokio::time::sleep;

use super::PATIENCE;
use crate::cluster::members::Members;
use crate::compare::runtime;
use crate::logins::{enable, fine, invalid, login, outcome, told, used};
use crate::process::{self, Setup};
use crate::wire::{self, Wire};

const LEASE: i64 = 77;

/// PR 14648, etcd-io/etcd#14355 (users), PR 13205 and 13206 (leases).
#[test]
fn a_member_that_came_by_a_snapshot_knows_users_and_ends_leases() {
    let setup = Setup::new(process::basalt())
        .flag("bcrypt-cost", "4")
        .flag("heartbeat-interval", "50")
        .flag("election-timeout", "500")
        .flag("snapshot-count", "50")
        .flag("snapshot-catchup-entries", "5");
    runtime().block_on(async {
        let mut members = Members::found(&setup, 3);
        enable(&members.0[0], &[("root", "r"), ("gone", "g")]);
        let root = login(&members.0[0], "root", "r").await.expect("it is right");
        let gone = login(&members.0[0], "gone", "g").await.expect("it is right");
        let leader = members.leader_with_token(&root).await;
        let away = (leader + 1) % 3;
        members.0[away].kill();
        let as_root = ["--user", "root:r"];
        let server = &members.0[leader];
        for arguments in [
            &["user", "delete", "gone"][..],
            &["user", "add", "late:l"],
            &["role", "add", "few"],
            &["role", "grant-permission", "few", "readwrite", "few/", "--prefix"],
            &["user", "grant-role", "late", "few"],
        ] {
            told(server, &[&as_root[..], arguments].concat());
        }
        let wire = Wire::new(&server.endpoint()).with_token(&root);
        let grant = LeaseGrantRequest { ttl: 8, id: LEASE };
        wire.ask::<_, LeaseGrantResponse>(wire::LEASE_GRANT, &grant).await.expect("a lease");
        let put = PutRequest { key: "leased".into(), lease: LEASE, ..Default::default() };
        wire.ask::<_, PutResponse>(wire::PUT, &put).await.expect("root may");
        for number in 0..200 {
            wire.put(&format!("k{number}"), "v").await.expect("it is put");
        }
        members.restart(away);
        assert!(members.0[away].logs.wait_for("applied snapshot", PATIENCE), "it came by the log");
        // The first requests to it.
        let late = login(&members.0[away], "late", "l").await.expect("it is right");
        let as_late = Wire::new(&members.0[away].endpoint()).with_token(&late);
        as_late.put("few/1", "x").await.expect("late may");
        assert_eq!(outcome(&as_late.put("k1", "x").await).0, 7);
        assert_eq!(outcome(&as_late.get("k1").await).0, 7);
        assert_eq!(used(&members.0[away], &gone).await, invalid());
        assert_eq!(used(&members.0[away], &root).await, fine());
        // It leads, and ends the lease that it never saw granted.
        let list = told(&members.0[leader], &[&as_root[..], &["member", "list"]].concat());
        let name = format!(", m{}, ", away + 1);
        let line = list.lines().find(|line| line.contains(&name)).expect("it is a member");
        let id = line.split(',').next().expect("an id").to_owned();
        told(&members.0[leader], &[&as_root[..], &["move-leader", &id]].concat());
        assert_eq!(members.leader_with_token(&root).await, away);
        let wire = Wire::new(&members.0[away].endpoint()).with_token(&root);
        let until = Instant::now() + PATIENCE;
        loop {
            let list = LeaseLeasesRequest {};
            let listed = wire.ask::<_, LeaseLeasesResponse>(wire::LEASE_LEASES, &list).await;
            let leased = wire.get("leased").await.expect("root may").kvs.len();
            if listed.expect("root may").leases.is_empty() && leased == 0 {
                break;
            }
            assert!(Instant::now() < until, "the lease lives on: {}", members.0[away].logs.tail());
            sleep(Duration::from_millis(100)).await;
        }
    });
}
