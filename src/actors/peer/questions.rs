//! Questions to other members that wait for an answer.

use std::collections::BTreeMap;

use crate::peer::Answer;
use crate::types::Refusal;
use crate::types::limits::PEER_QUESTIONS_MAX;

/// Interval between two removals of abandoned questions, in ms: each visits all questions.
const SWEEP_MS: u64 = 100;

/// Pending questions by their number.
#[derive(Default)]
pub(super) struct Questions {
    askers: BTreeMap<u64, flume::Sender<Answer>>,
    number: u64,
    swept_ms: u64,
}

impl Questions {
    /// Numbers a question; `None` if too many are pending, which refuses it.
    pub(super) fn ask(&mut self, asker: flume::Sender<Answer>, now_ms: u64) -> Option<u64> {
        let is_full = self.askers.len() >= PEER_QUESTIONS_MAX;
        if is_full && now_ms >= self.swept_ms + SWEEP_MS {
            self.swept_ms = now_ms;
            self.askers.retain(|_, asker| !asker.is_disconnected());
        }
        if self.askers.len() >= PEER_QUESTIONS_MAX {
            let refusal = Refusal::TooManyRequests.text().to_owned();
            drop(asker.try_send(Answer { refusal, ..Answer::default() }));
            return None;
        }
        self.number += 1;
        self.askers.insert(self.number, asker);
        Some(self.number)
    }

    /// Passes an answer to the caller, if that one still waits.
    pub(super) fn answer(&mut self, answer: Answer) {
        if let Some(asker) = self.askers.remove(&answer.number) {
            drop(asker.try_send(answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_past_the_bound_are_refused_until_others_are_answered_or_given_up() {
        let mut questions = Questions::default();
        let mut askers = Vec::new();
        for number in 1..=PEER_QUESTIONS_MAX as u64 {
            let (asker, answer) = flume::bounded(1);
            assert_eq!(questions.ask(asker, 1000), Some(number));
            askers.push(answer);
        }
        let refused = |questions: &mut Questions, now_ms| {
            let (asker, answer) = flume::bounded(1);
            let number = questions.ask(asker, now_ms);
            assert_eq!(number.is_none(), answer.try_recv().is_ok(), "refused in words");
            number.is_none()
        };
        assert!(refused(&mut questions, 1000));
        assert_eq!(questions.askers.len(), PEER_QUESTIONS_MAX);

        questions.answer(Answer { number: 7, ttl: 3, ..Answer::default() });
        assert_eq!(askers[6].try_recv().map(|answer| answer.ttl), Ok(3));
        assert!(!refused(&mut questions, 1000), "there is room for one");
        assert!(refused(&mut questions, 1001));

        askers.truncate(10);
        assert!(refused(&mut questions, 1099), "it has just been looked for those that are gone");
        assert!(!refused(&mut questions, 1100));
        assert!(questions.askers.len() <= 12);
        questions.answer(Answer { number: 7, ..Answer::default() });
    }
}
