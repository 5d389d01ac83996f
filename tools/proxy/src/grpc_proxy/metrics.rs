//! `/proxy/metrics`: numbers of this process, under etcd's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use basalt_proto::codes::code_name;
use basalt_proto::rpc::Method;
use tonic::Code;

/// Counters.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) cache_hits: AtomicU64,
    pub(super) cache_misses: AtomicU64,
    pub(super) healthy: AtomicU64,
    pub(super) unhealthy: AtomicU64,
    /// By method: calls that began, and those that ended with each code.
    calls: Mutex<BTreeMap<&'static str, Calls>>,
}

#[derive(Default)]
struct Calls {
    labels: String,
    started: u64,
    handled: BTreeMap<&'static str, u64>,
}

/// Numbers that are counted elsewhere.
pub(super) struct Gauges {
    pub(super) cached: usize,
    pub(super) watchers_coalesced: usize,
    pub(super) events_coalesced: u64,
    pub(super) watches: usize,
}

impl Metrics {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn began(&self, method: &'static Method) {
        self.with(method, |calls| calls.started += 1);
    }

    pub(super) fn ended(&self, method: &'static Method, code: Code) {
        self.with(method, |calls| *calls.handled.entry(code_name(code as i32)).or_default() += 1);
    }

    fn with(&self, method: &'static Method, change: impl FnOnce(&mut Calls)) {
        let mut all = self.calls.lock().expect("no holder panics");
        let calls = all.entry(method.path).or_insert_with(|| Calls {
            labels: format!(
                "grpc_method=\"{}\",grpc_service=\"{}\",grpc_type=\"{}\"",
                method.name,
                method.service,
                method.kind.name()
            ),
            ..Calls::default()
        });
        change(calls);
    }

    /// The page.
    pub(super) fn page(&self, gauges: &Gauges) -> String {
        let mut page = String::new();
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        let mut one = |name: &str, help: &str, kind: &str, value: u64| {
            // Writing to a string does not fail.
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        one(
            "etcd_grpc_proxy_cache_hits_total",
            "Total number of cache hits",
            "gauge",
            read(&self.cache_hits),
        );
        one(
            "etcd_grpc_proxy_cache_keys_total",
            "Total number of keys/ranges cached",
            "gauge",
            gauges.cached as u64,
        );
        one(
            "etcd_grpc_proxy_cache_misses_total",
            "Total number of cache misses",
            "gauge",
            read(&self.cache_misses),
        );
        one(
            "etcd_grpc_proxy_events_coalescing_total",
            "Total number of events coalescing",
            "counter",
            gauges.events_coalesced,
        );
        one(
            "etcd_grpc_proxy_watchers_coalescing_total",
            "Total number of current watchers coalescing",
            "gauge",
            gauges.watchers_coalesced as u64,
        );
        one(
            "etcd_server_health_failures",
            "The total number of failed health checks",
            "counter",
            read(&self.unhealthy),
        );
        one(
            "etcd_server_health_success",
            "The total number of successful health checks",
            "counter",
            read(&self.healthy),
        );
        one(
            "basalt_grpc_proxy_upstream_watches",
            "Watches at members, each for one or more watchers",
            "gauge",
            gauges.watches as u64,
        );
        self.push_calls(&mut page);
        push_process(&mut page);
        page
    }

    fn push_calls(&self, page: &mut String) {
        let all = self.calls.lock().expect("no holder panics");
        let handled = "grpc_server_handled_total";
        let _ = writeln!(
            page,
            "# HELP {handled} Total number of RPCs completed on the server, regardless of success or failure.\n# TYPE {handled} counter"
        );
        for calls in all.values() {
            for (code, count) in &calls.handled {
                let _ =
                    writeln!(page, "{handled}{{grpc_code=\"{code}\",{}}} {count}", calls.labels);
            }
        }
        let started = "grpc_server_started_total";
        let _ = writeln!(
            page,
            "# HELP {started} Total number of RPCs started on the server.\n# TYPE {started} counter"
        );
        for calls in all.values() {
            let _ = writeln!(page, "{started}{{{}}} {}", calls.labels, calls.started);
        }
    }
}

/// Memory and descriptors of the process, where the kernel tells.
fn push_process(page: &mut String) {
    let resident = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    if let Some(pages) = resident {
        let name = "process_resident_memory_bytes";
        let bytes = pages * rustix::param::page_size() as u64;
        let _ = writeln!(
            page,
            "# HELP {name} Resident memory size in bytes.\n# TYPE {name} gauge\n{name} {bytes}"
        );
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let name = "process_open_fds";
        let count = open.count();
        let _ = writeln!(
            page,
            "# HELP {name} Number of open file descriptors.\n# TYPE {name} gauge\n{name} {count}"
        );
    }
}
