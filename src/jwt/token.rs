//! The text of a token (RFC 7515, compact serialization).

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use super::claims::{Claims, Invalid};
use super::encoding::BASE64;
use super::keys::{Keys, SignError};

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
    pub fn verify(
        &self,
        token: &str,
        now: Duration,
        needs_revision: bool,
    ) -> Result<Claims, Invalid> {
        let malformed = Invalid("token is malformed");
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        if claims.contains('.') {
            return Err(malformed);
        }
        let [Ok(header), Ok(claims), Ok(signature)] =
            [header, claims, signature].map(|it| BASE64.decode(it))
        else {
            return Err(Invalid("token is malformed: illegal base64 data"));
        };
        let header: Value = serde_json::from_slice(&header)
            .map_err(|_| Invalid("token is malformed: could not JSON decode header"))?;
        if header["alg"].as_str() != Some(self.method().name()) {
            return Err(Invalid("token is unverifiable: invalid signing method"));
        }
        if !self.verify_bytes(signed.as_bytes(), &signature, header["kid"].as_str()) {
            return Err(Invalid("token signature is invalid"));
        }
        let claims = Claims::read(&claims, needs_revision)?;
        claims.check_time(now)?;
        Ok(claims)
    }
}
