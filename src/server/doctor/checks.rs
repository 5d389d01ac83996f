//! The checks, each a question to the machine and a judgement.

use std::path::Path;
use std::time::Duration;

use gocompat::{bytes, duration};
use serde_json::json;

use super::Finding;
use crate::io::{self, DirectoryFacts, DiskLatency, LatencyQuantiles, Reactor, clock};
use crate::server::config::Config;
use crate::types::limits::DISK_START_BYTES_MIN;

/// Advice of etcd's documentation on disks: 99 % of the syncs take less.
const SYNC_P99_MAX: Duration = Duration::from_millis(10);
/// Memory below which lists and watches of a cluster of any size are refused often.
const MEMORY_SMALL: u64 = 512 << 20;
/// Open files below which clients of a large cluster do not fit.
const OPEN_FILES_FEW: u64 = 4096;
/// A reading of the clock that takes longer goes to the kernel.
const CLOCK_SLOW: Duration = Duration::from_micros(1);
/// Clock sources whose readings are slow or inexact.
const CLOCKS_SLOW: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];
/// Days before its end at which a certificate is to be renewed.
const CERTIFICATE_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 24 * 3600;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Runs all of them.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let placement = io::place_executors(&config.cores);
    let executors = placement.places.len();
    let mut findings = vec![cpu(executors, placement.reason)];
    findings.extend(reactor(config, executors));
    findings.extend([memory(), open_files(executors), clock()]);
    let member = config.data_dir.join("member");
    let log = config.wal_dir.clone().unwrap_or_else(|| member.join("wal"));
    findings.push(data_directory(&config.data_dir));
    findings.extend(disk("data disk", &config.data_dir, Some(config.quota_bytes)));
    if let Some(dedicated) = &config.wal_dir {
        findings.extend(disk("log disk", dedicated, None));
    }
    findings.extend(latency(&log));
    findings.extend(certificates(config));
    findings
}

fn cpu(executors: usize, reason: &str) -> Finding {
    let quota = io::cpu_quota();
    let limit = quota.as_ref().map_or_else(String::new, |quota| {
        format!("; {} cores' worth of time by {}", cores(quota.value), quota.set_by)
    });
    let few = quota.as_ref().filter(|quota| quota.value < 1000);
    Finding::ok("processor", format!("{executors} executors, {reason}{limit}"))
        .values(json!({
            "executors": executors,
            "quota_millicores": quota.as_ref().map(|quota| quota.value),
        }))
        .warn_if(few.is_some(), || {
            "a quota below one core stops the member for parts of each 100 ms: raise it".into()
        })
}

fn cores(thousandths: u64) -> String {
    format!("{}", thousandths as f64 / 1000.0)
}

/// The reactor, and locked memory, which only io_uring may need.
fn reactor(config: &Config, executors: usize) -> Vec<Finding> {
    let (soft, hard) = io::locked_memory();
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), bytes::text);
    let limits = format!("limit {}, at most {}", text(soft), text(hard));
    let kernel = io::kernel_release();
    let (decided, locked) = match config.reactor.decide(executors) {
        Ok((reactor, reason)) => {
            let found = format!("{}: {reason} (kernel {kernel})", reactor.name());
            let locked = match reactor {
                Reactor::IoUring => format!("the rings of {executors} executors were made"),
                Reactor::Epoll => "epoll needs none".to_owned(),
            };
            let values = json!({ "reactor": reactor.name(), "kernel": kernel });
            (Finding::ok("reactor", found).values(values), locked)
        }
        Err(fault) => {
            let advice = "use --reactor=auto, which serves over epoll here";
            (Finding::fail("reactor", fault.to_string(), advice), "io_uring is refused".to_owned())
        }
    };
    let locked = Finding::ok("locked memory", format!("{locked}; {limits}"));
    vec![decided, locked.values(json!({ "soft_bytes": soft, "hard_bytes": hard }))]
}

fn memory() -> Finding {
    let limit = io::memory_limit();
    Finding::ok("memory", format!("{} by {}", bytes::text(limit.value), limit.set_by))
        .values(json!({ "bytes": limit.value, "set_by": limit.set_by }))
        .warn_if(limit.value < MEMORY_SMALL, || {
            format!(
                "large lists are refused: give the member {} at least",
                bytes::text(MEMORY_SMALL)
            )
        })
}

fn open_files(executors: usize) -> Finding {
    let most = io::open_files_max();
    let found = format!("{most} at most");
    if let Err(fault) = io::raise_open_files(executors) {
        return Finding::fail("open files", found, fault.to_string());
    }
    Finding::ok("open files", found)
        .values(json!({ "max": most }))
        .warn_if(most < OPEN_FILES_FEW, || {
            "each client takes one: raise `ulimit -n`, or LimitNOFILE of the systemd unit".into()
        })
}

fn clock() -> Finding {
    let (source, reading) = io::clock_source();
    let name = if source.is_empty() { "source hidden" } else { &source };
    let is_slow = reading > CLOCK_SLOW || CLOCKS_SLOW.contains(&source.as_str());
    Finding::ok("clock", format!("{name}, a reading takes {}", duration::text(reading)))
        .values(json!({ "source": source, "reading_seconds": reading.as_secs_f64() }))
        .warn_if(is_slow, || {
            "each request reads the clock some times: let the machine use tsc or kvm-clock".into()
        })
}

fn data_directory(dir: &Path) -> Finding {
    let check = "data directory";
    let shown = dir.display();
    let foreign = io::refuse_foreign(dir).and_then(|()| io::refuse_unfinished(dir));
    if let Err(fault) = foreign {
        return Finding::fail(check, shown.to_string(), fault.to_string());
    }
    let facts = match io::directory_facts(dir) {
        Ok(facts) => facts,
        Err(error) => return Finding::fail(check, format!("{shown}: {error}"), "choose another"),
    };
    let DirectoryFacts { existing, exists, uid, mode, is_writable, .. } = &facts;
    let state = match (exists, io::is_in_use(&dir.join("member"))) {
        (false, _) => format!("would be made in {}", existing.display()),
        (true, true) => "a member runs in it".to_owned(),
        (true, false) if io::has_log(&dir.join("member/wal")) => "has a member's data".to_owned(),
        (true, false) => "empty".to_owned(),
    };
    let found = format!("{shown} {state}; owner {uid}, mode {mode:04o}");
    if !is_writable {
        let user = io::user_id();
        let advice = format!("user {user} may not write there: chown it, or run as its owner");
        return Finding::fail(check, found, advice);
    }
    let is_open = *exists && mode & WRITABLE_BY_OTHERS != 0;
    Finding::ok(check, found)
        .values(json!({ "exists": exists, "uid": uid, "mode": format!("{mode:04o}") }))
        .warn_if(is_open, || "others may write there: chmod 0700".into())
}

/// Room and kind of a disk.
fn disk(check: &'static str, dir: &Path, quota: Option<u64>) -> Option<Finding> {
    let facts = io::directory_facts(dir).ok()?;
    let DirectoryFacts { file_system, total_bytes, free_bytes, .. } = facts;
    let (total, free) = (bytes::text(total_bytes), bytes::text(free_bytes));
    let found = format!("{free} of {total} free; {file_system}");
    if free_bytes < DISK_START_BYTES_MIN {
        return Some(Finding::fail(check, found, "make room: the member does not start"));
    }
    let finding = Finding::ok(check, found).values(json!({
        "file_system": file_system,
        "total_bytes": total_bytes,
        "free_bytes": free_bytes,
    }));
    let quota = quota.filter(|quota| total_bytes < *quota);
    let finding = finding.warn_if(quota.is_some(), || {
        let quota = bytes::text(quota.unwrap_or_default());
        format!("the disk is full before the quota of {quota} is: lower --quota-backend-bytes")
    });
    let unfit = match file_system {
        "tmpfs" => "the data is in memory, and gone when the machine restarts",
        "overlay" => "the data ends with the container: mount a volume",
        "nfs" | "smb" | "fuse" => "the disk is behind a network: use a local one",
        _ => "",
    };
    Some(finding.warn_if(!unfit.is_empty(), || unfit.to_owned()))
}

/// Direct I/O, and how long durable writes take.
fn latency(log: &Path) -> Vec<Finding> {
    let Ok(DirectoryFacts { existing, is_writable: true, .. }) = io::directory_facts(log) else {
        // Told of as the data directory.
        return Vec::new();
    };
    match io::measure_disk(&existing) {
        Ok(latency) => judge_latency(&existing, latency),
        Err(error) => {
            let found = format!("{}: {error}", existing.display());
            vec![Finding::fail("disk latency", found, "the disk refuses durable writes")]
        }
    }
}

fn judge_latency(dir: &Path, latency: DiskLatency) -> Vec<Finding> {
    let DiskLatency { is_direct, log_write, append_sync } = latency;
    let text = |time: Duration| duration::text(Duration::from_micros(time.as_micros() as u64));
    let both = |name: &str, LatencyQuantiles { p50, p99, .. }: LatencyQuantiles| {
        format!("{name} p50 {}, p99 {}", text(p50), text(p99))
    };
    let values = |LatencyQuantiles { count, p50, p99 }: LatencyQuantiles| json!({ "count": count, "p50_seconds": p50.as_secs_f64(), "p99_seconds": p99.as_secs_f64() });
    let direct = if is_direct { "supported" } else { "not supported" };
    let direct = Finding::ok("direct I/O", format!("{direct} in {}", dir.display()))
        .values(json!({ "is_supported": is_direct }))
        .warn_if(!is_direct, || {
            "the log is written through the page cache: use ext4 or xfs on a local disk".into()
        });
    let found = format!(
        "{}; {}; etcd's advice: p99 below {}",
        both("log write", log_write),
        both("append and fdatasync", append_sync),
        duration::text(SYNC_P99_MAX)
    );
    let is_slow = log_write.p99 > SYNC_P99_MAX;
    let latency = Finding::ok("disk latency", found)
        .values(json!({ "log_write": values(log_write), "append_sync": values(append_sync) }))
        .warn_if(is_slow, || "writes wait for it: use a faster disk, or one of its own".into());
    vec![direct, latency]
}

fn certificates(config: &Config) -> Vec<Finding> {
    let now = i64::try_from(clock::unix_time().as_secs()).unwrap_or(i64::MAX);
    let mut findings = Vec::new();
    for (side, ends) in config.tls.inspect() {
        let check = if side == "peer" { "peer certificates" } else { "client certificates" };
        let ends = match ends {
            Ok(ends) => ends,
            Err(fault) => {
                findings.push(Finding::fail(check, fault.to_string(), "correct the files"));
                continue;
            }
        };
        for end in ends {
            findings.push(judge_end(check, end.role, &end.path, end.not_after, now));
        }
    }
    findings
}

fn judge_end(check: &'static str, role: &str, path: &str, not_after: i64, now: i64) -> Finding {
    let days = (not_after - now).div_euclid(DAY_SECONDS);
    let until = gocompat::time::rfc3339(Duration::from_secs(not_after.max(0).unsigned_abs()));
    let found = format!("{path} ({role}): valid until {until}, {days} days");
    let advice = if days < 0 { "it has expired: renew it" } else { "it expires soon: renew it" };
    Finding::ok(check, found)
        .values(json!({ "path": path, "role": role, "not_after": not_after, "days_left": days }))
        .warn_if(days < CERTIFICATE_DAYS, || advice.into())
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_slow_disk_and_one_without_direct_writes_are_warned_of() {
        let quantiles = |ms| {
            let p99 = Duration::from_millis(ms);
            LatencyQuantiles { count: 9, p50: Duration::from_micros(88), p99 }
        };
        let judged = |is_direct, ms| {
            let (log_write, append_sync) = (quantiles(ms), quantiles(50));
            let latency = DiskLatency { is_direct, log_write, append_sync };
            judge_latency(Path::new("/d"), latency)
        };
        let verdicts =
            |findings: &[Finding]| findings.iter().map(|it| it.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&judged(true, 10)), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(verdicts(&judged(false, 11)), [Verdict::Warn, Verdict::Warn]);
        let found = &judged(true, 11)[1].found;
        assert!(found.starts_with("log write p50 88µs, p99 11ms; append"), "{found}");
    }

    #[test]
    fn certificates_are_warned_of_a_month_before() {
        let days = |days: i64| {
            judge_end("c", "server", "/c", 1_800_000_000 + days * DAY_SECONDS, 1_800_000_000)
        };
        assert_eq!(days(30).verdict, Verdict::Ok);
        assert!(days(29).advice.contains("soon") && days(-1).advice.contains("has expired"));
        assert_eq!(days(-1).values["days_left"], -1);
    }

    #[test]
    fn directories_that_cannot_be_used_end_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let fine = data_directory(&dir.path().join("new"));
        assert_eq!(fine.verdict, Verdict::Ok, "{fine:?}");
        std::fs::create_dir_all(dir.path().join("member/snap")).expect("made");
        assert!(data_directory(dir.path()).advice.contains("belongs to etcd"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        let below = data_directory(&file.join("data"));
        assert!(below.advice.contains("may not write there"), "{below:?}");
    }
}
