//! A server runs on the cores of its affinity mask, whatever their numbers.

use std::process::Command;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::process::{self, Logs, Server, Setup, basalt, reference, run};

#[test]
fn a_server_keeps_to_the_cores_it_was_given() {
    let own = sched_getaffinity(None).expect("every process has a mask");
    let last = (0..CpuSet::MAX_CPU).rfind(|core| own.is_set(*core)).expect("we run somewhere");
    let server = Server::new(Setup::new(basalt()));
    let plain = server.command();
    let mut bound = Command::new("taskset");
    bound.args(["-c", &last.to_string()]).arg(plain.get_program()).args(plain.get_args());
    bound.current_dir(plain.get_current_dir().expect("it has one"));
    let mut child = process::spawn(bound);
    let logs = Logs::default();
    logs.read(child.stderr.take().expect("piped"));
    let ready = logs.wait_for("ready to serve client requests", Duration::from_secs(30));
    assert!(ready, "{}", logs.tail());
    let mut put = Command::new(reference("etcdctl"));
    put.args(["put", "k", "v", "--endpoints", &server.endpoint()]);
    assert_eq!(run(put, Duration::from_secs(10)).stdout, "OK");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
    let masks: Vec<String> = tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .map(|status| status.split_once("Cpus_allowed_list:\t").unwrap().1.to_owned())
        .collect();
    let _ = child.kill();
    let _ = child.wait();
    assert!(masks.len() > 3, "executors and threads: {}", masks.len());
    for mask in masks {
        assert_eq!(mask.lines().next(), Some(last.to_string().as_str()));
    }
}
