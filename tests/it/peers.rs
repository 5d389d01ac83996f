//! Connections between members: over unix sockets, after a time in which the network dropped everything, and none to
//! an address that only a stranger's hello named.
//!
//! ```text
//! test ── unshare --net --mount ──► the same test, as the host of three networks
//!            bridge ─┬─ m1: a member in a network of its own
//!                    ├─ m2      the ports of the bridge are isolated from each other: all packets between members are
//!                    └─ m3      dropped, and none between members and clients, who are on the bridge itself
//! ```

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use basalt::cluster::{cluster_id, member_id};
use basalt::peer::{self, Hello, Kind, Lane, MAGIC};
use basalt::types::FeatureLevel;

use crate::compare::{from_environment, runtime};
use crate::process::{self, Scratch, Server, Setup};
use crate::wire::Wire;

const INSIDE: &str = "PEERS_NETWORK";
const WAIT: Duration = Duration::from_secs(60);
/// Writes must succeed within this time after the network is restored.
const BACK_MAX: Duration = Duration::from_secs(4);

/// Waits until a write is acknowledged; returns the time it took.
async fn until_written(endpoint: &str) -> Duration {
    let (wire, began) = (Wire::new(endpoint), Instant::now());
    while began.elapsed() < WAIT {
        let put = tokio::time::timeout(Duration::from_millis(500), wire.put("key", "value"));
        if put.await.is_ok_and(|put| put.is_ok()) {
            return began.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no write is acknowledged")
}

/// etcd's form is `unix://host:port`, a path relative to the working directory; an absolute path it does not dial.
#[test]
fn three_members_on_unix_sockets_elect_and_serve() {
    let sockets = Scratch::new();
    let url = |at: usize| format!("unix://{}/peer{at}.sock", sockets.path().display());
    let cluster: Vec<_> = (0..3).map(|at| format!("m{at}={}", url(at))).collect();
    let mut members: Vec<_> = (0..3)
        .map(|at| {
            let setup = Setup::new(process::basalt())
                .flag("name", &format!("m{at}"))
                .flag("listen-peer-urls", &url(at))
                .flag("initial-advertise-peer-urls", &url(at))
                .flag("initial-cluster", &cluster.join(","));
            Server::new(setup)
        })
        .collect();
    members.iter_mut().for_each(Server::launch);
    for member in &members {
        assert!(member.wait_ready(WAIT), "{}", member.logs.tail());
        runtime().block_on(until_written(&member.endpoint()));
    }
    // The leader's HTTP requests use the sockets, too.
    let agreed = members.iter().any(|it| it.logs.wait_for("\"cluster-version\":\"3.7\"", WAIT));
    assert!(agreed, "{}", members[0].logs.tail());
}

#[test]
fn addresses_named_only_by_a_stranger_are_not_dialed() {
    const PEER_URL: &str = "http://127.0.0.1:12380";
    let server = Setup::new(process::basalt()).start();
    let trap = TcpListener::bind("127.0.0.1:0").expect("a port");
    trap.set_nonblocking(true).expect("it can");
    let own = member_id(&[PEER_URL.to_owned()], "etcd-cluster", None);
    let hello = Hello {
        cluster: cluster_id(&[own]),
        from: own + 1,
        to: own,
        lane: Lane::Urgent as i32,
        urls: vec![format!("http://{}", trap.local_addr().expect("its own"))],
        feature_level: FeatureLevel::NEWEST.number(),
        pings: true,
    };
    let mut stream = TcpStream::connect(("127.0.0.1", server.peer_port)).expect("accepted");
    let hello = [MAGIC.as_slice(), &peer::message(Kind::Hello, &hello)].concat();
    stream.write_all(&hello).expect("taken");
    let mut welcome = [0; 9];
    stream.read_exact(&mut welcome).expect("answered");
    assert_eq!(welcome[8], Kind::Welcome as u8);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        assert!(trap.accept().is_err(), "the stranger's URL is dialed");
        std::thread::sleep(Duration::from_millis(20));
    }
    // A connection whose hello announces pings and that sends none is closed.
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    stream.read_to_end(&mut Vec::new()).expect("it is closed");
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn writes_are_back_soon_after_the_network_is() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--mount", "--"]).arg(std::env::current_exe().expect("this program"));
    inside.args(["--exact", "peers::writes_are_back_soon_after_the_network_is", "--nocapture"]);
    inside.env(INSIDE, "1");
    let told = process::run(inside, Duration::from_secs(300));
    if told.stderr.contains("Operation not permitted") || told.stdout.contains("skipped: ") {
        println!("skipped: no networks may be made here\n{}{}", told.stdout, told.stderr);
        return;
    }
    assert_eq!(told.code, Some(0), "{}\n{}", told.stdout, told.stderr);
    print!("{}", told.stdout);
}

/// Runs `ip`; returns true if it succeeded.
fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn lay_wires() -> bool {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status();
    let bridge = ["link set lo up", "link add br0 type bridge", "link set br0 up"];
    let address = "addr add 10.77.0.254/24 dev br0";
    mounted.is_ok_and(|status| status.success())
        && bridge.into_iter().chain([address]).all(ip)
        && (1..=3).all(|at| {
            [
                format!("netns add m{at}"),
                format!("link add v{at} type veth peer name eth0 netns m{at}"),
                format!("link set v{at} master br0 up"),
                format!("-n m{at} addr add 10.77.0.{at}/24 dev eth0"),
                format!("-n m{at} link set eth0 up"),
                format!("-n m{at} link set lo up"),
            ]
            .iter()
            .all(|arguments| ip(arguments))
        })
}

fn part(isolated: &str) {
    let parted =
        (1..=3).all(|at| ip(&format!("link set v{at} type bridge_slave isolated {isolated}")));
    assert!(parted, "the ports of the bridge know no isolation");
}

/// A member in a network of its own.
fn member(at: usize, dir: &Scratch) -> Child {
    let url = |at: usize, port: u16| format!("http://10.77.0.{at}:{port}");
    let cluster: Vec<_> = (1..=3).map(|at| format!("m{at}={}", url(at, 2380))).collect();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("m{at}")]).arg(process::basalt());
    let flags = [
        ("name", format!("m{at}")),
        ("data-dir", dir.path().join(format!("m{at}")).display().to_string()),
        ("listen-peer-urls", url(at, 2380)),
        ("initial-advertise-peer-urls", url(at, 2380)),
        ("listen-client-urls", url(at, 2379)),
        ("advertise-client-urls", url(at, 2379)),
        ("initial-cluster", cluster.join(",")),
    ];
    command.args(flags.map(|(name, value)| format!("--{name}={value}")));
    process::spawn_with(command, [Stdio::null(), Stdio::null(), Stdio::null()])
}

fn inside() {
    if !lay_wires() {
        println!("skipped: networks cannot be made or connected");
        return;
    }
    let cut = Duration::from_secs(from_environment("PEERS_CUT_SECONDS", 15));
    let dir = Scratch::new();
    let mut members: Vec<_> = (1..=3).map(|at| member(at, &dir)).collect();
    let endpoint = |at: usize| format!("http://10.77.0.{at}:2379");
    runtime().block_on(async {
        for at in 1..=3 {
            until_written(&endpoint(at)).await;
        }
        part("on");
        tokio::time::sleep(cut).await;
        part("off");
        let healed = Instant::now();
        for at in 1..=3 {
            until_written(&endpoint(at)).await;
        }
        let back = healed.elapsed();
        println!("after {cut:?} without a network, writes to all members are back within {back:?}");
        assert!(back <= BACK_MAX, "{back:?}");
    });
    for member in &mut members {
        let _ = member.kill();
        let _ = member.wait();
    }
}
