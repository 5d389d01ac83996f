//! JSON web tokens, made by etcd and read by Basalt, and the other way round.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::sleep;

use super::{enable, fine, login, outcome, told, used};
use crate::compare::runtime;
use crate::process::{self, Finished, Logs, Scratch, Server, Setup, run};

/// Methods, and how openssl makes their keys. Without `LOGINS_JWT=all` one of each family, and the one that libraries lack.
const METHODS: [(&str, &str); 13] = [
    ("HS256", "a secret of two words"),
    ("RS256", "genrsa 2048"),
    ("PS384", "genrsa 2048"),
    ("ES256", "ecparam -name prime256v1 -genkey -noout"),
    ("ES512", "ecparam -name secp521r1 -genkey -noout"),
    ("EdDSA", "genpkey -algorithm ed25519"),
    ("HS384", "another secret"),
    ("HS512", "a third one"),
    ("RS384", "genrsa -traditional 2048"),
    ("RS512", "genrsa 3072"),
    ("PS256", "genrsa 2048"),
    ("PS512", "genrsa 2048"),
    ("ES384", "ecparam -name secp384r1 -genkey -noout"),
];
const SHORT: usize = 6;

fn openssl(place: &Path, arguments: &str) -> Finished {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(place);
    let told = run(command, super::PATIENCE);
    assert_eq!(told.code, Some(0), "openssl {arguments}: {}", told.stderr);
    told
}

/// The value of `--auth-token` with new keys.
fn keys(place: &Path, method: &str, make: &str) -> String {
    let name = method.to_lowercase();
    match method.starts_with("HS") {
        true => fs::write(place.join(format!("{name}.pem")), format!("{make} {method}\n"))
            .expect("it is written"),
        false => {
            let (verb, rest) = make.split_once(' ').expect("a verb and its arguments");
            openssl(place, &format!("{verb} -out {name}.pem {rest}"));
        }
    }
    let private = place.join(format!("{name}.pem")).display().to_string();
    let public = match method {
        _ if method.starts_with("HS") => String::new(),
        // A certificate holds a public key, too.
        "RS256" => {
            let subject = "-subj /CN=jwt -days 2";
            openssl(place, &format!("req -x509 -new -key {name}.pem {subject} -out {name}.pub"));
            format!(",pub-key={}", place.join(format!("{name}.pub")).display())
        }
        _ => {
            openssl(place, &format!("pkey -in {name}.pem -pubout -out {name}.pub"));
            format!(",pub-key={}", place.join(format!("{name}.pub")).display())
        }
    };
    format!("jwt,sign-method={method},priv-key={private}{public},ttl=1m")
}

fn start(binary: std::path::PathBuf, token: &str) -> Server {
    Setup::new(binary).flag("bcrypt-cost", "4").flag("auth-token", token).start()
}

#[test]
fn tokens_of_each_are_taken_by_the_other() {
    let all = std::env::var("LOGINS_JWT").is_ok_and(|value| value == "all");
    let place = Scratch::new();
    runtime().block_on(async {
        for (method, make) in METHODS.iter().take(if all { METHODS.len() } else { SHORT }) {
            let flag = keys(place.path(), method, make);
            let servers = [start(process::basalt(), &flag), start(process::etcd(), &flag)];
            servers.iter().for_each(|server| enable(server, &[("root", "r")]));
            let mut claims = Vec::new();
            for maker in &servers {
                let token = login(maker, "root", "r").await.expect("it is right");
                for server in &servers {
                    assert_eq!(used(server, &token).await, fine(), "{method}: {token}");
                }
                let parts: Vec<_> = token.split('.').collect();
                let part = |at: usize| URL_SAFE_NO_PAD.decode(parts[at]).expect("base64");
                let text = |at: usize| String::from_utf8(part(at)).expect("JSON");
                // Times differ.
                claims.push((text(0), text(1).split_once(',').expect("claims").1.to_owned()));
                // Changed in its last letter, and with none of its signature.
                let cut = format!("{}.{}.", parts[0], parts[1]);
                for server in &servers {
                    assert_eq!(used(server, &cut).await, super::invalid(), "{method}");
                }
            }
            assert_eq!(claims[0], claims[1], "{method}");
            // A change of users and roles ends all of them.
            let token = login(&servers[0], "root", "r").await.expect("it is right");
            for server in &servers {
                told(server, &["--user", "root:r", "role", "add", "more"]);
                let [put, get] = used(server, &token).await;
                assert_eq!(
                    put,
                    (3, "etcdserver: revision of auth store is old".into()),
                    "{method}"
                );
                assert_eq!(put, get);
            }
        }
    });
}

#[test]
fn a_start_without_keys_fails_as_etcds() {
    let place = Scratch::new();
    openssl(place.path(), "genrsa -out a.pem 2048");
    openssl(place.path(), "genrsa -out b.pem 2048");
    openssl(place.path(), "pkey -in b.pem -pubout -out b.pub");
    fs::write(place.path().join("junk"), "junk").expect("it is written");
    let path = |name: &str| place.path().join(name).display().to_string();
    let (own, other, junk) = (path("a.pem"), path("b.pub"), path("junk"));
    let fatal = |binary: std::path::PathBuf, token: &str| {
        let mut server = Server::new(Setup::new(binary).flag("auth-token", token));
        server.launch();
        let status = server.wait_exit(super::PATIENCE).expect("it ends");
        let fatal = |logs: &Logs| {
            let all = logs.all();
            let line = all.lines().rfind(|line| line.contains(r#""level":"fatal""#))?.to_owned();
            let fields: serde_json::Value = serde_json::from_str(&line).ok()?;
            Some(fields["error"].as_str()?.to_owned())
        };
        (status.code(), fatal(&server.logs))
    };
    for token in [
        "jwt,sign-method=RS256".to_owned(),
        format!("jwt,sign-method=RS256,priv-key={own},pub-key={other}"),
        format!("jwt,sign-method=RS256,priv-key={own}x"),
        format!("jwt,sign-method=RS256,priv-key={junk}"),
        format!("jwt,sign-method=ES256,priv-key={own}"),
        format!("jwt,sign-method=RS257,priv-key={own}"),
        format!("jwt,sign-method=HS256,pub-key={other}"),
        format!("jwt,sign-method=RS256,priv-key={own},ttl=soon"),
        format!("jwt,sign-method=RS256,priv-key={own},priv-key={own}"),
        "jwt".to_owned(),
        "paper".to_owned(),
        "simple,a".to_owned(),
    ] {
        let (ours, theirs) = (fatal(process::basalt(), &token), fatal(process::etcd(), &token));
        assert_eq!(ours, theirs, "{token}");
        assert!(ours.1.is_some(), "{token}");
    }
}

#[test]
fn keys_that_only_verify_make_no_tokens() {
    let place = Scratch::new();
    keys(place.path(), "ES256", "ecparam -name prime256v1 -genkey -noout");
    let public = place.path().join("es256.pub").display().to_string();
    runtime().block_on(async {
        let flag = format!("jwt,sign-method=ES256,pub-key={public}");
        let servers = [start(process::basalt(), &flag), start(process::etcd(), &flag)];
        let mut answers = Vec::new();
        for server in &servers {
            enable(server, &[("root", "r")]);
            answers.push(outcome(&login(server, "root", "r").await));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].0, 2, "{answers:?}");
    });
}

/// Other keys are taken without a restart, and tokens outlive changes that are nothing to them.
#[test]
fn keys_are_rotated_and_tokens_outlive_changes_of_others() {
    let place = Scratch::new();
    let make = "ecparam -name prime256v1 -genkey -noout";
    let old = keys(place.path(), "ES256", make);
    let read = |name: &str| fs::read(place.path().join(name)).expect("it is there");
    let old_files = (read("es256.pem"), read("es256.pub"));
    keys(place.path(), "ES256", make);
    let new_files = (read("es256.pem"), read("es256.pub"));
    let write = |name: &str, bytes: &[u8]| {
        fs::write(place.path().join(name), bytes).expect("it is written");
    };
    write("es256.pem", &old_files.0);
    write("es256.pub", &old_files.1);
    let more = place.path().join("more.pub");
    fs::write(&more, &new_files.1).expect("it is written");
    runtime().block_on(async {
        let setup = Setup::new(process::basalt())
            .flag("bcrypt-cost", "4")
            .flag("auth-token", &old)
            .flag("auth-jwt-public-keys", &more.display().to_string())
            .flag("auth-jwt-check-revision", "false");
        let server = setup.start();
        enable(&server, &[("root", "r"), ("alice", "a")]);
        let token = login(&server, "alice", "a").await.expect("it is right");
        told(&server, &["--user", "root:r", "role", "add", "more"]);
        told(&server, &["--user", "root:r", "user", "add", "bob:b"]);
        assert_eq!(used(&server, &token).await, fine(), "it is nothing to alice");
        // Both keys verify while the files are replaced.
        write("es256.pem", &new_files.0);
        write("es256.pub", &new_files.1);
        write("more.pub", &old_files.1);
        assert!(server.logs.wait_for("took other keys", super::PATIENCE));
        let newer = login(&server, "alice", "a").await.expect("it is right");
        assert_eq!(used(&server, &token).await, fine());
        assert_eq!(used(&server, &newer).await, fine());
        // The old key goes, and with it what it signed. A half-written file changes nothing.
        write("more.pub", b"-----BEGIN");
        assert!(server.logs.wait_for("keys of JSON web tokens were not replaced", super::PATIENCE));
        assert_eq!(used(&server, &token).await, fine());
        write("more.pub", &new_files.1);
        for _ in 0..300 {
            if used(&server, &token).await != fine() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(used(&server, &token).await, super::invalid());
        assert_eq!(used(&server, &newer).await, fine());
        let passwd = ["--user", "root:r", "user", "passwd", "alice", "--interactive=false"];
        told(&server, &passwd);
        assert_eq!(used(&server, &newer).await, super::invalid(), "alice has another password");
    });
}

/// The set of an issuer: its keys by name, as JSON web keys. A key is RSA, as `openssl` makes it.
fn publish(place: &Path, names: &[&str]) {
    let key = |name: &&str| {
        let told = openssl(place, &format!("rsa -in {name}.pem -noout -modulus")).stdout;
        let (_, digits) = told.trim().split_once('=').expect("Modulus=digits");
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits");
        let modulus: Vec<_> = (0..digits.len()).step_by(2).map(byte).collect();
        let n = URL_SAFE_NO_PAD.encode(modulus);
        serde_json::json!({ "kty": "RSA", "use": "sig", "kid": name, "n": n, "e": "AQAB" })
    };
    let keys: Vec<_> = names.iter().map(key).collect();
    let next = place.join("next.jwks");
    fs::write(&next, serde_json::json!({ "keys": keys }).to_string()).expect("it is written");
    fs::rename(next, place.join("issuer.jwks")).expect("it is replaced");
}

/// A token of an issuer that is no etcd: signed by `openssl` with the key of this name.
fn foreign(place: &Path, signer: &str, named: &str) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": named }));
    let signed = format!("{header}.{}", part(serde_json::json!({ "username": "root" })));
    fs::write(place.join("signed"), &signed).expect("it is written");
    openssl(place, &format!("dgst -sha256 -sign {signer}.pem -out signature signed"));
    let signature = fs::read(place.join("signature")).expect("it is there");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn tokens_of_an_issuer_are_verified_by_its_set_of_keys() {
    let place = Scratch::new();
    let dir = place.path();
    for name in ["etcd", "one", "two"] {
        openssl(dir, &format!("genrsa -out {name}.pem 2048"));
    }
    publish(dir, &["etcd", "one"]);
    let set = dir.join("issuer.jwks").display().to_string();
    runtime().block_on(async {
        let maker = format!("jwt,sign-method=RS256,priv-key={}", dir.join("etcd.pem").display());
        let maker = start(process::etcd(), &maker);
        let server = Setup::new(process::basalt())
            .flag("bcrypt-cost", "4")
            .flag("auth-token", "jwt,sign-method=RS256")
            .flag("auth-jwt-public-keys", &set)
            .flag("auth-jwt-check-revision", "false")
            .start();
        enable(&maker, &[("root", "r")]);
        enable(&server, &[("root", "r")]);
        let of_etcd = login(&maker, "root", "r").await.expect("it is right");
        let (one, two) = (foreign(dir, "one", "one"), foreign(dir, "two", "two"));
        assert_eq!(used(&server, &of_etcd).await, fine(), "it names no key");
        assert_eq!(used(&server, &one).await, fine());
        assert_eq!(used(&server, &foreign(dir, "one", "etcd")).await, super::invalid());
        assert_eq!(used(&server, &two).await, super::invalid());
        // It is read again.
        publish(dir, &["etcd", "two"]);
        assert!(server.logs.wait_for("took other keys", super::PATIENCE));
        assert_eq!(used(&server, &two).await, fine());
        assert_eq!(used(&server, &one).await, super::invalid());
        // A file that is no set leaves the last one in force.
        fs::write(&set, "{").expect("it is written");
        assert!(server.logs.wait_for("keys of JSON web tokens were not replaced", super::PATIENCE));
        assert_eq!(used(&server, &two).await, fine());
    });
}
