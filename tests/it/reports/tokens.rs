//! Tokens that ended, and users who were added over JSON.

use std::fs;
use std::time::Duration;

use tokio::time::sleep;

use super::PATIENCE;
use crate::compare::runtime;
use crate::gateway::{ask, framed};
use crate::logins::{enable, fine, invalid, login, used};
use crate::process::{self, Scratch, Server, Setup};

/// etcd-io/etcd#12088 and #21993.
#[test]
fn a_signed_token_that_ended_is_invalid_and_not_logged() {
    let place = Scratch::new();
    let key = place.path().join("key");
    fs::write(&key, "a key of both servers").expect("a new file");
    let signed = format!("jwt,sign-method=HS256,priv-key={},ttl=2s", key.display());
    let tried = async |server: &Server| {
        enable(server, &[("root", "r")]);
        let token = login(server, "root", "r").await.expect("it is right");
        assert_eq!(used(server, &token).await, fine());
        sleep(Duration::from_secs(4)).await;
        assert_eq!(used(server, &token).await, invalid());
        assert!(server.logs.wait_for("invalid auth token", PATIENCE), "{}", server.logs.tail());
        // Its signature, and the whole of it.
        let (_, signature) = token.rsplit_once('.').expect("three parts");
        assert!(!server.logs.mentions(&signature.to_lowercase()), "{}", server.logs.tail());
    };
    runtime().block_on(async {
        let [own, other] = [process::basalt(), process::etcd()].map(|binary| {
            let setup = Setup::new(binary).flag("auth-token", &signed).flag("bcrypt-cost", "4");
            setup.flag("log-level", "debug").start()
        });
        tokio::join!(tried(&own), tried(&other));
    });
}

/// etcd-io/etcd#11414, CVE-2020-15115: there is no policy for passwords, and the empty one is one, unless there is none.
#[test]
fn users_added_over_json_without_a_password_are_those_of_etcd() {
    let conversation = |server: &Server| {
        enable(server, &[("root", "r")]);
        let root = runtime().block_on(login(server, "root", "r")).expect("it is right");
        let header = format!("Authorization: {root}\r\n");
        let post = |path: &str, body: &str, header: &str| {
            let bytes = framed("POST", path, header, body.as_bytes());
            let answer = ask(server, &bytes, None).evened();
            // A token is each server's own.
            let body = answer.body.split("\"token\"").next().unwrap_or_default().to_owned();
            (answer.status, body)
        };
        let mut told = Vec::new();
        for body in [
            r#"{"name":"bare"}"#,
            r#"{"name":"empty","password":""}"#,
            r#"{"name":"none","options":{"no_password":true}}"#,
            r#"{"name":"some","password":"pw"}"#,
            r#"{"name":"hashed","hashedPassword":"bm90aGluZw=="}"#,
            r#"{"name":"both","password":"pw","options":{"no_password":true}}"#,
        ] {
            told.push(post("/v3/auth/user/add", body, &header));
        }
        for user in ["bare", "empty", "none", "some", "hashed", "both"] {
            for password in ["", r#","password":"""#, r#","password":"pw""#] {
                let body = format!(r#"{{"name":"{user}"{password}}}"#);
                told.push(post("/v3/auth/authenticate", &body, ""));
            }
        }
        // GHSA-vjg6-93fv-qv64: the log has the cause.
        let cause = "auth: authentication failed, password was given for no password user";
        assert!(server.logs.wait_for(cause, PATIENCE), "{}", server.logs.tail());
        told
    };
    let [own, other] = [process::basalt(), process::etcd()].map(|binary| {
        let server = Setup::new(binary).flag("bcrypt-cost", "4").start();
        conversation(&server)
    });
    assert_eq!(own, other, "Basalt on the left, etcd on the right");
}
