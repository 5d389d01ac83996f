//! The content of a token.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

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

    pub(super) fn read(payload: &[u8], needs_revision: bool) -> Result<Self, Invalid> {
        let claims: Value = serde_json::from_slice(payload)
            .map_err(|_| Invalid("token is malformed: could not JSON decode claim"))?;
        let date = |name: &str| match &claims[name] {
            Value::Null if claims.get(name).is_none() => Ok(None),
            // Zero is no date, and parts of seconds do not count, as in Go's library.
            Value::Number(number) => {
                Ok(number.as_f64().filter(|date| *date != 0.0).map(f64::floor))
            }
            Value::Null
            | Value::Bool(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => Err(Invalid("token has invalid claims: a date is no number")),
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
