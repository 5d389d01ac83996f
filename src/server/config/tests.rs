//! The configuration as a whole, flag by flag.

use super::super::flags::{Command, parse};
use super::super::table;
use super::*;
use crate::io::Address;

fn flags(arguments: &[&str]) -> Flags {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned());
    let Command::Run(flags) =
        parse(arguments, std::iter::empty(), |path| std::fs::read_to_string(path))
    else {
        panic!("they are understood")
    };
    flags
}

fn config(arguments: &[&str]) -> Result<Config, String> {
    Config::new(&flags(arguments), Vec::new()).map_err(|note| note.about[0].1.clone())
}

#[test]
fn defaults_are_etcds() {
    let config = config(&[]).expect("the defaults are fine");
    let address = Address::Tcp("127.0.0.1:2379".to_owned());
    assert_eq!(config.listen_clients, [Listen { address, plain: true, secure: false }]);
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!((config.quota_bytes, config.max_request_bytes), (2 << 30, 1_572_864));
    assert_eq!(config.keep_alive, Duration::from_secs(7200));
    assert_eq!(config.initial_cluster["default"], ["http://localhost:2380"]);
    assert_eq!(config.retention, Retention::All);
    assert!(config.gates.is_on(Gate::FastLeaseKeepAlive) && !config.joins_existing);
}

#[test]
fn vote_lease_is_the_election_timeout_less_a_tick() {
    assert_eq!(config(&[]).expect("the defaults are fine").vote_lease(), Duration::ZERO);
    let flags = ["--lease-based-reads", "--heartbeat-interval=60", "--election-timeout=500"];
    assert_eq!(config(&flags).expect("they are fine").vote_lease(), Duration::from_millis(420));
}

#[test]
fn invalid_combinations_are_refused_with_etcds_texts() {
    let listen = ["--listen-client-urls", "http://127.0.0.1:1"];
    let advertise = ["--advertise-client-urls", "http://127.0.0.1:1"];
    for (arguments, text) in [
        (
            &listen[..],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-client-urls", "http://foo:1", advertise[0], advertise[1]],
            "expected IP in URL for binding (http://foo:1)",
        ),
        (
            &["--election-timeout", "100"],
            "--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--max-request-bytes=33554433"],
            "--max-request-bytes must be at most 33554432 (set to 33554433): a request is one record of the \
             log, and a record lies in one of its segments",
        ),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            &["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (&["--auto-compaction-mode", "x"], "unknown auto-compaction-mode \"x\""),
        (&["--logger", "foo"], "unknown logger option \"foo\""),
        (&["--log-format", "foo"], "unknown log format: foo, supported values json, console"),
        (&["--log-outputs", "foo,default"], "multi logoutput for \"default\" is not supported yet"),
        (
            &["--tls-min-version", "TLS1.9"],
            "unexpected TLS version \"TLS1.9\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--cipher-suites=TLS_AES_128_GCM_SHA256"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (&["--discovery-token=x"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (&["--compact-hash-check-time=0s"], "--compact-hash-check-time must be >0 (set to 0s)"),
    ] {
        assert_eq!(config(arguments).expect_err("it makes no sense"), text, "{arguments:?}");
    }
}

#[test]
fn never_less_than_asked_for() {
    let text = config(&["--discovery-srv", "example.com"]).expect_err("it is not there");
    assert!(text.starts_with("this version of Basalt"), "{text}");
    assert!(config(&["--client-cert-auth=false", "--cert-file", ""]).is_ok());
}

#[test]
fn tls_is_refused_where_it_lacks_a_certificate() {
    for (arguments, why) in [
        (&["--cert-file", "x"][..], "KeyFile and CertFile must both be present[key: , cert: x]"),
        (
            &["--listen-peer-urls", "https://127.0.0.1:1"],
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
        ),
        (
            &[
                "--listen-client-urls=https://127.0.0.1:1",
                "--advertise-client-urls=https://127.0.0.1:1",
            ],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url \
             https://127.0.0.1:1 with HTTPS scheme",
        ),
        (
            &["--client-cert-file", "x"],
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: x]",
        ),
        (&["--cipher-suites", "x"], "unexpected TLS cipher suite \"x\""),
    ] {
        assert_eq!(config(arguments).expect_err("it makes no sense"), why, "{arguments:?}");
    }
    let both = "--listen-peer-urls=https://127.0.0.1:1,http://127.0.0.1:1";
    let config = config(&["--peer-auto-tls", both]).expect("it is fine");
    assert_eq!(config.listen_peers.len(), 1, "one address serves both");
    assert!(config.listen_peers[0].plain && config.listen_peers[0].secure);
}

/// A flag with an effect that nothing reads is ignored in silence. The fields of [`Config`] that it ends in are seen in this
/// room alone, so that the compiler refuses those that nothing reads.
#[test]
fn every_flag_with_an_effect_is_read() {
    let flags = flags(&[]);
    Config::new(&flags, Vec::new()).expect("the defaults are fine");
    let unread: Vec<_> =
        table::all().filter(|flag| flag.is_used()).map(|flag| flag.name()).collect();
    let unread: Vec<_> = unread.into_iter().filter(|name| !flags.reads.contains(name)).collect();
    // The default is composed of other flags, and read only if the flag was given.
    assert_eq!(unread, ["initial-cluster"]);
    let flags = self::flags(&["--initial-cluster=default=http://localhost:2380"]);
    Config::new(&flags, Vec::new()).expect("it is fine");
    assert!(flags.reads.contains("initial-cluster"));
}

#[test]
fn flags_without_effect_are_warned_of_when_they_are_given() {
    let warnings = |arguments: &[&str]| -> Vec<String> {
        let notes = config(arguments).expect("they are fine").notes.into_iter();
        notes.map(|note| note.message).filter(|message| message.contains("no effect")).collect()
    };
    assert_eq!(warnings(&[]), [""; 0]);
    for (argument, name) in [
        ("--enable-pprof", "--enable-pprof"),
        ("--feature-gates=LeaseCheckpoint=true", "feature gate LeaseCheckpoint"),
        ("--downgrade-check-time=1s", "--downgrade-check-time"),
        ("--discovery-dial-timeout=1s", "--discovery-dial-timeout"),
        ("--backend-batch-limit=1", "--backend-batch-limit"),
        ("--max-snapshots=1", "--max-snapshots"),
    ] {
        let warning = format!("{name} has no effect in this version of Basalt");
        assert_eq!(warnings(&[argument]), [warning], "{argument}");
    }
    // Their defaults describe the actual behaviour.
    for argument in ["--enable-pprof=false", "--max-snapshots=5", "--downgrade-check-time=5000ms"] {
        assert_eq!(warnings(&[argument]), [""; 0], "{argument}");
    }
}

#[test]
fn durations_are_bounded_as_in_go() {
    let Command::Misuse(text) =
        parse(["--corrupt-check-time=2562048h".to_owned()].into_iter(), std::iter::empty(), |_| {
            Err(std::io::Error::other("no file"))
        })
    else {
        panic!("it is longer than Go's durations")
    };
    assert_eq!(text, "invalid value \"2562048h\" for flag -corrupt-check-time: parse error");
    let hours = config(&["--auto-compaction-retention=18446744073709551615"]);
    let retention = hours.expect("a number of hours").retention;
    assert_eq!(retention, Retention::Time(gocompat::duration::MAX));
}

#[test]
fn retention_counts_hours_times_or_revisions() {
    let retention = |arguments: &[&str]| config(arguments).map(|config| config.retention);
    let hours = Retention::Time(Duration::from_secs(7200));
    assert_eq!(retention(&["--auto-compaction-retention=2"]), Ok(hours));
    let minutes = Retention::Time(Duration::from_secs(300));
    assert_eq!(retention(&["--auto-compaction-retention=5m"]), Ok(minutes));
    let mode = "--auto-compaction-mode=revision";
    assert_eq!(retention(&[mode, "--auto-compaction-retention=9"]), Ok(Retention::Revisions(9)));
    let wrong = "error parsing CompactionRetention: time: invalid duration \"x\"";
    assert_eq!(retention(&["--auto-compaction-retention=x"]), Err(wrong.to_owned()));
}

/// Like the sample that etcd ships: it must start.
#[test]
fn a_file_like_etcds_sample_is_fine() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "name: 'default'\ndata-dir:\nlisten-client-urls: http://localhost:2379\ncors:\n\
        discovery:\ndiscovery-fallback: 'proxy'\ndiscovery-proxy:\ninitial-cluster:\n\
        strict-reconfig-check: false\nenable-pprof: true\nproxy: 'off'\nproxy-read-timeout: 0\n\
        client-transport-security:\n  cert-file:\n  client-cert-auth: false\n  auto-tls: false\n\
        peer-transport-security:\n  allowed-cn:\nself-signed-cert-validity: 1\nlog-level: debug\n\
        logger: zap\nlog-outputs: [stderr]\nforce-new-cluster: false\n\
        auto-compaction-mode: periodic\nauto-compaction-retention: \"1\"\n\
        cipher-suites: [\n  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\n]\n\
        tls-min-version: 'TLS1.2'\ntls-max-version: 'TLS1.3'\n";
    std::fs::write(file.path(), text).expect("it can be written");
    let path = file.path().to_str().expect("a path");
    let config = config(&["--config-file", path, "--name", "ignored"]).expect("it must start");
    assert_eq!(config.name, "default");
    assert!(!config.strict_reconfig);
}
