//! Checks of combinations of flags, in the order and with the texts of etcd's.

use std::time::Duration;

use gocompat::duration;

use crate::mvcc::Retention;
use crate::server::flag::Row;
use crate::server::settings::Flags;
use crate::server::table;
use crate::server::values::Url;
use crate::types::limits::REQUEST_BYTES_MAX;

pub(super) fn check_bootstrap(flags: &Flags) -> Result<(), String> {
    let given = |name: &str| flags.given(name).is_some_and(|value| !value.is_empty());
    let ways: [&dyn Row; 3] =
        [&table::INITIAL_CLUSTER, &table::DISCOVERY_ENDPOINTS, &table::DISCOVERY_SRV];
    if ways.iter().filter(|flag| given(flag.name())).count() > 1 {
        let text = "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
            \"discovery-endpoints\" or \"discovery-srv\"";
        return Err(text.to_owned());
    }
    if table::DISCOVERY_TOKEN.is_changed(flags) != table::DISCOVERY_ENDPOINTS.is_changed(flags) {
        return Err("both --discovery-token and --discovery-endpoints must be set".to_owned());
    }
    if table::DISCOVERY_FALLBACK.get(flags) {
        let text =
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"";
        return Err(text.to_owned());
    }
    Ok(())
}

pub(super) fn check_tls_versions(flags: &Flags) -> Result<(), String> {
    let version = |text: &str| match text {
        "" => Ok(0),
        "TLS1.2" => Ok(12),
        "TLS1.3" => Ok(13),
        other => Err(format!("unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)")),
    };
    let (min_text, max_text) =
        (table::TLS_MIN_VERSION.text(flags), table::TLS_MAX_VERSION.text(flags));
    let (min, max) = (version(min_text)?, version(max_text)?);
    if max != 0 && min > max {
        return Err(format!("min version ({min_text}) is greater than max version ({max_text})"));
    }
    if min == 13 && table::CIPHER_SUITES.is_changed(flags) {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
    }
    Ok(())
}

/// Refuses flags for missing features: the member would do less than its operator expects.
pub(super) fn refuse_unsupported<'a>(
    flags: &Flags,
    mut listened: impl Iterator<Item = &'a Url>,
) -> Result<(), String> {
    if let Some(refusal) = table::all().find_map(|flag| flag.refusal(flags)) {
        return Err(refusal);
    }
    match listened.find(|url| url.is_secure()) {
        Some(secure) => {
            Err(format!("this version of Basalt does not support TLS ({})", secure.text))
        }
        None => Ok(()),
    }
}

pub(super) fn retention(flags: &Flags) -> Result<Retention, String> {
    let text = table::AUTO_COMPACTION_RETENTION.get(flags);
    let revisions = table::AUTO_COMPACTION_MODE.get(flags) == "revision";
    let time = match text.parse::<u64>() {
        Ok(0) => return Ok(Retention::All),
        Ok(count) if revisions => {
            return Ok(Retention::Revisions(i64::try_from(count).unwrap_or(i64::MAX)));
        }
        Ok(hours) => Duration::from_secs(hours.saturating_mul(3600)).min(duration::MAX),
        Err(_) => duration::parse(&text)
            .map_err(|error| format!("error parsing CompactionRetention: {error}"))?,
    };
    Ok(match time {
        Duration::ZERO => Retention::All,
        // As in etcd: a time is a number of nanoseconds.
        time if revisions => Retention::Revisions(time.as_nanos() as i64),
        time => Retention::Time(time),
    })
}

/// The limit of a request's bytes; a proposal has to fit into the log.
pub(super) fn request_bytes(flags: &Flags) -> Result<usize, String> {
    match table::MAX_REQUEST_BYTES.get(flags) {
        bytes if bytes > REQUEST_BYTES_MAX => Err(format!(
            "--max-request-bytes must be at most {REQUEST_BYTES_MAX} (set to {bytes}): a request is one \
             record of the log, and a record lies in one of its segments"
        )),
        bytes => Ok(bytes),
    }
}
