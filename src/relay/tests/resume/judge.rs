//! What must hold of what came.

use super::peer::{Peer, Seen};
use super::world::{Went, World};
use crate::relay::resume_policy::LostMessages;

impl World<'_> {
    pub fn describe(&self) -> String {
        let backends: Vec<_> = self.backends.iter().zip(&self.went).collect();
        let all = backends.iter().map(|(peer, went)| {
            let Peer {
                messages,
                close,
                seen,
                ended,
                said_close,
                ..
            } = peer;
            format!("{went:?} {messages:?} {close:?} {seen:?} ended {ended:?} said {said_close}")
        });
        format!(
            "ends {:?}, failed {}, client {:?} {:?}, {:?} open {:?} gap {}, backends {:#?}, lost {:?}",
            self.bench.ends(),
            self.client.failed,
            self.client.seen,
            self.client.close,
            self.may_end,
            self.client.partial.as_ref().map(Vec::len),
            self.open_gap.is_some(),
            all.collect::<Vec<_>>(),
            self.gaps.iter().map(|gap| gap.lost).collect::<Vec<_>>(),
        )
    }

    pub fn judge(&self) {
        assert!(self.may_end.is_some(), "it ended: {}", self.describe());
        if self.may_end == Some("the client closes") {
            assert!(self.client.close.is_some(), "no close: {}", self.describe());
        }
        if self.client.seen == Some(Seen::Fin) {
            assert!(
                self.client.input.is_empty(),
                "a torn frame looks whole: {}",
                self.describe()
            );
        }
        self.judge_backends();
        self.judge_client();
    }

    /// Judges the fate of the client's messages.
    pub fn judge_backends(&self) {
        let mut before: Option<u32> = None;
        let mut lost = LostMessages::AtMost(0);
        for (number, backend) in self.backends.iter().enumerate() {
            if let Some(gap) = number.checked_sub(1).map(|gap| &self.gaps[gap]) {
                lost = lost.and(gap.lost);
                if let Some(first) = backend.messages.first() {
                    assert!(*first <= gap.begun, "held and lost: {}", self.describe());
                }
            }
            for (at, message) in backend.messages.iter().enumerate() {
                let wanted = before.map_or(0, |before| before + 1);
                let missing = message.checked_sub(wanted).expect("twice, or swapped");
                let may_miss = match (at, lost.at_most()) {
                    (0, None) => u32::MAX,
                    (0, Some(most)) => most,
                    _ => 0,
                };
                assert!(
                    missing <= may_miss,
                    "{message} of {number}: {}",
                    self.describe()
                );
                before = Some(*message);
            }
            if !backend.messages.is_empty() {
                lost = LostMessages::AtMost(0);
            }
        }
    }

    /// Judges the fate of the backends' messages.
    pub fn judge_client(&self) {
        let mut heard = vec![0u32; self.backends.len()];
        let mut before = 0;
        for message in &self.client.messages {
            let (backend, number) = ((message >> 24) as usize, message & 0xff_ffff);
            assert!(backend >= before, "behind one of a later backend");
            assert_eq!(heard[backend], number, "of {backend}: {}", self.describe());
            heard[backend] += 1;
            before = backend;
        }
        // Of all but the last: the session went on behind them.
        for (number, _) in self.gaps.iter().enumerate() {
            let said = self.backends[number]
                .ended
                .map_or(0, |last| (last & 0xff_ffff) + 1);
            let is_heard = self.went[number] != Went::Reset && self.client.close.is_some();
            if is_heard && self.may_end == Some("the client closes") {
                assert_eq!(heard[number], said, "of {number}: {}", self.describe());
            }
        }
    }
}
