//! Values as Go's packages read them: times, switches, URLs, feature gates; with their words for what is
//! wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

use super::table::{Flag, GATES, Kind};
use crate::io::Address;
use crate::types::limits::EXECUTORS_MAX;

/// Checks that a value can be that of a flag.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(flag: &Flag, value: &str) -> Result<(), String> {
    let parse_error = || "parse error".to_owned();
    match flag.kind {
        Kind::Text => Ok(()),
        Kind::Switch => switch(value).map(drop).ok_or_else(parse_error),
        Kind::Int => whole::<i64>(value),
        Kind::Uint => whole::<u64>(value),
        // Go's flag package names the function for this one.
        Kind::Uint32 => whole::<u32>(value).map_err(|error| {
            let error = if error == "parse error" { "invalid syntax".to_owned() } else { error };
            format!("strconv.ParseUint: parsing {value:?}: {error}")
        }),
        Kind::Time => time(value).map(drop).ok_or_else(parse_error),
        Kind::One(choices) if choices.contains(&value) => Ok(()),
        Kind::One(_) => Err("invalid value".to_owned()),
        Kind::Urls => urls(value).map(drop),
        Kind::Origins => {
            list(value).iter().filter(|it| *it != "*").try_for_each(|it| url(it).map(drop))
        }
        Kind::Gates => gates(value).map(drop),
    }
}

fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<(), String> {
    match text.parse::<T>().map_err(|error| *error.kind()) {
        Ok(_) => Ok(()),
        Err(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
            Err("value out of range".into())
        }
        Err(_) => Err("parse error".into()),
    }
}

/// A whole number; 0 if it is none.
pub(super) fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Go's spellings of true and false.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's durations: numbers with units, as in `1m30s`. Below zero they mean zero here.
pub(super) fn time(text: &str) -> Option<Duration> {
    let (negative, text) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[letters..];
        seconds += value * unit;
    }
    if negative { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(seconds).ok() }
}

/// What a list holds, without what is around it.
pub(super) fn list(text: &str) -> Vec<String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// A URL of a member or client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Url {
    pub(super) text: String,
    pub(super) scheme: String,
    /// `host:port`, or the path of a socket.
    pub(super) rest: String,
}

impl Url {
    /// Whether it asks for TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.scheme == "https" || self.scheme == "unixs"
    }

    /// The address to listen on.
    ///
    /// # Errors
    /// It has a name where an address is needed.
    pub(super) fn bind(&self) -> Result<Address, String> {
        if self.scheme.starts_with("unix") {
            return Ok(Address::Unix(self.rest.clone()));
        }
        let (host, port) = self.rest.rsplit_once(':').unwrap_or((&self.rest, ""));
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        match host {
            "localhost" => Ok(Address::Tcp(format!("127.0.0.1:{port}"))),
            _ if plain.parse::<std::net::IpAddr>().is_ok() => Ok(Address::Tcp(self.rest.clone())),
            _ => Err(format!("expected IP in URL for binding ({})", self.text)),
        }
    }
}

/// Reads URLs with commas between, sorted, each once.
///
/// # Errors
/// What is wrong with one of them.
pub(super) fn urls(text: &str) -> Result<Vec<Url>, String> {
    let mut urls = list(text).iter().map(|text| url(text)).collect::<Result<Vec<_>, _>>()?;
    urls.sort_by(|one, other| one.text.cmp(&other.text));
    urls.dedup();
    Ok(urls)
}

/// Reads one URL.
///
/// # Errors
/// What is wrong with it.
pub(super) fn url(text: &str) -> Result<Url, String> {
    let scheme_unknown = || format!("URL scheme must be http, https, unix, or unixs: {text}");
    let (scheme, rest) = text.split_once(':').ok_or_else(scheme_unknown)?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let whole = Url { text: text.to_owned(), scheme: scheme.to_owned(), rest: rest.to_owned() };
    match scheme {
        "unix" | "unixs" => Ok(whole),
        "http" | "https" => {
            let port = authority.rsplit_once(':').map(|(_, port)| port);
            if port.is_none_or(|port| port.ends_with(']')) {
                return Err(format!("URL address does not have the form \"host:port\": {text}"));
            }
            if !path.trim_end_matches('/').is_empty() {
                return Err(format!("URL must not contain a path: {text}"));
            }
            let text = text.trim_end_matches('/').to_owned();
            Ok(Url { text, rest: authority.to_owned(), ..whole })
        }
        _ => Err(scheme_unknown()),
    }
}

/// Reads feature gates: all of them, and whether each is on.
///
/// # Errors
/// One that does not exist, or is neither true nor false.
pub(super) fn gates(text: &str) -> Result<BTreeMap<&'static str, bool>, String> {
    let mut gates: BTreeMap<_, _> = GATES.iter().map(|(name, _, on)| (*name, *on)).collect();
    let mut given = Vec::new();
    for part in list(text) {
        let (name, value) =
            part.split_once('=').ok_or_else(|| format!("missing bool value for {part}"))?;
        let Some((name, ..)) = GATES.iter().find(|(known, ..)| *known == name.trim()) else {
            return Err(format!("unrecognized feature gate: {}", name.trim()));
        };
        let value = value.trim();
        let on = switch(value).ok_or_else(|| {
            format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")
        })?;
        given.push((*name, on));
    }
    // All gates of a stage first, then single ones, which know better.
    for (all, stage) in [("AllAlpha", "ALPHA"), ("AllBeta", "BETA")] {
        if let Some((_, on)) = given.iter().find(|(name, _)| *name == all) {
            let of_stage = GATES.iter().filter(|(_, of, _)| *of == stage);
            gates.extend(of_stage.map(|(name, ..)| (*name, *on)));
        }
    }
    gates.extend(given);
    Ok(gates)
}

/// A list of cores and ranges of cores, as in `0,2-3`.
///
/// # Errors
/// It is not one.
pub(super) fn cores(text: &str) -> Result<Vec<usize>, String> {
    let invalid =
        || format!("invalid value {text:?} for flag -cores: expected a list such as 0,2-3");
    let mut cores = Vec::new();
    for part in list(text) {
        let (first, last) = part.split_once('-').unwrap_or((&part, &part));
        let first: usize = first.parse().map_err(|_| invalid())?;
        let last: usize = last.parse().map_err(|_| invalid())?;
        if last < first || last > CORES_MAX {
            return Err(invalid());
        }
        cores.extend(first..=last);
    }
    let differing: BTreeSet<_> = cores.iter().collect();
    if differing.len() < cores.len() {
        return Err(format!("invalid value {text:?} for flag -cores: a core is named twice"));
    }
    if cores.len() > EXECUTORS_MAX {
        return Err(format!(
            "invalid value {text:?} for flag -cores: at most {EXECUTORS_MAX} cores can be used"
        ));
    }
    Ok(cores)
}

/// The highest number of a core that can be asked for.
const CORES_MAX: usize = 4095;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_in_go() {
        let seconds = |text| time(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("1m30s"), Some(90.0));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds("-5s"), Some(0.0));
        for wrong in ["5", "", "x", "5 s", "s", "-"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn urls_are_told_apart() {
        let error = |text| urls(text).expect_err("it is wrong");
        assert_eq!(error("foo"), "URL scheme must be http, https, unix, or unixs: foo");
        assert_eq!(error("ftp://a:1"), "URL scheme must be http, https, unix, or unixs: ftp://a:1");
        assert_eq!(error("http://a"), "URL address does not have the form \"host:port\": http://a");
        assert_eq!(error("http://a:1/b"), "URL must not contain a path: http://a:1/b");
        let bind = |text: &str| urls(text).expect("it is right")[0].bind();
        assert_eq!(bind("http://localhost:1"), Ok(Address::Tcp("127.0.0.1:1".into())));
        assert_eq!(bind("http://[::1]:1"), Ok(Address::Tcp("[::1]:1".into())));
        assert_eq!(bind("unix:///tmp/x"), Ok(Address::Unix("/tmp/x".into())));
        assert_eq!(bind("unix:localhost:1"), Ok(Address::Unix("localhost:1".into())));
        assert_eq!(
            bind("http://foo:1"),
            Err("expected IP in URL for binding (http://foo:1)".into())
        );
    }

    #[test]
    fn gates_have_stages() {
        let gate = |text: &str, name| gates(text).expect("it is right")[name];
        assert!(gate("", "FastLeaseKeepAlive") && !gate("", "LeaseCheckpoint"));
        assert!(gate("AllAlpha=true", "LeaseCheckpoint"));
        assert!(!gate("LeaseCheckpoint=false,AllAlpha=true", "LeaseCheckpoint"));
        assert_eq!(gates("Foo=true"), Err("unrecognized feature gate: Foo".into()));
        assert_eq!(gates("AllBeta"), Err("missing bool value for AllBeta".into()));
    }

    #[test]
    fn cores_are_lists_of_ranges() {
        assert_eq!(cores("0,2-3"), Ok(vec![0, 2, 3]));
        assert_eq!(cores(""), Ok(vec![]));
        assert!(cores("3-2").is_err() && cores("a").is_err() && cores("0-99999").is_err());
        let error = |text| cores(text).expect_err("it is refused");
        assert!(error("0,0").ends_with("a core is named twice"), "{}", error("0,0"));
        assert!(error("0-3,2").ends_with("a core is named twice"), "{}", error("0-3,2"));
        assert_eq!(cores("0-254").map(|cores| cores.len()), Ok(255));
        assert!(error("0-255").ends_with("at most 255 cores can be used"), "{}", error("0-255"));
    }
}
