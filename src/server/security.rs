//! How users prove who they are, what is written down about them and how much they may ask for: from flags and files to what
//! serves requests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::settings::Flags;
use super::table;
use crate::actors::tokens::{Jwt, TokenFormat, Tokens};
use crate::audit::Rules;
use crate::io::{
    self, LogKind, LogOutput, LogQueue, Passwords, Pool, RotatedFile, Rotation, clock,
};
use crate::jwt::{InvalidOptions, KeyFiles, Keys, Options, TokenKind};
use crate::metrics;
use crate::ratelimit::{Limits, RateLimiter};
use crate::rpc::{Audit, Policy};
use crate::token::TokenTable;
use crate::types::Fault;
use crate::types::limits::{AUDIT_GATHER, AUDIT_QUEUE_BYTES_MAX};

/// The time between two looks at the files of keys.
const RELOAD: Duration = Duration::from_secs(10);
const TTL_DEFAULT: u64 = 300;
const COST_DEFAULT: u64 = 10;
/// Costs that bcrypt knows.
const COSTS: std::ops::RangeInclusive<u64> = 4..=31;
const MEBIBYTE: u64 = 1 << 20;

/// The flags about users.
#[derive(Clone, Debug)]
pub(super) struct Security {
    /// `--auth-token`.
    token: String,
    /// `--auth-token-ttl`.
    token_ttl: Duration,
    /// `--auth-jwt-public-keys`.
    jwt_keys: Vec<String>,
    /// `--auth-jwt-check-revision`.
    jwt_checks_revision: bool,
    /// `--bcrypt-cost`, or its default.
    bcrypt_cost: u32,
    /// `--audit-log-path`, if there is one.
    audit: Option<AuditFlags>,
    /// `--limit-user-…` and `--limit-client-…`.
    user: Limits,
    client: Limits,
}

#[derive(Clone, Debug)]
struct AuditFlags {
    path: String,
    rules: Rules,
    rotation: Rotation,
    waits: bool,
}

impl Security {
    /// # Errors
    /// The rules of the audit log make no sense.
    pub(super) fn read(flags: &Flags) -> Result<Self, String> {
        let cost = table::BCRYPT_COST.get(flags);
        let cost = if COSTS.contains(&cost) { cost } else { COST_DEFAULT };
        let ttl = match table::AUTH_TOKEN_TTL.get(flags) {
            0 => TTL_DEFAULT,
            seconds => seconds,
        };
        let limit = |limit: u64| (limit > 0).then_some(limit);
        Ok(Self {
            token: table::AUTH_TOKEN.get(flags),
            token_ttl: Duration::from_secs(ttl),
            jwt_keys: table::AUTH_JWT_PUBLIC_KEYS.get(flags),
            jwt_checks_revision: table::AUTH_JWT_CHECK_REVISION.get(flags),
            bcrypt_cost: u32::try_from(cost).unwrap_or(COST_DEFAULT as u32),
            audit: AuditFlags::read(flags)?,
            user: Limits {
                requests: limit(table::LIMIT_USER_REQUESTS.get(flags)),
                bytes: limit(table::LIMIT_USER_BYTES.get(flags)),
                ranges: limit(table::LIMIT_USER_RANGES.get(flags)),
                watches: limit(table::LIMIT_USER_WATCHES.get(flags)),
            },
            client: Limits {
                requests: limit(table::LIMIT_CLIENT_REQUESTS.get(flags)),
                bytes: limit(table::LIMIT_CLIENT_BYTES.get(flags)),
                ranges: limit(table::LIMIT_CLIENT_RANGES.get(flags)),
                watches: limit(table::LIMIT_CLIENT_WATCHES.get(flags)),
            },
        })
    }

    /// Tells if the cost that was given is none.
    pub(super) fn has_invalid_cost(flags: &Flags) -> bool {
        !COSTS.contains(&table::BCRYPT_COST.get(flags))
    }

    /// Tells if tokens are such that whoever sees one can use it.
    pub(super) fn has_simple_tokens(&self) -> bool {
        TokenKind::parse(&self.token) == Ok(TokenKind::Simple)
    }

    /// Threads that hash passwords.
    pub(super) fn passwords(&self) -> Result<Passwords, Fault> {
        Passwords::start(self.bcrypt_cost)
    }

    /// The kind of tokens, keys read.
    pub(super) async fn token_kind(&self) -> Result<TokenFormat, Fault> {
        match TokenKind::parse(&self.token) {
            Err(invalid) => Err(invalid_options(&invalid.0)),
            Ok(TokenKind::Nop) => Ok(TokenFormat::Nop),
            Ok(TokenKind::Simple) => {
                tracing::warn!("simple token is not cryptographically signed");
                Ok(TokenFormat::Simple { ttl: self.token_ttl })
            }
            Ok(TokenKind::Jwt(options)) => {
                let (others, ttl) = (self.jwt_keys.clone(), options.ttl);
                let asked = options.clone();
                let keys = Pool::Durable.run(move || read_keys(&asked, &others)).await;
                let keys = keys.map_err(|error| match error {
                    KeysError::Options(why) => invalid_options(&why),
                    KeysError::Keys(why) => no_provider(&why),
                })?;
                if !options.unknown.is_empty() {
                    tracing::warn!(keys = ?options.unknown, "unknown JWT options");
                }
                Ok(TokenFormat::Jwt(Jwt::new(keys, ttl, self.jwt_checks_revision)))
            }
        }
    }

    /// Tells whose tokens are, with those that the store holds.
    pub(super) fn tokens(&self, kind: TokenFormat, table: &Arc<TokenTable>) -> Arc<Tokens> {
        let tokens = Arc::new(Tokens::new(kind, Arc::clone(table)));
        if let Ok(TokenKind::Jwt(options)) = TokenKind::parse(&self.token) {
            io::spawn(reload(options, self.jwt_keys.clone(), Arc::clone(&tokens)));
        }
        tokens
    }

    /// The audit log, and the limits of requests.
    pub(super) fn policy(&self) -> Result<Arc<Policy>, Fault> {
        let audit = self.audit.as_ref().map(AuditFlags::start).transpose()?;
        let limiter = RateLimiter::new(self.user, self.client);
        Ok(Arc::new(Policy::new(audit, (!limiter.is_off()).then_some(limiter))))
    }
}

fn invalid_options(why: &str) -> Fault {
    tracing::error!(error = why, "problem loading JWT options");
    no_provider(InvalidOptions::TEXT)
}

fn no_provider(why: &str) -> Fault {
    tracing::warn!(error = why, "failed to create token provider");
    Fault::new(why)
}

enum KeysError {
    /// A file cannot be read, or there is no such method.
    Options(String),
    /// They are no keys.
    Keys(String),
}

/// Reads the files of keys. Blocks.
fn read_keys(options: &Options, others: &[String]) -> Result<Keys, KeysError> {
    let read = |path: &String| {
        std::fs::read(path).map_err(|error| KeysError::Options(format!("open {path}: {error}")))
    };
    let files = KeyFiles {
        public: options.public_key.as_ref().map(read).transpose()?,
        private: options.private_key.as_ref().map(read).transpose()?,
        others: others.iter().map(read).collect::<Result<_, _>>()?,
    };
    let unknown = || KeysError::Options("auth: invalid auth signature method".to_owned());
    let method = options.method.ok_or_else(unknown)?;
    Keys::read(method, &files).map_err(|error| KeysError::Keys(error.0))
}

/// Takes other keys when files have changed. Those that do not read leave the last ones in force.
async fn reload(options: Options, others: Vec<String>, tokens: Arc<Tokens>) {
    let TokenFormat::Jwt(jwt) = tokens.kind() else { return };
    let paths: Vec<PathBuf> = [&options.public_key, &options.private_key]
        .into_iter()
        .flatten()
        .chain(&others)
        .map(PathBuf::from)
        .collect();
    let stamp = move || {
        let stamps = paths.iter().map(|path| std::fs::read(path).ok());
        stamps.collect::<Vec<_>>()
    };
    let mut known = Pool::Durable.run(stamp.clone()).await;
    loop {
        clock::sleep(RELOAD).await;
        let found = Pool::Durable.run(stamp.clone()).await;
        if found == known {
            continue;
        }
        known = found;
        let (options, others) = (options.clone(), others.clone());
        match Pool::Durable.run(move || read_keys(&options, &others)).await {
            Ok(keys) => {
                jwt.replace_keys(keys);
                tracing::info!("took other keys of JSON web tokens");
            }
            Err(KeysError::Options(error) | KeysError::Keys(error)) => {
                tracing::warn!(error, "keys of JSON web tokens were not replaced");
            }
        }
    }
}

impl AuditFlags {
    fn read(flags: &Flags) -> Result<Option<Self>, String> {
        let path = table::AUDIT_LOG_PATH.get(flags);
        let rules = Rules::parse(&table::AUDIT_LOG_RULES.get(flags))
            .map_err(|why| format!("--audit-log-rules: {why}"))?;
        let age = table::AUDIT_LOG_MAXAGE.get(flags);
        let count = table::AUDIT_LOG_MAXBACKUP.get(flags);
        let rotation = Rotation {
            bytes_max: table::AUDIT_LOG_MAXSIZE.get(flags).max(1).saturating_mul(MEBIBYTE),
            count_max: (count > 0).then_some(count),
            age_max: (age > 0).then(|| Duration::from_secs(age.saturating_mul(86_400))),
            compressed: table::AUDIT_LOG_COMPRESS.get(flags),
        };
        let waits = table::AUDIT_LOG_MODE.get(flags);
        Ok((!path.is_empty()).then_some(Self { path, rules, rotation, waits }))
    }

    fn start(&self) -> Result<Audit, Fault> {
        let output = match self.path.as_str() {
            "stdout" | "-" => LogOutput::Stdout,
            path => LogOutput::Rotated(
                RotatedFile::open(path, self.rotation)
                    .map_err(|error| Fault::new(format!("open the audit log {path}: {error}")))?,
            ),
        };
        let kind = LogKind {
            name: "audit",
            bytes_max: AUDIT_QUEUE_BYTES_MAX,
            bytes_errors: 0,
            dropped: &metrics::AUDIT_LINES_DROPPED,
            gather: AUDIT_GATHER,
        };
        // The metric tells of lines that were dropped, and so does the log itself.
        let reports = Box::new(|dropped: u64| {
            let line = (dropped > 0).then(|| format!("{{\"dropped-lines\":{dropped}}}\n"));
            line.into_iter().collect()
        });
        let queue = LogQueue::start(kind, vec![output], reports)?;
        Ok(Audit::new(self.rules.clone(), queue, self.waits))
    }
}
