//! The value of `--auth-token`, as etcd parses it (`server/auth/store.go`, `options.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use gocompat::duration;

use super::method::Method;

/// How long a token is valid if the options do not say.
const TTL_DEFAULT: Duration = Duration::from_mins(5);
/// The options that are known.
const KNOWN: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];

/// The kind of tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// Random letters that members look up.
    Simple,
    /// JSON web tokens.
    Jwt(Options),
    /// None: nobody gets one, and each is invalid.
    Nop,
}

/// Options of JSON web tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// How tokens are signed. `None` if the option names no method: etcd reads the files first.
    pub method: Option<Method>,
    /// The file of the private key; `None` to verify only.
    pub private_key: Option<String>,
    /// The file of the public key.
    pub public_key: Option<String>,
    /// How long a token is valid.
    pub ttl: Duration,
    /// Names of options that mean nothing.
    pub unknown: Vec<String>,
}

/// The value is none that etcd starts with. The text is for the log; the start fails with [`Self::TEXT`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidOptions(pub String);

impl InvalidOptions {
    /// The error with which the start fails.
    pub const TEXT: &str = "auth: invalid auth options";
}

impl TokenKind {
    /// Reads the value of the flag.
    ///
    /// # Errors
    /// The kind is unknown, an option is no pair or there twice, or the time is none.
    pub fn parse(text: &str) -> Result<Self, InvalidOptions> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for part in parts {
            let pair: Vec<_> = part.split('=').collect();
            let &[name, value] = pair.as_slice() else {
                return Err(InvalidOptions(format!("invalid token option {part:?}")));
            };
            if options.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(InvalidOptions(format!("duplicate token option {name:?}")));
            }
        }
        match kind {
            "simple" => Ok(Self::Simple),
            "jwt" => Options::read(&options).map(Self::Jwt),
            "" => Ok(Self::Nop),
            other => Err(InvalidOptions(format!("unknown token type {other:?}"))),
        }
    }
}

impl Options {
    fn read(options: &BTreeMap<String, String>) -> Result<Self, InvalidOptions> {
        let given = |name: &str| options.get(name).filter(|value| !value.is_empty()).cloned();
        let ttl = match given("ttl") {
            None => TTL_DEFAULT,
            Some(text) => duration::parse(&text).map_err(InvalidOptions)?,
        };
        let is_unknown = |name: &&String| !KNOWN.contains(&name.as_str());
        Ok(Self {
            method: given("sign-method").and_then(|name| Method::find(&name)),
            private_key: given("priv-key"),
            public_key: given("pub-key"),
            ttl,
            unknown: options.keys().filter(is_unknown).cloned().collect(),
        })
    }
}
