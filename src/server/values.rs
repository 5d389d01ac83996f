//! Values as Go's packages parse them: durations, booleans, numbers, URLs; with their error texts.

use std::collections::BTreeSet;
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

use gocompat::duration;

use super::flag::{Form, Syntax};
use crate::io::Address;
use crate::types::limits::EXECUTORS_MAX;

/// Any text.
pub(super) const TEXT: Syntax<String> = value(|text| Ok(text.to_owned()));
/// `true` or `false`; the flag alone means `true`.
pub(super) const SWITCH: Syntax<bool> =
    Syntax { parse: |text| switch(text).ok_or_else(parse_error), form: Form::Switch };
/// A whole number.
pub(super) const INT: Syntax<i64> = value(whole);
/// A whole number that is not negative.
pub(super) const UINT: Syntax<u64> = value(whole);
/// The same, for numbers of things in memory.
pub(super) const COUNT: Syntax<usize> = value(whole);
/// The same, in milliseconds.
pub(super) const MILLIS: Syntax<Duration> = value(|text| whole(text).map(Duration::from_millis));
/// A whole number of 32 bits. Go's flag package names the function for this one.
pub(super) const UINT32: Syntax<u32> = value(|text| {
    whole(text).map_err(|error| {
        let error = if error == "parse error" { "invalid syntax".to_owned() } else { error };
        format!("strconv.ParseUint: parsing {text:?}: {error}")
    })
});
/// A duration in Go's notation, as in `1m30s`. A negative one counts as zero.
pub(super) const DURATION: Syntax<Duration> =
    Syntax { parse: |text| duration::parse(text).map_err(|_| parse_error()), form: Form::Duration };
/// URLs, separated by commas.
pub(super) const URLS: Syntax<Vec<Url>> = value(urls);
/// Texts, separated by commas.
pub(super) const LIST: Syntax<Vec<String>> = value(|text| Ok(list(text)));
/// URLs or `*`, separated by commas.
pub(super) const ORIGINS: Syntax<Vec<String>> = value(|text| {
    let origins = list(text);
    origins.iter().filter(|it| *it != "*").try_for_each(|it| url(it).map(drop))?;
    Ok(origins)
});

const fn value<T>(parse: fn(&str) -> Result<T, String>) -> Syntax<T> {
    Syntax { parse, form: Form::Value }
}

fn parse_error() -> String {
    "parse error".to_owned()
}

/// The value that belongs to a word.
///
/// # Errors
/// The text is none of the words.
pub(super) fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| "invalid value".to_owned())
}

fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    match text.parse().map_err(|error: ParseIntError| *error.kind()) {
        Ok(number) => Ok(number),
        Err(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
            Err("value out of range".into())
        }
        Err(_) => Err("parse error".into()),
    }
}

/// Go's spellings of true and false.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The elements of a list, trimmed.
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
    /// True for schemes with TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.scheme == "https" || self.scheme == "unixs"
    }

    /// The address to listen on.
    ///
    /// # Errors
    /// The URL has a name where an address is needed.
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

/// Parses URLs separated by commas; the result is sorted, without duplicates.
///
/// # Errors
/// The error of one of them.
pub(super) fn urls(text: &str) -> Result<Vec<Url>, String> {
    let mut urls = list(text).iter().map(|text| url(text)).collect::<Result<Vec<_>, _>>()?;
    urls.sort_by(|one, other| one.text.cmp(&other.text));
    urls.dedup();
    Ok(urls)
}

/// Parses one URL.
///
/// # Errors
/// The error, with Go's or etcd's text.
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

/// A list of cores and ranges of cores, as in `0,2-3`.
///
/// # Errors
/// The text is not such a list.
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

/// The highest number of a core that is accepted.
const CORES_MAX: usize = 4095;

#[cfg(test)]
mod tests {
    use super::*;

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
