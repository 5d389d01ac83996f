//! Many logins at once, while others write.

use std::time::{Duration, Instant};

use super::{enable, login, login_over, outcome};
use crate::compare::{from_environment, runtime};
use crate::process::{self, Setup};
use crate::wire::Wire;

fn percentile(times: &mut [Duration], part: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * part / 100).min(times.len() - 1)]
}

/// Times of puts, one after the other, for so long or until `done`.
async fn puts(wire: &Wire, done: impl Fn() -> bool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !done() {
        let began = Instant::now();
        wire.put("k", "v").await.expect("it is put");
        times.push(began.elapsed());
    }
    times
}

/// `LOGINS_STORM` chooses how many.
#[test]
fn a_storm_of_logins_costs_one_hash_for_each_user_and_stops_nobody() {
    let count = from_environment("LOGINS_STORM", 1000) as usize;
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    threads.block_on(async {
        let server = Setup::new(process::basalt()).start();
        // Each has a bounded number of tokens, so who writes is somebody else.
        enable(&server, &[("root", "r"), ("alice", "a")]);
        let token = login(&server, "alice", "a").await.expect("it is right");
        let wire = Wire::new(&server.endpoint()).with_token(&token);
        let began = Instant::now();
        let mut calm = puts(&wire, || began.elapsed() > Duration::from_secs(2)).await;
        let before = super::audit::page(&server, "/metrics");
        let hashes = |page: &str| {
            let name = "basalt_auth_password_hashes_total ";
            let line = page.lines().find_map(|line| line.strip_prefix(name)).expect("a metric");
            line.parse::<f64>().expect("a number") as u64
        };
        let began = Instant::now();
        let logins = Wire::new(&server.endpoint());
        let tasks: Vec<_> = (0..count)
            .map(|_| {
                let logins = logins.clone();
                tokio::spawn(async move { login_over(&logins, "root", "r").await })
            })
            .collect();
        let storm = async {
            let mut outcomes = Vec::new();
            for task in tasks {
                outcomes.push(outcome(&task.await.expect("it ends")));
            }
            outcomes
        };
        let ended = std::sync::atomic::AtomicBool::new(false);
        let storm = async {
            let outcomes = storm.await;
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            outcomes
        };
        let done = || ended.load(std::sync::atomic::Ordering::Relaxed);
        let (outcomes, mut busy) = tokio::join!(storm, puts(&wire, done));
        let took = began.elapsed();
        assert!(outcomes.iter().all(|outcome| outcome.0 == 0), "{outcomes:?}");
        let made = hashes(&super::audit::page(&server, "/metrics")) - hashes(&before);
        assert!(made <= 2, "{made} hashes for {count} logins");
        let (calm, busy) = (percentile(&mut calm, 99), percentile(&mut busy, 99));
        println!("{count} logins in {took:?}; p99 of puts {calm:?} before, {busy:?} meanwhile");
        assert_eq!(super::used(&server, &token).await, super::fine());
    });
}

/// The queue is bounded, and what does not fit is told so at once.
#[test]
fn attempts_at_many_users_are_bounded() {
    runtime().block_on(async {
        let server = Setup::new(process::basalt()).flag("bcrypt-cost", "8").start();
        enable(&server, &[("root", "r")]);
        let token = login(&server, "root", "r").await.expect("it is right");
        let logins = Wire::new(&server.endpoint());
        let outcomes = futures_util::future::join_all((0..600).map(|number| {
            let logins = logins.clone();
            async move { outcome(&login_over(&logins, &format!("user {number}"), "x").await) }
        }))
        .await;
        let refused = (8, "etcdserver: too many requests".to_owned());
        let failed =
            (3, "etcdserver: authentication failed, invalid user ID or password".to_owned());
        assert!(outcomes.iter().all(|it| *it == refused || *it == failed), "{outcomes:?}");
        assert!(outcomes.contains(&refused), "the queue is bounded");
        assert_eq!(super::used(&server, &token).await, super::fine());
    });
}
