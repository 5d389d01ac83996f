//! The gateway over websockets: the client `ws` has the same conversations with a real etcd and with Basalt,
//! and must see the same: messages, their order, the end of each conversation.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{self, Setup, run};

/// Time for all conversations, each of which contains pauses.
const PATIENCE: Duration = Duration::from_secs(120);

/// The client's output, a line for each event below the title of each conversation.
fn told(binary: PathBuf) -> Vec<String> {
    let server = Setup::new(binary).start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut client = Command::new("node");
    client.env("NODE_PATH", root.join("target/node/node_modules"));
    client.arg(root.join("tests/clients/node/websocket.js")).arg(server.port.to_string());
    let told = run(client, PATIENCE);
    assert_eq!(told.code, Some(0), "{}\n{}", told.stdout, told.stderr);
    told.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn conversations_over_websockets_are_those_of_etcd() {
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| told(process::etcd()));
        let ours = told(process::basalt());
        (theirs.join().expect("etcd's half runs to its end"), ours)
    });
    let mut title = "";
    for (theirs, ours) in theirs.iter().zip(&ours) {
        if theirs.starts_with("## ") {
            title = theirs;
        }
        assert_eq!(ours, theirs, "{title}");
    }
    assert_eq!(ours.len(), theirs.len());
    let messages = theirs.iter().filter(|line| line.starts_with("text ")).count();
    assert!(messages > 20, "{messages} messages");
}
