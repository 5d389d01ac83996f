//! Runs seeds.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::bugs::Bug;
use super::cluster::{Cluster, Outcome};
use super::plan::Plan;

/// Lines of a failing run that are shown.
const TAIL: usize = 60;

thread_local! {
    static STORY: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
    static FAILURE: RefCell<Option<String>> = const { RefCell::new(None) };
    /// A panic of this thread is a result, not a failure of the test.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

fn tell(line: String) {
    STORY.with_borrow_mut(|story| {
        if story.len() == TAIL {
            story.pop_front();
        }
        story.push_back(line);
    });
}

/// Keeps what a panic says, instead of printing it.
fn hook() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CAUGHT.get() {
                FAILURE.set(Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

fn run(plan: Plan, bug: Option<Bug>, trace: bool) -> Result<Outcome, String> {
    hook();
    CAUGHT.set(true);
    STORY.with_borrow_mut(VecDeque::clear);
    let trace = trace.then_some(tell as fn(String));
    let outcome = catch_unwind(AssertUnwindSafe(|| Cluster::new(plan, bug, trace).run()));
    CAUGHT.set(false);
    outcome.map_err(|_| FAILURE.take().unwrap_or_default())
}

/// Where a failure was found, by which two are the same.
fn place(failure: &str) -> String {
    failure.lines().next().unwrap_or_default().to_owned()
}

/// Takes parts away as long as the same failure remains, larger shares first.
fn shrink(plan: &Plan, bug: Option<Bug>, failure: &str) -> BTreeSet<usize> {
    let mut dropped = BTreeSet::new();
    let mut share = plan.parts();
    while share > 0 {
        for from in (0..plan.parts()).step_by(share) {
            let mut fewer = dropped.clone();
            fewer.extend(from..(from + share).min(plan.parts()));
            let again = |it: &String| place(it) == place(failure);
            if fewer.len() > dropped.len()
                && run(plan.without(&fewer), bug, false).err().as_ref().is_some_and(again)
            {
                dropped = fewer;
            }
        }
        share /= 2;
    }
    dropped
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

fn parse(ranges: &str) -> BTreeSet<usize> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-')?;
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    };
    ranges.split(',').filter_map(range).flatten().collect()
}

/// Everything that somebody needs who wants to know why.
fn report(plan: &Plan, bug: Option<Bug>, failure: &str, shrunk: bool) -> String {
    let dropped = if shrunk { shrink(plan, bug, failure) } else { BTreeSet::new() };
    let plan_left = plan.without(&dropped);
    let failure = run(plan_left, bug, true).expect_err("a failure fails again");
    let tail = STORY.take().into_iter().collect::<Vec<_>>().join("\n");
    let left = plan.parts() - dropped.len();
    format!(
        "{tail}\n{failure}\nreplay with SIM_SEED={} SIM_DROP={} ({left} of {} parts left)",
        plan.seed,
        ranges(&dropped),
        plan.parts()
    )
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[derive(Default)]
struct Total(Outcome, u64);

impl Total {
    fn add(&mut self, one: Outcome) {
        let Total(all, runs) = self;
        *runs += 1;
        all.lasted += one.lasted;
        all.events += one.events;
        all.operations += one.operations;
        all.entries += one.entries;
        all.faults += one.faults;
        all.crashes += one.crashes;
        all.torn += one.torn;
        all.watched += one.watched;
    }

    fn tell(&self) {
        let Total(all, runs) = self;
        println!(
            "{runs} clusters, {:.3} hours, {} events, {} requests answered, {} entries, {} faults, \
             {} crashes, {} torn writes, {} events watched",
            all.lasted as f64 / 3.6e9,
            all.events,
            all.operations,
            all.entries,
            all.faults,
            all.crashes,
            all.torn,
            all.watched
        );
    }
}

#[test]
fn clusters_keep_their_promises() {
    if let Some(seed) = variable("SIM_SEED").and_then(|seed| seed.parse().ok()) {
        let dropped = parse(&variable("SIM_DROP").unwrap_or_default());
        let plan = Plan::new(seed).without(&dropped);
        match run(plan.clone(), None, true) {
            Ok(outcome) => println!("{outcome:?}"),
            Err(failure) => panic!("{}", report(&plan, None, &failure, false)),
        }
        return;
    }
    let hours: f64 = variable("SIM_HOURS").and_then(|it| it.parse().ok()).unwrap_or(0.0);
    let seeds = variable("SIM_SEEDS").and_then(|it| it.parse().ok());
    let seeds = seeds.unwrap_or(if hours > 0.0 { u64::MAX } else { 30 });
    let first: u64 = variable("SIM_FIRST").and_then(|it| it.parse().ok()).unwrap_or(0);
    let mut total = Total::default();
    for seed in (first..).take(seeds as usize) {
        let plan = Plan::new(seed);
        match run(plan.clone(), None, false) {
            Ok(outcome) => total.add(outcome),
            Err(failure) => panic!("{}", report(&plan, None, &failure, true)),
        }
        if hours > 0.0 && total.0.lasted as f64 > hours * 3.6e9 {
            break;
        }
    }
    total.tell();
}
