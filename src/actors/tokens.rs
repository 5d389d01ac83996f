//! Whose tokens are, for all cores of a member.
//!
//! ```text
//!  session ─identify─► KnownTokens of this executor ─► TokenTable, or the keys of JSON web tokens
//!                            └ a use is noted ─► actors::token_renewal
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use quick_cache::unsync::Cache;
use send_wrapper::SendWrapper;

use crate::auth::{AuthInfo, Identified, Permissions, Source};
use crate::io::{Pool, clock};
use crate::jwt::{Claims, Invalid, Keys, SignError, Verified};
use crate::token::{self, Token, TokenTable};
use crate::types::limits::TOKENS_CACHED_MAX;

/// Tells whose tokens are; one for a member.
pub struct Tokens {
    table: ArcSwap<TokenTable>,
    kind: TokenFormat,
}

/// The kind of tokens that a member makes.
pub enum TokenFormat {
    /// Letters and an index, for this long.
    Simple {
        /// How long one lives after its last use.
        ttl: Duration,
    },
    /// Signed.
    Jwt(Jwt),
    /// None: all are invalid.
    Nop,
}

/// How JSON web tokens are made and read.
pub struct Jwt {
    /// The keys; replaced as a whole.
    keys: ArcSwap<Keyring>,
    /// How long one lives.
    ttl: Duration,
    /// True if a token dies with any change of users and roles, as by etcd.
    checks_revision: bool,
}

struct Keyring {
    keys: Keys,
    number: u64,
}

/// Tokens by their text.
type TokenCache = Cache<Box<[u8]>, KnownToken>;

struct KnownToken {
    token: Arc<Token>,
    /// A copy of this executor, so that requests of one user do not count references to one name on several cores.
    user: Arc<str>,
}

/// Tokens that an executor has seen, so that most requests look at nothing that cores share. Each executor has its own; see
/// [`SendWrapper`] for a use elsewhere.
#[derive(Clone)]
pub struct KnownTokens(SendWrapper<Rc<RefCell<Known>>>);

struct Known {
    tokens: TokenCache,
    /// Those that the keys of this number have verified.
    jwts: Option<(u64, Verified)>,
}

impl KnownTokens {
    /// None yet. To be called on the executor that they belong to.
    pub fn new() -> Self {
        let known = Known { tokens: Cache::new(TOKENS_CACHED_MAX), jwts: None };
        Self(SendWrapper::new(Rc::new(RefCell::new(known))))
    }
}

impl Default for KnownTokens {
    fn default() -> Self {
        Self::new()
    }
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

/// Ms since 1970.
pub(super) fn now_ms() -> u64 {
    u64::try_from(clock::unix_time().as_millis()).unwrap_or(u64::MAX)
}

impl Jwt {
    /// Tokens that are signed by these keys.
    pub fn new(keys: Keys, ttl: Duration, checks_revision: bool) -> Self {
        let keys = ArcSwap::from_pointee(Keyring { keys, number: next_number() });
        Self { keys, ttl, checks_revision }
    }

    /// Replaces the keys: what only the old ones have signed is invalid at once.
    pub fn replace_keys(&self, keys: Keys) {
        self.keys.store(Arc::new(Keyring { keys, number: next_number() }));
    }

    /// Makes a token, on another thread: signatures with RSA take a millisecond.
    ///
    /// # Errors
    /// There is no private key, or it does not sign.
    pub async fn sign(&self, user: &str, revision: u64) -> Result<String, SignError> {
        let (ring, user, ttl) = (self.keys.load_full(), user.to_owned(), self.ttl);
        let sign = move || ring.keys.sign(&user, revision, clock::unix_time(), ttl);
        Pool::Cpu.run_if_wanted(sign).await
    }

    fn verify(&self, known: &mut Known, token: &str) -> Result<Claims, Invalid> {
        let ring = self.keys.load();
        let (_, verified) = match &mut known.jwts {
            Some(kept) if kept.0 == ring.number => kept,
            other => other.insert((ring.number, Verified::new())),
        };
        verified.verify(&ring.keys, token, clock::unix_time(), self.checks_revision)
    }
}

impl Tokens {
    /// Tokens of this kind; simple ones are in the table.
    pub fn new(kind: TokenFormat, table: Arc<TokenTable>) -> Self {
        Self { table: ArcSwap::new(table), kind }
    }

    /// The kind of tokens.
    pub fn kind(&self) -> &TokenFormat {
        &self.kind
    }

    /// When a simple token expires that is made now, unless it is used.
    pub fn expires_ms(&self) -> u64 {
        let ttl = match &self.kind {
            TokenFormat::Simple { ttl } => *ttl,
            TokenFormat::Jwt(_) | TokenFormat::Nop => Duration::ZERO,
        };
        now_ms().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// A snapshot replaced the state, and all tokens with it.
    pub fn replace(&self, table: Arc<TokenTable>) {
        self.table.swap(table).invalidate();
    }

    pub(super) fn table(&self) -> Arc<TokenTable> {
        self.table.load_full()
    }

    fn simple(
        &self,
        known: &mut TokenCache,
        token: &[u8],
        ttl: Duration,
    ) -> Result<Arc<str>, Identified> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let now_ms = now_ms();
        if let Some(found) = known.get(token)
            && found.token.try_use(now_ms, ttl_ms)
        {
            return Ok(Arc::clone(&found.user));
        }
        let (letters, index) = token::parse(token).ok_or(Identified::Invalid)?;
        let table = self.table.load();
        match table.get(letters, index).filter(|found| found.try_use(now_ms, ttl_ms)) {
            Some(found) => {
                let user: Arc<str> = Arc::from(&**found.user());
                known.insert(token.into(), KnownToken { token: found, user: Arc::clone(&user) });
                Ok(user)
            }
            None if index > table.newest() => Err(Identified::NotApplied(index)),
            None => Err(Identified::Invalid),
        }
    }

    fn jwt(
        &self,
        known: &mut Known,
        jwt: &Jwt,
        token: &[u8],
        permissions: &Permissions,
    ) -> Option<AuthInfo> {
        let token = std::str::from_utf8(token).ok()?;
        let claims = match jwt.verify(known, token) {
            Ok(claims) => claims,
            Err(why) => {
                let token_fingerprint = token::fingerprint(token.as_bytes());
                tracing::warn!(token_fingerprint, error = %why, "failed to parse a JWT token");
                return None;
            }
        };
        let revision = match claims.revision {
            // One that no auth store ever had is still somebody's.
            Some(revision) if jwt.checks_revision => revision.max(1),
            // Made before the user was given the password that it has now.
            Some(revision) if revision < self.table.load().password_revision(&claims.user) => {
                return None;
            }
            Some(_) | None => permissions.revision(),
        };
        Some(AuthInfo { user: claims.user, revision, source: Source::Jwt })
    }
}

impl Tokens {
    /// Whose this token is. `permissions` are those that the request is judged by: a simple token counts as of their revision.
    pub fn identify(
        &self,
        known: &KnownTokens,
        token: &[u8],
        permissions: &Permissions,
    ) -> Identified {
        let known = &mut *known.0.borrow_mut();
        match &self.kind {
            TokenFormat::Nop => Identified::Invalid,
            TokenFormat::Jwt(jwt) => {
                let found = self.jwt(known, jwt, token, permissions);
                found.map_or(Identified::Invalid, Identified::Known)
            }
            TokenFormat::Simple { ttl } => match self.simple(&mut known.tokens, token, *ttl) {
                Err(identified) => identified,
                Ok(user) => Identified::Known(AuthInfo {
                    user,
                    revision: permissions.revision(),
                    source: Source::Token,
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::TokenIssueRequest;
    use bytes::Bytes;

    use super::*;
    use crate::jwt::{KeyFiles, Method};
    use crate::store::{Engine as _, Memory, Overlay};

    const TTL: Duration = Duration::from_mins(5);

    /// A token of alice, which an entry with this index made.
    fn issue(index: u64, expires_ms: u64) -> (token::TokenStore, String) {
        let view = Memory::default().view();
        let mut tokens = token::TokenStore::open(&view).expect("it opens");
        let letters = token::letters(&[7; 32]);
        let hash = Bytes::copy_from_slice(&token::hash(letters.as_bytes()));
        let issue = TokenIssueRequest { user: "alice".into(), hash, expires_ms, auth_revision: 1 };
        tokens.issue(&mut Overlay::new(view), index, &issue);
        let text = token::token(&letters, index);
        (tokens, text)
    }

    fn user(tokens: &Tokens, known: &KnownTokens, token: &str) -> Result<String, Identified> {
        match tokens.identify(known, token.as_bytes(), &Permissions::default()) {
            Identified::Known(identity) => Ok(identity.user.to_string()),
            other @ (Identified::NotApplied(_) | Identified::Invalid) => Err(other),
        }
    }

    #[test]
    fn a_token_that_may_come_is_told_from_one_that_is_none() {
        let (table, own) = issue(7, u64::MAX);
        let known = KnownTokens::new();
        let tokens = Tokens::new(TokenFormat::Simple { ttl: TTL }, Arc::clone(table.table()));
        for _ in 0..2 {
            assert_eq!(user(&tokens, &known, &own), Ok("alice".to_owned()));
        }
        let letters = &own[..16];
        assert_eq!(user(&tokens, &known, &format!("{letters}.6")), Err(Identified::Invalid));
        assert_eq!(user(&tokens, &known, &format!("{letters}.8")), Err(Identified::NotApplied(8)));
        assert_eq!(user(&tokens, &known, "aaaaaaaaaaaaaaaa.7"), Err(Identified::Invalid));
        assert_eq!(user(&tokens, &known, "nonsense"), Err(Identified::Invalid));
        // A snapshot came: what this executor knew counts no more.
        tokens.replace(Arc::default());
        assert_eq!(user(&tokens, &known, &own), Err(Identified::NotApplied(7)));
        let (_, expired) = issue(7, 1);
        let (table, _) = issue(7, 1);
        let tokens = Tokens::new(TokenFormat::Simple { ttl: TTL }, Arc::clone(table.table()));
        assert_eq!(user(&tokens, &known, &expired), Err(Identified::Invalid));
    }

    #[test]
    fn signed_tokens_end_with_their_keys_and_with_the_password_before() {
        let keys = |secret: &[u8]| {
            let files = KeyFiles { private: Some(secret.to_vec()), ..KeyFiles::default() };
            Keys::read(Method::Hs256, &files).expect("a key")
        };
        let signed = |revision: u64| {
            let now = clock::unix_time();
            keys(b"a").sign("alice", revision, now, TTL).expect("it signs")
        };
        let provider = |checks: bool, table: &Arc<TokenTable>| {
            Tokens::new(TokenFormat::Jwt(Jwt::new(keys(b"a"), TTL, checks)), Arc::clone(table))
        };
        let (mut table, _) = issue(7, u64::MAX);
        let known = [(); 2].map(|()| KnownTokens::new());
        let revision = |tokens: &Tokens, token: &str| match tokens.identify(
            &known[usize::from(
                matches!(tokens.kind(), TokenFormat::Jwt(jwt) if jwt.checks_revision),
            )],
            token.as_bytes(),
            &Permissions::default(),
        ) {
            Identified::Known(identity) => Some(identity.revision),
            Identified::Invalid | Identified::NotApplied(_) => None,
        };
        let now = Permissions::default().revision();
        let (strict, lenient) = (provider(true, table.table()), provider(false, table.table()));
        assert_eq!(revision(&strict, &signed(3)), Some(3));
        assert_eq!(revision(&lenient, &signed(3)), Some(now));
        table.password_changed(&mut Overlay::new(Memory::default().view()), "alice", 4);
        assert_eq!(revision(&strict, &signed(3)), Some(3), "the check of permissions refuses it");
        assert_eq!(revision(&lenient, &signed(3)), None);
        assert_eq!(revision(&lenient, &signed(4)), Some(now));
        let TokenFormat::Jwt(jwt) = lenient.kind() else { panic!("it is signed") };
        jwt.replace_keys(keys(b"b"));
        assert_eq!(revision(&lenient, &signed(4)), None);
    }
}
