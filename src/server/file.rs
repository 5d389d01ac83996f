//! The configuration as a YAML or JSON file. Keys are the names of flags, apart from a few that stand in
//! sections; unknown keys are ignored, as etcd does.

use serde_norway::{Mapping, Value};

use super::flags::{Flags, Level, Note};
use super::table::{self, Kind};
use super::values;

/// Sections, and the flags that their keys stand for.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "client-transport-security",
        &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
        ],
    ),
    (
        "peer-transport-security",
        &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            ("skip-client-san-verification", "peer-skip-client-san-verification"),
        ],
    ),
    (
        "socket-options",
        &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")],
    ),
    (
        "discovery-config",
        &[
            ("token", "discovery-token"),
            ("endpoints", "discovery-endpoints"),
            ("dial-timeout", "discovery-dial-timeout"),
            ("request-timeout", "discovery-request-timeout"),
            ("keepalive-time", "discovery-keepalive-time"),
            ("keepalive-timeout", "discovery-keepalive-timeout"),
        ],
    ),
];

/// Flags that a file cannot set: in etcd they are not part of it.
const NOT_IN_FILES: &[&str] = &[
    "config-file",
    "version",
    "raft-read-timeout",
    "raft-write-timeout",
    "client-crl-file",
    "peer-crl-file",
    "discovery-fallback",
    "v2-deprecation",
];

/// Reads the file at `path`.
///
/// # Errors
/// It cannot be read, or what it says makes no sense.
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
        let flag = match SECTIONS.iter().find(|(known, _)| *known == name) {
            Some((_, keys)) => {
                keys.iter().find(|(known, _)| *known == key).and_then(|(_, flag)| table::find(flag))
            }
            None => table::find(key).filter(|flag| !is_in_section(flag.name)),
        };
        let Some(flag) = flag.filter(|flag| !NOT_IN_FILES.contains(&flag.name)) else { continue };
        let Some(text) = scalar(flag.kind, value).map_err(|error| format!("{key}: {error}"))?
        else {
            continue;
        };
        values::check(flag, &text)
            .map_err(|error| format!("invalid value {text:?} for {key}: {error}"))?;
        flags.set(flag.name, text);
    }
    Ok(())
}

fn is_in_section(flag: &str) -> bool {
    SECTIONS.iter().any(|(_, keys)| keys.iter().any(|(_, name)| *name == flag))
}

/// A value as a flag would have it; `None` for none.
fn scalar(kind: Kind, value: &Value) -> Result<Option<String>, String> {
    Ok(match (kind, value) {
        (_, Value::Null) => None,
        (Kind::Time, Value::Number(nanoseconds)) => Some(format!("{nanoseconds}ns")),
        (Kind::Time, _) => return Err("times in a file are whole nanoseconds".to_owned()),
        (_, Value::String(text)) if text.is_empty() => None,
        (_, Value::String(text)) => Some(text.clone()),
        (_, Value::Bool(on)) => Some(on.to_string()),
        (_, Value::Number(number)) => Some(number.to_string()),
        (_, Value::Sequence(parts)) => {
            let parts = parts.iter().filter_map(|part| scalar(Kind::Text, part).transpose());
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
        let flags = parse(yaml).expect("it is fine");
        assert_eq!(flags, parse(json).expect("it is fine"));
        let names = [
            "name",
            "heartbeat-interval",
            "pre-vote",
            "log-outputs",
            "peer-client-cert-auth",
            "cors",
        ];
        let values = names.map(|name| flags.get(name));
        assert_eq!(values, ["a", "7", "false", "stderr,x", "true", "*"]);
        assert_eq!(flags.get("peer-cert-allowed-cn"), "c,d");
        assert_eq!(flags.get("watch-progress-notify-interval"), "5000000000ns");
        assert!(!flags.is_set("cert-file"), "nothing is no value");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(parse("heartbeat-interval: x").is_err());
        assert!(parse("watch-progress-notify-interval: 10m").is_err(), "times are numbers");
        assert!(parse("- a").is_err());
        assert!(parse("a: [").is_err());
        assert_eq!(parse("").map(|flags| flags.is_set("name")), Ok(false));
    }
}
