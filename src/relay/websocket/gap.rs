//! A WebSocket between two backends: bytes of its client are held, its pings are answered, and
//! another backend takes the place of the one that is gone.

use std::sync::Arc;

use super::close_frame::{CloseFrame, reader};
use super::message_times::MessageTimes;
use super::resume::Takeover;
use crate::base::close_code::{GOING_AWAY, PROTOCOL_ERROR};
use crate::observe::{Cause, Resumed};
use crate::relay::clock::Tick;
use crate::relay::direction::{Flow, READS_PER_TURN, least_read};
use crate::relay::key::Handle;
use crate::relay::leg::{Input, Leg};
use crate::relay::phase::{SessionPhase, TurnOutcome};
use crate::relay::resume_policy::{LostBackend, NewBackend};
use crate::relay::scratch::Scratch;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT, ended_by, ended_by_us};
use crate::wire::control;
use crate::wire::frame_filter::Filtered;

/// The session wants no other backend.
#[derive(Debug)]
pub(in crate::relay) struct MigrationDeclined;

/// Outcome of reading the client in a gap.
enum GapRead {
    /// All there was, or may be held: the rest is left to the kernel.
    All,
    /// There may be more.
    More,
    /// Reads nothing because the worker's sessions hold too much.
    Starved,
    /// The client's end.
    Ended(Cause),
}

impl Session {
    /// Begins the search for another backend.
    pub(crate) fn find_backend(&mut self, session: Handle) {
        self.begin_search(session, false);
    }

    /// Begins the search again, of which a move to this relay was the end.
    pub(crate) fn find_backend_again(&mut self, session: Handle) {
        self.begin_search(session, true);
    }

    fn begin_search(&mut self, session: Handle, is_counted: bool) {
        let from = self.record.assignment().map(|(_, name)| Arc::clone(name));
        let migrator = self.resume().map(|resume| Arc::clone(&resume.migrator));
        if let (SessionPhase::Gap(gap), Some(migrator)) = (&mut self.phase, migrator) {
            let lost = LostBackend {
                session,
                lost: gap.lost,
                was_short: gap.was_short,
                from,
                is_counted,
            };
            gap.search = Some(migrator.find_backend(lost, &mut self.guards));
        }
    }

    /// Reads the client, and writes to it what its last backend has sent.
    pub(crate) fn turn_in_gap(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let flow = self.pump(BACKEND, scratch);
        let read = self.read_into_gap(scratch);
        // What it answered to its own peer while it was read.
        self.legs[CLIENT].flush();
        self.answer_ping();
        self.note_activity(scratch.now);
        if let Some(outcome) = self.refuse_client(scratch.now) {
            return outcome;
        }
        if let GapRead::Ended(cause) = read {
            if self.owes(CLIENT) {
                // A part of a frame must not look whole.
                self.legs[CLIENT].reset();
            }
            return TurnOutcome::Ended(ended_by(CLIENT, cause));
        }
        let Some(frames) = self.frames.as_deref() else {
            return self.give_up_migration(scratch.now);
        };
        let [client, backend] = &frames.filters;
        if client.violation().is_some() {
            let frame = CloseFrame::new(PROTOCOL_ERROR, "");
            let end = ended_by(CLIENT, Cause::Invalid);
            return self.send_close([Some(&frame), None], end, scratch.now);
        }
        if client.has_closed() {
            let frame = CloseFrame::new(GOING_AWAY, "");
            let end = ended_by(CLIENT, Cause::Fin);
            return self.send_close([Some(&frame), None], end, scratch.now);
        }
        let has_insert = backend.has_insert() && !self.directions[BACKEND].is_blocked();
        match (read, flow) {
            (GapRead::Starved, _) => TurnOutcome::Soon,
            (GapRead::More, _) | (_, Flow::OutOfBudget) => TurnOutcome::Again,
            _ if has_insert => TurnOutcome::Again,
            _ => TurnOutcome::Wait,
        }
    }

    fn read_into_gap(&mut self, scratch: &mut Scratch) -> GapRead {
        for _ in 0..READS_PER_TURN {
            self.account(scratch);
            if !scratch.held.has_room() {
                return GapRead::Starved;
            }
            let room = self.gap_room();
            let client = &self.legs[CLIENT];
            if room == 0 {
                // Nothing is read that would tell of a reset.
                return if client.is_broken() {
                    GapRead::Ended(client.fault().unwrap_or(Cause::Rst))
                } else {
                    GapRead::All
                };
            }
            let mut limit = least_read(client);
            // With less, the rest of a TLS record would never come.
            if client.is_raw() {
                limit = limit.min(room);
            }
            match self.legs[CLIENT].read(scratch, limit, false) {
                Input::Data(count) => {
                    self.record.bytes_from_client += count as u64;
                    self.hold(&scratch.plain[..count], scratch.now);
                }
                Input::Blocked => return GapRead::All,
                Input::Short => return GapRead::Starved,
                Input::Fin => return GapRead::Ended(Cause::Fin),
                Input::Broken => {
                    let fault = self.legs[CLIENT].fault();
                    return GapRead::Ended(fault.unwrap_or(Cause::Rst));
                }
            }
        }
        GapRead::More
    }

    /// Bytes of the client that may still be held.
    fn gap_room(&self) -> usize {
        match (&self.phase, self.resume()) {
            (SessionPhase::Gap(gap), Some(resume)) => {
                (resume.settings.max_buffer as usize).saturating_sub(gap.held.len())
            }
            _ => 0,
        }
    }

    /// Answers the client's latest ping, unless the answer before is not read yet.
    fn answer_ping(&mut self) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        let [client, backend] = &mut frames.filters;
        if !backend.has_insert()
            && !self.directions[BACKEND].is_blocked()
            && let Some(payload) = client.take_ping()
        {
            backend.insert(&control::pong(payload, reader(CLIENT)));
        }
    }

    /// Holds bytes of the client for the next backend.
    pub(crate) fn hold(&mut self, bytes: &[u8], now: Tick) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        let passed = frames.direction(CLIENT).pass(bytes, now);
        frames.note_pumped(CLIENT, true, now);
        if let SessionPhase::Gap(gap) = &mut self.phase {
            match passed {
                Filtered::Whole => gap.held.extend_from_slice(bytes),
                Filtered::Edited(edited) => gap.held.extend_from_slice(&edited),
            }
        }
    }

    /// Puts another backend in the place of the one that is gone.
    ///
    /// # Errors
    /// It has one, or is about to end.
    pub(crate) fn attach(
        &mut self,
        backend: NewBackend,
        scratch: &mut Scratch,
    ) -> Result<(), MigrationDeclined> {
        let now = scratch.now;
        if !matches!(self.phase, SessionPhase::Gap(_)) || self.resume().is_none() {
            return Err(MigrationDeclined);
        }
        self.answer_ping();
        let Some(frames) = self.frames.as_deref_mut() else {
            return Err(MigrationDeclined);
        };
        let SessionPhase::Gap(gap) = std::mem::take(&mut self.phase) else {
            return Err(MigrationDeclined);
        };
        if let Some(resume) = &mut frames.resume {
            resume.times = MessageTimes::new(frames.filters[CLIENT].take_spoken(), now);
            resume.takeover = Some(Takeover {
                since: gap.since,
                from: now,
                lost: gap.lost,
            });
        }
        if let Some(search) = gap.search {
            // It has found what it looked for.
            search.disarm();
        }
        let NewBackend { leg, install } = backend;
        let from = self.record.assignment().map(|(_, name)| Arc::clone(name));
        install(&mut self.guards, &mut self.record);
        self.record.resumed(Resumed {
            from,
            gap: now.since(gap.ended).into(),
            lost: gap.lost.at_most(),
        });
        self.record.bytes_from_backend += leg.read.len() as u64;
        self.legs[BACKEND] = Leg::new(leg.socket, leg.transport, false);
        self.directions[CLIENT].restart(gap.held, now);
        let read = frames.direction(BACKEND).filter(leg.read, now);
        self.directions[BACKEND].append(read, now);
        frames.filters[CLIENT].attach_reader();
        frames.note_new_backend(now);
        self.account(scratch);
        Ok(())
    }

    /// Ends a session for which there is no other backend.
    pub(crate) fn give_up_migration(&mut self, now: Tick) -> TurnOutcome {
        let SessionPhase::Gap(gap) = &self.phase else {
            return TurnOutcome::Wait;
        };
        let end = match gap.cause {
            Cause::Stop => ended_by_us(Cause::Stop),
            cause => ended_by(BACKEND, cause),
        };
        self.record.not_resumed();
        self.send_restart(end, now)
    }
}
