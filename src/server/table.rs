//! Every flag of etcd 3.7.1: how its value reads, its default, and what it is for.

/// How a value reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Anything.
    Text,
    /// `true` or `false`; needs no value.
    Switch,
    /// A whole number.
    Int,
    /// A whole number that is not negative.
    Uint,
    /// A whole number of 32 bits.
    Uint32,
    /// A time in Go's spelling, as in `1m30s`; in files whole nanoseconds.
    Time,
    /// URLs, with commas between.
    Urls,
    /// URLs or `*`, with commas between.
    Origins,
    /// One of these.
    One(&'static [&'static str]),
    /// Feature gates: `A=true,B=false`.
    Gates,
}

/// One flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
}

/// Where `--help` lists it.
pub(super) type Section = (&'static str, &'static [Flag]);

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, help }
}

use Kind::{Gates, Int, One, Origins, Switch, Text, Time, Uint, Uint32, Urls};

/// All flags, in the order of `--help`.
pub(super) const SECTIONS: &[Section] = &[
    ("Member", MEMBER),
    ("Clustering", CLUSTERING),
    ("Security", SECURITY),
    ("Auth", AUTH),
    ("Profiling and Monitoring", MONITORING),
    ("Logging", LOGGING),
    ("Distributed tracing", TRACING),
    ("Features", FEATURES),
    ("Unsafe feature", UNSAFE),
    ("Basalt", BASALT),
];

const MEMBER: &[Flag] = &[
    flag("name", Text, "default", "Name of this member, for people."),
    flag("data-dir", Text, "", "Directory of the data; by default the name with .etcd behind it."),
    flag("wal-dir", Text, "", "Directory of the write-ahead log, if it is to be apart."),
    flag("snapshot-count", Uint, "10000", "Applied entries after which the log is cut."),
    flag("heartbeat-interval", Uint, "100", "Milliseconds between two heartbeats."),
    flag("election-timeout", Uint, "1000", "Milliseconds without a leader until an election."),
    flag("initial-election-tick-advance", Switch, "true", "Hold the first election sooner."),
    flag("listen-peer-urls", Urls, "http://localhost:2380", "URLs to hear other members on."),
    flag("listen-client-urls", Urls, "http://localhost:2379", "URLs to hear clients on."),
    flag(
        "listen-client-http-urls",
        Urls,
        "",
        "URLs for HTTP alone, which the client URLs then leave.",
    ),
    flag("max-snapshots", Uint, "5", "Has no meaning any more."),
    flag("max-wals", Uint, "5", "Log segments kept for use again."),
    flag("memory-mlock", Switch, "false", "Keep the memory of the process from being swapped out."),
    flag(
        "quota-backend-bytes",
        Int,
        "0",
        "Bytes the store may take; 0 for 2 GiB, less for no limit.",
    ),
    flag("backend-bbolt-freelist-type", Text, "map", "Has no meaning for this store."),
    flag("backend-batch-interval", Time, "0s", "Has no meaning for this store."),
    flag("backend-batch-limit", Int, "0", "Has no meaning for this store."),
    flag("max-txn-ops", Uint, "128", "Operations that a transaction may have."),
    flag("max-request-bytes", Uint, "1572864", "Bytes that a request may have."),
    flag(
        "max-concurrent-streams",
        Uint32,
        "4294967295",
        "Streams a client may have open at a time.",
    ),
    flag(
        "grpc-keepalive-min-time",
        Time,
        "5s",
        "Time that a client should leave between two pings.",
    ),
    flag("grpc-keepalive-interval", Time, "2h", "Time between two pings to a client; 0 for none."),
    flag(
        "grpc-keepalive-timeout",
        Time,
        "20s",
        "Time until a client that does not answer is given up.",
    ),
    flag("socket-reuse-port", Switch, "false", "Share listening ports with other processes."),
    flag(
        "socket-reuse-address",
        Switch,
        "false",
        "Listen on addresses that were in use a moment ago.",
    ),
    flag("enable-grpc-gateway", Switch, "true", "Serve the API as JSON over HTTP too."),
    flag(
        "raft-read-timeout",
        Time,
        "5s",
        "Time until a silent connection to a member is given up.",
    ),
    flag(
        "raft-write-timeout",
        Time,
        "5s",
        "Time until a stuck connection to a member is given up.",
    ),
    flag("feature-gates", Gates, "", "Features to switch on or off, as in A=true,B=false."),
];

const CLUSTERING: &[Flag] = &[
    flag(
        "initial-advertise-peer-urls",
        Urls,
        "http://localhost:2380",
        "URLs other members reach this one at.",
    ),
    flag(
        "initial-cluster",
        Text,
        "default=http://localhost:2380",
        "The first members, as in name=url,name=url.",
    ),
    flag(
        "initial-cluster-state",
        One(&["new", "existing"]),
        "new",
        "Whether a new cluster begins or one exists.",
    ),
    flag(
        "initial-cluster-token",
        Text,
        "etcd-cluster",
        "A word that tells clusters with the same members apart.",
    ),
    flag("advertise-client-urls", Urls, "http://localhost:2379", "URLs that clients are told."),
    flag("discovery-token", Text, "", "Discovery: the token of the cluster to come."),
    flag("discovery-endpoints", Text, "", "Discovery: where to ask."),
    flag("discovery-dial-timeout", Time, "2s", "Discovery: time until a connection is given up."),
    flag("discovery-request-timeout", Time, "5s", "Discovery: time until a request is given up."),
    flag("discovery-keepalive-time", Time, "2s", "Discovery: time between two pings."),
    flag("discovery-keepalive-timeout", Time, "6s", "Discovery: time until a ping is given up."),
    flag("discovery-insecure-transport", Switch, "true", "Discovery: without TLS."),
    flag(
        "discovery-insecure-skip-tls-verify",
        Switch,
        "false",
        "Discovery: trust any certificate; for tests.",
    ),
    flag("discovery-cert", Text, "", "Discovery: file of our certificate."),
    flag("discovery-key", Text, "", "Discovery: file of our key."),
    flag("discovery-cacert", Text, "", "Discovery: file of the certificates to trust."),
    flag("discovery-user", Text, "", "Discovery: name[:password]."),
    flag("discovery-password", Text, "", "Discovery: the password, if not with the name."),
    flag(
        "discovery-fallback",
        One(&["exit", "proxy"]),
        "exit",
        "What to do when discovery fails; exit is all there is.",
    ),
    flag("discovery-srv", Text, "", "Domain whose SRV records name the first members."),
    flag("discovery-srv-name", Text, "", "Behind the service's name in those records."),
    flag(
        "strict-reconfig-check",
        Switch,
        "true",
        "Refuse changes of membership that would cost the quorum.",
    ),
    flag(
        "pre-vote",
        Switch,
        "true",
        "Ask before an election, so that a member that was cut off disturbs nobody.",
    ),
    flag("auto-compaction-retention", Text, "0", "How much history to keep; 0 for all."),
    flag(
        "auto-compaction-mode",
        Text,
        "periodic",
        "What that counts: periodic (hours, or 5m) or revision.",
    ),
    flag(
        "v2-deprecation",
        One(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
        "write-only",
        "Has no meaning any more.",
    ),
];

const SECURITY: &[Flag] = &[
    flag("cert-file", Text, "", "File of the certificate shown to clients."),
    flag("key-file", Text, "", "File of its key."),
    flag("client-cert-auth", Switch, "false", "Ask clients for certificates."),
    flag(
        "client-cert-file",
        Text,
        "",
        "File of the certificate shown when this member is the client.",
    ),
    flag("client-key-file", Text, "", "File of its key."),
    flag("client-crl-file", Text, "", "File of revoked client certificates."),
    flag("client-cert-allowed-hostname", Text, "", "Host names that client certificates may have."),
    flag("trusted-ca-file", Text, "", "File of the authorities trusted for clients."),
    flag("auto-tls", Switch, "false", "Make a certificate for clients to see."),
    flag("peer-cert-file", Text, "", "File of the certificate shown to members."),
    flag("peer-key-file", Text, "", "File of its key."),
    flag("peer-client-cert-auth", Switch, "false", "Ask members for certificates."),
    flag(
        "peer-client-cert-file",
        Text,
        "",
        "File of the certificate shown when members are asked.",
    ),
    flag("peer-client-key-file", Text, "", "File of its key."),
    flag("peer-trusted-ca-file", Text, "", "File of the authorities trusted for members."),
    flag("peer-cert-allowed-cn", Text, "", "Common names that members' certificates may have."),
    flag("peer-cert-allowed-hostname", Text, "", "Host names that members' certificates may have."),
    flag("peer-auto-tls", Switch, "false", "Make a certificate for members to see."),
    flag("self-signed-cert-validity", Uint, "1", "Years that certificates made here are good for."),
    flag("peer-crl-file", Text, "", "File of revoked members' certificates."),
    flag("cipher-suites", Text, "", "TLS suites to use, in Go's names; empty for a good choice."),
    flag("cors", Origins, "*", "Origins whose scripts may ask; * for all."),
    flag(
        "host-whitelist",
        Text,
        "*",
        "Host names under which this member may be asked without TLS; * for all.",
    ),
    flag("tls-min-version", Text, "TLS1.2", "Oldest TLS: TLS1.2 or TLS1.3."),
    flag(
        "tls-max-version",
        Text,
        "",
        "Newest TLS: TLS1.2 or TLS1.3; empty for the newest there is.",
    ),
];

const AUTH: &[Flag] = &[
    flag("auth-token", Text, "simple", "Kind of tokens: simple, or jwt with its options."),
    flag("bcrypt-cost", Uint, "10", "Work that guessing a password shall cost: 4 to 31."),
    flag("auth-token-ttl", Uint, "300", "Seconds that a simple token lives without use."),
];

const MONITORING: &[Flag] = &[
    flag("enable-pprof", Switch, "false", "Serve profiles; there are none of Go's here."),
    flag("metrics", Text, "basic", "How much to measure: basic or extensive."),
    flag("listen-metrics-urls", Urls, "", "URLs that serve metrics and health alone."),
];

const LOGGING: &[Flag] = &[
    flag("logger", Text, "zap", "The shape of the log; zap is all there is."),
    flag(
        "log-outputs",
        Text,
        "default",
        "Where to: stderr, stdout, or files, with commas between.",
    ),
    flag("log-level", Text, "info", "From where on: debug, info, warn, error, panic or fatal."),
    flag("log-format", Text, "json", "How a line looks: json or console."),
    flag("enable-log-rotation", Switch, "false", "Begin a new file when the log is large."),
    flag(
        "log-rotation-config-json",
        Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        "When to, in JSON.",
    ),
    flag(
        "warning-unary-request-duration",
        Time,
        "300ms",
        "Time from which on a request is told of.",
    ),
];

const TRACING: &[Flag] = &[
    flag("enable-distributed-tracing", Switch, "false", "Send traces."),
    flag("distributed-tracing-address", Text, "localhost:4317", "Where to."),
    flag("distributed-tracing-service-name", Text, "etcd", "As which service."),
    flag("distributed-tracing-instance-id", Text, "", "As which instance of it."),
    flag("distributed-tracing-sampling-rate", Uint, "0", "Requests of a million that are traced."),
];

const FEATURES: &[Flag] = &[
    flag(
        "corrupt-check-time",
        Time,
        "0s",
        "Time between two comparisons of the members' data; 0 for none.",
    ),
    flag(
        "compact-hash-check-time",
        Time,
        "1m0s",
        "Time between two comparisons of compacted data.",
    ),
    flag("compaction-batch-limit", Uint, "1000", "Revisions of one slice of compaction."),
    flag(
        "peer-skip-client-san-verification",
        Switch,
        "false",
        "Do not look at the names in members' certificates.",
    ),
    flag(
        "watch-progress-notify-interval",
        Time,
        "10m",
        "Time between two notes of progress to a silent watch.",
    ),
    flag("warning-apply-duration", Time, "100ms", "Time from which on an application is told of."),
    flag(
        "bootstrap-defrag-threshold-megabytes",
        Uint,
        "0",
        "Mebibytes on disk beyond those in use, past which the store is defragmented at the start; 0 for never.",
    ),
    flag("max-learners", Uint, "1", "Members without a vote at a time."),
    flag("compaction-sleep-interval", Time, "10ms", "Time between two slices of compaction."),
    flag("downgrade-check-time", Time, "5s", "Time between two looks at a downgrade."),
    flag("snapshot-catchup-entries", Uint, "5000", "Entries kept for members that are behind."),
];

const UNSAFE: &[Flag] = &[
    flag("force-new-cluster", Switch, "false", "Make a cluster of this member alone."),
    flag(
        "unsafe-no-fsync",
        Switch,
        "false",
        "Do not wait for the disk: loses data when power fails.",
    ),
];

const BASALT: &[Flag] = &[
    flag(
        "cores",
        Text,
        "",
        "Cores to run on, as in 0,2-3; by default all that the process may use.",
    ),
    flag(
        "lease-based-reads",
        Switch,
        "false",
        "Let the leader read alone while a quorum promises not to vote.",
    ),
];

/// Known, and in no section of `--help`.
pub(super) const UNLISTED: &[Flag] =
    &[flag("config-file", Text, "", ""), flag("version", Switch, "false", "")];

/// Flags of old versions that are taken and mean nothing. As in etcd they need no value.
pub(super) const IGNORED: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
];

/// Switches of 3.4 to 3.6 that are feature gates now.
pub(super) const GATES_BEFORE: &[(&str, &str)] = &[
    ("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    ("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    ("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    ("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    ("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    ("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
];

/// A feature gate: name, stage, whether it is on by default.
pub(super) const GATES: &[(&str, &str, bool)] = &[
    ("AllAlpha", "ALPHA", false),
    ("AllBeta", "BETA", false),
    ("CompactHashCheck", "ALPHA", false),
    ("FastLeaseKeepAlive", "BETA", true),
    ("InitialCorruptCheck", "ALPHA", false),
    ("LeaseCheckpoint", "ALPHA", false),
    ("LeaseCheckpointPersist", "ALPHA", false),
    ("PriorityRequest", "ALPHA", false),
    ("SetMemberLocalAddr", "ALPHA", false),
    ("StopGRPCServiceOnDefrag", "ALPHA", false),
    ("TxnModeWriteWithSharedBuffer", "BETA", true),
];

/// The flag of this name.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    let listed = SECTIONS.iter().flat_map(|(_, flags)| flags.iter());
    listed.chain(UNLISTED).find(|flag| flag.name == name)
}

/// All flags.
pub(super) fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|(_, flags)| flags.iter()).chain(UNLISTED)
}
