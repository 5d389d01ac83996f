//! Tokens as entries make, renew and drop them.

use std::ops::Bound;

use basalt_proto::etcdserverpb::token_renew_request::Renewal;
use basalt_proto::etcdserverpb::{TokenIssueRequest, TokenRenewRequest};
use bytes::Bytes;

use super::*;
use crate::store::{Engine as _, Memory, MemoryView, Overlay, Space, View as _};
use crate::types::LogIndex;
use crate::types::limits::{TOKEN_BYTES, TOKENS_BYTES_MAX, TOKENS_OF_USER_MAX};

const TTL_MS: u64 = 300_000;

struct Fixture {
    engine: Memory,
    tx: Overlay<MemoryView>,
    tokens: TokenStore,
}

impl Fixture {
    fn new() -> Self {
        let engine = Memory::default();
        let tx = Overlay::new(engine.view());
        let tokens = TokenStore::open(&engine.view()).expect("it opens");
        Self { engine, tx, tokens }
    }

    fn issue(&mut self, index: LogIndex, user: &str, expires_ms: u64) -> String {
        let letters = letters(&[index as u8; 32]);
        let hash = Bytes::copy_from_slice(&hash(letters.as_bytes()));
        let issue = TokenIssueRequest { user: user.into(), hash, expires_ms, auth_revision: 1 };
        self.tokens.issue(&mut self.tx, index, &issue);
        token(&letters, index)
    }

    fn user_of(&self, token: &str, now_ms: u64) -> Option<String> {
        let (letters, index) = parse(token.as_bytes())?;
        let token = self.tokens.table().get(letters, index)?;
        token.try_use(now_ms, TTL_MS).then(|| token.user().to_string())
    }

    /// As after a restart.
    fn reopen(&mut self) {
        self.engine.commit(self.tx.take()).expect("memory takes it");
        self.tx.rebase(self.engine.view());
        self.tokens = TokenStore::open(&self.engine.view()).expect("it opens");
    }
}

#[test]
fn tokens_have_etcds_form_and_what_has_not_is_none() {
    let letters = letters(&std::array::from_fn(|byte| byte as u8 * 7));
    assert!(letters.len() == 16 && letters.bytes().all(|letter| letter.is_ascii_alphabetic()));
    let own = token(&letters, 42);
    assert_eq!(parse(own.as_bytes()), Some((letters.as_bytes(), 42)));
    for wrong in [
        "",
        "x",
        "abcdefghijklmnop",
        "abcdefghijklmnop.",
        "abcdefghijklmnop.+1",
        "abcdefghijklmnop.1a",
        "abcdefghijklmnop.18446744073709551616",
        "abcdefghijklmno.1",
        "abcdefghijklmno1.1",
        "Bearer abcdefghijklmnop.1",
    ] {
        assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
    }
    assert!(parse(b"abcdefghijklmnop.18446744073709551615").is_some());
    assert_eq!(fingerprint(b"abc"), "ba7816bf8f01");
}

#[test]
fn a_token_is_its_letters_and_its_index_and_survives_a_restart() {
    let mut it = Fixture::new();
    let own = it.issue(7, "alice", TTL_MS);
    let other = it.issue(8, "bob", TTL_MS);
    for _ in 0..2 {
        assert_eq!(it.user_of(&own, 0).as_deref(), Some("alice"));
        assert_eq!(it.user_of(&other, 0).as_deref(), Some("bob"));
        let mixed = format!("{}.8", &own[..16]);
        assert_eq!(it.user_of(&mixed, 0), None);
        assert_eq!(it.user_of(&format!("{}.9", &own[..16]), 0), None);
        it.reopen();
    }
    assert_eq!((it.tokens.len(), it.tokens.table().newest()), (2, 8));
    // Neither the letters nor the token are in the store.
    for pair in it.engine.view().scan(Space::Tokens, Bound::Unbounded, Bound::Unbounded) {
        let (key, value) = pair.expect("it reads");
        let all = [key, value].concat();
        assert!(!all.windows(16).any(|part| part == &own.as_bytes()[..16]));
    }
}

#[test]
fn a_token_lives_as_long_as_it_is_used() {
    let mut it = Fixture::new();
    let own = it.issue(1, "alice", TTL_MS);
    assert_eq!(it.user_of(&own, TTL_MS - 1).as_deref(), Some("alice"));
    assert_eq!(it.user_of(&own, 2 * TTL_MS - 2).as_deref(), Some("alice"), "it was used");
    assert_eq!(it.user_of(&own, 4 * TTL_MS), None);
    // Others know by an entry, and do not remove it before.
    let renewal = Renewal { index: 1, expires_ms: 3 * TTL_MS };
    it.tokens.renew(&mut it.tx, &TokenRenewRequest { renewals: vec![renewal] });
    it.tokens.sweep(&mut it.tx, 3 * TTL_MS);
    it.reopen();
    assert_eq!(it.user_of(&own, 3 * TTL_MS - 1).as_deref(), Some("alice"));
    // It never ends earlier than it was said before.
    let earlier = Renewal { index: 1, expires_ms: 5 };
    let gone = Renewal { index: 9, expires_ms: 9 * TTL_MS };
    it.tokens.renew(&mut it.tx, &TokenRenewRequest { renewals: vec![earlier, gone] });
    assert_eq!(it.tokens.table().find(1).expect("it is there").expires_ms(), 3 * TTL_MS);
    it.tokens.sweep(&mut it.tx, 3 * TTL_MS + 1);
    it.reopen();
    assert!(it.tokens.is_empty());
    assert_eq!(it.user_of(&own, 0), None);
}

#[test]
fn tokens_go_with_their_user_its_password_and_authentication() {
    let mut it = Fixture::new();
    let (alice, bob) = (it.issue(1, "alice", TTL_MS), it.issue(2, "bob", TTL_MS));
    let known = it.tokens.table().find(1).expect("it is there");
    assert!(it.tokens.drop_user(&mut it.tx, "alice", 1));
    it.tokens.password_changed(&mut it.tx, "alice", 5);
    assert!(!known.try_use(0, TTL_MS), "whoever found it before is told");
    assert_eq!((it.user_of(&alice, 0), it.user_of(&bob, 0)), (None, Some("bob".into())));
    it.reopen();
    assert_eq!((it.user_of(&alice, 0), it.user_of(&bob, 0)), (None, Some("bob".into())));
    assert_eq!(it.tokens.table().password_revision("alice"), 5);
    assert_eq!(it.tokens.table().password_revision("bob"), 0);
    assert!(it.tokens.drop_user(&mut it.tx, "bob", 1));
    it.tokens.user_deleted(&mut it.tx, "bob");
    assert!(it.tokens.drop_user(&mut it.tx, "alice", 1));
    it.tokens.user_deleted(&mut it.tx, "alice");
    let again = it.issue(3, "alice", TTL_MS);
    it.reopen();
    assert_eq!((it.user_of(&bob, 0), it.tokens.len()), (None, 1));
    assert_eq!(it.tokens.table().password_revision("alice"), 0);
    let more = it.issue(4, "carol", TTL_MS);
    assert!(!it.tokens.clear(&mut it.tx, 1), "one is left");
    assert!(it.tokens.clear(&mut it.tx, 1));
    it.reopen();
    assert_eq!(it.user_of(&more, 0), None);
    assert_eq!((it.user_of(&again, 0), it.tokens.len()), (None, 0));
}

#[test]
fn a_token_that_is_used_outlives_newer_ones_that_are_not() {
    let mut it = Fixture::new();
    let used = it.issue(1, "alice", TTL_MS);
    let unused = it.issue(2, "alice", TTL_MS);
    let renewal = Renewal { index: 1, expires_ms: TTL_MS + 1 };
    it.tokens.renew(&mut it.tx, &TokenRenewRequest { renewals: vec![renewal] });
    for index in 3..2 + TOKENS_OF_USER_MAX as u64 {
        it.issue(index, "alice", TTL_MS);
    }
    it.reopen();
    assert_eq!(it.tokens.len(), TOKENS_OF_USER_MAX);
    assert_eq!((it.user_of(&used, 0), it.user_of(&unused, 0)), (Some("alice".into()), None));
}

#[test]
fn those_that_end_first_of_too_many_go() {
    let mut it = Fixture::new();
    let bob = it.issue(1, "bob", TTL_MS);
    let first = it.issue(2, "alice", TTL_MS);
    for index in 3..3 + TOKENS_OF_USER_MAX as u64 {
        it.issue(index, "alice", TTL_MS);
    }
    assert_eq!(it.tokens.len(), TOKENS_OF_USER_MAX + 1);
    assert_eq!((it.user_of(&first, 0), it.user_of(&bob, 0)), (None, Some("bob".into())));
    // One that is used stays, others go, however many users there are and whatever the length of their names.
    let renewal = Renewal { index: 1, expires_ms: TTL_MS + 1 };
    it.tokens.renew(&mut it.tx, &TokenRenewRequest { renewals: vec![renewal] });
    let (name, begin) = ("n".repeat(4000), 1_000_000);
    let most = TOKENS_BYTES_MAX / (TOKEN_BYTES + name.len() + 1);
    for index in 0..=most as u64 {
        it.issue(begin + index, &format!("{name}{}", index % 9), TTL_MS);
    }
    for _ in 0..2 {
        let count = it.tokens.len();
        assert!((most - 1..=most + 1).contains(&count), "{count} of {most}");
        assert_eq!(it.tokens.count_of("alice"), 0);
        assert_eq!(it.user_of(&bob, 0).as_deref(), Some("bob"));
        it.reopen();
    }
    // All bytes are given back.
    assert!(it.tokens.clear(&mut it.tx, usize::MAX));
    for index in 0..TOKENS_OF_USER_MAX as u64 {
        it.issue(2_000_000 + index, "alice", TTL_MS);
    }
    assert_eq!(it.tokens.len(), TOKENS_OF_USER_MAX);
}
