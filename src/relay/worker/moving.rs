//! Sessions that leave for another relay, and those that come from one.

use std::time::Instant;

use mio::unix::SourceFd;

use super::Worker;
use crate::observe::Cause;
use crate::relay::key::SessionKey;
use crate::relay::moved::{
    Adoption, Freeze, FreezeReply, FrozenSession, MAX_BATCH, StayReason, Thawing,
};
use crate::relay::phase::SessionPhase;
use crate::relay::query::SLOTS_PER_LOOK;
use crate::relay::session::Session;
use crate::relay::side::SIDES;

impl Worker {
    /// Freezes the next sessions.
    pub(super) fn freeze(&mut self, freeze: Freeze) {
        let end = freeze.from.saturating_add(SLOTS_PER_LOOK as u32);
        let most = freeze.most.min(MAX_BATCH);
        let mut reply = FreezeReply::default();
        let mut index = freeze.from;
        while index < end && reply.sessions.len() < most {
            match self.table.slot(index) {
                None => break,
                Some(None) => {}
                Some(Some((key, session))) => {
                    let id = session.record.id;
                    if freeze.declined.contains(&id) {
                        reply.stayed.push((id, StayReason::Declined));
                        index += 1;
                        continue;
                    }
                    match self.guarded(key, |session, scratch| session.prepare_move(scratch)) {
                        Some(Ok(())) => reply.sessions.extend(self.take_out(key)),
                        Some(Err(reason)) => reply.stayed.push((id, reason)),
                        None => {}
                    }
                }
            }
            index += 1;
        }
        reply.next = (index < self.table.slots()).then_some(index);
        // Dropped where nobody waits any more: the sessions thaw.
        let _ = freeze.reply.send(reply);
    }

    /// Takes a session out of the epoll and out of the table.
    fn take_out(&mut self, key: SessionKey) -> Option<FrozenSession> {
        let session = self.table.get(key)?;
        let sockets = SIDES.map(|side| session.legs[side].own_socket().map(|_| side));
        for side in sockets.into_iter().flatten() {
            let fd = self.table.get(key)?.leg(side).raw_fd();
            // Before all else: a descriptor that is closed goes on to report while a copy lives.
            if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
                tracing::warn!(%error, "a connection cannot be frozen and is reset");
                self.reset(key, Cause::Error);
                return None;
            }
        }
        let session = Box::new(self.table.remove(key)?);
        let now = self.scratch.now;
        Some(FrozenSession::new(session, now, &self.inbox, &self.workers))
    }

    /// Goes on with a session that was frozen here.
    pub(super) fn thaw(&mut self, thawing: Thawing, now: Instant) {
        if let Some(session) = thawing.into_session() {
            self.take_in(*session, now);
        }
    }

    /// Goes on with a session of another relay.
    pub(super) fn adopt_moved(&mut self, adoption: Adoption, now: Instant) {
        match adoption.into_session(self.scratch.now) {
            Some(session) => self.take_in(session, now),
            None => tracing::error!("a moved connection cannot be taken in"),
        }
    }

    /// Puts a session into the epoll, which reports all that came while it was in none, and into
    /// the table.
    fn take_in(&mut self, mut session: Session, now: Instant) {
        let key = self.table.reserve();
        let register = |side: usize| match session.legs[side].own_socket() {
            Some(_) => self.register(key, side, session.legs[side].raw_fd()),
            None => Ok(()),
        };
        let registered = SIDES.into_iter().try_for_each(register);
        session.account(&mut self.scratch);
        let left = session.first_look_in(self.scratch.now);
        let is_in_gap = matches!(session.phase, SessionPhase::Gap(_));
        self.table.put(key, session);
        if let Err(error) = registered {
            tracing::warn!(%error, "a moved connection cannot be watched and is reset");
            return self.reset(key, Cause::Error);
        }
        if let Some(closing) = &mut self.closing {
            closing.add(key);
        }
        self.sweep.schedule(now, left);
        if is_in_gap {
            self.ask(key, now, Session::find_backend_again);
        } else {
            self.queue_and_schedule(key, now);
        }
    }
}
