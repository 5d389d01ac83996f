//! Determines the holder from the contenders' lines, their deaths, which are reported to it, and the keys
//! in the store; uses no clock.
//!
//! ```text
//! contender                               judge
//!   enter <create revision of its key> ─►   nobody else holds, and the revision is a new one
//!   ◄─ go
//!   (increments a counter in the store, on condition that its key exists)
//!   leave <count> ─────────────────────►    the count is one more than the last one received
//!   ◄─ go, or stop
//! ```
//!
//! A contender waits for the answer before it goes on, so the lines read between `enter` and `leave`
//! of one were sent while it holds. Other lines: `missed`, its session ended before it held;
//! `lost`, its session ended while it held.
//!
//! A process that is paused for longer than its session's TTL, or whose judge is, does not hold any more and
//! may not know it: when another one enters, the key of the first must be deleted, and no other
//! contender may have the count of the first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

/// An answer to a contender.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Go,
    /// Release, and end.
    Stop,
    /// None: it waits until it is killed.
    Silence,
}

/// The moment at which the next contender is to be killed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KillPoint {
    /// It holds, and has not counted.
    Entered,
    /// It holds, and has counted.
    Leaving,
}

/// Number of lines that are shown after a fault.
const HEARD_MAX: usize = 30;

/// Judges one contest: one lock, or one election.
#[derive(Default)]
pub(super) struct Judge {
    holder: Option<usize>,
    last: Option<usize>,
    revision: i64,
    count: u64,
    /// Holders that ended without reporting if they had counted.
    unsure: u64,
    claimed: BTreeSet<u64>,
    /// Contenders whose key was deleted when the next one entered, and that have sent no line since.
    deposed: BTreeSet<usize>,
    /// Acquisitions of each contender.
    held: BTreeMap<usize, u64>,
    sentence: Option<KillPoint>,
    doomed: Option<usize>,
    /// Killed contenders, whose last lines may be read later.
    dead: BTreeSet<usize>,
    stopping: bool,
    heard: VecDeque<(Instant, String)>,
    /// Holders whose session ended while they ran.
    pub(super) expired: u64,
}

impl Judge {
    /// Takes a contender's line and returns the answer; an error describes the fault. `is_there` looks up the
    /// key with a create revision.
    pub(super) fn hear(
        &mut self,
        who: usize,
        line: &str,
        is_there: impl FnOnce(i64) -> bool,
    ) -> Result<Answer, String> {
        if self.dead.contains(&who) {
            return Ok(Answer::Silence);
        }
        self.note(format!("{who} {line}"));
        let (word, number) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "enter" => {
                let revision = number.parse().map_err(|_| format!("{who} says {line:?}"))?;
                self.enter(who, revision, is_there)?;
                Ok(self.go_on(who, KillPoint::Entered))
            }
            "leave" => {
                self.leave(who, number.parse().map_err(|_| format!("{who} says {line:?}"))?)?;
                Ok(self.go_on(who, KillPoint::Leaving))
            }
            "lost" => {
                if !self.deposed.remove(&who) {
                    self.expired += 1;
                    self.vacate(who);
                }
                Ok(self.go_on_or_stop())
            }
            "missed" => Ok(self.go_on_or_stop()),
            _ => Err(format!("{who} says {line:?}")),
        }
    }

    /// Adds a line of our own to the record.
    pub(super) fn note(&mut self, what: String) {
        self.heard.push_back((Instant::now(), what));
        if self.heard.len() > HEARD_MAX {
            self.heard.pop_front();
        }
    }

    /// The last lines, with the milliseconds since then.
    pub(super) fn heard(&self) -> String {
        let line =
            |(at, what): &(Instant, String)| format!("-{} ms {what}", at.elapsed().as_millis());
        self.heard.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn enter(
        &mut self,
        who: usize,
        revision: i64,
        is_there: impl FnOnce(i64) -> bool,
    ) -> Result<(), String> {
        if let Some(holder) = self.holder {
            let since = self.revision;
            if is_there(since) {
                return Err(format!("{who} holds at {revision}, and so does {holder} at {since}"));
            }
            self.expired += 1;
            self.vacate(holder);
            self.deposed.insert(holder);
        }
        // The same contender may find that it had not released.
        let newer = revision > self.revision
            || (revision == self.revision && self.last.is_some_and(|last| last == who));
        if !newer {
            return Err(format!("{who} holds at {revision}, after {}", self.revision));
        }
        (self.holder, self.last, self.revision) = (Some(who), Some(who), revision);
        *self.held.entry(who).or_default() += 1;
        Ok(())
    }

    fn leave(&mut self, who: usize, count: u64) -> Result<(), String> {
        if !self.claimed.insert(count) {
            return Err(format!("{who} counts {count}, as another one did"));
        }
        if self.deposed.remove(&who) {
            return Ok(());
        }
        if self.holder != Some(who) {
            return Err(format!("{who} leaves, and {:?} holds", self.holder));
        }
        let next = self.count + 1;
        if !(next..=next + self.unsure).contains(&count) {
            let unsure = self.unsure;
            return Err(format!("{who} counts {count} after {} and {unsure} unsure", self.count));
        }
        (self.holder, self.count, self.unsure) = (None, count, 0);
        Ok(())
    }

    fn go_on(&mut self, who: usize, moment: KillPoint) -> Answer {
        if self.sentence == Some(moment) {
            (self.sentence, self.doomed) = (None, Some(who));
            return Answer::Silence;
        }
        match moment {
            KillPoint::Entered => Answer::Go,
            KillPoint::Leaving => self.go_on_or_stop(),
        }
    }

    fn go_on_or_stop(&self) -> Answer {
        if self.stopping { Answer::Stop } else { Answer::Go }
    }

    /// It does not hold any more, and it is not known if it has counted.
    fn vacate(&mut self, who: usize) {
        if self.holder == Some(who) {
            self.holder = None;
            self.unsure += 1;
        }
    }

    /// A contender has been killed: any other one may enter now.
    pub(super) fn died(&mut self, who: usize) {
        self.note(format!("{who} dies"));
        self.dead.insert(who);
        self.vacate(who);
        if self.doomed == Some(who) {
            self.doomed = None;
        }
    }

    /// The next contender to reach this moment is left waiting there.
    pub(super) fn condemn(&mut self, moment: KillPoint) {
        self.sentence = Some(moment);
    }

    /// The contender that waits to be killed.
    pub(super) fn doomed(&self) -> Option<usize> {
        self.doomed
    }

    /// From now on every contender gets the answer stop.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.sentence = None;
    }

    /// Number of acquisitions, by the contenders that the caller counts.
    pub(super) fn acquired(&self, counts: impl Fn(usize) -> bool) -> u64 {
        self.held.iter().filter(|(who, _)| counts(**who)).map(|(_, times)| times).sum()
    }

    /// The permitted values of the counter in the store.
    pub(super) fn counted(&self) -> std::ops::RangeInclusive<u64> {
        self.count..=self.count + self.unsure
    }
}

#[test]
fn a_judge_sees_two_holders_and_a_count_that_went_back() {
    let told = |lines: &[(usize, &str)], is_there: bool| {
        let mut judge = Judge::default();
        lines.iter().try_for_each(|(who, line)| judge.hear(*who, line, |_| is_there).map(drop))
    };
    let turns = [(1, "enter 5"), (1, "leave 1"), (2, "enter 6"), (2, "leave 2")];
    assert_eq!(told(&turns, true), Ok(()));
    let overlap = told(&[(1, "enter 5"), (2, "enter 6")], true);
    assert_eq!(overlap, Err("2 holds at 6, and so does 1 at 5".to_owned()));
    let stale = told(&[(1, "enter 5"), (1, "leave 1"), (2, "enter 4")], true);
    assert_eq!(stale, Err("2 holds at 4, after 5".to_owned()));
    let twice = told(&[(1, "enter 5"), (1, "leave 1"), (2, "enter 6"), (2, "leave 1")], true);
    assert_eq!(twice, Err("2 counts 1, as another one did".to_owned()));
    let skipped = told(&[(1, "enter 5"), (1, "leave 2")], true);
    assert_eq!(skipped, Err("1 counts 2 after 0 and 0 unsure".to_owned()));
    let late = told(&[(1, "enter 5"), (1, "lost"), (2, "enter 6"), (1, "leave 1")], true);
    assert_eq!(late, Err("1 leaves, and Some(2) holds".to_owned()));
}

#[test]
fn a_holder_whose_key_was_deleted_holds_no_more_and_counts_alone() {
    for (words, right) in [
        (["leave 1", "leave 2"], true),
        (["lost", "leave 1"], true),
        (["leave 1", "leave 1"], false),
    ] {
        let mut judge = Judge::default();
        let mut hear = |who, line| judge.hear(who, line, |_| false).map(drop);
        assert_eq!(hear(1, "enter 5").and(hear(2, "enter 6")), Ok(()));
        let said = hear(1, words[0]).and(hear(2, words[1]));
        assert_eq!(said.is_ok(), right, "{words:?}: {said:?}");
        assert_eq!(judge.expired, 1);
    }
}

#[test]
fn killed_holders_may_have_counted_or_not() {
    for count in ["leave 1", "leave 2"] {
        let mut judge = Judge::default();
        judge.condemn(KillPoint::Entered);
        assert_eq!(judge.hear(1, "enter 5", |_| true), Ok(Answer::Silence));
        assert_eq!(judge.doomed(), Some(1));
        judge.died(1);
        assert_eq!(judge.hear(2, "enter 6", |_| true), Ok(Answer::Go));
        judge.stop();
        assert_eq!(judge.hear(2, count, |_| true), Ok(Answer::Stop));
    }
}
