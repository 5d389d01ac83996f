//! JSON web tokens (RFC 7519, signed as RFC 7515 says) as etcd 3.7.1 makes and reads them (`server/auth/jwt.go`), with
//! all of its 13 signing methods. The time is an argument; files are read by `server`.
//!
//! ```text
//!  --auth-token ─TokenKind::parse─► Options ─(files are read)─► Keys ─sign, verify─► token ⇄ Claims
//! ```
//!
//! Verification with RSA takes some 20 us, with P-521 more than 100: [`Verified`] keeps what was verified.

mod der;
mod keys;
mod method;
mod options;
mod verified;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurposeConfig;
use base64::engine::{DecodePaddingMode, GeneralPurpose};
use serde_json::Value;

pub use self::keys::{KeyError, KeyFiles, Keys};
pub use self::method::Method;
pub use self::options::{InvalidOptions, Options, TokenKind};
pub use self::verified::Verified;

/// As Go's `base64.RawURLEncoding`.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// The statements of a token that count.
#[derive(Clone, PartialEq, Debug)]
pub struct Claims {
    /// Claim `username`.
    pub user: Arc<str>,
    /// Claim `revision`: the auth revision at which the token was made. Tokens of other issuers may lack it, if
    /// `--auth-jwt-check-revision=false`.
    pub revision: Option<u64>,
    /// Claim `exp`, seconds since 1970: the token is invalid from then on.
    pub expires: Option<f64>,
    /// Claim `nbf`, seconds since 1970: the token is invalid before.
    pub not_before: Option<f64>,
}

impl Claims {
    /// Tells if the token is valid at this time since 1970.
    ///
    /// # Errors
    /// It has expired, or is not valid yet.
    pub fn check_time(&self, now: Duration) -> Result<(), Invalid> {
        let now = now.as_secs_f64();
        if self.expires.is_some_and(|expires| now >= expires) {
            return Err(Invalid("token has invalid claims: token is expired"));
        }
        if self.not_before.is_some_and(|begins| now < begins) {
            return Err(Invalid("token has invalid claims: token is not valid yet"));
        }
        Ok(())
    }

    fn read(payload: &[u8], needs_revision: bool) -> Result<Self, Invalid> {
        let claims: Value = serde_json::from_slice(payload)
            .map_err(|_| Invalid("token is malformed: could not JSON decode claim"))?;
        let date = |name: &str| match &claims[name] {
            Value::Null if claims.get(name).is_none() => Ok(None),
            // Zero is no date, and parts of seconds do not count, as in Go's library.
            Value::Number(number) => {
                Ok(number.as_f64().filter(|date| *date != 0.0).map(f64::floor))
            }
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                Err(Invalid("token has invalid claims: a date is no number"))
            }
        };
        let (expires, not_before) = (date("exp")?, date("nbf")?);
        let user = claims["username"].as_str().ok_or(Invalid("no user in the claims"))?;
        // Go converts from a floating-point number, too.
        let revision = claims["revision"].as_f64().map(|revision| revision as u64);
        if revision.is_none() && needs_revision {
            return Err(Invalid("no revision in the claims"));
        }
        Ok(Self { user: user.into(), revision, expires, not_before })
    }
}

/// The reason why a token is refused; for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalid(pub &'static str);

impl std::fmt::Display for Invalid {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.0)
    }
}

/// The reason why no token is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignError {
    /// There is no private key.
    VerifyOnly,
    /// The key does not sign.
    Key,
}

impl SignError {
    /// etcd's text, which clients get with the code `Unknown`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::VerifyOnly => "auth: token signing attempted with verify-only key",
            Self::Key => "key is invalid",
        }
    }
}

impl Keys {
    /// A token for this user at this auth revision, which expires after `ttl`.
    ///
    /// # Errors
    /// No key signs.
    pub fn sign(
        &self,
        user: &str,
        revision: u64,
        now: Duration,
        ttl: Duration,
    ) -> Result<String, SignError> {
        let header = serde_json::json!({ "alg": self.method().name(), "typ": "JWT" });
        let expires = now.saturating_add(ttl).as_secs();
        let claims = serde_json::json!({ "exp": expires, "revision": revision, "username": user });
        let [header, claims] = [header, claims].map(|it| BASE64.encode(it.to_string()));
        let mut token = format!("{header}.{claims}");
        let signature = self.sign_bytes(token.as_bytes())?;
        token.push('.');
        BASE64.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Reads a token that one of the keys has signed and that is valid at this time.
    ///
    /// # Errors
    /// It is not such a token.
    pub fn verify(&self, token: &str, now: Duration, needs_revision: bool) -> Result<Claims, Invalid> {
        let malformed = Invalid("token is malformed");
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        if claims.contains('.') {
            return Err(malformed);
        }
        let [Ok(header), Ok(claims), Ok(signature)] = [header, claims, signature].map(|it| BASE64.decode(it))
        else {
            return Err(Invalid("token is malformed: illegal base64 data"));
        };
        let header: Value = serde_json::from_slice(&header)
            .map_err(|_| Invalid("token is malformed: could not JSON decode header"))?;
        if header["alg"].as_str() != Some(self.method().name()) {
            return Err(Invalid("token is unverifiable: invalid signing method"));
        }
        if !self.verify_bytes(signed.as_bytes(), &signature) {
            return Err(Invalid("token signature is invalid"));
        }
        let claims = Claims::read(&claims, needs_revision)?;
        claims.check_time(now)?;
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
