//! The configuration as a YAML or JSON file. Keys are the names of flags, apart from a few in sections, or names that
//! flags had in older versions; unknown keys are ignored, as in etcd, and named in the log.

use serde_norway::{Mapping, Value};

use super::flag::{Form, Row};
use super::graduated::{self, Graduated, graduated};
use super::settings::{Flags, Level, Note};
use super::table;

/// A key of a section, and its flag.
type Key = (&'static str, &'static dyn Row);

/// Sections, and the flags of their keys.
static SECTIONS: &[(&str, &[Key])] = &[
    (
        "client-transport-security",
        &[
            ("cert-file", &table::CERT_FILE),
            ("key-file", &table::KEY_FILE),
            ("client-cert-file", &table::CLIENT_CERT_FILE),
            ("client-key-file", &table::CLIENT_KEY_FILE),
            ("client-cert-auth", &table::CLIENT_CERT_AUTH),
            ("trusted-ca-file", &table::TRUSTED_CA_FILE),
            ("auto-tls", &table::AUTO_TLS),
            ("allowed-cn", &table::CLIENT_CERT_ALLOWED_CN),
            ("allowed-hostname", &table::CLIENT_CERT_ALLOWED_HOSTNAME),
            ("skip-client-san-verification", &table::CLIENT_SKIP_CLIENT_SAN_VERIFICATION),
        ],
    ),
    (
        "peer-transport-security",
        &[
            ("cert-file", &table::PEER_CERT_FILE),
            ("key-file", &table::PEER_KEY_FILE),
            ("client-cert-file", &table::PEER_CLIENT_CERT_FILE),
            ("client-key-file", &table::PEER_CLIENT_KEY_FILE),
            ("client-cert-auth", &table::PEER_CLIENT_CERT_AUTH),
            ("trusted-ca-file", &table::PEER_TRUSTED_CA_FILE),
            ("auto-tls", &table::PEER_AUTO_TLS),
            ("allowed-cn", &table::PEER_CERT_ALLOWED_CN),
            ("allowed-hostname", &table::PEER_CERT_ALLOWED_HOSTNAME),
            ("skip-client-san-verification", &table::PEER_SKIP_CLIENT_SAN_VERIFICATION),
        ],
    ),
    (
        "socket-options",
        &[
            ("reuse-port", &table::SOCKET_REUSE_PORT),
            ("reuse-address", &table::SOCKET_REUSE_ADDRESS),
        ],
    ),
    (
        "discovery-config",
        &[
            ("token", &table::DISCOVERY_TOKEN),
            ("endpoints", &table::DISCOVERY_ENDPOINTS),
            ("dial-timeout", &table::DISCOVERY_DIAL_TIMEOUT),
            ("request-timeout", &table::DISCOVERY_REQUEST_TIMEOUT),
            ("keepalive-time", &table::DISCOVERY_KEEPALIVE_TIME),
            ("keepalive-timeout", &table::DISCOVERY_KEEPALIVE_TIMEOUT),
        ],
    ),
];

/// Flags that a file cannot set: in etcd they are not part of the file.
static NOT_IN_FILES: &[&dyn Row] = &[
    &table::CONFIG_FILE,
    &table::VERSION,
    &table::RAFT_READ_TIMEOUT,
    &table::RAFT_WRITE_TIMEOUT,
    &table::CLIENT_CRL_FILE,
    &table::PEER_CRL_FILE,
    &table::DISCOVERY_FALLBACK,
    &table::V2_DEPRECATION,
];

/// Reads the file at `path`.
///
/// # Errors
/// The file cannot be read, or a value is invalid.
pub(super) fn load(
    path: &str,
    read: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<Flags, String> {
    let text = read(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return format!("open {path}: no such file or directory");
        }
        format!("open {path}: {error}")
    })?;
    let mut flags = parse(&text)?;
    let text = "loaded server configuration, other configuration command line flags and environment \
        variables will be ignored if provided";
    flags.note(Note::new(Level::Info, text).about("path", path));
    Ok(flags)
}

fn parse(text: &str) -> Result<Flags, String> {
    let value: Value = serde_norway::from_str(text)
        .map_err(|error| format!("error converting YAML to JSON: {error}"))?;
    let mut flags = Flags::default();
    flags.from_file = true;
    match value {
        Value::Null => (),
        Value::Mapping(keys) => section("", &keys, &mut flags)?,
        Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Tagged(_) => return Err("the configuration file holds no keys".to_owned()),
    }
    graduated::settle_gates(&mut flags);
    Ok(flags)
}

fn section(name: &str, keys: &Mapping, flags: &mut Flags) -> Result<(), String> {
    for (key, value) in keys {
        let Some(key) = key.as_str() else { continue };
        if let (Some((section_name, _)), Value::Mapping(inner)) =
            (SECTIONS.iter().find(|(known, _)| *known == key), value)
        {
            section(section_name, inner, flags)?;
            continue;
        }
        let Some(flag) = flag_of(name, key) else {
            older(name, key, value, flags)?;
            continue;
        };
        if let Some(text) = text_of(flag, key, value)? {
            flags.put(flag.name(), text);
        }
    }
    Ok(())
}

/// The flag of a key in a section, or outside of all.
fn flag_of(section: &str, key: &str) -> Option<&'static dyn Row> {
    let flag = match SECTIONS.iter().find(|(known, _)| *known == section) {
        Some((_, keys)) => keys.iter().find(|(known, _)| *known == key).map(|(_, flag)| *flag),
        None => table::find(key).filter(|flag| !is_in_section(flag.name())),
    };
    flag.filter(|flag| NOT_IN_FILES.iter().all(|other| other.name() != flag.name()))
}

/// The value of a flag as its text, checked; `None` for none.
fn text_of(flag: &dyn Row, key: &str, value: &Value) -> Result<Option<String>, String> {
    let text = scalar(flag.form(), value).map_err(|error| format!("{key}: {error}"))?;
    let checked = text.as_deref().map_or(Ok(()), |text| {
        flag.check(text).map_err(|error| format!("invalid value {text:?} for {key}: {error}"))
    });
    checked.map(|()| text)
}

/// Applies a key that is the older name of a flag; another one is ignored and noted.
fn older(section: &str, key: &str, value: &Value, flags: &mut Flags) -> Result<(), String> {
    match graduated(key).filter(|_| section.is_empty()) {
        Some(Graduated::Gate(gate)) => {
            let Some(on) = scalar(Form::Switch, value)? else { return Ok(()) };
            graduated::put_gate(key.to_owned(), gate, &on, flags)
                .map_err(|()| format!("invalid value {on:?} for {key}: parse error"))
        }
        Some(Graduated::Flag(flag)) => {
            let Some(text) = text_of(flag, key, value)? else { return Ok(()) };
            if flags.given(flag.name()).is_some() {
                flags.note(graduated::shadowed(key, flag.name()));
                return Ok(());
            }
            flags.note(graduated::note(key, flag.name()));
            flags.put(flag.name(), text);
            Ok(())
        }
        None => {
            let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            let note = Note::new(Level::Warn, "unknown key of the configuration file is ignored");
            flags.note(note.about("key", path));
            Ok(())
        }
    }
}

fn is_in_section(flag: &str) -> bool {
    SECTIONS.iter().any(|(_, keys)| keys.iter().any(|(_, row)| row.name() == flag))
}

/// A value in the form of a flag; `None` for null.
fn scalar(form: Form, value: &Value) -> Result<Option<String>, String> {
    Ok(match (form, value) {
        (_, Value::Null) => None,
        (Form::Duration, Value::Number(nanoseconds)) => Some(format!("{nanoseconds}ns")),
        (Form::Duration, _) => return Err("times in a file are whole nanoseconds".to_owned()),
        (_, Value::String(text)) if text.is_empty() => None,
        (_, Value::String(text)) => Some(text.clone()),
        (_, Value::Bool(on)) => Some(on.to_string()),
        (_, Value::Number(number)) => Some(number.to_string()),
        (_, Value::Sequence(parts)) => {
            let parts = parts.iter().filter_map(|part| scalar(Form::Value, part).transpose());
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            Some(parts.join(",")).filter(|text| !text.is_empty())
        }
        (_, Value::Mapping(_) | Value::Tagged(_)) => {
            return Err("a single value is expected".to_owned());
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn yaml_and_json_read_alike() {
        let yaml = "name: a\nheartbeat-interval: 7\npre-vote: false\nlog-outputs: [stderr, x]\n\
            watch-progress-notify-interval: 5000000000\nunknown: {}\ncors:\n\
            peer-transport-security:\n  client-cert-auth: true\n  allowed-cn: [c, d]\n\
            client-transport-security:\n  cert-file:\n";
        let json = r#"{"name": "a", "heartbeat-interval": 7, "pre-vote": false,
            "log-outputs": ["stderr", "x"], "watch-progress-notify-interval": 5000000000,
            "peer-transport-security": {"client-cert-auth": true, "allowed-cn": ["c", "d"]}}"#;
        let mut flags = parse(yaml).expect("it is fine");
        // About the key that the other one lacks.
        assert_eq!(flags.notes.drain(..).count(), 1);
        assert_eq!(flags, parse(json).expect("it is fine"));
        assert_eq!(table::NAME.get(&flags), "a");
        assert_eq!(table::HEARTBEAT_INTERVAL.get(&flags), Duration::from_millis(7));
        assert!(!table::PRE_VOTE.get(&flags));
        assert_eq!(table::LOG_OUTPUTS.get(&flags), ["stderr", "x"]);
        assert!(table::PEER_CLIENT_CERT_AUTH.is_changed(&flags));
        assert_eq!(table::CORS.get(&flags), ["*"]);
        assert_eq!(table::PEER_CERT_ALLOWED_CN.text(&flags), "c,d");
        assert_eq!(table::WATCH_PROGRESS_NOTIFY_INTERVAL.get(&flags), Duration::from_secs(5));
        assert!(!table::CERT_FILE.is_set(&flags), "nothing is no value");
    }

    #[test]
    fn names_of_older_versions_mean_the_same_and_unknown_ones_are_noted() {
        let yaml = "experimental-initial-corrupt-check: true\nfeature-gates: CompactHashCheck=true\n\
            experimental-watch-progress-notify-interval: 5000000000\nexperimental-max-learners: 3\n\
            enable-v2: true\npeer-transport-security:\n  cipher: x\n";
        let flags = parse(yaml).expect("it is fine");
        let gates = table::FEATURE_GATES.text(&flags);
        assert_eq!(gates, "CompactHashCheck=true,InitialCorruptCheck=true");
        assert_eq!(table::WATCH_PROGRESS_NOTIFY_INTERVAL.get(&flags), Duration::from_secs(5));
        assert_eq!(table::MAX_LEARNERS.get(&flags), 3);
        let keys = flags.notes.iter().filter_map(|note| note.about.first());
        let keys: Vec<_> = keys.map(|(_, key)| key.as_str()).collect();
        assert_eq!(keys, ["enable-v2", "peer-transport-security.cipher"]);
        let both = "max-learners: 2\nexperimental-max-learners: 3";
        assert_eq!(table::MAX_LEARNERS.get(&parse(both).expect("it is fine")), 2);
        let both = "experimental-max-learners: 3\nmax-learners: 2";
        assert_eq!(table::MAX_LEARNERS.get(&parse(both).expect("it is fine")), 2);
        assert!(parse("experimental-max-learners: x").is_err());
        assert!(parse("experimental-initial-corrupt-check: 7").is_err());
    }

    #[test]
    fn invalid_files_are_refused() {
        assert!(parse("heartbeat-interval: x").is_err());
        assert!(parse("watch-progress-notify-interval: 10m").is_err(), "times are numbers");
        assert!(parse("- a").is_err());
        assert!(parse("a: [").is_err());
        assert_eq!(parse("").map(|flags| table::NAME.is_set(&flags)), Ok(false));
    }
}
