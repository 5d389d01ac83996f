//! Runs any number of simulated clusters, or repeats one of them; see `basalt::sim`.
//!
//! A failure is a panic and ends a process. So the seeds run in processes of their own: this one starts `--jobs` of
//! them, which share the seeds in groups of eight, one long seed in each, and when one fails, its plan is run again and
//! again with parts left out, as long as it still fails at the same place.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a tool for the terminal that says how long it took"
)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::Read as _;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use basalt::sim::{self, Bug, Outcome, Plan, Scenario};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage: sim [flags]
  --seeds N      run so many seeds (30)
  --first N      beginning with this one (0)
  --hours N      run seeds until the clusters have lived so many hours together
  --jobs N       so many at a time (2)
  --storms       without the seeds that are hours of calmer weather
  --bug NAME     with a deliberate mistake in the members; `--bug list` names them
  --scenario NAME  each seed pressed into this shape; `--scenario list` names them
  --seed N       run this seed alone
  --drop A-B,C-D without these parts of its plan
  --plan FILE    run the plan in this file
  --save FILE    write the plan of that one seed to this file, and do not run it
  --tell         tell the whole story of that one run
";

/// Number of seeds by default.
const SEEDS: u64 = 30;

/// Lines of the log that are printed after a failure.
const LINES_SHOWN: usize = 60;

/// Attempts to shrink a failing plan.
const ATTEMPTS_MAX: usize = 300;

/// Exit code for a wrong command line.
const MISUSE: u8 = 2;

/// The seed that runs in this process, for the panic message.
static SEED: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Default)]
struct Options {
    seeds: Option<u64>,
    first: u64,
    /// Number of this job, and of all jobs.
    job: (u64, u64),
    hours: f64,
    jobs: u64,
    bug: Option<Bug>,
    scenario: Option<Scenario>,
    seed: Option<u64>,
    drop: BTreeSet<usize>,
    plan: Option<String>,
    save: Option<String>,
    tell: bool,
    /// False to skip the long runs.
    storms: bool,
    /// Run the seeds in this process.
    here: bool,
}

impl Options {
    /// The error is empty if help was requested.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { jobs: 2, job: (0, 1), ..Self::default() };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--seeds" => options.seeds = Some(number(&value()?)?),
                "--first" => options.first = number(&value()?)?,
                "--job" => options.job.0 = number(&value()?)?,
                "--job-of" => options.job.1 = number::<u64>(&value()?)?.max(1),
                "--hours" => options.hours = number(&value()?)?,
                "--jobs" => options.jobs = number::<u64>(&value()?)?.max(1),
                "--seed" => options.seed = Some(number(&value()?)?),
                "--plan" => options.plan = Some(value()?),
                "--save" => options.save = Some(value()?),
                "--drop" => options.drop = parse_ranges(&value()?),
                "--bug" => options.bug = Some(named("--bug", &Bug::ALL, &value()?)?),
                "--scenario" => {
                    options.scenario = Some(named("--scenario", &Scenario::ALL, &value()?)?);
                }
                "--tell" => options.tell = true,
                "--here" => options.here = true,
                "--storms" => options.storms = true,
                "--help" => return Err(String::new()),
                _ => return Err(format!("unknown flag {flag}")),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number of the right kind"))
}

/// The value of that name.
fn named<T: Copy + Debug>(flag: &str, all: &[T], name: &str) -> Result<T, String> {
    let of = |one: &T| format!("{one:?}");
    let names = || all.iter().map(of).collect::<Vec<_>>().join("\n  ");
    let found = all.iter().copied().find(|one| of(one) == name);
    found.ok_or_else(|| format!("{flag} takes one of\n  {}", names()))
}

/// The plan of a seed.
fn plan(seed: u64, options: &Options) -> Plan {
    match options.scenario {
        Some(scenario) => scenario.plan(seed),
        None => Plan::new(seed),
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) if why.is_empty() => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprint!("{why}\n{USAGE}");
            return ExitCode::from(MISUSE);
        }
    };
    if options.seed.is_some() || options.plan.is_some() || options.here {
        std::panic::set_hook(Box::new(|info| {
            println!("seed {} fails: {info}", SEED.load(Ordering::Relaxed));
        }));
    }
    let one = match (&options.plan, options.seed) {
        (Some(path), _) => read_plan(path).map(Some),
        (None, seed) => Ok(seed.map(|seed| plan(seed, &options).without(&options.drop))),
    };
    let done = match (one, &options.save) {
        (Ok(Some(plan)), Some(path)) => save_plan(&plan, path),
        (Ok(Some(plan)), None) => {
            run_one(plan, &options);
            Ok(())
        }
        (Ok(None), _) if options.here => {
            run_many(&options);
            Ok(())
        }
        (Ok(None), _) => return run_all(&options),
        (Err(why), _) => Err(why),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(MISUSE)
        }
    }
}

fn read_plan(path: &str) -> Result<Plan, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Plan::from_text(&text).map_err(|why| format!("{path}: {why}"))
}

fn save_plan(plan: &Plan, path: &str) -> Result<(), String> {
    std::fs::write(path, plan.to_text()?).map_err(|error| format!("{path}: {error}"))
}

fn run_one(plan: Plan, options: &Options) {
    SEED.store(plan.seed(), Ordering::Relaxed);
    let tell: fn(String) = |line| println!("{line}");
    let outcome = sim::run(plan, options.bug, options.tell.then_some(tell));
    println!("{outcome:?}");
}

fn run_many(options: &Options) {
    let mut all = Outcome::default();
    let mut runs = 0_u64;
    let count = options.seeds.unwrap_or(u64::MAX);
    let (job, jobs) = options.job;
    for seed in options.first..options.first.saturating_add(count) {
        // Long ones are rare and regular; every job gets its share of them.
        if seed / Plan::LONG_EVERY % jobs != job {
            continue;
        }
        if options.storms && options.scenario.is_none() && Plan::is_long(seed) {
            continue;
        }
        SEED.store(seed, Ordering::Relaxed);
        all.add(&sim::run(plan(seed, options), options.bug, None));
        runs += 1;
        if options.hours > 0.0 && all.hours() >= options.hours {
            break;
        }
    }
    println!("{runs} {}", all.to_line());
}

/// Starts a process with these flags.
fn start(flags: &[&str], options: &Options) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args(flags).stdout(Stdio::piped()).stderr(Stdio::null());
    command.args(shape(options));
    command.spawn().expect("this program can be started again")
}

/// The flags that every process needs, since they change the plan of a seed.
fn shape(options: &Options) -> Vec<String> {
    let bug = options.bug.map(|bug| ["--bug".to_owned(), format!("{bug:?}")]);
    let scenario = options.scenario.map(|it| ["--scenario".to_owned(), format!("{it:?}")]);
    bug.into_iter().chain(scenario).flatten().collect()
}

fn read_all(mut pipe: ChildStdout) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).expect("a pipe can be read");
    text
}

/// Starts all jobs. Returns their output up to and including the first failure.
fn run_jobs(options: &Options) -> Vec<String> {
    let seeds = options.seeds.unwrap_or(if options.hours > 0.0 { u64::MAX } else { SEEDS });
    let (ended, ends) = mpsc::channel();
    let mut children = Vec::new();
    for job in 0..options.jobs {
        let (job, jobs) = (job.to_string(), options.jobs.to_string());
        let (first, seeds) = (options.first.to_string(), seeds.to_string());
        let hours = (options.hours / options.jobs as f64).to_string();
        let flags = [
            "--here", "--job", &job, "--job-of", &jobs, "--first", &first, "--seeds", &seeds,
            "--hours", &hours,
        ];
        let mut flags = flags.to_vec();
        flags.extend(options.storms.then_some("--storms"));
        let mut child = start(&flags, options);
        let pipe = child.stdout.take().expect("it is piped");
        let ended = ended.clone();
        // The receiver may have stopped.
        std::thread::spawn(move || drop(ended.send(read_all(pipe))));
        children.push(child);
    }
    drop(ended);
    let mut texts = Vec::new();
    for text in ends {
        let failed = failure(&text).is_some();
        texts.push(text);
        if failed {
            break;
        }
    }
    for mut child in children {
        // A process that has ended cannot be killed.
        drop(child.kill());
        child.wait().expect("a process ends");
    }
    texts
}

fn run_all(options: &Options) -> ExitCode {
    let began = Instant::now();
    let texts = run_jobs(options);
    let (mut all, mut runs) = (Outcome::default(), 0);
    for text in &texts {
        if let Some((seed, _)) = failure(text) {
            report(seed, text, options);
            return ExitCode::FAILURE;
        }
        let (count, outcome) = text.trim().split_once(' ').expect("a job says what it did");
        runs += count.parse::<u64>().expect("a number");
        all.add(&Outcome::from_line(outcome).expect("an outcome"));
    }
    println!("{runs} clusters in {:.1} s: {all}", began.elapsed().as_secs_f64());
    match options.scenario {
        Some(scenario) if !scenario.came_about(&all) => {
            println!("{scenario:?} did not come about");
            ExitCode::FAILURE
        }
        Some(_) | None => ExitCode::SUCCESS,
    }
}

/// The seed of a failure, and its place in the code, by which two failures are compared.
fn failure(text: &str) -> Option<(u64, &str)> {
    let at = text.rfind("seed ")?;
    let (seed, place) = text[at + 5..].split_once(" fails: ")?;
    Some((seed.parse().ok()?, place.lines().next().unwrap_or_default()))
}

/// The output of one seed without some parts of its plan.
fn again(seed: u64, dropped: &BTreeSet<usize>, options: &Options, tell: bool) -> String {
    let (seed, dropped) = (seed.to_string(), ranges(dropped));
    let flags = ["--seed", &seed, "--drop", &dropped, "--tell"];
    let mut child = start(&flags[..flags.len() - usize::from(!tell)], options);
    let text = read_all(child.stdout.take().expect("it is piped"));
    child.wait().expect("a process ends");
    text
}

/// Removes parts as long as the same failure remains, larger shares first.
fn shrink(seed: u64, place: &str, options: &Options) -> BTreeSet<usize> {
    let parts = plan(seed, options).parts();
    let mut dropped = BTreeSet::new();
    let (mut share, mut attempts) = (parts, 0);
    while share > 0 && attempts < ATTEMPTS_MAX {
        for from in (0..parts).step_by(share) {
            let mut fewer = dropped.clone();
            fewer.extend(from..(from + share).min(parts));
            if fewer.len() == dropped.len() || attempts == ATTEMPTS_MAX {
                continue;
            }
            attempts += 1;
            let text = again(seed, &fewer, options, false);
            if failure(&text).is_some_and(|(_, it)| it == place) {
                dropped = fewer;
            }
        }
        share /= 2;
    }
    dropped
}

/// Prints everything needed to analyze a failure.
fn report(seed: u64, text: &str, options: &Options) {
    println!("{}\nlooking for the parts that it takes", text.trim());
    let (_, place) = failure(text).expect("it failed");
    let dropped = shrink(seed, place, options);
    let story = again(seed, &dropped, options, true);
    let lines: Vec<_> = story.lines().collect();
    println!("{}", lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"));
    let parts = plan(seed, options).parts();
    let left = parts - dropped.len();
    let bug = options.bug.map(|bug| format!(" --bug {bug:?}")).unwrap_or_default();
    let path = std::env::temp_dir().join(format!("sim-{seed}-{}.json", std::process::id()));
    let path = path.display().to_string();
    match save_plan(&plan(seed, options).without(&dropped), &path) {
        Ok(()) => {
            println!("{left} of {parts} parts left; again with\n  sim --tell --plan {path}{bug}")
        }
        Err(why) => println!("{left} of {parts} parts left, and the plan cannot be kept: {why}"),
    }
}

fn ranges(numbers: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            Some(_) | None => ranges.push((*number, *number)),
        }
    }
    let text = ranges.iter().map(|(first, last)| format!("{first}-{last}"));
    text.collect::<Vec<_>>().join(",")
}

fn parse_ranges(ranges: &str) -> BTreeSet<usize> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-')?;
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    };
    ranges.split(',').filter_map(range).flatten().collect()
}
