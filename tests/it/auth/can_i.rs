//! `basaltctl auth can-i`, which etcdctl does not have.

use std::process::Command;

use basalt_proto::authpb::permission::Type;

use super::{Administrator, PATIENCE};
use crate::compare::runtime;
use crate::process::{self, Setup, run};
use crate::wire::Wire;

#[test]
fn basaltctl_says_what_a_user_may_do() {
    let server = Setup::new(process::basalt()).flag("bcrypt-cost", "4").start();
    runtime().block_on(async {
        let administrator = Administrator(Wire::new(&server.endpoint()));
        administrator.user("u", "pw").await;
        administrator.role("first", &[(Type::Readwrite, "a", "b")]).await;
        administrator.role("second", &[(Type::Read, "b", "c")]).await;
        for role in ["first", "second", "basalt:backup"] {
            administrator.give("u", role).await;
        }
        administrator.enable("pw").await;
    });
    let told = |arguments: &[&str]| {
        let mut command = Command::new(process::basaltctl());
        command.args(["auth", "can-i"]).args(arguments).args(["--user", "root:pw", "--endpoints"]);
        command.arg(server.endpoint());
        let told = run(command, PATIENCE);
        (told.code, told.stdout.trim().to_owned())
    };
    let (yes, no) = ((Some(0), "yes".to_owned()), (Some(1), "no".to_owned()));
    assert_eq!(told(&["u", "read", "a", "c"]), yes);
    assert_eq!(told(&["u", "readwrite", "a1"]), yes);
    assert_eq!(told(&["u", "read", "a", "--prefix"]), yes);
    assert_eq!(told(&["u", "write", "b"]), no);
    assert_eq!(told(&["u", "read", "a", "--from-key"]), no);
    assert_eq!(told(&["root", "write", "x", "--from-key"]), yes);
    assert_eq!(told(&["nobody", "read", "a"]), (Some(1), String::new()));
    assert_eq!(told(&["u", "sing", "a"]), (Some(128), String::new()));
}
