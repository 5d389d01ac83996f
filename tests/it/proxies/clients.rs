//! The clients of the suite through both programs, in front of Basalt and of a real etcd.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Proxy, address};
use crate::process::{self, Setup, reference, run};

/// The clients send requests that only the member refuses.
const LARGE: [&str; 2] = ["--max-send-bytes", "4194304"];

fn go(proxy: &Proxy, arguments: &[&str]) {
    let mut client = Command::new(reference("go-client"));
    client.args(arguments).arg("-endpoint").arg(proxy.address());
    succeeds(client, proxy);
}

fn python(proxy: &Proxy, script: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut client = Command::new(root.join("target/python/bin/python"));
    client.arg(root.join("tests/clients/python").join(script)).arg(proxy.port.to_string());
    succeeds(client, proxy);
}

fn succeeds(client: Command, proxy: &Proxy) {
    let told = run(client, Duration::from_secs(240));
    let tail = proxy.logs.tail();
    assert_eq!(told.code, Some(0), "{}\n{}\nproxy:\n{tail}", told.stdout, told.stderr);
}

/// Three at a time: the client waits for leases to end.
#[test]
fn the_go_client_is_served_through_both() {
    let (first, second, etcd) = (
        Setup::new(process::basalt()).start(),
        Setup::new(process::basalt()).start(),
        Setup::new(process::etcd()).start(),
    );
    let in_namespace = [&LARGE[..], &["--namespace", "some/where/"]].concat();
    let proxies = [
        Proxy::gateway(&address(&first), &[]),
        Proxy::grpc(&second, &LARGE),
        Proxy::grpc(&etcd, &in_namespace),
    ];
    std::thread::scope(|scope| {
        for proxy in &proxies {
            scope.spawn(|| go(proxy, &[]));
        }
    });
}

#[test]
fn python_clients_are_served_through_both() {
    let server = Setup::new(process::basalt()).start();
    python(&Proxy::grpc(&server, &LARGE), "client.py");
    let server = Setup::new(process::basalt()).start();
    python(&Proxy::gateway(&address(&server), &[]), "client.py");
    python(&Proxy::gateway(&address(&server), &[]), "gateway.py");
}

#[test]
fn bursts_of_renewals_and_watches_go_through_the_grpc_proxy() {
    let server = Setup::new(process::basalt()).start();
    let proxy = Proxy::grpc(&server, &[]);
    go(&proxy, &["-leases", "6000", "-ttl", "120", "-at-once", "-for", "1s"]);
    go(&proxy, &["-watches", "2000"]);
    proxy.wait_for_metric("basalt_grpc_proxy_upstream_watches", 0);
}
