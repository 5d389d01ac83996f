//! A log that is not read, and one that would fill a disk.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::compare::runtime;
use crate::process::{self, Server, Setup};
use crate::wire::Wire;

/// Writes for this long, each of which is logged as slow: more than a pipe holds.
const WRITES: Duration = Duration::from_millis(2500);

#[test]
fn a_log_that_nobody_reads_stops_no_request() {
    let server =
        Server::new(Setup::new(process::basalt()).flag("warning-unary-request-duration", "1ns"));
    let standard = [Stdio::null(), Stdio::null(), Stdio::piped()];
    let mut child = process::spawn_with(server.command(), standard);
    let mut log = child.stderr.take().expect("piped");
    runtime().block_on(async {
        let wire = Wire::new(&server.endpoint());
        let began = Instant::now();
        while wire.put("key", "0").await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not serve");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let began = Instant::now();
        let mut writes = 0;
        let value = "v".repeat(200);
        while began.elapsed() < WRITES || writes < 1000 {
            let put = wire.put("key", &value);
            let done = tokio::time::timeout(Duration::from_secs(5), put).await;
            done.unwrap_or_else(|_| panic!("stopped after {writes} writes")).expect("written");
            writes += 1;
        }
    });
    // The queued lines are written now that the log is read; not a line for each write.
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut text, mut piece) = (String::new(), [0; 4096]);
        while let Ok(count) = log.read(&mut piece) {
            text.push_str(&String::from_utf8_lossy(&piece[..count]));
            if count == 0 || text.contains("\"suppressed log lines") {
                break;
            }
        }
        let _ = sender.send(text);
    });
    let text = lines.recv_timeout(Duration::from_secs(10)).expect("it is told");
    let _ = child.kill();
    let _ = child.wait();
    let slow = text.matches("\"caller\":\"rpc/").count();
    let told = text.lines().find(|line| line.contains("suppressed log lines"));
    let told = told.unwrap_or_else(|| panic!("{slow} lines and none about the others"));
    assert!(told.contains("\"suppressed-caller\":\"rpc/"), "{told}");
    assert!(told.contains("\"count\":"), "{told}");
}
