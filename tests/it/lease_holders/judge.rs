//! Sees who holds, by what the contenders say, by their deaths, which it is told of, and by the keys
//! in the store; trusts no clock.
//!
//! ```text
//! contender                               judge
//!   enter <create revision of its key> ─►   nobody else holds, and the revision is a new one
//!   ◄─ go
//!   (counts one on in the store, on condition that its key is there)
//!   leave <count> ─────────────────────►    the count is one more than the last one told
//!   ◄─ go, or stop
//! ```
//!
//! A contender waits for the answer before it goes on, so what is heard between `enter` and `leave`
//! of one happens while it holds. Other lines: `missed`, its session ended before it came in;
//! `lost`, its session ended while it held.
//!
//! A process that is paused for longer than its session lives, or whose judge is, holds no more and
//! may not know: when another one comes in, the key of the first must be gone, and what the first
//! counted nobody else may have counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

/// What a contender is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Go,
    /// Give back what you hold, and end.
    Stop,
    /// Nothing: it waits until it is killed.
    Silence,
}

/// When the next one to be killed is to die.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// It holds, and has not counted.
    Entered,
    /// It holds, and has counted.
    Leaving,
}

/// How much of what was heard is shown when something is wrong.
const HEARD_MAX: usize = 30;

/// Judges one contest: one lock, or one office.
#[derive(Default)]
pub(super) struct Judge {
    holder: Option<usize>,
    last: Option<usize>,
    revision: i64,
    count: u64,
    /// Holders that went without saying whether they had counted.
    unsure: u64,
    claimed: BTreeSet<u64>,
    /// Those whose key was gone when the next one came in, and who have not said anything since.
    deposed: BTreeSet<usize>,
    /// How often each contender held.
    held: BTreeMap<usize, u64>,
    sentence: Option<Moment>,
    doomed: Option<usize>,
    /// What they said before they died may be heard later.
    dead: BTreeSet<usize>,
    stopping: bool,
    heard: VecDeque<(Instant, String)>,
    /// Holders whose session ended while they lived.
    pub(super) expired: u64,
}

impl Judge {
    /// What one says, and what it is told; an error says what must not be. `is_there` looks for the
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
                Ok(self.go_on(who, Moment::Entered))
            }
            "leave" => {
                self.leave(who, number.parse().map_err(|_| format!("{who} says {line:?}"))?)?;
                Ok(self.go_on(who, Moment::Leaving))
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

    /// Something to be shown beside what was heard.
    pub(super) fn note(&mut self, what: String) {
        self.heard.push_back((Instant::now(), what));
        if self.heard.len() > HEARD_MAX {
            self.heard.pop_front();
        }
    }

    /// What was heard last, a line each, with the milliseconds since then.
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
        // The same contender may find that it had not given back what it held.
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

    fn go_on(&mut self, who: usize, moment: Moment) -> Answer {
        if self.sentence == Some(moment) {
            (self.sentence, self.doomed) = (None, Some(who));
            return Answer::Silence;
        }
        match moment {
            Moment::Entered => Answer::Go,
            Moment::Leaving => self.go_on_or_stop(),
        }
    }

    fn go_on_or_stop(&self) -> Answer {
        if self.stopping { Answer::Stop } else { Answer::Go }
    }

    /// It holds no more, and whether it has counted is not known.
    fn vacate(&mut self, who: usize) {
        if self.holder == Some(who) {
            self.holder = None;
            self.unsure += 1;
        }
    }

    /// One is dead: whoever comes in now is right.
    pub(super) fn died(&mut self, who: usize) {
        self.note(format!("{who} dies"));
        self.dead.insert(who);
        self.vacate(who);
        if self.doomed == Some(who) {
            self.doomed = None;
        }
    }

    /// The next one to come to this moment is left waiting there.
    pub(super) fn condemn(&mut self, moment: Moment) {
        self.sentence = Some(moment);
    }

    /// Who waits to be killed.
    pub(super) fn doomed(&self) -> Option<usize> {
        self.doomed
    }

    /// From now on everybody is told to stop.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.sentence = None;
    }

    /// How often the seat was taken, by those that the caller counts.
    pub(super) fn acquired(&self, counts: impl Fn(usize) -> bool) -> u64 {
        self.held.iter().filter(|(who, _)| counts(**who)).map(|(_, times)| times).sum()
    }

    /// What the number in the store may be.
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
fn a_holder_whose_key_is_gone_holds_no_more_and_counts_alone() {
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
fn who_dies_while_it_holds_may_have_counted_or_not() {
    for count in ["leave 1", "leave 2"] {
        let mut judge = Judge::default();
        judge.condemn(Moment::Entered);
        assert_eq!(judge.hear(1, "enter 5", |_| true), Ok(Answer::Silence));
        assert_eq!(judge.doomed(), Some(1));
        judge.died(1);
        assert_eq!(judge.hear(2, "enter 6", |_| true), Ok(Answer::Go));
        judge.stop();
        assert_eq!(judge.hear(2, count, |_| true), Ok(Answer::Stop));
    }
}
