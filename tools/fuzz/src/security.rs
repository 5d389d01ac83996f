//! Tokens, keys, certificates, and rules of the audit log.

use std::sync::LazyLock;
use std::time::Duration;

use basalt::audit::{AuditRecord, Rules, Target, response_revision};
use basalt::jwt::{KeyFiles, Keys, Method, TokenKind};
use basalt::token;
use basalt_proto::rpc::{METHODS, Rpc};
use gotls::{Leaf, Revoked, Roots};

use super::choice;

const SIGNING: [&str; 4] = ["HS256", "RS256", "ES384", "EdDSA"];

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let method = Method::find("HS256").expect("it is known");
    let files = KeyFiles { private: Some(b"a key".to_vec()), ..KeyFiles::default() };
    Keys::read(method, &files).expect("it is a key")
});

/// A token that should be signed; options; a file of keys.
pub(crate) fn jwt(bytes: &[u8]) {
    let (which, rest) = choice(bytes);
    if let Ok(text) = std::str::from_utf8(rest) {
        let now = Duration::from_secs(1_700_000_000);
        if let Ok(claims) = KEYS.verify(text, now, which % 2 == 0) {
            assert_eq!(claims.check_time(now), Ok(()));
        }
        let _ = TokenKind::parse(text);
    }
    let method = Method::find(SIGNING[which % SIGNING.len()]).expect("it is known");
    let file = Some(rest.to_vec());
    let _ = Keys::read(method, &KeyFiles { public: file.clone(), ..KeyFiles::default() });
    let _ = Keys::read(method, &KeyFiles { private: file, ..KeyFiles::default() });
}

/// A simple token. One that is read is written again.
pub(crate) fn token(bytes: &[u8]) {
    let _ = token::fingerprint(bytes);
    if let Some((letters, index)) = token::parse(bytes)
        && let Ok(text) = std::str::from_utf8(letters)
    {
        let written = token::token(text, index);
        assert_eq!(token::parse(written.as_bytes()), Some((letters, index)));
    }
}

/// Files of certificates, keys and revocation lists, and a certificate as it comes from the wire.
pub(crate) fn certificates(bytes: &[u8]) {
    if let Ok(leaf) = Leaf::parse(bytes) {
        let _ = (leaf.verify_host("localhost"), leaf.verify_host("127.0.0.1"));
    }
    if let Ok(revoked) = Revoked::parse(bytes) {
        let _ = revoked.contains(&[1]);
    }
    let _ = Roots::parse(bytes);
    let _ = gotls::key_pair(bytes, bytes);
}

/// Rules of the audit log, and the message of a request of which a line is written.
pub(crate) fn audit(bytes: &[u8]) {
    let (which, message) = choice(bytes);
    let rpc = Rpc::find(METHODS[which % METHODS.len()].path).expect("it is of the table");
    let fields = Target::of(rpc, message).to_fields();
    if let Ok(text) = std::str::from_utf8(message)
        && let Ok(rules) = Rules::parse(text)
    {
        let _ = rules.admits(rpc, Some("root"), message);
    }
    let record = AuditRecord {
        time: Duration::ZERO,
        user: std::str::from_utf8(message).ok(),
        source: "token",
        certificate: None,
        address: "127.0.0.1:1",
        rpc,
        fields: &fields,
        code: 0,
        revision: response_revision(message),
        took: Duration::ZERO,
    };
    let line = record.line();
    let read = serde_json::from_slice::<serde_json::Value>(&line);
    assert!(read.is_ok_and(|read| read.is_object()), "{}", String::from_utf8_lossy(&line));
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
}
