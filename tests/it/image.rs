//! The container image: its programs run where nothing else is, and equal programs make equal bytes.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{self, Scratch, run};

const PATIENCE: Duration = Duration::from_secs(120);

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/image").join(name))
}

/// Builds an image of the programs in a directory, and returns its tar.
fn build(programs: &Path, out: &Path) -> Vec<u8> {
    let mut build = script("build.sh");
    build.arg("--programs").arg(programs).arg("--out").arg(out);
    build.args(["--compress", "none"]).env("SOURCE_DATE_EPOCH", "1700000000");
    let told = run(build, PATIENCE);
    assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
    std::fs::read(tar_in(out)).unwrap()
}

fn tar_in(out: &Path) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|it| it == "tar")).expect("a tar")
}

#[test]
fn an_image_runs_alone_and_is_the_same_each_time() {
    let scratch = Scratch::new();
    let programs = scratch.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let own = Path::new(env!("CARGO_BIN_EXE_basalt")).to_owned();
    for (path, name) in
        [(own, "basalt"), (process::basaltctl(), "basaltctl"), (process::basaltutl(), "basaltutl")]
    {
        symlink(path, programs.join(name)).unwrap();
    }
    let out = scratch.path().join("out");
    let first = build(&programs, &out);
    assert!(build(&programs, &scratch.path().join("again")) == first, "the same bytes");
    drop(first);
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true"]);
    if run(unshare, PATIENCE).code != Some(0) {
        return println!("skipped: namespaces are not allowed here");
    }
    let mut check = script("check.sh");
    check.arg(tar_in(&out));
    let told = run(check, PATIENCE);
    assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
    assert!(told.stdout.contains("the image serves, over "), "{}", told.stdout);
}
