//! A worker's looks at sessions for which no event tells: their deadlines and upkeep, and overdue
//! connects.

use std::time::Instant;

use super::Worker;
use crate::relay::key::SessionKey;
use crate::relay::session::Session;
use crate::relay::sweep::SLOTS_PER_SLICE;

impl Worker {
    /// Goes over the next slice of the table, if one is due.
    pub(super) fn sweep_due(&mut self, now: Instant) {
        let Some(first) = self.sweep.begin(now) else {
            return;
        };
        let end = first
            .saturating_add(SLOTS_PER_SLICE)
            .min(self.table.slots());
        for index in first..end {
            if let Some(Some((key, _))) = self.table.slot(index) {
                self.maintain(key, now);
            }
        }
        self.sweep.advance_to(end, self.table.slots(), now);
    }

    /// Ends a session that is past its deadline; does for another what is to be done now and then.
    fn maintain(&mut self, key: SessionKey, now: Instant) {
        let tick = self.scratch.now;
        let overdue = self.guarded(key, |session, _| session.overdue(tick));
        if let Some(Some(outcome)) = overdue {
            self.act_on(key, outcome, now);
        }
        let due = self.guarded(key, |session, scratch| {
            session.maintain(scratch);
            session.due_in(tick)
        });
        if let Some(due) = due {
            self.sweep.schedule(now, due);
        }
    }

    /// Gives back clients whose connect is overdue and whom another backend is to serve.
    pub(super) fn give_up_overdue(&mut self, now: Instant) {
        let tick = self.scratch.now;
        for key in self.connecting.take_due(tick, now) {
            let is_connecting = |session: &mut Session| session.phase.is_connecting();
            if !self.table.get(key).is_some_and(is_connecting) {
                continue;
            }
            match self.guarded(key, |session, _| session.give_up_connect(tick)) {
                Some(Some(failure)) => self.give_back(key, failure),
                Some(None) => self.connecting.push(key, tick, now),
                None => {}
            }
        }
    }
}
