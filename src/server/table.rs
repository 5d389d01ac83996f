//! The table of flags: all of etcd 3.7.1, and Basalt's own. Each is a constant whose type determines the type of its
//! value and its effect; its row is here and nowhere else.

use std::time::Duration;

use super::flag::{Flag, Form, Refused, Row, Syntax, Warned, refused, used, warned};
use super::gates::{self, Gates};
use super::values::{
    self, COUNT, DURATION, INT, LIST, MILLIS, ORIGINS, SWITCH, TEXT, UINT, UINT32, URLS, Url,
};
use crate::io::ReactorChoice;

/// A heading of `--help`, and its flags.
pub(super) type Section = (&'static str, &'static [&'static dyn Row]);

/// All flags, in the order of `--help`.
pub(super) static SECTIONS: &[Section] = &[
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

const GATE_LIST: Syntax<Gates> = Syntax { parse: gates::parse, form: Form::Value };
const CORE_LIST: Syntax<Vec<usize>> = Syntax { parse: values::cores, form: Form::Value };
const REACTORS: Syntax<ReactorChoice> = Syntax {
    parse: |text| {
        text.parse().map_err(|()| {
            format!("invalid value {text:?} for flag -reactor: expected auto, io_uring or epoll")
        })
    },
    form: Form::Value,
};
/// True for an existing cluster.
const NEW_OR_EXISTING: Syntax<bool> = Syntax {
    parse: |text| values::one_of(text, &[("new", false), ("existing", true)]),
    form: Form::Value,
};
/// True for `proxy`, which 3.7 does not have any more.
const EXIT_OR_PROXY: Syntax<bool> = Syntax {
    parse: |text| values::one_of(text, &[("exit", false), ("proxy", true)]),
    form: Form::Value,
};
/// All of its values have the same effect here.
const V2_PHASE: Syntax<()> = Syntax {
    parse: |text| {
        let phases = ["write-only", "write-only-skip-check", "write-only-drop-data", "gone"];
        values::one_of(text, &phases.map(|phase| (phase, ())))
    },
    form: Form::Value,
};
/// True if requests wait for the audit log.
const DROP_OR_WAIT: Syntax<bool> = Syntax {
    parse: |text| values::one_of(text, &[("drop", false), ("wait", true)]),
    form: Form::Value,
};

/// Defines flags and the list of them.
macro_rules! section {
    ($list:ident $($name:ident: $flag:ty = $make:expr;)*) => {
        $(pub(super) static $name: $flag = $make;)*
        static $list: &[&dyn Row] = &[$(&$name),*];
    };
}

section! { MEMBER
    NAME: Flag<String> = used("name", TEXT, "default", "Name of this member, for people to read.");
    DATA_DIR: Flag<String> = used("data-dir", TEXT, "",
        "Directory of the data; by default the name followed by .etcd.");
    WAL_DIR: Flag<String> = used("wal-dir", TEXT, "",
        "Directory of the write-ahead log; by default inside the data directory.");
    SNAPSHOT_COUNT: Flag<u64> = used("snapshot-count", UINT, "10000",
        "Number of applied entries after which the log is truncated.");
    HEARTBEAT_INTERVAL: Flag<Duration> = used("heartbeat-interval", MILLIS, "100",
        "Interval between heartbeats, in milliseconds.");
    ELECTION_TIMEOUT: Flag<Duration> = used("election-timeout", MILLIS, "1000",
        "Time without a leader after which an election starts, in milliseconds.");
    INITIAL_ELECTION_TICK_ADVANCE: Flag<bool> = used("initial-election-tick-advance", SWITCH, "true",
        "Shorten the wait for the first election after a start.");
    LISTEN_PEER_URLS: Flag<Vec<Url>> = used("listen-peer-urls", URLS, "http://localhost:2380",
        "List of URLs to listen on for other members.");
    LISTEN_CLIENT_URLS: Flag<Vec<Url>> = used("listen-client-urls", URLS, "http://localhost:2379",
        "List of URLs to listen on for clients: gRPC, and HTTP unless --listen-client-http-urls is set.");
    LISTEN_CLIENT_HTTP_URLS: Flag<Vec<Url>> = used("listen-client-http-urls", URLS, "",
        "List of URLs to listen on for clients over HTTP alone; --listen-client-urls then serves gRPC alone.");
    MAX_SNAPSHOTS: Flag<u64, Warned> = warned("max-snapshots", UINT, "5",
        "Number of snapshot files to keep. Deprecated, without effect.");
    MAX_WALS: Flag<usize> = used("max-wals", COUNT, "5", "Number of unused log segments to keep for reuse.");
    MEMORY_MLOCK: Flag<bool, Warned> = warned("memory-mlock", SWITCH, "false",
        "Lock the memory of the process in RAM. Without effect.");
    QUOTA_BACKEND_BYTES: Flag<i64> = used("quota-backend-bytes", INT, "0",
        "Maximum size of the store in bytes, past which writes are refused; 0 for 2 GiB, below 0 for no limit.");
    BACKEND_BBOLT_FREELIST_TYPE: Flag<String, Warned> = warned("backend-bbolt-freelist-type", TEXT, "map",
        "Type of bbolt's freelist. Without effect: the store is not bbolt.");
    BACKEND_BATCH_INTERVAL: Flag<Duration, Warned> = warned("backend-batch-interval", DURATION, "0s",
        "Maximum time between commits of the store. Without effect.");
    BACKEND_BATCH_LIMIT: Flag<i64, Warned> = warned("backend-batch-limit", INT, "0",
        "Maximum number of operations between commits of the store. Without effect.");
    MAX_TXN_OPS: Flag<usize> = used("max-txn-ops", COUNT, "128", "Maximum number of operations in a transaction.");
    MAX_REQUEST_BYTES: Flag<usize> = used("max-request-bytes", COUNT, "1572864", "Maximum size of a request in bytes.");
    MAX_CONCURRENT_STREAMS: Flag<u32> = used("max-concurrent-streams", UINT32, "4294967295",
        "Maximum number of open streams per client connection.");
    GRPC_KEEPALIVE_MIN_TIME: Flag<Duration> = used("grpc-keepalive-min-time", DURATION, "5s",
        "Minimum time that a client should leave between pings; one that pings more often is disconnected.");
    GRPC_KEEPALIVE_INTERVAL: Flag<Duration> = used("grpc-keepalive-interval", DURATION, "2h",
        "Interval between pings of the server to a client; 0 to send none.");
    GRPC_KEEPALIVE_TIMEOUT: Flag<Duration> = used("grpc-keepalive-timeout", DURATION, "20s",
        "Time to wait for the answer to a ping before the connection is closed.");
    SOCKET_REUSE_PORT: Flag<bool, Warned> = warned("socket-reuse-port", SWITCH, "false",
        "Set SO_REUSEPORT on listening sockets. Without effect.");
    SOCKET_REUSE_ADDRESS: Flag<bool, Warned> = warned("socket-reuse-address", SWITCH, "false",
        "Set SO_REUSEADDR on listening sockets. Without effect.");
    ENABLE_GRPC_GATEWAY: Flag<bool> = used("enable-grpc-gateway", SWITCH, "true",
        "Serve the API as JSON over HTTP too.");
    RAFT_READ_TIMEOUT: Flag<Duration> = used("raft-read-timeout", DURATION, "5s",
        "Time without received data after which a connection to a member is closed.");
    RAFT_WRITE_TIMEOUT: Flag<Duration> = used("raft-write-timeout", DURATION, "5s",
        "Time without progress in sending after which a connection to a member is closed.");
    FEATURE_GATES: Flag<Gates> = used("feature-gates", GATE_LIST, "",
        "List of feature gates to turn on or off, as in A=true,B=false. The gates are:");
}

section! { CLUSTERING
    INITIAL_ADVERTISE_PEER_URLS: Flag<Vec<Url>> = used("initial-advertise-peer-urls", URLS, "http://localhost:2380",
        "List of this member's peer URLs that other members connect to.");
    INITIAL_CLUSTER: Flag<String> = used("initial-cluster", TEXT, "default=http://localhost:2380",
        "Members of the new cluster, as in name=url,name=url. Used while a cluster is founded.");
    INITIAL_CLUSTER_STATE: Flag<bool> = used("initial-cluster-state", NEW_OR_EXISTING, "new",
        "'new' to found a cluster, 'existing' to join one. Used at the first start only.");
    INITIAL_CLUSTER_TOKEN: Flag<String> = used("initial-cluster-token", TEXT, "etcd-cluster",
        "Cluster token, used while a cluster is founded. Clusters with equal member URLs need different tokens.");
    ADVERTISE_CLIENT_URLS: Flag<Vec<Url>> = used("advertise-client-urls", URLS, "http://localhost:2379",
        "List of this member's client URLs that other members and clients are given.");
    DISCOVERY_TOKEN: Flag<String, Refused> = refused("discovery-token", TEXT, "",
        "V3 discovery: token of the cluster to found. Not supported.", "discovery");
    DISCOVERY_ENDPOINTS: Flag<String, Refused> = refused("discovery-endpoints", TEXT, "",
        "V3 discovery: endpoints of the discovery service. Not supported.", "discovery");
    DISCOVERY_DIAL_TIMEOUT: Flag<Duration, Warned> = warned("discovery-dial-timeout", DURATION, "2s",
        "V3 discovery: timeout of a connection attempt. Without effect.");
    DISCOVERY_REQUEST_TIMEOUT: Flag<Duration, Warned> = warned("discovery-request-timeout", DURATION, "5s",
        "V3 discovery: timeout of a request. Without effect.");
    DISCOVERY_KEEPALIVE_TIME: Flag<Duration, Warned> = warned("discovery-keepalive-time", DURATION, "2s",
        "V3 discovery: interval between pings. Without effect.");
    DISCOVERY_KEEPALIVE_TIMEOUT: Flag<Duration, Warned> = warned("discovery-keepalive-timeout", DURATION, "6s",
        "V3 discovery: time to wait for the answer to a ping. Without effect.");
    DISCOVERY_INSECURE_TRANSPORT: Flag<bool, Warned> = warned("discovery-insecure-transport", SWITCH, "true",
        "V3 discovery: connect without TLS. Without effect.");
    DISCOVERY_INSECURE_SKIP_TLS_VERIFY: Flag<bool, Warned> = warned("discovery-insecure-skip-tls-verify", SWITCH, "false",
        "V3 discovery: do not verify the server's certificate. Without effect.");
    DISCOVERY_CERT: Flag<String, Warned> = warned("discovery-cert", TEXT, "",
        "V3 discovery: file of the client certificate. Without effect.");
    DISCOVERY_KEY: Flag<String, Warned> = warned("discovery-key", TEXT, "",
        "V3 discovery: file of the client key. Without effect.");
    DISCOVERY_CACERT: Flag<String, Warned> = warned("discovery-cacert", TEXT, "",
        "V3 discovery: file of the trusted CA certificates. Without effect.");
    DISCOVERY_USER: Flag<String, Warned> = warned("discovery-user", TEXT, "",
        "V3 discovery: user, as name[:password]. Without effect.");
    DISCOVERY_PASSWORD: Flag<String, Warned> = warned("discovery-password", TEXT, "",
        "V3 discovery: password of the user. Without effect.");
    DISCOVERY_FALLBACK: Flag<bool> = used("discovery-fallback", EXIT_OR_PROXY, "exit",
        "Action when discovery fails; 'exit' is the only one.");
    DISCOVERY_SRV: Flag<String, Refused> = refused("discovery-srv", TEXT, "",
        "DNS domain whose SRV records list the initial members. Not supported.", "discovery");
    DISCOVERY_SRV_NAME: Flag<String, Warned> = warned("discovery-srv-name", TEXT, "",
        "Suffix of the service name in those SRV records. Without effect.");
    STRICT_RECONFIG_CHECK: Flag<bool> = used("strict-reconfig-check", SWITCH, "true",
        "Refuse membership changes that would lose the quorum.");
    PRE_VOTE: Flag<bool> = used("pre-vote", SWITCH, "true",
        "Ask other members before an election, so that a member that was cut off does not depose the leader when it returns.");
    AUTO_COMPACTION_RETENTION: Flag<String> = used("auto-compaction-retention", TEXT, "0",
        "History to keep when the key space is compacted automatically; 0 to disable automatic compaction.");
    AUTO_COMPACTION_MODE: Flag<String> = used("auto-compaction-mode", TEXT, "periodic",
        "Unit of --auto-compaction-retention: 'periodic' for a duration (hours without a unit), 'revision' for a number of revisions.");
    V2_DEPRECATION: Flag<(), Warned> = warned("v2-deprecation", V2_PHASE, "write-only",
        "Phase of the deprecation of the v2 store. Deprecated, without effect.");
}

section! { SECURITY
    CERT_FILE: Flag<String> = used("cert-file", TEXT, "",
        "File of the server certificate for clients.");
    KEY_FILE: Flag<String> = used("key-file", TEXT, "",
        "File of the key of --cert-file.");
    CLIENT_CERT_AUTH: Flag<bool> = used("client-cert-auth", SWITCH, "false",
        "Require client certificates.");
    CLIENT_CERT_FILE: Flag<String> = used("client-cert-file", TEXT, "",
        "File of the certificate that this member uses as a client; by default --cert-file.");
    CLIENT_KEY_FILE: Flag<String> = used("client-key-file", TEXT, "",
        "File of the key of --client-cert-file.");
    CLIENT_CRL_FILE: Flag<String> = used("client-crl-file", TEXT, "",
        "File of the revocation list for client certificates.");
    CLIENT_CERT_ALLOWED_HOSTNAME: Flag<Vec<String>> = used("client-cert-allowed-hostname", LIST, "",
        "List of host names allowed in client certificates.");
    TRUSTED_CA_FILE: Flag<String> = used("trusted-ca-file", TEXT, "",
        "File of the CA certificates trusted for clients.");
    AUTO_TLS: Flag<bool> = used("auto-tls", SWITCH, "false",
        "Generate a server certificate for clients.");
    PEER_CERT_FILE: Flag<String> = used("peer-cert-file", TEXT, "",
        "File of the server certificate for other members.");
    PEER_KEY_FILE: Flag<String> = used("peer-key-file", TEXT, "",
        "File of the key of --peer-cert-file.");
    PEER_CLIENT_CERT_AUTH: Flag<bool> = used("peer-client-cert-auth", SWITCH, "false",
        "Require certificates of other members.");
    PEER_CLIENT_CERT_FILE: Flag<String> = used("peer-client-cert-file", TEXT, "",
        "File of the certificate used to connect to other members; by default --peer-cert-file.");
    PEER_CLIENT_KEY_FILE: Flag<String> = used("peer-client-key-file", TEXT, "",
        "File of the key of --peer-client-cert-file.");
    PEER_TRUSTED_CA_FILE: Flag<String> = used("peer-trusted-ca-file", TEXT, "",
        "File of the CA certificates trusted for other members.");
    PEER_CERT_ALLOWED_CN: Flag<Vec<String>> = used("peer-cert-allowed-cn", LIST, "",
        "List of common names allowed in certificates of other members.");
    PEER_CERT_ALLOWED_HOSTNAME: Flag<Vec<String>> = used("peer-cert-allowed-hostname", LIST, "",
        "List of host names allowed in certificates of other members.");
    PEER_AUTO_TLS: Flag<bool> = used("peer-auto-tls", SWITCH, "false",
        "Generate a certificate for other members.");
    SELF_SIGNED_CERT_VALIDITY: Flag<u64> = used("self-signed-cert-validity", UINT, "1",
        "Validity of generated certificates, in years.");
    PEER_CRL_FILE: Flag<String> = used("peer-crl-file", TEXT, "",
        "File of the revocation list for certificates of other members.");
    CIPHER_SUITES: Flag<Vec<String>> = used("cipher-suites", LIST, "",
        "List of TLS cipher suites, by their names in Go; empty for the defaults.");
    CORS: Flag<Vec<String>> = used("cors", ORIGINS, "*",
        "List of origins allowed to send cross-origin requests; empty or * for all.");
    HOST_WHITELIST: Flag<Vec<String>> = used("host-whitelist", LIST, "*",
        "List of host names accepted in HTTP requests without TLS; empty or * for all.");
    TLS_MIN_VERSION: Flag<String> = used("tls-min-version", TEXT, "TLS1.2",
        "Minimum TLS version: TLS1.2 or TLS1.3.");
    TLS_MAX_VERSION: Flag<String> = used("tls-max-version", TEXT, "",
        "Maximum TLS version: TLS1.2 or TLS1.3; empty for the newest.");
}

section! { AUTH
    AUTH_TOKEN: Flag<String> = used("auth-token", TEXT, "simple",
        "Type of authentication tokens, 'simple' or 'jwt', and its options, as in jwt,pub-key=file,priv-key=file,sign-method=RS512,ttl=10m.");
    BCRYPT_COST: Flag<u64> = used("bcrypt-cost", UINT, "10",
        "Cost of the bcrypt hash of passwords, 4 to 31.");
    AUTH_TOKEN_TTL: Flag<u64> = used("auth-token-ttl", UINT, "300",
        "Lifetime of a simple token after its last use, in seconds.");
}

section! { MONITORING
    ENABLE_PPROF: Flag<bool, Warned> = warned("enable-pprof", SWITCH, "false",
        "Serve Go's runtime profiles over HTTP. Without effect.");
    METRICS: Flag<String, Warned> = warned("metrics", TEXT, "basic",
        "Set of exported metrics: 'basic'; 'extensive' is the same.");
    LISTEN_METRICS_URLS: Flag<Vec<Url>> = used("listen-metrics-urls", URLS, "",
        "List of URLs to listen on for /metrics and /health alone.");
}

section! { LOGGING
    LOGGER: Flag<String> = used("logger", TEXT, "zap", "Format of log lines: 'zap' is the only one.");
    LOG_OUTPUTS: Flag<Vec<String>> = used("log-outputs", LIST, "default",
        "List of log outputs: stderr, stdout, systemd/journal or files; 'default' is stderr.");
    LOG_LEVEL: Flag<String> = used("log-level", TEXT, "info",
        "Lowest level that is logged: debug, info, warn, error, panic or fatal.");
    LOG_FORMAT: Flag<String> = used("log-format", TEXT, "json", "Encoding of log lines: json or console.");
    ENABLE_LOG_ROTATION: Flag<bool> = used("enable-log-rotation", SWITCH, "false",
        "Rotate the file of --log-outputs.");
    LOG_ROTATION_CONFIG_JSON: Flag<String> = used("log-rotation-config-json", TEXT, r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        "Settings of log rotation, as JSON: maximum size in mebibytes, age in days and number of old files. Names of old files are in UTC.");
    WARNING_UNARY_REQUEST_DURATION: Flag<Duration> = used("warning-unary-request-duration", DURATION, "300ms",
        "Time above which a unary request is logged as slow.");
}

section! { TRACING
    ENABLE_DISTRIBUTED_TRACING: Flag<bool, Warned> = warned("enable-distributed-tracing", SWITCH, "false",
        "Send traces. Without effect.");
    DISTRIBUTED_TRACING_ADDRESS: Flag<String, Warned> = warned("distributed-tracing-address", TEXT, "localhost:4317",
        "Address of the trace collector. Without effect.");
    DISTRIBUTED_TRACING_SERVICE_NAME: Flag<String, Warned> = warned("distributed-tracing-service-name", TEXT, "etcd",
        "Service name in traces. Without effect.");
    DISTRIBUTED_TRACING_INSTANCE_ID: Flag<String, Warned> = warned("distributed-tracing-instance-id", TEXT, "",
        "Instance ID in traces. Without effect.");
    DISTRIBUTED_TRACING_SAMPLING_RATE: Flag<u64, Warned> = warned("distributed-tracing-sampling-rate", UINT, "0",
        "Number of requests per million that are traced. Without effect.");
}

section! { FEATURES
    CORRUPT_CHECK_TIME: Flag<Duration> = used("corrupt-check-time", DURATION, "0s",
        "Interval between checks that all members hold the same data; 0 to make none.");
    COMPACT_HASH_CHECK_TIME: Flag<Duration> = used("compact-hash-check-time", DURATION, "1m0s",
        "Interval between the leader's checks of the hashes of compactions, with the feature gate CompactHashCheck.");
    COMPACTION_BATCH_LIMIT: Flag<usize> = used("compaction-batch-limit", COUNT, "1000",
        "Maximum number of revisions compacted before a pause of --compaction-sleep-interval.");
    PEER_SKIP_CLIENT_SAN_VERIFICATION: Flag<bool> = used("peer-skip-client-san-verification", SWITCH, "false",
        "Do not compare the addresses that other members connect from with the SAN field of their certificates.");
    WATCH_PROGRESS_NOTIFY_INTERVAL: Flag<Duration> = used("watch-progress-notify-interval", DURATION, "10m",
        "Interval between progress notifications of a watch without events.");
    WARNING_APPLY_DURATION: Flag<Duration> = used("warning-apply-duration", DURATION, "100ms",
        "Time above which applying a request is logged as slow.");
    BOOTSTRAP_DEFRAG_THRESHOLD_MEGABYTES: Flag<u64> = used("bootstrap-defrag-threshold-megabytes", UINT, "0",
        "Defragment the store at the start if that frees at least so many mebibytes; 0 to never do so.");
    MAX_LEARNERS: Flag<usize> = used("max-learners", COUNT, "1", "Maximum number of learners in the cluster.");
    COMPACTION_SLEEP_INTERVAL: Flag<Duration> = used("compaction-sleep-interval", DURATION, "10ms",
        "Pause between batches of a compaction.");
    DOWNGRADE_CHECK_TIME: Flag<Duration, Warned> = warned("downgrade-check-time", DURATION, "5s",
        "Interval between checks of a downgrade. Without effect: there are no downgrades.");
    SNAPSHOT_CATCHUP_ENTRIES: Flag<u64> = used("snapshot-catchup-entries", UINT, "5000",
        "Number of entries that are kept in the log for slow followers when it is truncated.");
}

section! { UNSAFE
    FORCE_NEW_CLUSTER: Flag<bool> = used("force-new-cluster", SWITCH, "false",
        "Found a new cluster with this member alone, from its data.");
    UNSAFE_NO_FSYNC: Flag<bool> = used("unsafe-no-fsync", SWITCH, "false",
        "Do not sync the log to disk. Loses data when the machine fails.");
}

section! { BASALT
    CORES: Flag<Vec<usize>> = used("cores", CORE_LIST, "",
        "List of cores to run on, one thread bound to each, as in 0,2-3; by default as many threads as the process may use cores, 16 at most without a limit, bound where nothing else is to be expected on a core.");
    REACTOR: Flag<ReactorChoice> = used("reactor", REACTORS, "auto",
        "Kernel interface for network I/O: io_uring, epoll, or auto for io_uring where the machine allows it, else epoll.");
    LEASE_BASED_READS: Flag<bool> = used("lease-based-reads", SWITCH, "false",
        "Let the leader answer linearizable reads without a heartbeat round while it holds a leader lease.");
    AUTH_JWT_PUBLIC_KEYS: Flag<Vec<String>> = used("auth-jwt-public-keys", LIST, "",
        "List of files with further keys that verify JSON web tokens: PEM, or sets of JSON web keys. All files of keys are read again when they change.");
    AUTH_JWT_CHECK_REVISION: Flag<bool> = used("auth-jwt-check-revision", SWITCH, "true",
        "Refuse JSON web tokens made before the last change of users and roles; if false, only those made before the user's last change of password.");
    GATEWAY_CLIENT_CERT_AUTH: Flag<bool> = used("gateway-client-cert-auth", SWITCH, "false",
        "With --client-cert-auth, let the common name of a client certificate identify the user of the JSON gateway, too.");
    AUDIT_LOG_PATH: Flag<String> = used("audit-log-path", TEXT, "",
        "File of the audit log, or stdout; empty for none.");
    AUDIT_LOG_RULES: Flag<String> = used("audit-log-rules", TEXT, "skip rpc=reads; skip rpc=status",
        "Rules that say which requests are in the audit log, separated by semicolons: 'log' or 'skip', and conditions rpc=, user= and prefix=.");
    AUDIT_LOG_MODE: Flag<bool> = used("audit-log-mode", DROP_OR_WAIT, "drop",
        "Action when too many lines of the audit log wait to be written: 'drop' and count them, or let requests 'wait'.");
    AUDIT_LOG_MAXSIZE: Flag<u64> = used("audit-log-maxsize", UINT, "100",
        "Size of the audit log past which it is rotated, in mebibytes.");
    AUDIT_LOG_MAXAGE: Flag<u64> = used("audit-log-maxage", UINT, "0",
        "Number of days that old files of the audit log are kept; 0 for all.");
    AUDIT_LOG_MAXBACKUP: Flag<usize> = used("audit-log-maxbackup", COUNT, "0",
        "Number of old files of the audit log that are kept; 0 for all.");
    AUDIT_LOG_COMPRESS: Flag<bool> = used("audit-log-compress", SWITCH, "false",
        "Compress old files of the audit log.");
    LIMIT_USER_REQUESTS: Flag<u64> = used("limit-user-requests", UINT, "0",
        "Maximum number of requests per second of one user; 0 for no limit.");
    LIMIT_USER_BYTES: Flag<u64> = used("limit-user-bytes", UINT, "0",
        "Maximum size of the requests per second of one user, in bytes; 0 for no limit.");
    LIMIT_USER_RANGES: Flag<u64> = used("limit-user-ranges", UINT, "0",
        "Maximum number of concurrent ranges of one user; 0 for no limit.");
    LIMIT_USER_WATCHES: Flag<u64> = used("limit-user-watches", UINT, "0",
        "Maximum number of open watch streams of one user; 0 for no limit.");
    LIMIT_CLIENT_REQUESTS: Flag<u64> = used("limit-client-requests", UINT, "0",
        "Maximum number of requests per second of one client address; 0 for no limit.");
    LIMIT_CLIENT_BYTES: Flag<u64> = used("limit-client-bytes", UINT, "0",
        "Maximum size of the requests per second of one client address, in bytes; 0 for no limit.");
    LIMIT_CLIENT_RANGES: Flag<u64> = used("limit-client-ranges", UINT, "0",
        "Maximum number of concurrent ranges of one client address; 0 for no limit.");
    LIMIT_CLIENT_WATCHES: Flag<u64> = used("limit-client-watches", UINT, "0",
        "Maximum number of open watch streams of one client address; 0 for no limit.");
}

// Accepted, and in no section of `--help`.
section! { UNLISTED
    CONFIG_FILE: Flag<String> = used("config-file", TEXT, "", "Path of the configuration file.");
    VERSION: Flag<bool> = used("version", SWITCH, "false", "Print the version.");
}

// Keys of the configuration file that are no flags in etcd.
pub(super) static CLIENT_CERT_ALLOWED_CN: Flag<Vec<String>> = used(
    "client-cert-allowed-cn",
    LIST,
    "",
    "List of common names allowed in client certificates.",
);
pub(super) static CLIENT_SKIP_CLIENT_SAN_VERIFICATION: Flag<bool> = used(
    "client-skip-client-san-verification",
    SWITCH,
    "false",
    "Do not compare the addresses of clients of the metrics port with the SAN field of their certificates.",
);

/// Flags of old versions that are accepted with a warning and mean nothing. As in etcd they need no value.
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

/// The flag of this name.
pub(super) fn find(name: &str) -> Option<&'static dyn Row> {
    all().find(|flag| flag.name() == name)
}

/// All flags.
pub(super) fn all() -> impl Iterator<Item = &'static dyn Row> {
    SECTIONS.iter().flat_map(|(_, flags)| flags.iter()).chain(UNLISTED).copied()
}
