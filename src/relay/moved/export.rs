//! State of a session, as another relay takes it over.

use super::StayReason;
use crate::observe::Side;
use crate::relay::clock::{Tick, Ticks};
use crate::relay::handoff::SessionGuards;
use crate::relay::leg::Leg;
use crate::relay::phase::SessionPhase;
use crate::relay::scratch::Scratch;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT};
use crate::relay::websocket::frames::Frames;
use crate::wire::moved::{MovedGap, MovedSession, MovedSide, MovedTimeouts};

impl Session {
    /// The reason for which it stays, where it does.
    fn stays(&self) -> Option<StayReason> {
        match &self.phase {
            SessionPhase::Open | SessionPhase::Unserved(_) | SessionPhase::Gap(_) => {
                let frames = self.frames.as_deref().and_then(Frames::stays);
                frames.or_else(|| self.legs.iter().find_map(Leg::stays))
            }
            SessionPhase::Connecting(_) => Some(StayReason::Connecting),
            SessionPhase::InDoubt(_) => Some(StayReason::InDoubt),
            SessionPhase::Migrating(_) => Some(StayReason::LeavingBackend),
            SessionPhase::Refusing(_) | SessionPhase::Closing(_) => Some(StayReason::Closing),
            SessionPhase::Resetting { .. } => Some(StayReason::Resetting),
        }
    }

    /// Makes it ready to leave its worker: its bytes are in memory and in the counters, it is in no
    /// account, and a search for another backend is cancelled.
    ///
    /// # Errors
    /// It stays as it is.
    pub(in crate::relay) fn prepare_move(
        &mut self,
        scratch: &mut Scratch,
    ) -> Result<(), StayReason> {
        if let Some(reason) = self.stays() {
            return Err(reason);
        }
        if !self
            .directions
            .iter_mut()
            .all(|one| one.empty_pipe(scratch))
        {
            return Err(StayReason::Pipe);
        }
        if let SessionPhase::Gap(gap) = &mut self.phase {
            gap.search = None;
        }
        self.record.tally();
        self.release(scratch);
        self.is_queued = false;
        self.is_awaited = false;
        Ok(())
    }

    /// The whole state, at `now`.
    ///
    /// # Errors
    /// It stays, as [`Session::prepare_move`] has said.
    pub(in crate::relay) fn export(&self, now: Tick) -> Result<MovedSession, StayReason> {
        if let Some(reason) = self.stays() {
            return Err(reason);
        }
        let gap = match &self.phase {
            SessionPhase::Gap(gap) => Some(Box::new(MovedGap {
                since_ms: now.age_ms(gap.since),
                ended_ms: now.age_ms(gap.ended),
                held: gap.held.clone(),
                lost: gap.lost.at_most(),
                cause: gap.cause.word().to_owned(),
                was_short: gap.was_short,
            })),
            _ => None,
        };
        let [client, backend] = &self.legs;
        let frames = self.frames.as_deref().map(|frames| frames.export(now));
        Ok(MovedSession {
            record: self.record.export(),
            client: client.export()?,
            backend: match backend.own_socket() {
                Some(_) => Some(backend.export()?),
                None => None,
            },
            from_client: self.directions[CLIENT].export(),
            from_backend: self.directions[BACKEND].export(),
            timeouts: MovedTimeouts {
                idle_ms: self.idle_timeout.milliseconds(),
                fin_ms: self.fin_timeout.milliseconds(),
                lifetime_ms: (self.lifetime < Ticks::MAX).then(|| self.lifetime.milliseconds()),
            },
            idle_ms: now.age_ms(self.last_activity),
            unsent_before: self.unsent_before.map_or(0, std::num::NonZeroU32::get),
            first_fin: self.first_fin.map(|side| match side {
                Side::Client => MovedSide::Client,
                Side::Backend | Side::Evenkeel => MovedSide::Backend,
            }),
            frames: frames.transpose()?.map(Box::new),
            gap,
        })
    }

    /// Leaves the session to another relay: closes the copies of its sockets, and gives its guards.
    pub(in crate::relay) fn hand_over(self) -> SessionGuards {
        let Session {
            record,
            legs,
            guards,
            phase,
            ..
        } = self;
        drop((legs, phase));
        record.hand_over();
        guards
    }
}
