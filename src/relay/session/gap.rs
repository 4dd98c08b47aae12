//! A session between two backends: what its client sends is held, its pings are answered, and another backend takes the place
//! of the one that is gone.

use std::sync::Arc;

use tokio_util::sync::DropGuard;

use super::super::clock::Tick;
use super::super::direction::{Direction, Flow, READS_PER_TURN, least_read};
use super::super::frames::{CloseFrame, Frames, reader};
use super::super::leg::{Input, Leg};
use super::super::query::Handle;
use super::super::resume_policy::{LostBackend, LostMessages, NewBackend};
use super::super::scratch::Scratch;
use super::resume::{BackendPhase, ResumeState, Served};
use super::talk::Talk;
use super::{BACKEND, CLIENT, Session, TurnOutcome, ended_by};
use crate::base::close_code::{GOING_AWAY, PROTOCOL_ERROR};
use crate::observe::{Cause, Phase, Resumed, Side, Termination};
use crate::wire::control;
use crate::wire::frame_filter::Filtered;

/// Between two backends.
pub(super) struct BackendGap {
    /// Its time is counted from then.
    pub since: Tick,
    /// When the backend's leg ended: before that was known to be a loss.
    pub ended: Tick,
    /// What the client has sent since then.
    pub held: Vec<u8>,
    lost: LostMessages,
    /// How the backend's leg ended.
    how: Cause,
    /// The backend went as soon as it came.
    was_short: bool,
    /// Of the search; there as soon as it was begun.
    search: Option<DropGuard>,
}

impl BackendGap {
    /// `lost` with the backend whose leg ended in this way.
    pub fn new(lost: LostMessages, how: Cause, since: Tick, was_short: bool) -> BackendGap {
        BackendGap {
            since,
            ended: since,
            held: Vec::new(),
            lost,
            how,
            was_short,
            search: None,
        }
    }
}

/// The session wants no other backend.
#[derive(Debug)]
pub(in super::super) struct MigrationDeclined;

/// What reading the client in a gap gave.
enum GapRead {
    /// All there was, or may be held: the rest is left to the kernel.
    All,
    /// There may be more.
    More,
    /// Reads nothing because the worker's entries hold too much.
    Starved,
    /// The client's end.
    Ended(Cause),
}

impl Session {
    fn gap(&mut self) -> Option<&mut BackendGap> {
        match &mut self.role.resume_mut()?.state {
            BackendPhase::Gap(gap) => Some(gap),
            BackendPhase::Served | BackendPhase::Doubt(_) | BackendPhase::Leaving(_) => None,
        }
    }

    /// Begins the search for another backend.
    pub fn find_backend(&mut self, session: Handle) {
        let from = self.record.assignment().map(|(_, name)| Arc::clone(name));
        let Some(resume) = self.role.resume_mut() else {
            return;
        };
        if let BackendPhase::Gap(gap) = &mut resume.state {
            let gone = LostBackend {
                session,
                lost: gap.lost,
                was_short: gap.was_short,
                from,
            };
            gap.search = Some(Arc::clone(&resume.migrator).find_backend(gone, &mut self.guards));
        }
    }

    /// One turn without a backend.
    pub(super) fn turn_in_gap(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let flow = self.pump(BACKEND, scratch);
        let held = self.read_into_gap(scratch);
        // What it answered to its own peer while it was read.
        self.legs[CLIENT].flush();
        self.answer_ping();
        if self.legs[CLIENT].take_activity()
            && self.frames.as_deref_mut().is_none_or(Frames::take_activity)
        {
            self.last_activity = scratch.now;
        }
        if let Some(turn) = self.judge_client(scratch.now) {
            return turn;
        }
        if let GapRead::Ended(how) = held {
            if self.owes(CLIENT) {
                // A part of a frame must not look whole.
                self.legs[CLIENT].reset();
            }
            self.end = Some(ended_by(CLIENT, how));
            return TurnOutcome::Ended;
        }
        let [client, backend] = match self.frames.as_deref() {
            Some(frames) => &frames.passages,
            None => return self.give_up_migration(scratch.now),
        };
        if client.lost().is_some() {
            let goodbye = CloseFrame::new(PROTOCOL_ERROR, "");
            let end = ended_by(CLIENT, Cause::Invalid);
            return self.farewell([Some(&goodbye), None], end, scratch.now);
        }
        if client.has_closed() {
            let goodbye = CloseFrame::new(GOING_AWAY, "");
            return self.farewell(
                [Some(&goodbye), None],
                ended_by(CLIENT, Cause::Fin),
                scratch.now,
            );
        }
        match (held, flow) {
            (GapRead::Starved, _) => TurnOutcome::Soon,
            (GapRead::More, _) | (_, Flow::OutOfBudget) => TurnOutcome::Again,
            _ if backend.has_insert() && !self.directions[BACKEND].is_blocked() => {
                TurnOutcome::Again
            }
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
                let how = client.fault().unwrap_or(Cause::Rst);
                return match client.is_broken() {
                    true => GapRead::Ended(how),
                    false => GapRead::All,
                };
            }
            let limit = match client.is_raw() {
                true => least_read(client).min(room),
                // With less, the rest of a record would never come.
                false => least_read(client),
            };
            match self.legs[CLIENT].read(scratch, limit, false) {
                Input::Data(count) => {
                    self.record.bytes_from_client += count as u64;
                    self.hold(&scratch.plain[..count], scratch.now);
                }
                Input::Blocked => return GapRead::All,
                Input::Short => return GapRead::Starved,
                Input::Fin => return GapRead::Ended(Cause::Fin),
                Input::Broken => {
                    let how = self.legs[CLIENT].fault().unwrap_or(Cause::Rst);
                    return GapRead::Ended(how);
                }
            }
        }
        GapRead::More
    }

    /// How much more of the client may be held.
    fn gap_room(&self) -> usize {
        let room = |resume: &ResumeState| resume.max_buffer().saturating_sub(resume.held_bytes());
        self.role.resume().map_or(0, room)
    }

    /// Answers the client's latest ping, but for one that does not read the answer before.
    fn answer_ping(&mut self) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        let [client, backend] = &mut frames.passages;
        if !backend.has_insert()
            && !self.directions[BACKEND].is_blocked()
            && let Some(payload) = client.take_ping()
        {
            backend.insert(&control::pong(payload, reader(CLIENT)));
        }
    }

    /// Holds what the client has sent.
    pub(super) fn hold(&mut self, bytes: &[u8], now: Tick) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        let passed = frames.way(CLIENT).pass(bytes, now);
        frames.pumped(CLIENT, true, now);
        if let Some(gap) = self.gap() {
            match passed {
                Filtered::Whole => gap.held.extend_from_slice(bytes),
                Filtered::Edited(edited) => gap.held.extend_from_slice(&edited),
            }
        }
    }

    /// Another backend takes the place of the one that is gone.
    ///
    /// # Errors
    /// It has one, or is about to end.
    pub fn attach(
        &mut self,
        successor: NewBackend,
        scratch: &mut Scratch,
    ) -> Result<(), MigrationDeclined> {
        let now = scratch.now;
        if self.is_in_gap() {
            self.answer_ping();
        }
        let Some(frames) = self.frames.as_deref_mut() else {
            return Err(MigrationDeclined);
        };
        let Some(resume) = self.role.resume_mut() else {
            return Err(MigrationDeclined);
        };
        let gap = match std::mem::replace(&mut resume.state, BackendPhase::Served) {
            BackendPhase::Gap(gap) => gap,
            other => {
                resume.state = other;
                return Err(MigrationDeclined);
            }
        };
        resume.talk = Talk::new(frames.passages[CLIENT].take_spoken(), now);
        resume.served = Some(Served {
            since: gap.since,
            from: now,
            lost: gap.lost,
        });
        let NewBackend { leg, install } = successor;
        if let Some(search) = gap.search {
            // It has found what it looked for.
            search.disarm();
        }
        let from = self.record.assignment().map(|(_, name)| Arc::clone(name));
        install(&mut self.guards, &mut self.record);
        self.record.resumed(Resumed {
            from,
            gap: now.since(gap.ended).into(),
            lost: gap.lost.at_most(),
        });
        self.record.bytes_from_backend += leg.read.len() as u64;
        self.legs[BACKEND] = Leg::new(leg.socket, leg.transport, false);
        self.directions[CLIENT] = Direction::new(gap.held, now);
        let read = match frames.way(BACKEND).pass(&leg.read, now) {
            Filtered::Whole => leg.read,
            Filtered::Edited(edited) => edited,
        };
        self.directions[BACKEND].append(read, now);
        frames.passages[CLIENT].arrive();
        frames.backend_changed(now);
        self.settled = false;
        self.account(scratch);
        Ok(())
    }

    /// No other backend takes it.
    pub fn give_up_migration(&mut self, now: Tick) -> TurnOutcome {
        let Some(gap) = self.gap() else {
            return TurnOutcome::Wait;
        };
        let end = match gap.how {
            Cause::Stop => Termination::new(Side::Evenkeel, Phase::Relay, Cause::Stop),
            how => ended_by(BACKEND, how),
        };
        self.record.not_resumed();
        self.say_restart(end, now)
    }
}
