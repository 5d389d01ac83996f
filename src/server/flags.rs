//! etcd's flags, in Go's syntax: `-name value`, `--name=value`, and for switches `--name` or `--name=true`
//! alone. Every flag can come from the environment as `ETCD_NAME_OF_FLAG`, but not from both.

use std::collections::BTreeMap;

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Run a member with these values; flags that were not given have their default.
    Run(Flags),
    /// Print the version.
    Version,
    /// Print how to use it.
    Help,
    /// Not understood: what to say, and the exit code.
    Refuse(String, i32),
}

/// Values by name of flag.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    values: BTreeMap<String, String>,
    /// Things to warn about once logs are written.
    pub warnings: Vec<String>,
}

impl Flags {
    /// The value of a flag: given, or its default.
    pub fn get(&self, name: &str) -> &str {
        let default =
            || DEFAULTS.iter().find(|(flag, _)| *flag == name).map_or("", |(_, value)| value);
        self.values.get(name).map_or_else(default, String::as_str)
    }

    /// Whether a flag was given.
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

/// Flags that need no value.
const SWITCHES: &[&str] = &[
    "auto-tls",
    "client-cert-auth",
    "discovery-insecure-skip-tls-verify",
    "discovery-insecure-transport",
    "enable-distributed-tracing",
    "enable-grpc-gateway",
    "enable-log-rotation",
    "enable-pprof",
    "force-new-cluster",
    "initial-election-tick-advance",
    "memory-mlock",
    "peer-auto-tls",
    "peer-client-cert-auth",
    "peer-skip-client-san-verification",
    "pre-vote",
    "socket-reuse-address",
    "socket-reuse-port",
    "strict-reconfig-check",
    "unsafe-no-fsync",
    "version",
];

/// Flags of old versions that are taken and mean nothing.
const IGNORED: &[&str] = &[
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
    "v2-deprecation",
];

/// Every flag and its default. `cores` is ours.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    ("name", "default"),
    ("data-dir", ""),
    ("wal-dir", ""),
    ("snapshot-count", "10000"),
    ("snapshot-catchup-entries", "5000"),
    ("max-wals", "5"),
    ("max-snapshots", "5"),
    ("heartbeat-interval", "100"),
    ("election-timeout", "1000"),
    ("initial-election-tick-advance", "true"),
    ("listen-peer-urls", "http://localhost:2380"),
    ("listen-client-urls", "http://localhost:2379"),
    ("listen-client-http-urls", ""),
    ("listen-metrics-urls", ""),
    ("quota-backend-bytes", "0"),
    ("backend-bbolt-freelist-type", "map"),
    ("backend-batch-interval", "0"),
    ("backend-batch-limit", "0"),
    ("max-txn-ops", "128"),
    ("max-request-bytes", "1572864"),
    ("max-concurrent-streams", "4294967295"),
    ("grpc-keepalive-min-time", "5s"),
    ("grpc-keepalive-interval", "2h"),
    ("grpc-keepalive-timeout", "20s"),
    ("raft-read-timeout", "5s"),
    ("raft-write-timeout", "5s"),
    ("socket-reuse-port", "false"),
    ("socket-reuse-address", "false"),
    ("memory-mlock", "false"),
    ("enable-grpc-gateway", "true"),
    ("feature-gates", ""),
    ("initial-advertise-peer-urls", "http://localhost:2380"),
    ("advertise-client-urls", "http://localhost:2379"),
    ("initial-cluster", "default=http://localhost:2380"),
    ("initial-cluster-state", "new"),
    ("initial-cluster-token", "etcd-cluster"),
    ("strict-reconfig-check", "true"),
    ("pre-vote", "true"),
    ("auto-compaction-retention", "0"),
    ("auto-compaction-mode", "periodic"),
    ("discovery-token", ""),
    ("discovery-endpoints", ""),
    ("discovery-dial-timeout", "2s"),
    ("discovery-request-timeout", "5s"),
    ("discovery-keepalive-time", "2s"),
    ("discovery-keepalive-timeout", "6s"),
    ("discovery-insecure-transport", "true"),
    ("discovery-insecure-skip-tls-verify", "false"),
    ("discovery-cert", ""),
    ("discovery-key", ""),
    ("discovery-cacert", ""),
    ("discovery-user", ""),
    ("discovery-password", ""),
    ("discovery-fallback", "exit"),
    ("discovery-srv", ""),
    ("discovery-srv-name", ""),
    ("cert-file", ""),
    ("key-file", ""),
    ("client-cert-file", ""),
    ("client-key-file", ""),
    ("client-cert-auth", "false"),
    ("client-crl-file", ""),
    ("client-cert-allowed-hostname", ""),
    ("trusted-ca-file", ""),
    ("auto-tls", "false"),
    ("peer-cert-file", ""),
    ("peer-key-file", ""),
    ("peer-client-cert-file", ""),
    ("peer-client-key-file", ""),
    ("peer-client-cert-auth", "false"),
    ("peer-trusted-ca-file", ""),
    ("peer-cert-allowed-cn", ""),
    ("peer-cert-allowed-hostname", ""),
    ("peer-auto-tls", "false"),
    ("peer-crl-file", ""),
    ("peer-skip-client-san-verification", "false"),
    ("self-signed-cert-validity", "1"),
    ("cipher-suites", ""),
    ("tls-min-version", "TLS1.2"),
    ("tls-max-version", ""),
    ("cors", "*"),
    ("host-whitelist", "*"),
    ("auth-token", "simple"),
    ("bcrypt-cost", "10"),
    ("auth-token-ttl", "300"),
    ("enable-pprof", "false"),
    ("metrics", "basic"),
    ("logger", "zap"),
    ("log-outputs", "default"),
    ("log-level", "info"),
    ("log-format", "json"),
    ("enable-log-rotation", "false"),
    (
        "log-rotation-config-json",
        "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}",
    ),
    ("warning-apply-duration", "100ms"),
    ("warning-unary-request-duration", "300ms"),
    ("enable-distributed-tracing", "false"),
    ("distributed-tracing-address", "localhost:4317"),
    ("distributed-tracing-service-name", "etcd"),
    ("distributed-tracing-instance-id", ""),
    ("distributed-tracing-sampling-rate", "0"),
    ("corrupt-check-time", "0s"),
    ("compact-hash-check-time", "1m"),
    ("compaction-batch-limit", "1000"),
    ("compaction-sleep-interval", "10ms"),
    ("watch-progress-notify-interval", "10m"),
    ("bootstrap-defrag-threshold-megabytes", "0"),
    ("max-learners", "1"),
    ("downgrade-check-time", "5s"),
    ("unsafe-no-fsync", "false"),
    ("force-new-cluster", "false"),
    ("config-file", ""),
    ("version", "false"),
    ("cores", ""),
];

/// Reads a command line (without the program's name) and the environment.
pub fn parse(
    arguments: impl Iterator<Item = String>,
    environment: impl Iterator<Item = (String, String)>,
) -> Command {
    let mut flags = Flags::default();
    let mut rest = arguments;
    while let Some(argument) = rest.next() {
        let Some(name) = argument.strip_prefix('-').filter(|name| !name.is_empty()) else {
            return Command::Refuse(format!("\"{argument}\" is not a valid flag"), 1);
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        let (name, given) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        if matches!(name, "h" | "help") {
            return Command::Help;
        }
        let known = DEFAULTS.iter().any(|(flag, _)| *flag == name);
        let ignored = IGNORED.contains(&name);
        if !known && !ignored {
            return Command::Refuse(format!("flag provided but not defined: -{name}"), 2);
        }
        let value = match given {
            Some(value) => value,
            None if SWITCHES.contains(&name) => "true".to_owned(),
            None => match rest.next() {
                Some(value) => value,
                None => return Command::Refuse(format!("flag needs an argument: -{name}"), 2),
            },
        };
        if SWITCHES.contains(&name) && parse_bool(&value).is_none() {
            let text = format!("invalid boolean value {value:?} for -{name}: parse error");
            return Command::Refuse(text, 2);
        }
        if known {
            flags.values.insert(name.to_owned(), value);
        }
    }
    if parse_bool(flags.get("version")) == Some(true) {
        return Command::Version;
    }
    match from_environment(&mut flags, environment) {
        Ok(()) => Command::Run(flags),
        Err(text) => Command::Refuse(text, 1),
    }
}

fn from_environment(
    flags: &mut Flags,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(), String> {
    for (variable, value) in environment {
        let Some(name) = variable.strip_prefix("ETCD_") else { continue };
        let name = name.to_lowercase().replace('_', "-");
        if name == "version" || matches!(name.as_str(), "unsupported-arch" | "verify") {
            continue;
        }
        if !DEFAULTS.iter().any(|(flag, _)| *flag == name) {
            flags.warnings.push(format!("unrecognized environment variable {variable}={value}"));
        } else if flags.is_set(&name) {
            return Err(format!(
                "conflicting environment variable \"{variable}\" is shadowed by corresponding \
                 command-line flag (either unset environment variable or disable flag)"
            ));
        } else if !value.is_empty() {
            flags.values.insert(name, value);
        }
    }
    Ok(())
}

/// Go's spellings of true and false.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// How to use the program: every flag and its default.
pub fn usage() -> String {
    let mut text =
        "Usage:\n\n  basalt [flags]\n    Start a member.\n\n  basalt --version\n    Show the \
                    version.\n\n  basalt -h | --help\n    Show this help.\n\nFlags:\n"
            .to_owned();
    for (name, default) in DEFAULTS {
        text.push_str(&format!("  --{name} '{default}'\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        parse(arguments.iter().map(|argument| (*argument).into()), environment)
    }

    #[test]
    fn flags_come_in_gos_spellings() {
        let spelled = ["-name", "a", "--data-dir=/b", "--pre-vote=false", "-force-new-cluster"];
        let Command::Run(flags) = run(&spelled, &[("ETCD_MAX_TXN_OPS", "9")]) else {
            panic!("all of it is known")
        };
        let names = ["name", "data-dir", "pre-vote", "force-new-cluster", "max-txn-ops", "logger"];
        let values = names.map(|name| flags.get(name));
        assert_eq!(values, ["a", "/b", "false", "true", "9", "zap"]);
    }

    #[test]
    fn what_is_not_understood_is_refused_as_by_etcd() {
        let refused = |arguments: &[&str], environment: &[(&str, &str)]| {
            let command = run(arguments, environment);
            let Command::Refuse(text, code) = command else { panic!("{command:?}") };
            (text, code)
        };
        assert_eq!(refused(&["--foo"], &[]), ("flag provided but not defined: -foo".into(), 2));
        assert_eq!(refused(&["bar"], &[]), ("\"bar\" is not a valid flag".into(), 1));
        assert_eq!(refused(&["--name"], &[]), ("flag needs an argument: -name".into(), 2));
        assert_eq!(refused(&["--name", "a"], &[("ETCD_NAME", "b")]).1, 1);
    }
}
