//! Tokens that were verified lately, of one executor.

use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::claims::{Claims, Invalid};
use super::keys::Keys;
use crate::types::limits::{JWT_CACHE_BYTES_MAX, JWT_CACHED_BYTES_MAX};

/// Bytes that a token takes beside its own, and those of its claims.
const OVERHEAD_BYTES: usize = 160;
/// The guess from which the cache sizes its memory of evicted tokens.
const TOKEN_BYTES: usize = 640;

/// A cache of tokens that were verified, bounded in bytes. It belongs to one set of keys: other keys need another one.
pub struct Verified(Cache<Box<str>, Claims, Weight>);

#[derive(Clone)]
struct Weight;

impl Weighter<Box<str>, Claims> for Weight {
    fn weight(&self, token: &Box<str>, claims: &Claims) -> u64 {
        (token.len() + claims.user.len() + OVERHEAD_BYTES) as u64
    }
}

impl Verified {
    /// None yet.
    pub fn new() -> Self {
        let count = JWT_CACHE_BYTES_MAX / TOKEN_BYTES;
        Self(Cache::with_weighter(count, JWT_CACHE_BYTES_MAX as u64, Weight))
    }

    /// Reads a token that is valid at this time.
    ///
    /// # Errors
    /// It is not valid, see [`Keys::verify`].
    pub fn verify(
        &mut self,
        keys: &Keys,
        token: &str,
        now: Duration,
        needs_revision: bool,
    ) -> Result<Claims, Invalid> {
        if let Some(claims) = self.0.get(token) {
            claims.check_time(now)?;
            return Ok(claims.clone());
        }
        let claims = keys.verify(token, now, needs_revision)?;
        if token.len() <= JWT_CACHED_BYTES_MAX {
            self.0.insert(token.into(), claims.clone());
        }
        Ok(claims)
    }

    /// How many tokens are kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells if none is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Verified {
    fn default() -> Self {
        Self::new()
    }
}
