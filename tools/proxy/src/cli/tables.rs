//! The flags of both programs, in etcd's words.

use gocompat::flags::{Flag, Kind};

pub(super) const GATEWAY: &[Flag] = &[
    Flag::new("listen-addr", Kind::Text, "127.0.0.1:23790", "listen address"),
    Flag::text("discovery-srv", "DNS domain used to bootstrap initial cluster"),
    Flag::text("discovery-srv-name", "service name to query when using DNS discovery"),
    Flag::switch("insecure-discovery", "accept insecure SRV records"),
    Flag::text(
        "trusted-ca-file",
        "path to the client server TLS CA file for verifying the discovered endpoints when discovery-srv is provided.",
    ),
    Flag::new("endpoints", Kind::Texts, "127.0.0.1:2379", "comma separated etcd cluster endpoints"),
    Flag::new(
        "retry-delay",
        Kind::Duration,
        "1m0s",
        "duration of delay before retrying failed endpoints",
    ),
];

pub(super) const GRPC_PROXY: &[Flag] = &[
    Flag::new("listen-addr", Kind::Text, "127.0.0.1:23790", "listen address"),
    Flag::text(
        "discovery-srv",
        "domain name to query for SRV records describing cluster endpoints",
    ),
    Flag::text("discovery-srv-name", "service name to query when using DNS discovery"),
    Flag::text("metrics-addr", "listen for endpoint /metrics requests on an additional interface"),
    Flag::switch("insecure-discovery", "accept insecure SRV records"),
    Flag::new("endpoints", Kind::Texts, "127.0.0.1:2379", "comma separated etcd cluster endpoints"),
    Flag::new(
        "endpoints-auto-sync-interval",
        Kind::Duration,
        "0s",
        "etcd endpoints auto sync interval (disabled by default)",
    ),
    Flag::new(
        "dial-keepalive-time",
        Kind::Duration,
        "0s",
        "keepalive time for client(grpc-proxy) connections (default 0, disable).",
    ),
    Flag::new(
        "dial-keepalive-timeout",
        Kind::Duration,
        "20s",
        "keepalive timeout for client(grpc-proxy) connections (default 20s).",
    ),
    Flag::switch(
        "permit-without-stream",
        "Enable client(grpc-proxy) to send keepalive pings even with no active RPCs.",
    ),
    Flag::new(
        "advertise-client-url",
        Kind::Text,
        "127.0.0.1:23790",
        "advertise address to register (must be reachable by client)",
    ),
    Flag::text(
        "resolver-prefix",
        "prefix to use for registering proxy (must be shared with other grpc-proxy members)",
    ),
    Flag::int("resolver-ttl", "specify TTL, in seconds, when registering proxy endpoints"),
    Flag::text("namespace", "string to prefix to all keys for namespacing requests"),
    Flag::switch(
        "enable-pprof",
        "Enable runtime profiling data via HTTP server. Address is at client URL + \"/debug/pprof/\"",
    ),
    Flag::new("data-dir", Kind::Text, "default.proxy", "Data directory for persistent data"),
    Flag::new(
        "max-send-bytes",
        Kind::Int,
        "1572864",
        "message send limits in bytes (default value is 1.5 MiB)",
    ),
    Flag::new(
        "max-recv-bytes",
        Kind::Int,
        "2147483647",
        "message receive limits in bytes (default value is math.MaxInt32)",
    ),
    Flag::new(
        "grpc-keepalive-min-time",
        Kind::Duration,
        "5s",
        "Minimum interval duration that a client should wait before pinging proxy.",
    ),
    Flag::new(
        "grpc-keepalive-interval",
        Kind::Duration,
        "2h0m0s",
        "Frequency duration of server-to-client ping to check if a connection is alive (0 to disable).",
    ),
    Flag::new(
        "grpc-keepalive-timeout",
        Kind::Duration,
        "20s",
        "Additional duration of wait before closing a non-responsive connection (0 to disable).",
    ),
    Flag::text(
        "cert",
        "identify secure connections with etcd servers using this TLS certificate file",
    ),
    Flag::text("key", "identify secure connections with etcd servers using this TLS key file"),
    Flag::text(
        "cacert",
        "verify certificates of TLS-enabled secure etcd servers using this CA bundle",
    ),
    Flag::switch(
        "insecure-skip-tls-verify",
        "skip authentication of etcd server TLS certificates (CAUTION: this option should be enabled only for testing \
         purposes)",
    ),
    Flag::text(
        "cert-file",
        "identify secure connections to the proxy using this TLS certificate file",
    ),
    Flag::text("key-file", "identify secure connections to the proxy using this TLS key file"),
    Flag::text(
        "trusted-ca-file",
        "verify certificates of TLS-enabled secure proxy using this CA bundle",
    ),
    Flag::new(
        "listen-cipher-suites",
        Kind::Texts,
        "",
        "Comma-separated list of supported TLS cipher suites between client/proxy (empty will be auto-populated by Go).",
    ),
    Flag::switch("auto-tls", "proxy TLS using generated certificates"),
    Flag::text("client-crl-file", "proxy client certificate revocation list file."),
    Flag::new(
        "self-signed-cert-validity",
        Kind::Uint,
        "1",
        "The validity period of the proxy certificates, unit is year",
    ),
    Flag::new(
        "tls-min-version",
        Kind::Text,
        "TLS1.2",
        "Minimum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3.",
    ),
    Flag::text(
        "tls-max-version",
        "Maximum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3 (empty defers to Go).",
    ),
    Flag::switch(
        "experimental-serializable-ordering",
        "Ensure serializable reads have monotonically increasing store revisions across endpoints.",
    ),
    Flag::text(
        "experimental-leasing-prefix",
        "leasing metadata prefix for disconnected linearized reads.",
    ),
    Flag::switch("experimental-enable-grpc-logging", "logging all grpc requests and responses"),
    Flag::switch("debug", "Enable debug-level logging for grpc-proxy."),
    Flag::new(
        "max-concurrent-streams",
        Kind::Uint32,
        "4294967295",
        "Maximum concurrent streams that each client can open at a time.",
    ),
];
