//! The gRPC proxy: cache, namespace, users, registration, pages.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{PATIENCE, Proxy, address, etcdctl, finished, told};
use crate::process::{self, Scratch, Setup, basaltctl, run};

#[test]
fn a_cached_range_is_read_anew_after_a_write_through_the_proxy() {
    let server = Setup::new(process::basalt()).start();
    let proxy = Proxy::grpc(&server, &[]);
    let direct = server.endpoint();
    let cached = || told(&proxy.endpoint(), &["get", "a", "--consistency=s", "--print-value-only"]);
    told(&proxy.endpoint(), &["put", "a", "1"]);
    assert_eq!(told(&proxy.endpoint(), &["get", "a", "--print-value-only"]), "1\n");
    told(&direct, &["put", "a", "2"]);
    assert_eq!(cached(), "1\n", "as by etcd's proxy, a write by another way is not seen");
    assert_eq!(proxy.metric("etcd_grpc_proxy_cache_hits_total"), 1);
    assert_eq!(proxy.metric("etcd_grpc_proxy_cache_keys_total"), 1);
    assert_eq!(told(&proxy.endpoint(), &["get", "a", "--print-value-only"]), "2\n");
    assert_eq!(cached(), "2\n", "a linearizable read is cached, too");
    for write in [&["put", "a", "3"][..], &["del", "", "--from-key"]] {
        told(&proxy.endpoint(), write);
        let direct = told(&direct, &["get", "a", "--print-value-only"]);
        assert_eq!(cached(), direct, "after {write:?}");
    }
    // Revisions before a compaction through the proxy.
    let at = |revision: &str| {
        etcdctl(&proxy.endpoint(), &["get", "a", "--consistency=s", "--rev", revision])
    };
    assert_eq!(at("2").stdout, "a\n1\n");
    told(&proxy.endpoint(), &["compaction", "4"]);
    let refused = at("2");
    let text = "Error: etcdserver: mvcc: required revision has been compacted\n";
    assert_eq!((refused.code, refused.stderr.lines().last()), (Some(1), text.lines().next()));
}

#[test]
fn every_key_is_inside_the_namespace() {
    let server = Setup::new(process::basalt()).start();
    let proxy = Proxy::grpc(&server, &["--namespace", "ns/"]);
    let (inside, outside) = (proxy.endpoint(), server.endpoint());
    told(&outside, &["put", "a", "not ours"]);
    told(&outside, &["put", "nt", "not ours"]);
    told(&inside, &["put", "a", "1"]);
    assert_eq!(told(&outside, &["get", "ns/a"]), "ns/a\n1\n");
    assert_eq!(told(&inside, &["get", "", "--from-key"]), "a\n1\n");
    assert_eq!(told(&inside, &["put", "a", "2", "--prev-kv"]), "OK\na\n1\n");
    let granted = told(&inside, &["lease", "grant", "600"]);
    let lease = granted.split(' ').nth(1).expect("an id").to_owned();
    told(&inside, &["put", "leased", "x", "--lease", &lease]);
    told(&outside, &["put", "other", "x", "--lease", &lease]);
    let shown = told(&inside, &["lease", "timetolive", &lease, "--keys"]);
    assert!(shown.contains("attached keys([leased])"), "{shown}");
    let refused = etcdctl(&inside, &["put", "", "x"]);
    assert!(refused.stderr.contains("etcdserver: key is not provided"), "{}", refused.stderr);
    // A transaction on standard input, and an election and a lock by the members' own services.
    let mut txn = Command::new("sh");
    let line = format!(
        "printf 'val(\"a\") = \"2\"\\n\\nput b 3\\nget a\\n\\n\\n' | {} --endpoints {inside} txn",
        process::reference("etcdctl").display()
    );
    txn.args(["-c", &line]);
    let answer = finished(txn);
    assert_eq!(answer.stdout, "SUCCESS\n\nOK\n\na\n2\n", "{}", answer.stderr);
    assert_eq!(told(&outside, &["get", "ns/b", "--print-value-only"]), "3\n");
    assert_eq!(told(&inside, &["del", "", "--from-key", "--prev-kv"]).lines().next(), Some("3"));
    assert_eq!(told(&outside, &["get", "", "--from-key", "--keys-only"]), "a\n\nnt\n\nother\n\n");
}

#[test]
fn users_read_what_they_may_and_not_what_others_have_read() {
    let server = Setup::new(process::basalt()).start();
    let proxy = Proxy::grpc(&server, &[]);
    let endpoint = proxy.endpoint();
    for line in [
        "put secret s",
        "user add root:r",
        "user grant-role root root",
        "user add u:p",
        "role add some",
        "role grant-permission some readwrite open",
        "user grant-role u some",
        "auth enable",
    ] {
        told(&endpoint, &line.split(' ').collect::<Vec<_>>());
    }
    let get =
        |user: &[&str]| etcdctl(&endpoint, &[&["get", "secret", "--consistency=s"], user].concat());
    // JWTs or simple tokens: the cache belongs to a token, and each login has one of its own.
    assert_eq!(get(&["--user", "root:r"]).stdout, "secret\ns\n");
    for (user, why) in [
        (&["--user", "u:p"][..], "etcdserver: permission denied"),
        (&[], "etcdserver: user name is empty"),
        (&["--user", "u:x"], "etcdserver: authentication failed, invalid user ID or password"),
    ] {
        let refused = get(user);
        assert_eq!(refused.code, Some(if user.contains(&"u:x") { 2 } else { 1 }), "{user:?}");
        assert!(refused.stderr.contains(why), "{user:?}: {}", refused.stderr);
    }
    told(&endpoint, &["put", "open", "1", "--user", "u:p"]);
    // A watch of another's range is refused before it can share one.
    let mut root = Command::new("timeout");
    root.args(["3"]).arg(process::reference("etcdctl"));
    root.args(["--endpoints", &endpoint, "--user", "root:r", "watch", "secret"]);
    let shown = std::thread::spawn(move || finished(root));
    proxy.wait_for_metric("basalt_grpc_proxy_upstream_watches", 1);
    let refused = etcdctl(&endpoint, &["watch", "secret", "--user", "u:p"]);
    assert!(refused.stderr.contains("permission denied"), "{}{}", refused.stdout, refused.stderr);
    told(&endpoint, &["put", "secret", "t", "--user", "root:r"]);
    assert_eq!(shown.join().expect("it ends").stdout, "PUT\nsecret\nt\n");
}

#[test]
fn proxies_of_a_prefix_are_the_members_of_the_cluster() {
    let server = Setup::new(process::basalt()).start();
    let start = |port: &str| {
        let flags = ["--resolver-prefix", "proxies", "--resolver-ttl", "2"];
        let flags = [&flags[..], &["--advertise-client-url", port]].concat();
        Proxy::start("grpc-proxy", &server.endpoint(), &flags)
    };
    let (first, second) = (start("http://one.test:1"), start("http://two.test:2"));
    let until = Instant::now() + PATIENCE;
    let wait = |proxy: &Proxy, wanted: usize| loop {
        let list = told(&proxy.endpoint(), &["member", "list"]);
        let seen = ["one.test:1", "two.test:2"].iter().filter(|it| list.contains(**it)).count();
        if seen == wanted {
            return list;
        }
        assert!(Instant::now() < until, "{list}\n{}", proxy.logs.tail());
        std::thread::sleep(Duration::from_millis(50));
    };
    wait(&first, 2);
    wait(&second, 2);
    let stored = told(&server.endpoint(), &["get", "proxies/http://one.test:1"]);
    assert!(
        stored.contains("{\"Op\":0,\"Addr\":\"http://one.test:1\",\"Metadata\":\"{\\\"name\\\":")
    );
    drop(first);
    let list = wait(&second, 1);
    assert!(list.contains("two.test:2"), "{list}");
}

#[test]
fn pages_tell_of_members_and_proxy() {
    let mut server = Setup::new(process::basalt()).start();
    let port = crate::ports::free();
    let pages = format!("http://127.0.0.1:{port}");
    let flags = ["--metrics-addr", &pages];
    let proxy = Proxy::start("grpc-proxy", &address(&server), &flags);
    let page = |path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "20", "-w", "%{http_code}", &format!("{pages}{path}")]);
        run(curl, PATIENCE).stdout
    };
    for path in ["/health", "/proxy/health"] {
        assert_eq!(page(path), "{\"health\":\"true\",\"reason\":\"\"}200");
        assert_eq!(proxy.page(path), "{\"health\":\"true\",\"reason\":\"\"}");
    }
    assert!(page("/metrics").contains("etcd_server_has_leader 1"));
    assert!(page("/proxy/metrics").contains("etcd_grpc_proxy_cache_keys_total 0"));
    assert_eq!(page("/other"), "404 page not found\n404");
    server.kill();
    let reason = "{\"health\":\"false\",\"reason\":\"GET ERROR:context deadline exceeded\"}\n503";
    assert_eq!(page("/health"), reason);
    assert_eq!(page("/proxy/health"), reason);
    assert_eq!(page("/metrics"), "Internal server error\n500");
}

#[test]
fn ordered_reads_and_other_flags_are_accepted() {
    let server = Setup::new(process::basalt()).start();
    let flags = [
        "--experimental-serializable-ordering",
        "--experimental-leasing-prefix=l/",
        "--experimental-enable-grpc-logging",
        "--endpoints-auto-sync-interval=1h",
        "--debug",
        "--enable-pprof",
        "--max-concurrent-streams=10",
    ];
    let proxy = Proxy::grpc(&server, &flags);
    told(&proxy.endpoint(), &["put", "a", "1"]);
    assert_eq!(told(&proxy.endpoint(), &["get", "a", "--consistency=s"]), "a\n1\n");
    let line = proxy.logs.line("finished call", PATIENCE).expect("calls are logged");
    assert!(line.contains("\"grpc.method\":\"Put\""), "{line}");
    assert!(
        proxy.logs.wait_for("--experimental-leasing-prefix is accepted and does nothing", PATIENCE)
    );
}

/// basaltctl is another client, with streams and errors of its own.
#[test]
fn errors_come_back_as_the_member_said_them() {
    let server = Setup::new(process::basalt()).start();
    let proxy = Proxy::grpc(&server, &[]);
    let place = Scratch::new();
    for arguments in [
        &["lease", "revoke", "1234"][..],
        &["put", "a", "1", "--lease", "1234"],
        &["get", "a", "--rev", "99"],
        &["member", "remove", "1234"],
        &["move-leader", "1234"],
        &["role", "get", "nobody"],
        &["user", "delete", "nobody"],
        &["watch", "a", "--rev", "1"],
        &["snapshot", "save", "s.db"],
    ] {
        if arguments[0] == "watch" {
            told(&server.endpoint(), &["put", "a", "1"]);
            told(&server.endpoint(), &["put", "a", "2"]);
            told(&server.endpoint(), &["compaction", "3"]);
        }
        let say = |endpoint: &str| {
            let mut command = Command::new(basaltctl());
            command.current_dir(place.path());
            command.args(["--endpoints", endpoint]).args(arguments);
            let told = run(command, PATIENCE);
            let last = told.stderr.lines().last().unwrap_or_default().to_owned();
            let is_line_of_log = last.starts_with('{');
            (told.code, told.stdout, if is_line_of_log { String::new() } else { last })
        };
        assert_eq!(say(&proxy.endpoint()), say(&server.endpoint()), "{arguments:?}");
    }
}
