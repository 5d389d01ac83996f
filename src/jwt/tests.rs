//! Tokens of all methods, claims, keys and options.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::encoding::BASE64;
use super::method::Scheme;
use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const TTL: Duration = Duration::from_mins(5);

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
}

/// A private key of a method and its public key, as files.
fn files(method: Method) -> KeyFiles {
    fn both(private: &[u8], public: &[u8]) -> KeyFiles {
        let (private, public) = (pem("PRIVATE KEY", private), pem("PUBLIC KEY", public));
        KeyFiles { private: Some(private), public: Some(public), others: Vec::new() }
    }
    match method.scheme() {
        Scheme::Hmac(_) => KeyFiles { private: Some(b"secret\n".to_vec()), ..KeyFiles::default() },
        Scheme::Rsa(..) => {
            let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
            let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).expect("it is written");
            let public: PublicKeyX509Der<'_> = key.public_key().as_der().expect("it is written");
            both(private.as_ref(), public.as_ref())
        }
        Scheme::Ecdsa(algorithm, _) => {
            let key = EcdsaKeyPair::generate(algorithm).expect("a key");
            let private = key.to_pkcs8v1().expect("it is written");
            let public: PublicKeyX509Der<'_> = key.public_key().as_der().expect("it is written");
            both(private.as_ref(), public.as_ref())
        }
        Scheme::Ed25519(_) => {
            let key = Ed25519KeyPair::generate().expect("a key");
            let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).expect("it is written");
            let public: PublicKeyX509Der<'_> = key.public_key().as_der().expect("it is written");
            both(private.as_ref(), public.as_ref())
        }
    }
}

fn keys(method: Method, files: &KeyFiles) -> Keys {
    Keys::read(method, files).expect("keys")
}

#[test]
fn every_method_verifies_what_it_signed_and_nothing_else() {
    for method in Method::ALL {
        let own = files(method);
        let keys = keys(method, &own);
        let token = keys.sign("alice", 7, NOW, TTL).expect("it signs");
        let claims = keys.verify(&token, NOW, true).expect("it verifies");
        assert_eq!((&*claims.user, claims.revision), ("alice", Some(7)), "{method:?}");
        assert_eq!(claims.expires, Some((NOW + TTL).as_secs_f64()));
        assert!(keys.verify(&token, NOW + TTL, true).is_err(), "{method:?}: it has expired");
        let other = Keys::read(method, &KeyFiles { private: Some(b"x".to_vec()), ..own.clone() });
        if let Ok(other) = other {
            assert!(other.verify(&token, NOW, true).is_err(), "{method:?}: it is another key's");
        }
        let mut changed = token.clone().into_bytes();
        changed[token.find('.').expect("it has parts") + 5] ^= 1;
        let changed = String::from_utf8(changed).expect("letters");
        assert!(keys.verify(&changed, NOW, true).is_err(), "{method:?}: it was changed");
        // Whoever only verifies says so.
        if own.public.is_some() {
            let public = Keys::read(method, &KeyFiles { private: None, ..own.clone() });
            let public = public.expect("a public key");
            assert!(public.is_verify_only());
            public.verify(&token, NOW, true).expect("it verifies");
            assert_eq!(public.sign("alice", 7, NOW, TTL), Err(SignError::VerifyOnly));
        }
    }
}

#[test]
fn a_token_is_only_taken_with_the_method_of_the_flag() {
    let rsa = files(Method::Rs256);
    let keys = keys(Method::Rs256, &rsa);
    let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode("{}"));
    assert!(keys.verify(&none, NOW, true).is_err());
    // A public key that is taken for the key of an HMAC.
    let confused = KeyFiles { private: rsa.public.clone(), ..KeyFiles::default() };
    let confused = Keys::read(Method::Hs256, &confused).expect("any bytes are a key");
    let token = confused.sign("root", 1, NOW, TTL).expect("it signs");
    let refused = keys.verify(&token, NOW, true);
    assert_eq!(refused, Err(Invalid("token is unverifiable: invalid signing method")));
    for other in [Method::Rs384, Method::Ps256] {
        let token = Keys::read(other, &rsa).expect("keys").sign("root", 1, NOW, TTL);
        assert!(keys.verify(&token.expect("it signs"), NOW, true).is_err());
    }
}

#[test]
fn claims_are_read_as_go_reads_them() {
    let keys = keys(Method::Hs256, &files(Method::Hs256));
    let verify = |claims: &str, needs_revision: bool| {
        let head = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let mut token = format!("{head}.{}", BASE64.encode(claims));
        let signature = keys.sign_bytes(token.as_bytes()).expect("it signs");
        token = format!("{token}.{}", BASE64.encode(signature));
        keys.verify(&token, NOW, needs_revision)
    };
    let fine = [
        r#"{"username":"a","revision":1}"#,
        r#"{"username":"","revision":1e0}"#,
        r#"{"username":"a","revision":1,"exp":0}"#,
        r#"{"username":"a","revision":1,"exp":1800000001.5,"nbf":1800000000.9}"#,
        r#"{"username":"b","username":"a","revision":1,"more":[{}]}"#,
    ];
    for claims in fine {
        assert!(verify(claims, true).is_ok(), "{claims}");
    }
    let wrong = [
        "",
        "null",
        "[]",
        "{}",
        r#"{"username":"a"}"#,
        r#"{"username":"a","revision":"1"}"#,
        r#"{"username":1,"revision":1}"#,
        r#"{"username":"a","revision":1,"exp":"soon"}"#,
        r#"{"username":"a","revision":1,"exp":null}"#,
        r#"{"username":"a","revision":1,"exp":1800000000.9}"#,
        r#"{"username":"a","revision":1,"nbf":1800000001}"#,
        r#"{"username":"a","revision":1}}"#,
    ];
    for claims in wrong {
        assert!(verify(claims, true).is_err(), "{claims}");
    }
    let without = verify(r#"{"username":"a"}"#, false).expect("no revision is needed");
    assert_eq!(without.revision, None);
    assert_eq!(verify(fine[0], false).expect("it has one").revision, Some(1));
}

#[test]
fn keys_must_be_of_the_method_and_belong_together() {
    let text = |method: Method, files: &KeyFiles| Keys::read(method, files).err().map(|it| it.0);
    for method in Method::ALL {
        let none = text(method, &KeyFiles::default());
        assert_eq!(none.as_deref(), Some("auth: missing key data"));
    }
    for method in [Method::Rs256, Method::Es256, Method::Es512, Method::EdDsa] {
        let mixed = KeyFiles { public: files(method).public, ..files(method) };
        let expected = "auth: public and private keys don't match";
        assert_eq!(text(method, &mixed).as_deref(), Some(expected), "{method:?}");
        let junk = KeyFiles { private: Some(b"junk".to_vec()), ..KeyFiles::default() };
        let expected = "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key";
        assert_eq!(text(method, &junk).as_deref(), Some(expected));
    }
    assert!(text(Method::Es384, &files(Method::Es256)).is_some(), "it is of another curve");
}

#[test]
fn other_keys_verify_too_and_do_not_sign() {
    for method in [Method::Hs256, Method::Es256, Method::Rs512, Method::EdDsa] {
        let (mut new, old) = (files(method), files(method));
        if method == Method::Hs256 {
            new.private = Some(b"another".to_vec());
        }
        let before = keys(method, &old).sign("a", 1, NOW, TTL).expect("it signs");
        assert!(keys(method, &new).verify(&before, NOW, true).is_err());
        let other = old.public.or(old.private).expect("a key");
        let both = keys(method, &KeyFiles { others: vec![other], ..new });
        both.verify(&before, NOW, true).expect("it verifies");
        let after = both.sign("a", 1, NOW, TTL).expect("it signs");
        assert!(
            keys(method, &files(method)).verify(&after, NOW, true).is_err()
                || method == Method::Hs256
        );
    }
}

#[test]
fn whatever_stands_in_for_a_key_is_refused_and_never_worse() {
    let own = files(Method::Es384);
    let der = der::pem_blocks(own.public.as_deref().expect("a key")).remove(0);
    assert!(der::public_key(&der).is_some());
    for end in 0..der.len() {
        assert_eq!(der::public_key(&der[..end]), None, "{end}");
    }
    for at in 0..der.len() {
        for bit in 0..8 {
            let mut changed = der.clone();
            changed[at] ^= 1 << bit;
            let file =
                KeyFiles { public: Some(pem("PUBLIC KEY", &changed)), ..KeyFiles::default() };
            let _ = Keys::read(Method::Es384, &file);
        }
    }
}

#[test]
fn options_are_parsed_as_etcd_parses_them() {
    let parse = TokenKind::parse;
    assert_eq!(parse("simple"), Ok(TokenKind::Simple));
    assert_eq!(parse("simple,ttl=5m"), Ok(TokenKind::Simple));
    assert_eq!(parse(""), Ok(TokenKind::Nop));
    let options = Options {
        method: Some(Method::Ps384),
        private_key: Some("k".into()),
        public_key: Some("p".into()),
        ttl: Duration::from_secs(90),
        unknown: vec!["x".into()],
    };
    let text = "jwt,sign-method=PS384,priv-key=k,pub-key=p,ttl=1m30s,x=1";
    assert_eq!(parse(text), Ok(TokenKind::Jwt(options)));
    for wrong in ["jwt,a", "jwt,a=b=c", "jwt,a=1,a=1", "jwt,ttl=soon", "paper", "simple,a", "jwt,"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    for unnamed in ["jwt", "jwt,sign-method=", "jwt,sign-method=rs256"] {
        let Ok(TokenKind::Jwt(options)) = parse(unnamed) else { panic!("{unnamed} is parsed") };
        assert_eq!((options.method, options.ttl), (None, TTL));
    }
}

#[test]
fn verified_tokens_are_kept_until_they_expire_and_within_bounds() {
    let keys = keys(Method::Hs256, &files(Method::Hs256));
    let mut verified = Verified::new();
    let token = keys.sign("a", 1, NOW, TTL).expect("it signs");
    verified.verify(&keys, &token, NOW, true).expect("it verifies");
    assert_eq!(verified.len(), 1);
    // Other keys would refuse it: it is not verified again.
    let others =
        Keys::read(Method::Hs256, &KeyFiles { private: Some(vec![1]), ..KeyFiles::default() });
    let others = others.expect("keys");
    verified.verify(&others, &token, NOW, true).expect("it was kept");
    assert!(verified.verify(&others, &token, NOW + TTL, true).is_err());
    for revision in 0..20_000 {
        let token = keys.sign("a", revision, NOW, TTL).expect("it signs");
        verified.verify(&keys, &token, NOW, true).expect("it verifies");
    }
    let most = crate::types::limits::JWT_CACHE_BYTES_MAX / token.len();
    assert!(verified.len() <= most, "{}", verified.len());
    assert!(verified.verify(&keys, "a.b.c", NOW, true).is_err());
}

/// The public key of a method as a JSON web key of this name.
fn web_key(method: Method, files: &KeyFiles, id: Option<&str>) -> serde_json::Value {
    let text = |bytes: &[u8]| BASE64.encode(bytes);
    let public = files.public.as_ref().expect("it has one");
    let der = der::pem_blocks(public).remove(0);
    let bits = der::public_key(&der).expect("a key");
    let mut key = match method.scheme() {
        Scheme::Hmac(_) => panic!("it has no public key"),
        Scheme::Rsa(..) => {
            // Two integers; those of openssl have a zero before a first bit that is set.
            let (modulus, exponent) = (&bits[9..9 + 256], &bits[bits.len() - 3..]);
            serde_json::json!({ "kty": "RSA", "n": text(modulus), "e": text(exponent) })
        }
        Scheme::Ecdsa(..) => {
            let (name, length) = method.curve().expect("it has a curve");
            let (x, y) = bits[1..].split_at(length);
            serde_json::json!({ "kty": "EC", "crv": name, "x": text(x), "y": text(y) })
        }
        Scheme::Ed25519(_) => {
            serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": text(bits) })
        }
    };
    if let Some(id) = id {
        key["kid"] = id.into();
    }
    key
}

fn set(keys: &[serde_json::Value]) -> Vec<u8> {
    format!("\n {}", serde_json::json!({ "keys": keys, "more": 1 })).into_bytes()
}

/// Keys that verify by sets alone.
fn read_set(method: Method, file: Vec<u8>) -> Result<Keys, KeyError> {
    Keys::read(method, &KeyFiles { others: vec![file], ..KeyFiles::default() })
}

/// A token with a header of its own.
fn signed_with(keys: &Keys, header: &serde_json::Value) -> String {
    let claims = BASE64.encode(r#"{"username":"alice","revision":7}"#);
    let mut token = format!("{}.{claims}", BASE64.encode(header.to_string()));
    let signature = keys.sign_bytes(token.as_bytes()).expect("it signs");
    token.push('.');
    BASE64.encode_string(signature, &mut token);
    token
}

#[test]
fn sets_of_web_keys_verify_for_each_method_that_has_public_keys() {
    let public = Method::ALL.into_iter().filter(|it| !matches!(it.scheme(), Scheme::Hmac(_)));
    for method in public {
        let (own, other) = (files(method), files(method));
        let token = keys(method, &own).sign("alice", 7, NOW, TTL).expect("it signs");
        let both = [web_key(method, &other, Some("other")), web_key(method, &own, Some("own"))];
        let verifier = read_set(method, set(&both)).expect("keys");
        assert!(verifier.is_verify_only());
        verifier.verify(&token, NOW, true).expect("any of them may have signed it");
        let verifier = read_set(method, set(&both[..1])).expect("keys");
        assert!(verifier.verify(&token, NOW, true).is_err(), "{method:?}: another key's");
        // Keys of other kinds, for other uses and without their parts are passed over.
        let mut changed = both[1].clone();
        changed["use"] = "enc".into();
        assert!(read_set(method, set(&[changed.clone()])).is_err());
        changed["use"] = "sig".into();
        changed["alg"] = "none".into();
        assert!(read_set(method, set(&[changed.clone()])).is_err());
        changed["alg"] = method.name().into();
        let mixed = [serde_json::json!({ "kty": "oct", "k": "AAAA" }), changed.clone()];
        let verifier = read_set(method, set(&mixed)).expect("one is left");
        verifier.verify(&token, NOW, true).expect("it verifies");
        for member in ["n", "e", "crv", "x", "y", "kty"] {
            let mut lacking = changed.clone();
            let was = lacking.as_object_mut().expect("a key").remove(member);
            let read = read_set(method, set(&[lacking]));
            assert_eq!(read.is_err(), was.is_some(), "{method:?} without {member}");
        }
    }
    for wrong in ["{", "{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, r#"{"keys":[]}"#] {
        assert!(read_set(Method::Es256, wrong.into()).is_err(), "{wrong}");
    }
}

#[test]
fn a_token_chooses_its_key_by_name() {
    let method = Method::Es256;
    let (first, second, nameless) = (files(method), files(method), files(method));
    let named = [web_key(method, &first, Some("1")), web_key(method, &second, Some("2"))];
    let public = nameless.public.clone();
    let others = vec![set(&named)];
    let verifier = Keys::read(method, &KeyFiles { public, others, ..KeyFiles::default() });
    let verifier = verifier.expect("keys");
    let is_taken = |signer: &KeyFiles, header: serde_json::Value| {
        let token = signed_with(&keys(method, signer), &header);
        verifier.verify(&token, NOW, true).is_ok()
    };
    let named = |id: &str| serde_json::json!({ "alg": "ES256", "kid": id });
    let unnamed = serde_json::json!({ "alg": "ES256" });
    assert!(is_taken(&first, named("1")) && is_taken(&second, named("2")));
    assert!(!is_taken(&first, named("2")), "the key of that name did not sign it");
    assert!(!is_taken(&first, named("3")), "there is none of that name");
    assert!(is_taken(&nameless, named("3")), "a key without a name may have any");
    assert!(!is_taken(&nameless, named("1")));
    for signer in [&first, &second, &nameless] {
        assert!(is_taken(signer, unnamed.clone()));
    }
}
