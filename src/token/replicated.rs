//! Tokens as entries of the log change them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use basalt_proto::etcdserverpb::{TokenIssueRequest, TokenRecord, TokenRenewRequest};
use bytes::Bytes;
use prost::Message as _;

use super::format::TokenHash;
use super::table::{Token, TokenTable};
use crate::store::{Overlay, Space, View};
use crate::types::limits::{TOKEN_BYTES, TOKENS_BYTES_MAX, TOKENS_OF_USER_MAX, TOKENS_SWEPT_MAX};
use crate::types::{Fault, LogIndex};

/// First bytes of keys in the store: of a token under its index, and of the auth revision of a user's password.
const TOKEN: u8 = b't';
const PASSWORD: u8 = b'u';

/// The replicated tokens. Entries alone change them.
#[derive(Debug)]
pub struct TokenStore {
    table: Arc<TokenTable>,
    /// Each user's tokens by the time at which they expire.
    users: BTreeMap<Arc<str>, BTreeSet<(u64, LogIndex)>>,
    /// Tokens by the time at which they expire.
    by_end: BTreeSet<(u64, LogIndex)>,
    /// The sum of [`token_bytes`] of all.
    bytes: usize,
}

/// Bytes that a token of this user counts.
fn token_bytes(user: &str) -> usize {
    TOKEN_BYTES + user.len()
}

impl TokenStore {
    /// Reads tokens from the store.
    ///
    /// # Errors
    /// The store cannot be read, or holds what is no token.
    pub fn open(view: &impl View) -> Result<Self, Fault> {
        let mut tokens = Self {
            table: Arc::default(),
            users: BTreeMap::new(),
            by_end: BTreeSet::new(),
            bytes: 0,
        };
        for pair in view.scan(Space::Tokens, Bound::Unbounded, Bound::Unbounded) {
            let (key, value) = pair?;
            let damaged = || Fault::new("a token in the store does not read back");
            match key.split_first() {
                Some((&TOKEN, index)) => {
                    let index = LogIndex::from_be_bytes(index.try_into().map_err(|_| damaged())?);
                    let record = TokenRecord::decode(value).map_err(|_| damaged())?;
                    let hash = record.hash[..].try_into().map_err(|_| damaged())?;
                    tokens.keep(index, &record.user, hash, record.expires_ms);
                }
                Some((&PASSWORD, user)) => {
                    let user = std::str::from_utf8(user).map_err(|_| damaged())?;
                    let revision = value[..].try_into().map_err(|_| damaged())?;
                    tokens.table.set_password(user.into(), u64::from_be_bytes(revision));
                }
                Some(_) | None => return Err(damaged()),
            }
        }
        Ok(tokens)
    }

    /// The table that all cores look tokens up in.
    pub fn table(&self) -> &Arc<TokenTable> {
        &self.table
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_end.len()
    }

    /// Tells if there are none.
    pub fn is_empty(&self) -> bool {
        self.by_end.is_empty()
    }

    /// How many a user has.
    pub fn count_of(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, BTreeSet::len)
    }

    /// Keeps a token that the entry with this index makes. Of too many, of the user or of all users, the one goes that expires
    /// first: the oldest of those that were not used lately. A hash of another length is nobody's: no member proposes one.
    pub fn issue<V: View>(
        &mut self,
        tx: &mut Overlay<V>,
        index: LogIndex,
        issue: &TokenIssueRequest,
    ) {
        let Ok(hash) = issue.hash[..].try_into() else { return };
        let own = self.users.get(issue.user.as_str());
        if let Some(own) = own.filter(|own| own.len() >= TOKENS_OF_USER_MAX)
            && let Some((_, oldest)) = own.first().copied()
        {
            self.drop_token(tx, oldest);
        }
        while self.bytes + token_bytes(&issue.user) > TOKENS_BYTES_MAX
            && let Some((_, oldest)) = self.by_end.first().copied()
        {
            self.drop_token(tx, oldest);
        }
        self.keep(index, &issue.user, hash, issue.expires_ms);
        self.write(tx, index);
    }

    /// Moves the end of tokens that were used. Those that are gone stay so.
    pub fn renew<V: View>(&mut self, tx: &mut Overlay<V>, renew: &TokenRenewRequest) {
        for renewal in &renew.renewals {
            let Some(token) = self.table.find(renewal.index) else { continue };
            if token.expires_ms() >= renewal.expires_ms {
                continue;
            }
            let (old, new) =
                ((token.expires_ms(), renewal.index), (renewal.expires_ms, renewal.index));
            self.by_end.remove(&old);
            self.by_end.insert(new);
            if let Some(own) = self.users.get_mut(token.user()) {
                own.remove(&old);
                own.insert(new);
            }
            token.set_expires_ms(renewal.expires_ms);
            self.write(tx, renewal.index);
        }
    }

    /// Drops tokens that expired before this time, as the replicated state knows it: the oldest [`TOKENS_SWEPT_MAX`], so
    /// that an entry takes no longer than others.
    pub fn sweep<V: View>(&mut self, tx: &mut Overlay<V>, before_ms: u64) {
        for _ in 0..TOKENS_SWEPT_MAX {
            match self.by_end.first().copied() {
                Some((end_ms, index)) if end_ms < before_ms => self.drop_token(tx, index),
                Some(_) | None => return,
            }
        }
    }

    /// Drops all tokens, as many as `budget` at a time: authentication is off. Returns true when none is left.
    pub fn clear<V: View>(&mut self, tx: &mut Overlay<V>, budget: usize) -> bool {
        for _ in 0..budget {
            let Some((_, index)) = self.by_end.first().copied() else { break };
            self.drop_token(tx, index);
        }
        self.is_empty()
    }

    /// A user has a password since this auth revision. Tokens of another one before go first, by [`TokenStore::drop_user`].
    pub fn password_changed<V: View>(&mut self, tx: &mut Overlay<V>, user: &str, revision: u64) {
        self.table.set_password(user.into(), revision);
        let revision = Bytes::copy_from_slice(&revision.to_be_bytes());
        tx.put(Space::Tokens, password_key(user), revision);
    }

    /// A user is gone. Its tokens go first, by [`TokenStore::drop_user`].
    pub fn user_deleted<V: View>(&mut self, tx: &mut Overlay<V>, user: &str) {
        self.table.remove_password(user);
        tx.delete(Space::Tokens, password_key(user));
    }

    /// Drops a user's tokens, as many as `budget` at a time. Returns true when none is left.
    pub fn drop_user<V: View>(&mut self, tx: &mut Overlay<V>, user: &str, budget: usize) -> bool {
        for _ in 0..budget {
            let first = self.users.get(user).and_then(BTreeSet::first).copied();
            let Some((_, index)) = first else { break };
            self.drop_token(tx, index);
        }
        self.count_of(user) == 0
    }

    fn drop_token<V: View>(&mut self, tx: &mut Overlay<V>, index: LogIndex) {
        let Some(token) = self.table.remove(index) else { return };
        self.by_end.remove(&(token.expires_ms(), index));
        self.bytes -= token_bytes(token.user());
        if let Some(own) = self.users.get_mut(token.user()) {
            own.remove(&(token.expires_ms(), index));
            if own.is_empty() {
                self.users.remove(token.user());
            }
        }
        tx.delete(Space::Tokens, token_key(index));
    }

    fn keep(&mut self, index: LogIndex, user: &str, hash: TokenHash, expires_ms: u64) {
        let user = match self.users.get_key_value(user) {
            Some((known, _)) => Arc::clone(known),
            None => user.into(),
        };
        self.users.entry(Arc::clone(&user)).or_default().insert((expires_ms, index));
        self.by_end.insert((expires_ms, index));
        self.bytes += token_bytes(&user);
        self.table.insert(index, Token::new(user, hash, expires_ms));
    }

    fn write<V: View>(&self, tx: &mut Overlay<V>, index: LogIndex) {
        let Some(token) = self.table.find(index) else { return };
        let record = TokenRecord {
            user: token.user().to_string(),
            hash: Bytes::copy_from_slice(token.hash()),
            expires_ms: token.expires_ms(),
        };
        tx.put(Space::Tokens, token_key(index), record.encode_to_vec().into());
    }
}

fn token_key(index: LogIndex) -> Bytes {
    [&[TOKEN][..], &index.to_be_bytes()].concat().into()
}

fn password_key(user: &str) -> Bytes {
    [&[PASSWORD][..], user.as_bytes()].concat().into()
}
