//! Names that flags had in etcd 3.4 to 3.6: `experimental-NAME` is the flag NAME now, or a feature gate. They mean the same
//! on the command line, in the environment (`ETCD_EXPERIMENTAL_NAME`) and in the configuration file, and the log says
//! which ones were given. Where both names are given, the newer one counts.

use super::flag::Row;
use super::settings::{Flags, Level, Note};
use super::{table, values};

const PREFIX: &str = "experimental-";

/// Booleans that are feature gates now, and their gates.
const GATES: &[(&str, &str)] = &[
    ("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    ("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    ("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    ("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    ("experimental-set-member-localaddr", "SetMemberLocalAddr"),
    ("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    ("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
];

/// The meaning of an older name.
pub(super) enum Graduated {
    Flag(&'static dyn Row),
    Gate(&'static str),
}

/// The meaning of a flag's older name; `None` if it is not one.
pub(super) fn graduated(name: &str) -> Option<Graduated> {
    let gate = GATES.iter().find(|(before, _)| *before == name);
    let gate = gate.map(|(_, gate)| Graduated::Gate(gate));
    gate.or_else(|| table::find(name.strip_prefix(PREFIX)?).map(Graduated::Flag))
}

/// The meaning of an environment variable without its prefix.
pub(super) fn of_variable(rest: &str) -> Option<Graduated> {
    graduated(&rest.to_lowercase().replace('_', "-"))
}

/// The note on an older name, as it was spelled, and its newer one.
pub(super) fn note(before: &str, now: &str) -> Note {
    Note::new(Level::Warn, format!("{before} is gone in 3.7; taken for {now}"))
}

/// The note on an older name that is given beside the newer one.
pub(super) fn shadowed(before: &str, now: &str) -> Note {
    Note::new(Level::Warn, format!("{before} is gone in 3.7, and ignored beside {now}"))
}

/// Adds the state of a gate that was given by its older name, spelled `before`. [`settle_gates`] makes it count.
///
/// # Errors
/// The value is no boolean.
pub(super) fn put_gate(
    before: String,
    gate: &'static str,
    on: &str,
    flags: &mut Flags,
) -> Result<(), ()> {
    let on = values::switch(on).ok_or(())?;
    flags.older_gates.push((before, gate, on));
    Ok(())
}

/// Adds the gates that were given by older names to those of `--feature-gates`, which may have come before or after.
pub(super) fn settle_gates(flags: &mut Flags) {
    for (before, gate, on) in std::mem::take(&mut flags.older_gates) {
        let given = table::FEATURE_GATES.text(flags).to_owned();
        let names = given.split(',').filter_map(|part| part.split_once('='));
        if names.into_iter().any(|(name, _)| name.trim() == gate) {
            flags.note(shadowed(&before, &format!("--feature-gates={given}")));
            continue;
        }
        flags.note(note(&before, &format!("--feature-gates={gate}={on}")));
        let comma = if given.is_empty() { "" } else { "," };
        flags.put(table::FEATURE_GATES.name(), format!("{given}{comma}{gate}={on}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All flags of etcd 3.6 that begin so.
    const OLDER: [&str; 24] = [
        "bootstrap-defrag-threshold-megabytes",
        "compact-hash-check-enabled",
        "compact-hash-check-time",
        "compaction-batch-limit",
        "compaction-sleep-interval",
        "corrupt-check-time",
        "distributed-tracing-address",
        "distributed-tracing-instance-id",
        "distributed-tracing-sampling-rate",
        "distributed-tracing-service-name",
        "downgrade-check-time",
        "enable-distributed-tracing",
        "enable-lease-checkpoint",
        "enable-lease-checkpoint-persist",
        "initial-corrupt-check",
        "max-learners",
        "memory-mlock",
        "peer-skip-client-san-verification",
        "set-member-localaddr",
        "snapshot-catchup-entries",
        "stop-grpc-service-on-defrag",
        "txn-mode-write-with-shared-buffer",
        "warning-unary-request-duration",
        "watch-progress-notify-interval",
    ];

    #[test]
    fn every_older_name_has_a_meaning() {
        for name in OLDER {
            assert!(graduated(&format!("{PREFIX}{name}")).is_some(), "{name}");
            let variable = format!("EXPERIMENTAL_{}", name.to_uppercase().replace('-', "_"));
            assert!(of_variable(&variable).is_some(), "{variable}");
        }
        assert!(graduated("experimental-none").is_none() && graduated("name").is_none());
    }

    #[test]
    fn every_gate_is_known() {
        for (before, gate) in GATES {
            let mut flags = Flags::default();
            put_gate((*before).to_owned(), gate, "true", &mut flags).expect("it is a boolean");
            settle_gates(&mut flags);
            table::FEATURE_GATES.check(table::FEATURE_GATES.text(&flags)).expect("it is a gate");
        }
    }

    #[test]
    fn the_newer_name_counts_whichever_comes_first() {
        let mut flags = Flags::default();
        put_gate("old".into(), "InitialCorruptCheck", "true", &mut flags).expect("a boolean");
        put_gate("other".into(), "CompactHashCheck", "1", &mut flags).expect("a boolean");
        flags.put("feature-gates", "InitialCorruptCheck=false");
        settle_gates(&mut flags);
        let text = table::FEATURE_GATES.text(&flags);
        assert_eq!(text, "InitialCorruptCheck=false,CompactHashCheck=true");
        assert!(flags.notes[0].message.contains("old is gone in 3.7, and ignored beside"));
        assert!(put_gate("x".into(), "CompactHashCheck", "maybe", &mut flags).is_err());
    }
}
