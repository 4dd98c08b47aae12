//! A WebSocket that is taken from its backend by our decision: it leaves between two messages of
//! the client, once the backend has answered those before, with a Close. Bytes that the backend
//! still sends until it answers that are delivered.

use std::sync::Arc;
use std::time::Duration;

use super::close_frame::CloseFrame;
use crate::relay::clock::Tick;
use crate::relay::phase::{Migration, MigrationStep, SessionPhase, TurnOutcome};
use crate::relay::scratch::Scratch;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT};
use crate::wire::frame_filter::CloseFilter;

impl Session {
    /// Takes the session from its backend: another one takes it if it is resumable, or else it is
    /// ended with this Close.
    pub(crate) fn migrate(&mut self, frame: &Arc<CloseFrame>, now: Tick) -> TurnOutcome {
        if self.phase.is_changing_backend() {
            return TurnOutcome::Wait;
        }
        if !self.may_migrate() {
            return self.begin_close(frame, now);
        }
        if let Some(frames) = &mut self.frames {
            frames.filters[CLIENT].pause();
        }
        self.record.moves();
        self.phase = SessionPhase::Migrating(Box::new(Migration::new(frame, now)));
        TurnOutcome::Again
    }

    /// Relays until the backend is to be left, or has ended.
    pub(crate) fn turn_migrating(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let transfer = self.transfer(scratch);
        let now = scratch.now;
        if let Some(outcome) = self.refuse_client(now) {
            return outcome;
        }
        if !self.is_resumable() {
            return self.stop_migrating(now);
        }
        if self.has_backend_left() || transfer.is_over(BACKEND) {
            return self.lose_backend(self.backend_end_cause(), now);
        }
        if let Some(outcome) = self
            .step_migration(now)
            .or_else(|| self.pass_on_fault(&transfer, now))
        {
            return outcome;
        }
        match (self.go_on(&transfer), &self.phase) {
            // No event tells of the backend's silence.
            (TurnOutcome::Wait, SessionPhase::Migrating(migration))
                if migration.step == MigrationStep::Answers =>
            {
                TurnOutcome::Soon
            }
            (outcome, _) => outcome,
        }
    }

    /// Gives the backend a while to answer the client's last message, then sends it Close.
    fn step_migration(&mut self, now: Tick) -> Option<TurnOutcome> {
        let has_all = self.has_taken_all(BACKEND);
        let left = self.change_left(now);
        let frames = self.frames.as_deref_mut()?;
        let SessionPhase::Migrating(migration) = &mut self.phase else {
            return None;
        };
        if !frames.filters[CLIENT].is_paused() {
            return None;
        }
        let resume = frames.resume.as_deref()?;
        match migration.step {
            MigrationStep::Boundary => {
                migration.go_on(MigrationStep::Answers, now);
                return Some(TurnOutcome::Again);
            }
            MigrationStep::Answers => {
                let is_over = left.is_none_or(|left| left.is_zero());
                if resume.times.may_answer(resume.settings.settle, now) && !is_over {
                    return None;
                }
            }
            MigrationStep::Closing { .. } => return None,
        }
        let was_quiet = has_all && resume.is_quiet(now);
        migration.go_on(MigrationStep::Closing { was_quiet }, now);
        let frame = migration.frame.encode(BACKEND);
        let [client, backend] = &mut frames.filters;
        client.insert(&frame);
        backend.set_close_filter(CloseFilter::Any);
        Some(TurnOutcome::Again)
    }

    /// Ends a migration that is not possible any more: the session ends with its present backend.
    fn stop_migrating(&mut self, now: Tick) -> TurnOutcome {
        if self.legs[CLIENT].is_broken() || self.directions[CLIENT].is_over() {
            // Bytes of the client before its end are delivered where they can be.
            self.stop_resuming(now);
            return TurnOutcome::Again;
        }
        match &self.phase {
            SessionPhase::Migrating(migration) => {
                let frame = Arc::clone(&migration.frame);
                self.begin_close(&frame, now)
            }
            _ => TurnOutcome::Again,
        }
    }

    /// Time left of a change of its backend.
    pub(crate) fn change_left(&self, now: Tick) -> Option<Duration> {
        let settings = &self.resume()?.settings;
        self.phase
            .change_left(settings.settle, settings.timeout, now)
    }

    /// Ends a change of its backend that has taken too long.
    pub(crate) fn change_overdue(&mut self, now: Tick) -> Option<TurnOutcome> {
        Some(match &self.phase {
            SessionPhase::InDoubt(_) => self.accept_backend_end(now),
            SessionPhase::Gap(_) => self.give_up_migration(now),
            SessionPhase::Migrating(migration) => match migration.step {
                MigrationStep::Boundary => {
                    let frame = Arc::clone(&migration.frame);
                    self.begin_close(&frame, now)
                }
                MigrationStep::Answers => TurnOutcome::Again,
                // It does not answer the Close. Messages that it has not read are lost.
                MigrationStep::Closing { .. } => self.lose_backend(self.backend_end_cause(), now),
            },
            _ => return None,
        })
    }
}
