//! Users and roles in snapshots from one server to the other.

use std::path::{Path, PathBuf};
use std::process::Command;

use basalt_proto::authpb::permission::Type;
use tonic::{Code, Status};

use super::{Administrator, PATIENCE, login};
use crate::compare::runtime;
use crate::process::{self, Scratch, Setup, reference, run};
use crate::snapshot::restored;
use crate::wire::Wire;

/// Code and text of what is refused.
fn refused<T>(outcome: Result<T, Status>) -> (Code, String) {
    let status = outcome.err().expect("it is refused");
    (status.code(), status.message().to_owned())
}

/// The first request to a server that was made of the file is checked, and passwords and permissions are what they were.
async fn is_as_before(wire: &Wire) {
    let nobody = (Code::InvalidArgument, "etcdserver: user name is empty".to_owned());
    assert_eq!(refused(wire.get("r1").await), nobody);
    assert_eq!(refused(wire.put("r1", "x").await), nobody);
    let wrong = "etcdserver: authentication failed, invalid user ID or password".to_owned();
    assert_eq!(refused(login(wire, "u", "wrong").await), (Code::InvalidArgument, wrong));
    let token = login(wire, "u", "pw").await.expect("the password is right");
    let user = wire.clone().with_token(&token);
    let found = user.get("r1").await.expect("u may read it");
    assert_eq!(found.kvs.len(), 1);
    let denied = (Code::PermissionDenied, "etcdserver: permission denied".to_owned());
    assert_eq!(refused(user.put("r1", "x").await), denied);
    assert_eq!(refused(user.get("x1").await), denied);
    let token = login(wire, "root", "pw").await.expect("the password is right");
    wire.clone().with_token(&token).put("x1", "y").await.expect("root may");
}

fn journey(from: PathBuf, utl: &Path, to: PathBuf) {
    let scratch = Scratch::new();
    let file = scratch.path().join("snapshot.db");
    let file = file.to_str().expect("a path is text");
    runtime().block_on(async {
        let server = Setup::new(from).flag("bcrypt-cost", "4").start();
        let wire = Wire::new(&server.endpoint());
        for key in ["r1", "x1"] {
            wire.put(key, "v").await.expect("auth is off");
        }
        let administrator = Administrator(wire.clone());
        administrator.user("u", "pw").await;
        administrator.role("r", &[(Type::Read, "r", "s")]).await;
        administrator.give("u", "r").await;
        administrator.enable("pw").await;
        is_as_before(&wire).await;
        let mut save = Command::new(reference("etcdctl"));
        save.args(["snapshot", "save", file, "--user", "root:pw", "--endpoints"]);
        save.arg(server.endpoint());
        let told = run(save, PATIENCE);
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        drop(server);
        let mut server = restored(utl, file, to, &[]);
        is_as_before(&Wire::new(&server.endpoint())).await;
        server.kill();
        server.start();
        is_as_before(&Wire::new(&server.endpoint())).await;
    });
}

#[test]
fn etcd_checks_what_basalt_saved() {
    journey(process::basalt(), &reference("etcdutl"), process::etcd());
}

#[test]
fn basalt_checks_what_etcd_saved_from_its_first_request_on() {
    journey(process::etcd(), &process::basaltutl(), process::basalt());
}
