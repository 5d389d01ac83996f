//! Tokens as all cores see them: read by many, changed by who applies entries alone, each part for a moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::format::{TokenHash, hash};
use crate::types::LogIndex;

/// Parts of the table, each with a lock of its own.
const PARTS: usize = 64;
/// The time between two notes of the use of one token, in ms, so that cores that use the same do not write to it each time.
const NOTED_MS: u64 = 1000;

/// A token, for as long as somebody knows it.
#[derive(Debug)]
pub struct Token {
    user: Arc<str>,
    hash: TokenHash,
    /// As entries say.
    expires_ms: AtomicU64,
    /// When it was used here; 0 for never.
    used_ms: AtomicU64,
    dropped: AtomicBool,
}

impl Token {
    pub(super) fn new(user: Arc<str>, hash: TokenHash, expires_ms: u64) -> Self {
        let (expires_ms, used_ms) = (AtomicU64::new(expires_ms), AtomicU64::new(0));
        Self { user, hash, expires_ms, used_ms, dropped: AtomicBool::new(false) }
    }

    /// Whose it is.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    pub(super) fn hash(&self) -> &TokenHash {
        &self.hash
    }

    /// When it expires unless it is used, as all members know it.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms.load(Relaxed)
    }

    pub(super) fn set_expires_ms(&self, expires_ms: u64) {
        self.expires_ms.store(expires_ms, Relaxed);
    }

    /// When it expires, its uses on this member counted in.
    pub fn ends_ms(&self, ttl_ms: u64) -> u64 {
        let used_ms = self.used_ms.load(Relaxed);
        let renewed_ms = if used_ms == 0 { 0 } else { used_ms.saturating_add(ttl_ms) };
        self.expires_ms().max(renewed_ms)
    }

    /// Uses the token, which is then valid for another `ttl_ms`; tells if it still is one.
    pub fn try_use(&self, now_ms: u64, ttl_ms: u64) -> bool {
        if self.dropped.load(Relaxed) || now_ms >= self.ends_ms(ttl_ms) {
            return false;
        }
        if now_ms >= self.used_ms.load(Relaxed).saturating_add(NOTED_MS.min(ttl_ms / 8)) {
            self.used_ms.store(now_ms, Relaxed);
        }
        true
    }
}

/// All tokens of a member.
#[derive(Debug)]
pub struct TokenTable {
    parts: [RwLock<BTreeMap<LogIndex, Arc<Token>>>; PARTS],
    /// The auth revision at which a user was given its password.
    passwords: RwLock<BTreeMap<Arc<str>, u64>>,
    /// The newest index that a token was made at.
    newest: AtomicU64,
}

impl Default for TokenTable {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| RwLock::default()),
            passwords: RwLock::default(),
            newest: AtomicU64::new(0),
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl TokenTable {
    fn part(&self, index: LogIndex) -> &RwLock<BTreeMap<LogIndex, Arc<Token>>> {
        &self.parts[index as usize % PARTS]
    }

    /// The token that an entry made, whatever its letters are.
    pub(super) fn find(&self, index: LogIndex) -> Option<Arc<Token>> {
        read(self.part(index)).get(&index).cloned()
    }

    /// The token with these letters. It may have expired.
    pub fn get(&self, letters: &[u8], index: LogIndex) -> Option<Arc<Token>> {
        let token = self.find(index)?;
        // Hashes are compared: the time that it takes tells nothing of the letters.
        (token.hash == hash(letters)).then_some(token)
    }

    /// The newest index that a token was made at.
    pub fn newest(&self) -> LogIndex {
        self.newest.load(Relaxed)
    }

    /// The auth revision at which a user was given its password; 0 if that was before this was noted.
    pub fn password_revision(&self, user: &str) -> u64 {
        read(&self.passwords).get(user).copied().unwrap_or(0)
    }

    /// Parts of the table, for those who look at all tokens and let others run in between.
    pub fn each_part<T>(
        &self,
        mut look: impl FnMut(LogIndex, &Token) -> Option<T>,
    ) -> impl Iterator<Item = Vec<T>> {
        self.parts.iter().map(move |part| {
            read(part).iter().filter_map(|(index, token)| look(*index, token)).collect()
        })
    }

    /// All tokens of this table are gone: another one replaces it.
    pub fn invalidate(&self) {
        for part in &self.parts {
            read(part).values().for_each(|token| token.dropped.store(true, Relaxed));
        }
    }

    pub(super) fn insert(&self, index: LogIndex, token: Token) {
        write(self.part(index)).insert(index, Arc::new(token));
        self.newest.fetch_max(index, Relaxed);
    }

    pub(super) fn remove(&self, index: LogIndex) -> Option<Arc<Token>> {
        let token = write(self.part(index)).remove(&index)?;
        token.dropped.store(true, Relaxed);
        Some(token)
    }

    pub(super) fn set_password(&self, user: Arc<str>, revision: u64) {
        write(&self.passwords).insert(user, revision);
    }

    pub(super) fn remove_password(&self, user: &str) {
        write(&self.passwords).remove(user);
    }
}
