//! Times at which the client of a resumable session and its backend spoke last, a hint on messages
//! under way: only the application knows which it has acted upon.

use std::time::Duration;

use crate::relay::clock::Tick;

/// A backend that is silent for so long behind a message has no answer at hand.
const SILENCE: Duration = Duration::from_millis(50);

/// Times of the latest messages between the client and its present backend.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::relay) struct MessageTimes {
    /// Latest bytes of the client's messages that went to the backend.
    sent: Option<Tick>,
    /// Latest bytes that came from the backend.
    answered: Option<Tick>,
}

impl MessageTimes {
    /// `has_sent`: the backend has had a part of a message already.
    pub(crate) fn new(has_sent: bool, now: Tick) -> MessageTimes {
        MessageTimes {
            sent: has_sent.then_some(now),
            answered: None,
        }
    }

    /// Milliseconds since the latest messages of the client and of the backend.
    pub(crate) fn ages(self, now: Tick) -> [Option<u64>; 2] {
        [self.sent, self.answered].map(|at| at.map(|at| now.age_ms(at)))
    }

    /// As [`MessageTimes::ages`] told another relay.
    pub(crate) fn of_ages(ages: [Option<u64>; 2], now: Tick) -> MessageTimes {
        let [sent, answered] = ages.map(|age| age.map(|age| now.before_ms(age)));
        MessageTimes { sent, answered }
    }

    pub(crate) fn sent(&mut self, now: Tick) {
        self.sent = Some(now);
    }

    pub(crate) fn answered(&mut self, now: Tick) {
        self.answered = Some(now);
    }

    /// The backend was sent a part of a message.
    pub(crate) fn has_sent(self) -> bool {
        self.sent.is_some()
    }

    /// The backend was sent nothing for `settle`: it has had time for all before.
    pub(crate) fn is_quiet(self, settle: Duration, now: Tick) -> bool {
        let is_past = |at| Duration::from(now.since(at)) >= settle;
        self.sent.is_none_or(is_past)
    }

    /// The backend may still answer the latest message.
    pub(crate) fn may_answer(self, settle: Duration, now: Tick) -> bool {
        let is_recent =
            |at: Option<Tick>| at.is_some_and(|at| Duration::from(now.since(at)) < SILENCE);
        (is_recent(self.sent) || is_recent(self.answered)) && !self.is_quiet(settle, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::relay::clock::Clock;

    const SETTLE: Duration = Duration::from_millis(500);

    fn at(milliseconds: u64) -> Tick {
        let origin = Instant::now();
        Clock::new(origin).tick(origin + Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_backend_that_was_sent_nothing_has_nothing_to_answer() {
        let mut times = MessageTimes::new(false, at(0));
        times.answered(at(100));
        assert!(times.is_quiet(SETTLE, at(100)) && !times.may_answer(SETTLE, at(100)));
        assert!(!times.has_sent());
    }

    #[test]
    fn a_backend_that_is_silent_behind_a_message_has_no_answer_at_hand() {
        let mut times = MessageTimes::new(false, at(0));
        times.sent(at(100));
        assert!(times.may_answer(SETTLE, at(140)));
        assert!(!times.may_answer(SETTLE, at(150)));
        assert!(!times.is_quiet(SETTLE, at(590)) && times.is_quiet(SETTLE, at(600)));
    }

    #[test]
    fn a_backend_that_speaks_is_waited_for_until_it_has_settled() {
        let mut times = MessageTimes::new(true, at(0));
        for moment in [40, 80, 490] {
            times.answered(at(moment));
            assert!(times.may_answer(SETTLE, at(moment)), "{moment}");
        }
        assert!(!times.may_answer(SETTLE, at(500)));
    }
}
