//! Data directories that were being made when the process was killed: by a restore, a founding, a joining member.
//! None of them is ever served as an empty key space, and each is completed by the operator's next command.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, PutRequest, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, TxnResponse, request_op,
};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::compare::{from_environment, runtime};
use crate::process::{self, Finished, PATIENCE, Scratch, Server, Setup, reference, run, spawn};
use crate::wire::{self, Wire};

const KEYS: i64 = 3000;
const BATCH: i64 = 100;
const MEMBER_ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
/// The restored member; [`Setup::new`] starts it under this name.
const IDENTITY: [&str; 3] = [
    "--name=pillar",
    "--initial-cluster=pillar=http://127.0.0.1:12380",
    "--initial-advertise-peer-urls=http://127.0.0.1:12380",
];
const REFUSED: &str = "holds a restore that did not complete (member.tmp)";

async fn fill(wire: &Wire) {
    let mut random = StdRng::seed_from_u64(1);
    for first in (0..KEYS).step_by(BATCH as usize) {
        let success = (first..first + BATCH).map(|at| {
            let value: Vec<u8> = (0..1000).map(|_| random.random()).collect();
            let key = Bytes::from(format!("key/{at:05}"));
            let put = PutRequest { key, value: value.into(), ..Default::default() };
            RequestOp { request: Some(request_op::Request::RequestPut(put)) }
        });
        let request = TxnRequest { success: success.collect(), ..Default::default() };
        let _: TxnResponse = wire.ask(wire::TXN, &request).await.expect("written");
    }
}

/// A snapshot of that many keys.
fn snapshot(file: &Path) {
    let server = Setup::new(process::basalt()).start();
    runtime().block_on(async { fill(&Wire::new(&server.endpoint())).await });
    let mut save = Command::new(reference("etcdctl"));
    save.args(["--endpoints", &server.endpoint(), "snapshot", "save"]).arg(file);
    assert_eq!(run(save, PATIENCE).code, Some(0), "a snapshot is saved");
}

fn count(server: &Server) -> i64 {
    runtime().block_on(async {
        let wire = Wire::new(&server.endpoint());
        wire.everything(0).await.expect("served").count
    })
}

/// The error of a member that must not run.
fn refusal(server: &mut Server) -> String {
    server.launch();
    let ended = server.wait_exit(PATIENCE);
    let told = server.logs.all();
    server.kill();
    assert_eq!(ended.and_then(|status| status.code()), Some(1), "it runs:\n{told}");
    told
}

/// A data directory, with the log in it or elsewhere.
struct Restore {
    server: Server,
    file: std::path::PathBuf,
    wal_dir: Option<String>,
}

impl Restore {
    fn new(file: &Path, wal_dir: Option<String>) -> Self {
        let setup = Setup::new(process::basalt());
        let setup = match &wal_dir {
            Some(wal_dir) => setup.flag("wal-dir", wal_dir),
            None => setup,
        };
        Self { server: Server::new(setup), file: file.to_owned(), wal_dir }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(process::basaltutl());
        command.args(["snapshot", "restore"]).arg(&self.file).arg("--data-dir");
        command.arg(self.server.data_dir()).args(IDENTITY);
        if let Some(wal_dir) = &self.wal_dir {
            command.args(["--wal-dir", wal_dir]);
        }
        command
    }

    fn run(&self) -> Finished {
        run(self.command(), PATIENCE)
    }

    /// Kills it after this time, unless it is done before.
    fn killed_after(&self, time: Duration) {
        let mut child = spawn(self.command());
        let until = Instant::now() + PATIENCE;
        while !self.has("member.tmp") && !self.has("member") && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(time);
        let _ = child.kill();
        child.wait().expect("our own child can be awaited");
    }

    fn has(&self, name: &str) -> bool {
        self.server.data_dir().join(name).exists()
    }
}

#[test]
fn a_restore_that_was_killed_is_refused_and_begun_anew() {
    let place = Scratch::new();
    let file = place.path().join("snapshot.db");
    snapshot(&file);
    let mut random = StdRng::seed_from_u64(from_environment("HALF_MADE_SEED", 1));
    let timed = Restore::new(&file, None);
    let command = timed.command();
    let began = Instant::now();
    assert_eq!(run(command, PATIENCE).code, Some(0));
    let whole = began.elapsed();
    let mut refused = 0;
    for round in 0..2 {
        let wal_dir = place.path().join("wal").display().to_string();
        let mut restore = Restore::new(&file, (round == 1).then_some(wal_dir));
        for kill in 0..from_environment("HALF_MADE_KILLS", 4) {
            let part = if kill == 0 { 0.0 } else { random.random_range(0.0..0.8) };
            restore.killed_after(whole.mul_f64(part));
            if restore.has("member") {
                // It was fast, and is complete: checked below.
                assert!(!restore.has("member.tmp"));
                break;
            }
            if restore.has("member.tmp") {
                let told = refusal(&mut restore.server);
                assert!(told.contains(REFUSED), "{told}");
                assert!(!restore.has("member"), "nothing was founded");
                refused += 1;
            }
        }
        if !restore.has("member") {
            let told = restore.run();
            assert_eq!(told.code, Some(0), "{}", told.stderr);
        }
        restore.server.start();
        assert_eq!(count(&restore.server), KEYS);
        restore.server.kill();
        restore.server.start();
        assert_eq!(count(&restore.server), KEYS);
        restore.server.kill();
        // Now it is a member's, and no restore replaces it.
        let told = restore.run();
        assert!(told.stderr.contains("not empty or could not be read"), "{}", told.stderr);
        // The log alone contains the members, not the restored keys.
        fs::remove_dir_all(restore.server.data_dir().join("member/store")).expect("removed");
        let told = refusal(&mut restore.server);
        assert!(told.contains("the store is gone"), "{told}");
    }
    assert!(refused > 0, "some were killed before they were done");
}

#[test]
fn a_restore_beside_a_member_is_refused_and_two_at_once_are() {
    let place = Scratch::new();
    let file = place.path().join("snapshot.db");
    let mut server = Setup::new(process::basalt()).start();
    runtime().block_on(async {
        Wire::new(&server.endpoint()).put("key", "value").await.expect("written");
    });
    let mut save = Command::new(reference("etcdctl"));
    save.args(["--endpoints", &server.endpoint(), "snapshot", "save"]).arg(&file);
    assert_eq!(run(save, PATIENCE).code, Some(0));
    server.kill();
    let unfinished = server.data_dir().join("member.tmp");
    fs::create_dir(&unfinished).expect("made");
    let told = refusal(&mut server);
    assert!(told.contains("remove member.tmp if that member is the one to run"), "{told}");
    fs::remove_dir(&unfinished).expect("empty");
    server.start();
    assert_eq!(count(&server), 1);

    let mut restore = Restore::new(&file, None);
    let unfinished = restore.server.data_dir().join("member.tmp");
    fs::create_dir_all(&unfinished).expect("made");
    let lock = fs::File::create(unfinished.join("lock")).expect("made");
    lock.lock().expect("nobody has it");
    let told = restore.run();
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(told.stderr.contains("another process uses the data directory"), "{}", told.stderr);
    drop(lock);
    assert_eq!(restore.run().code, Some(0));
    restore.server.start();
    assert_eq!(count(&restore.server), 1);
}

#[test]
fn a_founding_that_was_killed_simply_starts_again() {
    let mut random = StdRng::seed_from_u64(from_environment("HALF_MADE_SEED", 1));
    let began = Instant::now();
    drop(Setup::new(process::basalt()).start());
    let whole = began.elapsed();
    for _ in 0..from_environment("HALF_MADE_KILLS", 4) {
        let mut server = Server::new(Setup::new(process::basalt()));
        for _ in 0..2 {
            server.launch();
            std::thread::sleep(whole.mul_f64(random.random_range(0.0..0.9)));
            server.kill();
        }
        server.start();
        runtime().block_on(async {
            Wire::new(&server.endpoint()).put("key", "value").await.expect("written");
        });
        server.kill();
        server.start();
        assert_eq!(count(&server), 1);
    }
}

#[test]
fn a_member_that_was_killed_while_it_got_its_first_store_gets_it_again() {
    let mut random = StdRng::seed_from_u64(from_environment("HALF_MADE_SEED", 1));
    let mut first = Server::new(Setup::new(process::basalt()));
    let founders = format!("pillar={}", first.peer_url());
    first.set("initial-cluster", &founders);
    first.set("initial-advertise-peer-urls", &first.peer_url());
    first.start();
    let mut second = Server::new(Setup::new(process::basalt()));
    second.set("name", "second");
    second.set("initial-cluster", &format!("{founders},second={}", second.peer_url()));
    second.set("initial-advertise-peer-urls", &second.peer_url());
    second.set("initial-cluster-state", "existing");
    runtime().block_on(async {
        let wire = Wire::new(&first.endpoint());
        fill(&wire).await;
        let request = MemberAddRequest { peer_ur_ls: vec![second.peer_url()], is_learner: true };
        let _: MemberAddResponse = wire.ask(MEMBER_ADD, &request).await.expect("added");
    });
    for _ in 0..from_environment("HALF_MADE_KILLS", 4) {
        second.launch();
        std::thread::sleep(Duration::from_millis(random.random_range(50..1500)));
        second.kill();
    }
    second.start();
    assert!(second.data_dir().join("member/current").exists(), "it got a store");
    // The requests that a learner serves.
    let all = |server: &Server| {
        runtime().block_on(async {
            let all = Bytes::from_static(b"\0");
            let request = RangeRequest {
                key: all.clone(),
                range_end: all,
                serializable: true,
                ..Default::default()
            };
            let wire = Wire::new(&server.endpoint());
            let answer: RangeResponse = wire.ask(wire::RANGE, &request).await.expect("served");
            answer.kvs
        })
    };
    let wanted = all(&first);
    assert_eq!(wanted.len() as i64, KEYS);
    assert!(all(&second) == wanted);
    second.kill();
    // A store that existed and is missing now is never replaced by an empty one.
    let current = second.data_dir().join("member/current");
    let named = fs::read_to_string(&current).expect("it is text");
    fs::remove_file(&current).expect("removed");
    let _ = fs::remove_dir_all(second.data_dir().join("member/store"));
    let told = refusal(&mut second);
    assert!(told.contains("current, which names the store"), "{told}");
    fs::write(&current, named).expect("written");
    second.start();
    assert!(all(&second) == wanted);
}
