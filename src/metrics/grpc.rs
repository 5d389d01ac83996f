//! Counters of each RPC: calls started, calls ended by status code, messages received and sent.

use basalt_proto::codes::{CODE_NAMES, code_number};
use basalt_proto::rpc::{COUNT, METHODS, Method, Rpc};

use super::cells::Sharded;
use super::text::Writer;

/// Numbers of each method: started, received, sent, and one for each code it ended with.
const CELLS: usize = 3 + CODE_NAMES.len();
const STARTED: usize = 0;
const RECEIVED: usize = 1;
const SENT: usize = 2;
const HANDLED: usize = 3;

static NUMBERS: Sharded<{ COUNT * CELLS }> = Sharded::new();

/// Counts the start of a call.
pub fn rpc_started(rpc: Rpc) {
    add(rpc, STARTED, 1);
}

/// Counts received messages.
pub fn rpc_received(rpc: Rpc, messages: u64) {
    add(rpc, RECEIVED, messages);
}

/// Counts sent messages.
pub fn rpc_sent(rpc: Rpc, messages: u64) {
    add(rpc, SENT, messages);
}

/// Counts the end of a call with this status code.
pub fn rpc_handled(rpc: Rpc, code: i32) {
    add(rpc, HANDLED + code_number(code), 1);
}

fn add(rpc: Rpc, cell: usize, more: u64) {
    NUMBERS.add(rpc.number() * CELLS + cell, more);
}

fn sum(method: &Method, cell: usize) -> u64 {
    NUMBERS.sum(method.rpc.number() * CELLS + cell)
}

fn labels(method: &Method, code: Option<&str>) -> String {
    let code = code.map_or_else(String::new, |code| format!("grpc_code=\"{code}\","));
    let Method { service, name, kind, .. } = method;
    let kind = kind.name();
    format!("{code}grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"")
}

/// Writes all counters, those at zero too: rates need a first value to start from.
pub(super) fn write(out: &mut Writer) {
    let help = "Total number of RPCs completed on the server, regardless of success or failure.";
    let handled = METHODS.iter().flat_map(|method| {
        CODE_NAMES.iter().enumerate().map(move |(code, name)| {
            (labels(method, Some(name)), sum(method, HANDLED + code) as f64)
        })
    });
    out.family("grpc_server_handled_total", "counter", help, handled);
    let rows = |cell| METHODS.iter().map(move |it| (labels(it, None), sum(it, cell) as f64));
    let received =
        ("grpc_server_msg_received_total", "Total number of messages received from clients.");
    let sent = ("grpc_server_msg_sent_total", "Total number of messages sent to clients.");
    let started = ("grpc_server_started_total", "Total number of RPCs started on the server.");
    for ((name, help), cell) in [(received, RECEIVED), (sent, SENT), (started, STARTED)] {
        out.family(name, "counter", help, rows(cell));
    }
}
