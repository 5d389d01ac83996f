//! Users who log in: passwords, tokens, what is written down of them and how much they may ask for. Answers are those of a
//! real etcd, tokens of each are taken by the other where they are signed, and no password and no token is ever found on a
//! disk or in a log.

mod audit;
mod jwt;
mod passwords;
mod secrets;
mod storm;
mod tokens;

use std::process::Command;

use basalt_proto::etcdserverpb::{AuthenticateRequest, AuthenticateResponse};
use tonic::Status;

use crate::process::{Finished, PATIENCE, Server, reference, run};
use crate::wire::{self, Wire};

/// Asks with the real etcdctl.
fn ctl(server: &Server, arguments: &[&str]) -> Finished {
    let mut command = Command::new(reference("etcdctl"));
    command.args(arguments).arg("--endpoints").arg(server.endpoint());
    run(command, PATIENCE)
}

/// The same, which must succeed; gives what it prints.
pub(crate) fn told(server: &Server, arguments: &[&str]) -> String {
    let told = ctl(server, arguments);
    assert_eq!(told.code, Some(0), "etcdctl {arguments:?}\n{}\n{}", told.stdout, told.stderr);
    told.stdout
}

/// Users with these passwords and the role root, and authentication. The same on every server, revision for revision.
pub(crate) fn enable(server: &Server, users: &[(&str, &str)]) {
    for (user, password) in users {
        told(server, &["user", "add", &format!("{user}:{password}")]);
        if *user == "root" {
            told(server, &["role", "add", "root"]);
        }
        told(server, &["user", "grant-role", user, "root"]);
    }
    told(server, &["auth", "enable"]);
}

/// A token for a password.
pub(crate) async fn login(server: &Server, user: &str, password: &str) -> Result<String, Status> {
    login_over(&Wire::new(&server.endpoint()), user, password).await
}

pub(crate) async fn login_over(wire: &Wire, user: &str, password: &str) -> Result<String, Status> {
    let request = AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
    let answer: AuthenticateResponse = wire.ask(wire::AUTHENTICATE, &request).await?;
    Ok(answer.token)
}

/// The outcome of a call, as a client sees it.
pub(crate) fn outcome<T>(result: &Result<T, Status>) -> (i32, String) {
    match result {
        Ok(_) => (0, String::new()),
        Err(status) => (status.code() as i32, status.message().to_owned()),
    }
}

/// The outcomes of a put and a get with a token.
pub(crate) async fn used(server: &Server, token: &str) -> [(i32, String); 2] {
    let wire = Wire::new(&server.endpoint()).with_token(token);
    [outcome(&wire.put("k", "v").await), outcome(&wire.get("k").await)]
}

pub(crate) fn fine() -> [(i32, String); 2] {
    [(0, String::new()), (0, String::new())]
}

pub(crate) fn invalid() -> [(i32, String); 2] {
    let invalid = (16, "etcdserver: invalid auth token".to_owned());
    [invalid.clone(), invalid]
}
