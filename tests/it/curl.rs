//! curl as a gRPC client that sends given bytes, has no deadline of its own and prints the response.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::process::{Scratch, Server, run};

/// The response to a call.
pub(crate) struct Told {
    /// HTTP's status line and the headers and trailers whose name begins with `grpc-`, sorted. Empty messages and
    /// the server's list of encodings are left out.
    pub(crate) lines: Vec<String>,
    /// The messages, heads included.
    pub(crate) body: Vec<u8>,
}

/// A message with gRPC's head before it.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[flag][..], &length, message].concat()
}

/// Posts `body` with these headers in curl's syntax.
pub(crate) fn call(server: &Server, path: &str, body: &[u8], headers: &[String]) -> Told {
    let place = Scratch::new();
    let (sent, came) = (place.path().join("sent"), place.path().join("came"));
    fs::write(&sent, body).expect("a new file");
    let mut curl = Command::new("curl");
    curl.args(["-s", "--http2-prior-knowledge", "--max-time", "30", "-D", "-", "-o"]).arg(&came);
    curl.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary"]);
    curl.arg(format!("@{}", sent.display()));
    for header in headers {
        curl.args(["-H", header]);
    }
    curl.arg(format!("{}{path}", server.endpoint()));
    let told = run(curl, Duration::from_secs(40)).stdout;
    let is_wanted = |line: &&str| line.starts_with("HTTP/") || line.starts_with("grpc-");
    let lines = told.lines().filter(is_wanted).map(str::trim);
    let lines = lines.filter(|line| !line.starts_with("grpc-accept") && *line != "grpc-message:");
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    lines.sort();
    Told { lines, body: fs::read(came).unwrap_or_default() }
}
