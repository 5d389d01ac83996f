//! `gateway` and `grpc-proxy` between real clients and members. Their command lines are compared with etcd's in `transcripts`.

mod clients;
mod gateway;
mod grpc_proxy;
mod secured;
mod shared;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::process::{self, Finished, Logs, PATIENCE, Scratch, Server, reference, run, spawn};

/// A running `gateway` or `grpc-proxy`.
struct Proxy {
    port: u16,
    child: Child,
    logs: Logs,
    _scratch: Scratch,
}

impl Proxy {
    fn start(kind: &str, endpoints: &str, flags: &[&str]) -> Self {
        for _ in 0..5 {
            let port = crate::ports::free();
            let scratch = Scratch::new();
            let mut command = Command::new(process::basalt());
            command
                .args([kind, "start", "--listen-addr", &format!("127.0.0.1:{port}")])
                .args(["--endpoints", endpoints])
                .args(flags)
                .current_dir(scratch.path());
            let mut child = spawn(command);
            Logs::default().read(child.stdout.take().expect("piped"));
            let logs = Logs::default();
            logs.read(child.stderr.take().expect("piped"));
            let proxy = Self { port, child, logs, _scratch: scratch };
            if proxy.logs.wait_for("successfully notified init daemon", PATIENCE) {
                return proxy;
            }
            // Another process may have taken the port meanwhile.
            assert!(proxy.logs.all().contains("address already in use"), "{}", proxy.logs.all());
        }
        panic!("no free port");
    }

    fn gateway(endpoints: &str, flags: &[&str]) -> Self {
        Self::start("gateway", endpoints, flags)
    }

    /// It tells clients of the members, so that they find there what they would find without it.
    fn grpc(server: &Server, flags: &[&str]) -> Self {
        let flags = [&["--advertise-client-url="], flags].concat();
        Self::start("grpc-proxy", &server.endpoint(), &flags)
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// A page of the proxy.
    fn page(&self, path: &str) -> String {
        told_page(&self.endpoint(), path)
    }

    /// A number of the proxy's page of metrics.
    fn metric(&self, name: &str) -> u64 {
        let page = self.page("/proxy/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().expect("a number")
    }

    /// Waits until a number of the page of metrics has this value.
    fn wait_for_metric(&self, name: &str, value: u64) {
        let until = Instant::now() + PATIENCE;
        while self.metric(name) != value {
            assert!(Instant::now() < until, "{name} is {} and not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address of a server without a scheme.
fn address(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port)
}

fn etcdctl(endpoint: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(reference("etcdctl"));
    command.args(["--endpoints", endpoint]).args(arguments);
    finished(command)
}

/// The output of a program, with the end of its last line.
fn finished(command: Command) -> Finished {
    let mut told = run(command, PATIENCE);
    if !told.stdout.is_empty() {
        told.stdout.push('\n');
    }
    told
}

/// The output of a command that must succeed.
fn told(endpoint: &str, arguments: &[&str]) -> String {
    let told = etcdctl(endpoint, arguments);
    assert_eq!(told.code, Some(0), "{arguments:?}: {}{}", told.stdout, told.stderr);
    told.stdout
}

/// A page of a server or a proxy.
fn told_page(endpoint: &str, path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-s", "--max-time", "20", &format!("{endpoint}{path}")]);
    run(command, PATIENCE).stdout
}
