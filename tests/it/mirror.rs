//! `make-mirror` from a revision on: etcdctl's treatment of prefixes, and `basaltctl`'s.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::compare::runtime;
use crate::process::{self, PATIENCE, Server, Setup, reference, spawn};
use crate::wire::Wire;

/// The destination's content once all of `a/` from revision 2 on is there: the keys `n` and `a/n`.
fn mirrored(program: PathBuf, more: &[&str], last: &str) -> Vec<(String, String)> {
    let runtime = runtime();
    let _inside = runtime.enter();
    let [source, destination] = [(); 2].map(|()| Setup::new(process::basalt()).start());
    let wires = [&source, &destination].map(|server: &Server| Wire::new(&server.endpoint()));
    let mut command = Command::new(program);
    command.args(["--endpoints", &source.endpoint(), "make-mirror", "--prefix", "a/"]);
    command.args(["--rev", "2", "--dest-insecure-transport"]).args(more);
    command.arg(format!("127.0.0.1:{}", destination.port));
    runtime.block_on(async {
        wires[1].put("1", "the destination's own").await.expect("written");
        for number in 1..4 {
            wires[0].put(&format!("a/{number}"), "mirrored").await.expect("written");
        }
    });
    let mut child = spawn(command);
    let until = Instant::now() + PATIENCE;
    let keys = loop {
        let all = runtime.block_on(async { wires[1].everything(0).await.expect("served") });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs: Vec<_> = all.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
        if pairs.iter().any(|(key, _)| key == last) || Instant::now() > until {
            break pairs;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let _ = child.kill();
    child.wait().expect("our own child can be awaited");
    keys
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

const STRIPPED: &[(&str, &str)] = &[("1", "mirrored"), ("2", "mirrored"), ("3", "mirrored")];
const KEPT: &[(&str, &str)] = &[
    ("1", "the destination's own"),
    ("a/1", "mirrored"),
    ("a/2", "mirrored"),
    ("a/3", "mirrored"),
];

#[test]
fn keys_keep_their_prefix_from_a_revision_on() {
    assert_eq!(mirrored(process::basaltctl(), &[], "a/3"), pairs(KEPT));
    // With the flag, the prefix is dropped.
    let dropped = mirrored(process::basaltctl(), &["--no-dest-prefix"], "3");
    assert_eq!(dropped, pairs(STRIPPED));
    // The difference from etcdctl that the README lists.
    assert_eq!(mirrored(reference("etcdctl"), &[], "3"), pairs(STRIPPED));
}
