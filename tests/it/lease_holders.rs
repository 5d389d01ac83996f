//! Locks and elections of third-party clients under contention: Go's sessions, Node's and
//! Python's `etcd3`, and jetcd, many processes of each at the same time, which are killed while they
//! hold and while they wait, over servers that are killed too. Two holders never overlap.
//!
//! | contest | who | how |
//! |---|---|---|
//! | `queue` | Go, Java | keys below one prefix, oldest first: `concurrency.Mutex`, the Lock service |
//! | `cell` | Node, Python | one key, which exists while a session holds |
//! | `office` | Go, Node, Java | candidates below one prefix: in the client, or the Election service |

mod contender;
mod judge;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use self::contender::{Client, Contender, Contest};
use self::judge::{Judge, KillPoint};
use crate::cluster::members::Members;
use crate::compare::{from_environment, runtime};
use crate::process::{self, Server, Setup};
use crate::wire::Wire;

/// Interval between two checks of the processes.
const MOMENT: Duration = Duration::from_millis(5);
/// Moments without a new holder, three minutes: the contest has stopped. Disks of virtual machines
/// stall for more than one. Moments are counted, since a clock goes on when this process is
/// paused.
const STUCK_MOMENTS: u32 = 36_000;
/// Time for which a killed leader stays down.
const AWAY: Duration = Duration::from_millis(700);

const CONTESTS: [(&str, &str, &[Client]); 3] = [
    ("lock", "queue", &[Client::Go, Client::Java]),
    ("lock", "cell", &[Client::Node, Client::Python]),
    ("election", "office", &[Client::Go, Client::Node, Client::Java]),
];

/// The servers of the contenders.
enum Site {
    One(Server),
    Three(Members),
}

impl Site {
    fn members(&self) -> &[Server] {
        match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Three(members) => &members.0,
        }
    }

    fn endpoints(&self) -> String {
        self.members().iter().map(Server::endpoint).collect::<Vec<_>>().join(",")
    }

    /// kill -9 of the leader, and its restart.
    fn kill(&mut self) {
        match self {
            Self::One(server) => {
                server.kill();
                server.start();
            }
            Self::Three(members) => {
                let leader = runtime().block_on(members.leader());
                members.0[leader].kill();
                std::thread::sleep(AWAY);
                members.restart(leader);
            }
        }
    }
}

/// Extent of a run.
struct Plan {
    /// In each contest.
    acquisitions: u64,
    /// A contender is killed after this many acquisitions of its contest.
    acquisitions_per_kill: u64,
    /// Number of times that the server is killed.
    restarts: u64,
    /// Processes of each client in each contest.
    each: u64,
    ttl_seconds: u64,
    seed: u64,
    clients: Vec<Client>,
}

impl Plan {
    /// The values from the environment, or these defaults.
    fn new(acquisitions: u64, restarts: u64) -> Self {
        let named = std::env::var("HOLDERS_CLIENTS").unwrap_or_default();
        let asked =
            |client: &Client| named.is_empty() || named.split(',').any(|it| it == client.name());
        let acquisitions = from_environment("HOLDERS_ACQUISITIONS", acquisitions);
        let per_kill = acquisitions.min(100).div_ceil(2);
        Self {
            acquisitions,
            acquisitions_per_kill: from_environment("HOLDERS_PER_KILL", per_kill),
            restarts: from_environment("HOLDERS_RESTARTS", restarts),
            each: from_environment("HOLDERS_EACH", 2),
            ttl_seconds: from_environment("HOLDERS_TTL", 4),
            seed: from_environment("HOLDERS_SEED", 1),
            clients: Client::ALL.into_iter().filter(asked).collect(),
        }
    }
}

/// All contests of a run.
struct Arena {
    site: Site,
    plan: Plan,
    rng: StdRng,
    contests: Vec<Arc<Mutex<Contest>>>,
    /// Running contenders, with the contest of each.
    contenders: Vec<(usize, Contender)>,
    /// The clients of all contenders ever started.
    clients: Vec<Client>,
    kills: u64,
}

impl Arena {
    fn open(site: Site, plan: Plan) -> Self {
        let rng = StdRng::seed_from_u64(plan.seed);
        let (contests, contenders, clients) = Default::default();
        let mut arena = Self { site, plan, rng, contests, contenders, clients, kills: 0 };
        for (kind, name, clients) in CONTESTS {
            let asked = clients.iter().filter(|client| arena.plan.clients.contains(client));
            let asked: Vec<_> = asked.copied().collect();
            if asked.is_empty() {
                continue;
            }
            let contest = Contest { kind, name, judge: Judge::default(), fault: None };
            arena.contests.push(Arc::new(Mutex::new(contest)));
            for client in asked {
                (0..arena.plan.each).for_each(|_| arena.enlist(arena.contests.len() - 1, client));
            }
        }
        assert!(!arena.contests.is_empty(), "HOLDERS_CLIENTS names nobody");
        arena
    }

    fn enlist(&mut self, contest: usize, client: Client) {
        let who = self.clients.len();
        self.clients.push(client);
        let (ttl, endpoints) = (self.plan.ttl_seconds, self.site.endpoints());
        let beginning = format!("{who} is {client:?}");
        self.contests[contest].lock().unwrap().judge.note(beginning);
        let one = Contender::start(who, client, &self.contests[contest], ttl, &endpoints);
        self.contenders.push((contest, one));
    }

    fn acquired(&self, contest: usize) -> u64 {
        self.contests[contest].lock().unwrap().judge.acquired(|_| true)
    }

    /// Runs until each contest has enough acquisitions.
    fn run(&mut self) {
        let count = self.contests.len();
        let wanted = self.plan.acquisitions;
        let mut next_kill = vec![self.plan.acquisitions_per_kill; count];
        let mut idle = vec![(0, 0_u32); count];
        let (mut restarts, total) = (0, wanted * count as u64);
        loop {
            self.check();
            let acquired: Vec<_> = (0..count).map(|at| self.acquired(at)).collect();
            for at in 0..count {
                self.execute(at);
                if acquired[at] >= next_kill[at] {
                    next_kill[at] += self.plan.acquisitions_per_kill;
                    self.sentence(at);
                }
                idle[at] = match idle[at] {
                    (before, moments) if before == acquired[at] => (before, moments + 1),
                    _ => (acquired[at], 0),
                };
                assert!(idle[at].1 < STUCK_MOMENTS, "{}", self.stuck(at));
            }
            if acquired.iter().all(|times| *times >= wanted) {
                return;
            }
            let sum: u64 = acquired.iter().map(|times| (*times).min(wanted)).sum();
            if restarts < self.plan.restarts
                && sum * (self.plan.restarts + 1) >= total * (restarts + 1)
            {
                restarts += 1;
                self.note("the server is killed");
                self.site.kill();
                self.note("the server is back");
            }
            std::thread::sleep(MOMENT);
        }
    }

    fn note(&self, what: &str) {
        for contest in &self.contests {
            contest.lock().unwrap().judge.note(what.to_owned());
        }
    }

    /// The known facts about a contest without progress.
    fn stuck(&self, contest: usize) -> String {
        let keys = runtime().block_on(async {
            let wire = Wire::new(&self.site.members()[0].endpoint());
            wire.everything(0).await.map(|all| all.kvs)
        });
        let contest = self.contests[contest].lock().unwrap();
        let heard = contest.judge.heard();
        let logs = self.site.members().iter().map(|server| server.logs.tail());
        let logs = logs.collect::<Vec<_>>().join("\n");
        format!("{} stands still\n{heard}\nthe keys are {keys:#?}\n{logs}", contest.name)
    }

    /// Selects a contender of a contest to be killed: at once, whatever it does, or when it next holds.
    fn sentence(&mut self, contest: usize) {
        match self.rng.random_range(0..4) {
            0 => self.contests[contest].lock().unwrap().judge.condemn(KillPoint::Entered),
            1 => self.contests[contest].lock().unwrap().judge.condemn(KillPoint::Leaving),
            _ => {
                let among: Vec<_> = (0..self.contenders.len())
                    .filter(|at| self.contenders[*at].0 == contest)
                    .collect();
                let at = *among.choose(&mut self.rng).expect("each contest has contenders");
                self.kill(at);
            }
        }
    }

    /// Kills the contender that waits for it.
    fn execute(&mut self, contest: usize) {
        let doomed = self.contests[contest].lock().unwrap().judge.doomed();
        if let Some(who) = doomed {
            let at = self.contenders.iter().position(|(_, one)| one.who == who);
            self.kill(at.expect("it lives"));
        }
    }

    /// Starts another one of the same client in its place.
    fn kill(&mut self, at: usize) {
        let (contest, mut one) = self.contenders.swap_remove(at);
        one.kill();
        self.kills += 1;
        self.enlist(contest, one.client);
    }

    fn check(&mut self) {
        for contest in &self.contests {
            let fault = contest.lock().unwrap().fault.clone();
            assert!(fault.is_none(), "{}", fault.unwrap_or_default());
        }
        for (_, one) in &mut self.contenders {
            let ended = one.ended();
            assert!(ended.is_none(), "{:?} {} ended: {ended:?}", one.client, one.who);
        }
    }

    /// Lets every waiting contender hold once, and checks the remaining keys.
    fn close(mut self) {
        for at in 0..self.contests.len() {
            self.contests[at].lock().unwrap().judge.stop();
            self.execute(at);
        }
        for (_, one) in &mut self.contenders {
            assert_eq!(one.wait(STUCK_MOMENTS), Ok(()));
        }
        self.contenders.clear();
        self.check();
        let left = runtime().block_on(async {
            let wire = Wire::new(&self.site.members()[0].endpoint());
            // The keys of killed contenders are deleted with their leases.
            let mut left = Vec::new();
            for _ in 0..STUCK_MOMENTS {
                left = wire.everything(0).await.expect("it is served").kvs;
                if left.iter().all(|kv| kv.key.starts_with(b"count/")) {
                    return left;
                }
                tokio::time::sleep(MOMENT).await;
            }
            panic!("keys are left behind: {left:?}");
        });
        for contest in &self.contests {
            let contest = contest.lock().unwrap();
            let key = format!("count/{}", contest.name);
            let kept = left.iter().find(|kv| kv.key == key.as_bytes()).expect("somebody held");
            let count: u64 = String::from_utf8_lossy(&kept.value).parse().expect("a number");
            assert!(contest.judge.counted().contains(&count), "{key} is {count}");
            self.report(&contest);
        }
        println!("{} processes killed, {} restarts", self.kills, self.plan.restarts);
    }

    /// Prints the acquisitions of each client; every client must have some.
    fn report(&self, contest: &Contest) {
        let mut line = format!("{} {}:", contest.kind, contest.name);
        let (_, _, clients) = CONTESTS.iter().find(|(_, name, _)| *name == contest.name).unwrap();
        for client in clients.iter().filter(|client| self.plan.clients.contains(client)) {
            let times = contest.judge.acquired(|who| self.clients[who] == *client);
            assert!(times > 0, "{client:?} never held {}", contest.name);
            line += &format!(" {} {times},", client.name());
        }
        println!("{line} {} sessions ended too early", contest.judge.expired);
    }
}

#[test]
fn holders_of_all_clients_never_overlap() {
    let site = Site::One(Setup::new(process::basalt()).start());
    let mut arena = Arena::open(site, Plan::new(100, 2));
    arena.run();
    arena.close();
}

#[test]
fn holders_never_overlap_when_leaders_are_killed() {
    let setup = Setup::new(process::basalt())
        .flag("heartbeat-interval", "50")
        .flag("election-timeout", "500");
    let site = Site::Three(Members::found(&setup, 3));
    let mut arena = Arena::open(site, Plan::new(60, 1));
    arena.run();
    arena.close();
}
