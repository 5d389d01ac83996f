//! The line that is logged when a member starts, with etcd's fields, so that tools for etcd's logs find the
//! configuration there.

use gocompat::duration;
use serde_json::{Map, Value, json};

use super::Config;
use super::gates::Gate;
use super::settings::Flags;
use super::table;
use crate::cluster::Version;
use crate::io::{self, Placement, Reactor};
use crate::mvcc::Retention;

/// The fields that follow from the flags.
fn fields(config: &Config, flags: &Flags) -> Map<String, Value> {
    let mut fields = Map::new();
    for part in [member(config, flags), times(config, flags), cluster(config, flags)] {
        if let Value::Object(part) = part {
            fields.extend(part);
        }
    }
    let text = |name: &str, value: &str| (name.to_owned(), Value::from(value));
    fields.extend([
        text("discovery-token", table::DISCOVERY_TOKEN.text(flags)),
        text("discovery-endpoints", table::DISCOVERY_ENDPOINTS.text(flags)),
        text("discovery-dial-timeout", table::DISCOVERY_DIAL_TIMEOUT.text(flags)),
        text("discovery-request-timeout", table::DISCOVERY_REQUEST_TIMEOUT.text(flags)),
        text("discovery-keepalive-time", table::DISCOVERY_KEEPALIVE_TIME.text(flags)),
        text("discovery-keepalive-timeout", table::DISCOVERY_KEEPALIVE_TIMEOUT.text(flags)),
        text("discovery-cert", table::DISCOVERY_CERT.text(flags)),
        text("discovery-key", table::DISCOVERY_KEY.text(flags)),
        text("discovery-cacert", table::DISCOVERY_CACERT.text(flags)),
        text("discovery-user", table::DISCOVERY_USER.text(flags)),
        text("downgrade-check-interval", table::DOWNGRADE_CHECK_TIME.text(flags)),
        text("v2-deprecation", table::V2_DEPRECATION.text(flags)),
    ]);
    let switch = |name: &str, value: &str| (name.to_owned(), Value::from(value == "true"));
    fields.extend([
        switch("discovery-insecure-transport", table::DISCOVERY_INSECURE_TRANSPORT.text(flags)),
        switch(
            "discovery-insecure-skip-tls-verify",
            table::DISCOVERY_INSECURE_SKIP_TLS_VERIFY.text(flags),
        ),
    ]);
    fields
}

/// This member, its directories and its limits.
fn member(config: &Config, flags: &Flags) -> Value {
    let dir = config.data_dir.display().to_string();
    let wal_dir = table::WAL_DIR.text(flags);
    let number = |text: &str| text.parse::<i64>().map_or(Value::Null, Value::from);
    json!({
        "name": config.name,
        "data-dir": dir,
        "member-dir": config.data_dir.join("member"),
        "wal-dir": wal_dir,
        "wal-dir-dedicated": wal_dir,
        "force-new-cluster": config.force_new_cluster,
        "snapshot-count": config.snapshot_count,
        "snapshot-catchup-entries": config.catch_up_entries,
        "max-wals": config.max_wals,
        "max-snapshots": number(table::MAX_SNAPSHOTS.text(flags)),
        "quota-backend-bytes": if config.quota_bytes == 0 { -1 } else { config.quota_bytes as i64 },
        "max-request-bytes": config.max_request_bytes,
        "max-concurrent-streams": number(table::MAX_CONCURRENT_STREAMS.text(flags)),
        "cors": config.origins,
        "host-whitelist": config.hosts,
        "feature-gates": table::FEATURE_GATES.text(flags),
    })
}

fn times(config: &Config, flags: &Flags) -> Value {
    let text = duration::text;
    // As etcd prints it: revisions as so many nanoseconds.
    let retention = match config.retention {
        Retention::All => std::time::Duration::ZERO,
        Retention::Time(time) => time,
        Retention::Revisions(count) => std::time::Duration::from_nanos(count.unsigned_abs()),
    };
    json!({
        "heartbeat-interval": text(config.heartbeat),
        "election-timeout": text(config.election),
        "initial-election-tick-advance": config.election_advance,
        "initial-corrupt-check": config.gates.is_on(Gate::InitialCorruptCheck),
        "corrupt-check-time-interval": text(config.corrupt_check),
        "compact-check-time-interval": text(config.compact_hash_check),
        "auto-compaction-mode": table::AUTO_COMPACTION_MODE.text(flags),
        "auto-compaction-retention": text(retention),
        "auto-compaction-interval": text(retention),
    })
}

/// The cluster, and the URLs of this member for members and clients.
fn cluster(config: &Config, flags: &Flags) -> Value {
    let urls = |text: &str| text.split(',').filter(|it| !it.is_empty()).map(Value::from).collect();
    let urls: fn(&str) -> Value = urls;
    let members = config.initial_cluster.iter();
    let members =
        members.flat_map(|(name, urls)| urls.iter().map(move |it| format!("{name}={it}")));
    let state = if config.joins_existing { "existing" } else { "new" };
    json!({
        "initial-advertise-peer-urls": config.advertise_peers,
        "listen-peer-urls": urls(table::LISTEN_PEER_URLS.text(flags)),
        "advertise-client-urls": config.advertise_clients,
        "listen-client-urls": urls(table::LISTEN_CLIENT_URLS.text(flags)),
        "listen-metrics-urls": urls(table::LISTEN_METRICS_URLS.text(flags)),
        "local-address": "",
        "initial-cluster": members.collect::<Vec<_>>().join(","),
        "initial-cluster-state": state,
        "initial-cluster-token": config.token,
        "pre-vote": config.pre_vote,
        "max-learners": config.learners_max,
    })
}

/// The part of the machine that the member uses.
pub(super) struct Resources {
    pub(super) placement: Placement,
    pub(super) reactor: Reactor,
    pub(super) reactor_reason: String,
    pub(super) memory_bytes: u64,
}

/// Logs the line: the configuration of the member, and its machine.
pub(super) fn say(config: &Config, flags: &Flags, resources: &Resources) {
    let Resources { placement, reactor, reactor_reason, memory_bytes } = resources;
    let executors = placement.places.len();
    let cores: Vec<usize> = placement.places.iter().filter_map(|place| place.core).collect();
    let wal_dir = config.wal_dir.clone().unwrap_or_else(|| config.data_dir.join("member/wal"));
    let runs_on = json!({
        "etcd-version": Version::SERVER.to_string(),
        "git-sha": "Not provided",
        "go-version": "none (Rust)",
        "go-os": std::env::consts::OS,
        "go-arch": go_arch(),
        "max-cpu-set": executors,
        "max-cpu-available": std::thread::available_parallelism().map_or(executors, usize::from),
        "member-initialized": io::has_log(&wal_dir),
        "basalt-version": env!("CARGO_PKG_VERSION"),
        "reactor": reactor.name(),
        "reactor-reason": reactor_reason,
        "executors": executors,
        "cores": cores,
        "placement": placement.reason,
        "memory-bytes": memory_bytes,
        "layout": "consensus, wal, apply and lease on the first core; sessions and a watch hub on each",
    });
    let mut fields = fields(config, flags);
    if let Value::Object(runs_on) = runs_on {
        fields.extend(runs_on);
    }
    let about = Value::from(fields);
    tracing::info!(%about, "starting an etcd server");
}

/// Go's name of the architecture.
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
