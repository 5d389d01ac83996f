//! Files in `deploy` for those who run Basalt: they are well-formed, and agree with the flags, the programs and the sandbox.

mod fake_set;
mod stateful_set;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::process::{self, PATIENCE, Scratch, run};

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a YAML file.
fn documents(path: &str) -> Vec<Value> {
    let text = text(path);
    let documents = serde_norway::Deserializer::from_str(&text);
    let parsed = documents.map(serde::Deserialize::deserialize);
    parsed
        .map(|it: Result<Value, _>| it.unwrap_or_else(|error| panic!("{path}: {error}")))
        .collect()
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

#[test]
fn every_file_of_deploy_is_well_formed_and_names_this_version() {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy"), &mut found);
    let image = format!("docker.io/library/basalt:{}", env!("CARGO_PKG_VERSION"));
    let mut kinds = BTreeSet::new();
    for path in found {
        let content = fs::read_to_string(&path).unwrap();
        let shown = path.display();
        match path.extension().and_then(|it| it.to_str()) {
            Some("yaml") => assert!(!documents(path.to_str().unwrap()).is_empty(), "{shown}"),
            Some("json") => drop(serde_json::from_str::<Value>(&content).expect("it is JSON")),
            Some("service" | "conf") => assert!(content.contains("[Service]\n"), "{shown}"),
            Some("md") => (),
            other => panic!("{shown}: a file of an unknown kind, {other:?}"),
        }
        let images = content.lines().filter_map(|line| line.trim().strip_prefix("image: "));
        images.for_each(|named| assert_eq!(named, image, "{shown}"));
        kinds.insert(path.extension().map(|it| it.to_owned()));
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}

#[test]
fn kubeadms_patches_change_the_container_of_etcd() {
    for patches in ["patches", "patches-io-uring"] {
        // The name of the file is the target and the kind of the patch.
        let patch = &documents(&format!("deploy/kubeadm/{patches}/etcd+strategic.yaml"))[0];
        assert_eq!((&patch["kind"], &patch["metadata"]["name"]), (&"Pod".into(), &"etcd".into()));
        let container = &patch["spec"]["containers"][0];
        assert_eq!(container["name"], "etcd");
        assert!(container.get("command").is_none(), "kubeadm's command stays");
    }
}

/// The command of the StatefulSet is one that the program accepts, and a container of its settings can run its member.
#[test]
fn the_stateful_set_starts_a_member() {
    let documents = documents("deploy/kubernetes/statefulset.yaml");
    let of_kind = |kind: &str| documents.iter().find(|it| it["kind"] == kind).expect("it is there");
    let spec = &of_kind("StatefulSet")["spec"];
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["command"], serde_json::json!(["/usr/local/bin/basalt", "pod"]));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let scratch = Scratch::new();
    let arguments = container["args"].as_array().unwrap().iter().map(|argument| {
        let argument = argument.as_str().unwrap().replace("$(POD_NAME)", "basalt-1");
        assert!(!argument.contains("$("), "{argument}");
        let mount = &container["volumeMounts"][0]["mountPath"];
        argument.replace(mount.as_str().unwrap(), &scratch.path().display().to_string())
    });
    let (own, members): (Vec<_>, Vec<_>) = arguments.partition(|it| it.starts_with("--pod-"));
    let value = |flag: &str| {
        let start = format!("--{flag}=");
        own.iter().find_map(|it| it.strip_prefix(&start)).unwrap_or_else(|| panic!("{flag}"))
    };
    // As many as found it must be there at first, all at once, each by its name before it is ready.
    assert_eq!(spec["replicas"].as_u64().unwrap().to_string(), value("pod-founders"));
    assert_eq!(spec["podManagementPolicy"], "Parallel");
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"]["whenScaled"], "Retain");
    let names = &documents.iter().find(|it| it["spec"]["clusterIP"] == "None").unwrap();
    assert_eq!(names["spec"]["publishNotReadyAddresses"], true);
    assert_eq!(names["metadata"]["name"], spec["serviceName"]);
    for (flag, port) in
        [("pod-peer-url", "peer"), ("pod-client-url", "client"), ("pod-listen", "pod")]
    {
        let ports = names["spec"]["ports"].as_array().unwrap();
        let named = ports.iter().find(|it| it["name"] == port).unwrap();
        assert!(value(flag).ends_with(&format!(":{}", named["port"])), "{flag}");
    }
    // The account may ask the one question, and its pods have it.
    let rule = &of_kind("Role")["rules"][0];
    assert_eq!(rule["resources"], serde_json::json!(["statefulsets/scale"]));
    assert_eq!(rule["verbs"], serde_json::json!(["get"]));
    let (account, set) = (
        &of_kind("ServiceAccount")["metadata"]["name"],
        &of_kind("StatefulSet")["metadata"]["name"],
    );
    assert_eq!((&rule["resourceNames"][0], &pod["serviceAccountName"]), (set, account));
    let bound = of_kind("RoleBinding");
    assert_eq!(
        (&bound["subjects"][0]["name"], &bound["roleRef"]["name"]),
        (account, &of_kind("Role")["metadata"]["name"])
    );
    let mut doctor = Command::new(process::basalt());
    // The program adds those URLs.
    let url = value("pod-client-url").replace("{pod}", "basalt-1");
    doctor.args(["doctor", "-w", "json", "--advertise-client-urls", &url]).args(members);
    let told = run(doctor, PATIENCE);
    let report: Value = serde_json::from_str(&told.stdout).expect("a report");
    assert!(matches!(told.code, Some(0 | 1)), "{report:#}");
    let notes = report["notes"].as_array().unwrap();
    assert!(!notes.iter().any(|note| note.as_str().unwrap().contains("no effect")), "{notes:?}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing is left behind");
    // The flags of the program itself, with a name that has no ordinal.
    let mut refused = Command::new(process::basalt());
    refused.args(["pod", "--name=basalt"]).args(&own);
    let told = run(refused, PATIENCE);
    assert_eq!(told.code, Some(2), "{}", told.stderr);
    assert!(told.stderr.contains("ends with its ordinal"), "{}", told.stderr);
}

/// Names of system calls in the sandbox's lists.
fn listed_calls() -> BTreeSet<String> {
    let source = text("tools/sandbox/src/runtime_default.rs");
    let lists = source.split("calls! {\n").skip(1).filter_map(|rest| rest.split("\n};").next());
    let words = lists.flat_map(|list| list.split_whitespace().map(str::to_owned));
    words.filter_map(|word| word.strip_prefix("SYS_").map(str::to_owned)).collect()
}

#[test]
fn the_seccomp_profile_is_the_runtimes_and_io_uring() {
    let profile: Value = serde_json::from_str(&text("deploy/seccomp/basalt.json")).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().unwrap();
    let names = |rule: &Value| {
        let names = rule["names"].as_array().unwrap().clone();
        names.into_iter().map(|name| name.as_str().unwrap().to_owned())
    };
    let is_plain = |rule: &&Value| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none();
    let allowed: BTreeSet<String> = rules.iter().filter(is_plain).flat_map(names).collect();
    let mut expected = listed_calls();
    assert!(expected.len() > 250, "{}", expected.len());
    // It is refused by a rule of its own, in the sandbox by a second filter.
    assert!(expected.remove("clone3"));
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(expected.insert(call.to_owned()), "{call} is not in RuntimeDefault");
    }
    assert_eq!(allowed, expected);
    // The log of the kernel needs a capability, and two kinds of sockets have been ways out of containers.
    assert!(!allowed.contains("syslog"));
    let sockets = rules.iter().filter(|rule| names(rule).any(|it| it == "socket"));
    let sockets: Vec<_> =
        sockets.map(|rule| (&rule["args"][0]["op"], &rule["args"][0]["value"])).collect();
    let (alg, vsock) = (libc::AF_ALG, libc::AF_VSOCK);
    let [below, between, above] = sockets[..] else { panic!("{sockets:?}") };
    assert_eq!(below, (&"SCMP_CMP_LT".into(), &alg.into()));
    assert_eq!(between, (&"SCMP_CMP_EQ".into(), &(alg + 1).into()));
    assert_eq!(above, (&"SCMP_CMP_GT".into(), &vsock.into()));
    for conditional in ["clone", "socket", "personality"] {
        let has_condition = |rule: &&Value| names(rule).any(|it| it == conditional);
        let rule = rules.iter().find(has_condition).expect("it is allowed");
        assert_eq!(rule["args"].as_array().unwrap().len(), 1, "{conditional}");
    }
}

#[test]
fn systemds_unit_is_notified_and_the_drop_in_replaces_the_command() {
    let unit = text("deploy/systemd/basalt.service");
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nWatchdogSec="), "{unit}");
    let variables = unit.split("ETCD_").skip(1).filter_map(|rest| rest.split(['=', ' ']).next());
    let mut help = Command::new(process::basalt());
    help.arg("--help");
    let help = run(help, PATIENCE).stdout;
    for variable in variables.filter(|it| it.chars().all(|it| it.is_uppercase() || it == '_')) {
        let flag = format!("  --{} '", variable.to_lowercase().replace('_', "-"));
        assert!(help.contains(&flag), "{variable}");
    }
    let drop_in = text("deploy/systemd/etcd.service.d/basalt.conf");
    assert!(drop_in.contains("\nExecStart=\nExecStart=/usr/local/bin/basalt\n"), "{drop_in}");
}
