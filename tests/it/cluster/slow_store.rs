//! Members whose stores take seconds to make anything durable, while their logs are fast: nobody stands for election, and
//! no put waits for a store.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::members::Members;
use super::{page, runtime, setup};
use crate::process::{self, Scratch, Server};
use crate::wire::Wire;

/// Delays every fsync below `member/store` and counts it in the file that `DELAYED` names. Functions of the C library,
/// because the store's crate calls those.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void delay(int descriptor) {
  char link[64], target[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, target, sizeof target - 1);
  if (length < 0) return;
  target[length] = 0;
  if (!strstr(target, "/member/store")) return;
  int counter = open(getenv("DELAYED"), O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (counter >= 0) {
    if (write(counter, ".", 1) != 1) abort();
    close(counter);
  }
  sleep(2);
}

int fsync(int descriptor) {
  delay(descriptor);
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(descriptor);
}

int fdatasync(int descriptor) {
  delay(descriptor);
  return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(descriptor);
}
"#;

const WRITERS: usize = 8;
/// Memtables fill faster than they are written, but fewer of them than may wait.
const VALUE_BYTES: usize = 32 << 10;
const PAUSE: Duration = Duration::from_millis(50);
/// A flush takes more than twice as long.
const PUT_MAX: Duration = Duration::from_secs(5);
const LOADED: Duration = Duration::from_secs(12);
/// Attempts, of which one without an election and a slow put is enough.
const TRIES: usize = 3;
/// Of one flush or more on each member.
const DELAYED_MIN: u64 = 3;

fn shim(scratch: &Scratch) -> PathBuf {
    let (source, library) = (scratch.path().join("delay.c"), scratch.path().join("delay.so"));
    std::fs::write(&source, SHIM).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let told = process::run(cc, Duration::from_secs(60));
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    library
}

/// How often the leader changed, as this member saw it.
fn leader_changes(server: &Server) -> String {
    let page = page(&server.endpoint(), "/metrics");
    let mut lines = page.lines();
    let line = lines.find(|line| line.starts_with("etcd_server_leader_changes_seen_total "));
    line.expect("every member has it").to_owned()
}

#[test]
fn slow_commits_of_the_store_stall_nothing() {
    for tried in 1..=TRIES {
        match stall_under_load() {
            None => return,
            // Executors that waited for the store would cause one each time; a machine that is busy, now and then.
            Some(what) if tried < TRIES => println!("{what}"),
            Some(what) => panic!("{what}: {TRIES} tries"),
        }
    }
}

/// Writes for a while to members with slow stores; tells if there was an election or a slow put meanwhile.
fn stall_under_load() -> Option<String> {
    let scratch = Scratch::new();
    let library = shim(&scratch);
    let counter = |at: usize| scratch.path().join(format!("delayed-{at}"));
    let setups = (0..3).map(|at| {
        setup()
            .variable("LD_PRELOAD", &library.display().to_string())
            .variable("DELAYED", &counter(at).display().to_string())
    });
    for at in 0..3 {
        std::fs::write(counter(at), "").unwrap();
        // Members may run as another user.
        std::fs::set_permissions(counter(at), Permissions::from_mode(0o666)).unwrap();
    }
    let members = Members::found_with(setups);
    runtime().block_on(async {
        let leader = members.leader().await;
        let term = members.status(leader).await.expect("it serves").raft_term;
        let before: Vec<_> = members.0.iter().map(leader_changes).collect();
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = (0..WRITERS).map(|writer| {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            let wire = members.wire(writer % 3);
            tokio::spawn(async move { write(&wire, writer, &stop, &written).await })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(LOADED).await;
        stop.store(true, Ordering::Relaxed);
        let mut stall = None;
        for writer in writers {
            stall = stall.or(writer.await.expect("a writer ends"));
        }
        println!("{} puts of {VALUE_BYTES} bytes", written.load(Ordering::Relaxed));
        for (at, before) in before.iter().enumerate() {
            let delayed = std::fs::metadata(counter(at)).map_or(0, |file| file.size());
            assert!(delayed >= DELAYED_MIN, "m{}: {delayed} delays", at + 1);
            let status = members.status(at).await.expect("it serves");
            if status.raft_term != term || &leader_changes(&members.0[at]) != before {
                stall = Some(format!("m{} saw an election", at + 1));
            }
        }
        stall
    })
}

/// Puts until it is told to stop; tells a refusal for the lack of a leader, and a put that took long.
async fn write(
    wire: &Wire,
    writer: usize,
    stop: &AtomicBool,
    written: &AtomicU64,
) -> Option<String> {
    let value = "v".repeat(VALUE_BYTES);
    let mut slowest = Duration::ZERO;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let asked = Instant::now();
        // A put may be refused while the store is behind, but not for the lack of a leader.
        match wire.put(&format!("{writer}/{}", number % 1000), &value).await {
            Ok(_) => written.fetch_add(1, Ordering::Relaxed),
            Err(status) if status.message().contains("leader") => {
                return Some(status.message().to_owned());
            }
            Err(_) => 0,
        };
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    let slow = format!("the slowest put of writer {writer} took {slowest:?}");
    println!("{slow}");
    (slowest > PUT_MAX).then_some(slow)
}
