//! When the client of a resumable session and its backend spoke last, and what that says of messages
//! under way. A hint: only the application knows what it has acted upon.

use std::time::Duration;

use super::super::clock::Tick;

/// A backend that says nothing for so long behind a client's message has no answer at hand.
const SILENCE: Duration = Duration::from_millis(50);

/// With the present backend.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Talk {
    /// Latest bytes of the client's messages that went there.
    spoke_at: Option<Tick>,
    /// Latest bytes that came from there.
    heard_at: Option<Tick>,
}

impl Talk {
    /// It begins, with what the client has said already.
    pub fn new(has_spoken: bool, now: Tick) -> Talk {
        Talk {
            spoke_at: has_spoken.then_some(now),
            heard_at: None,
        }
    }

    pub fn spoke(&mut self, now: Tick) {
        self.spoke_at = Some(now);
    }

    pub fn heard(&mut self, now: Tick) {
        self.heard_at = Some(now);
    }

    /// The backend was sent a part of a message.
    pub fn has_begun(self) -> bool {
        self.spoke_at.is_some()
    }

    /// The backend was sent nothing for `settle`: it has had time for all before.
    pub fn is_quiet(self, settle: Duration, now: Tick) -> bool {
        let is_past = |at| Duration::from(now.since(at)) >= settle;
        self.spoke_at.is_none_or(is_past)
    }

    /// The backend may still answer what it was sent last.
    pub fn may_answer(self, settle: Duration, now: Tick) -> bool {
        let is_recent =
            |at: Option<Tick>| at.is_some_and(|at| Duration::from(now.since(at)) < SILENCE);
        (is_recent(self.spoke_at) || is_recent(self.heard_at)) && !self.is_quiet(settle, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::super::clock::Clock;
    use super::*;

    const SETTLE: Duration = Duration::from_millis(500);

    fn at(milliseconds: u64) -> Tick {
        let origin = Instant::now();
        Clock::new(origin).tick(origin + Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_backend_that_was_sent_nothing_has_nothing_to_answer() {
        let mut talk = Talk::new(false, at(0));
        talk.heard(at(100));
        assert!(talk.is_quiet(SETTLE, at(100)) && !talk.may_answer(SETTLE, at(100)));
        assert!(!talk.has_begun());
    }

    #[test]
    fn a_backend_that_is_silent_behind_a_message_has_no_answer_at_hand() {
        let mut talk = Talk::new(false, at(0));
        talk.spoke(at(100));
        assert!(talk.may_answer(SETTLE, at(140)));
        assert!(!talk.may_answer(SETTLE, at(150)));
        assert!(!talk.is_quiet(SETTLE, at(590)) && talk.is_quiet(SETTLE, at(600)));
    }

    #[test]
    fn a_backend_that_speaks_is_waited_for_until_it_has_settled() {
        let mut talk = Talk::new(true, at(0));
        for moment in [40, 80, 490] {
            talk.heard(at(moment));
            assert!(talk.may_answer(SETTLE, at(moment)), "{moment}");
        }
        assert!(!talk.may_answer(SETTLE, at(500)));
    }
}
