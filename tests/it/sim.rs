//! Simulated clusters: some seeds, all scenarios, and a check that the checkers find planted bugs.
//! `cargo run --release --bin sim` runs any number of them.

use std::process::Command;

/// Seeds of each kind that run here; a second or so each.
const STORMS: &str = "24";
const SCENARIO_SEEDS: &str = "2";

/// Number of seeds within which each planted bug must be found, measured, with some room; and the scenario that storms
/// rarely contain by themselves.
const PLANTED: [(&str, u64, Option<&str>); 18] = [
    ("AckBeforePersist", 20, None),
    ("VoteNotPersisted", 100, None),
    ("StaleReadIndex", 40, None),
    ("ReadBeforeApplied", 60, None),
    ("WrongTruncation", 60, Some("ReplacedEntries")),
    ("LostTailAccepted", 40, None),
    ("CutBeforeSync", 40, None),
    ("AppliedIndexAhead", 40, None),
    ("DuplicateApply", 40, None),
    ("DeposedRevoke", 100, None),
    ("WatchBatchCut", 60, None),
    ("WatchRepeats", 20, None),
    ("RepliesToStrangers", 120, None),
    ("ProposalRepeated", 20, None),
    ("PromiseForgotten", 40, Some("ReadsAlone")),
    ("PromiseFromAnswer", 40, Some("ReadsAlone")),
    ("TransferUnseen", 40, Some("ReadsAlone")),
    ("ClockBeforeMailbox", 20, Some("ReadsAlone")),
];

/// Plans that found bugs of ours, without their irrelevant parts: `sim --plan` runs one again.
const ONCE_FAILED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/plans");

/// The simulator's output, and true if no check failed.
fn sim(flags: &[&str]) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(flags).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text, output.status.success())
}

/// The names that `--flag list` prints.
fn list(flag: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args([flag, "list"]).output();
    let text = output.expect("it starts").stderr;
    let text = String::from_utf8_lossy(&text);
    let names = text.lines().filter_map(|line| line.strip_prefix("  "));
    names.filter(|name| name.starts_with(char::is_uppercase)).map(str::to_owned).collect()
}

#[test]
fn no_checker_fails_in_storms() {
    let (text, well) = sim(&["--storms", "--seeds", STORMS]);
    assert!(well, "{text}");
}

#[test]
fn scenarios_of_past_etcd_faults_pass() {
    let names = list("--scenario");
    assert_eq!(names.len(), 18, "{names:?}");
    for name in names {
        let (text, well) = sim(&["--scenario", &name, "--seeds", SCENARIO_SEEDS]);
        assert!(well, "{name}: {text}");
    }
}

#[test]
fn plans_that_once_failed_pass() {
    let mut plans = 0;
    for plan in std::fs::read_dir(ONCE_FAILED).expect("there are plans") {
        let plan = plan.expect("readable").path().display().to_string();
        let (text, well) = sim(&["--plan", &plan]);
        assert!(well, "{plan}: {text}");
        plans += 1;
    }
    assert!(plans >= 3, "{plans} plans");
}

#[test]
fn every_planted_bug_is_found() {
    let names = list("--bug");
    assert_eq!(names, PLANTED.map(|(name, ..)| name), "all are looked for");
    for (name, seeds, scenario) in PLANTED {
        let seeds = seeds.to_string();
        let mut flags = vec!["--here", "--storms", "--seeds", &seeds, "--bug", name];
        flags.extend(scenario.into_iter().flat_map(|scenario| ["--scenario", scenario]));
        let (text, well) = sim(&flags);
        assert!(!well && text.contains(" fails: "), "{name} is not found in {seeds} seeds: {text}");
    }
}

#[test]
fn a_seed_replays_identically() {
    let stories = [0, 1].map(|_| sim(&["--seed", "3", "--tell"]));
    assert!(stories[0].1, "{}", stories[0].0);
    assert!(stories[0].0.lines().count() > 1000, "there is a story");
    assert!(stories[0] == stories[1], "two stories of one seed");
}

#[test]
fn failing_plans_are_minimized_and_printed_with_their_command() {
    let (text, well) =
        sim(&["--storms", "--seeds", "1", "--jobs", "1", "--bug", "AckBeforePersist"]);
    assert!(!well, "{text}");
    let told = text.lines().last().unwrap_or_default().trim();
    let flags: Vec<_> = told.split(' ').skip(1).filter(|flag| *flag != "--tell").collect();
    let (again, well) = sim(&flags);
    assert!(!well, "{told} does not fail: {again}");
    assert!(
        again.lines().next().is_some_and(|line| text.contains(line)),
        "another failure: {again}"
    );
    let left = text.lines().rev().nth(1).and_then(|line| line.split(' ').next()?.parse().ok());
    assert!(left.is_some_and(|left: u64| left < 40), "{text}");
}
