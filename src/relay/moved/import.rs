//! A session that goes on in this relay.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::{ArrivalError, ArrivingParts, ArrivingSession};
use crate::observe::{Cause, ConnectionRecord, Side};
use crate::relay::clock::{Clock, Tick, Ticks};
use crate::relay::direction::Direction;
use crate::relay::leg::Leg;
use crate::relay::phase::{BackendGap, SessionPhase};
use crate::relay::resume_policy::LostMessages;
use crate::relay::session::Session;
use crate::relay::websocket::frames::Frames;
use crate::relay::websocket::resume::ResumeState;
use crate::wire::moved::{MovedFrames, MovedGap, MovedSession, MovedSide};

/// Finds out whether the state means a session here.
///
/// # Errors
/// The part that does not.
pub(super) fn check(state: &MovedSession, parts: &ArrivingParts) -> Result<(), ArrivalError> {
    let mut legs = [Some(&state.client), state.backend.as_ref()]
        .into_iter()
        .flatten();
    if !legs.all(Leg::is_importable) {
        return Err(ArrivalError::Value("leg"));
    }
    let wants_resume = state
        .frames
        .as_deref()
        .is_some_and(|one| one.resume.is_some());
    if wants_resume != parts.resume.is_some() {
        return Err(ArrivalError::Resume);
    }
    if state.backend.is_some() == state.gap.is_some() {
        return Err(ArrivalError::Value("leg of the backend"));
    }
    if let Some(gap) = &state.gap {
        let cause = Cause::of_word(&gap.cause);
        if cause.is_none() || !wants_resume {
            return Err(ArrivalError::Value("gap between two backends"));
        }
    }
    // The clock does not matter: every value is converted once.
    let now = Clock::new(Instant::now()).tick(Instant::now());
    match frames(state.frames.clone(), parts, now) {
        Some(_) => Ok(()),
        None => Err(ArrivalError::Value("frames")),
    }
}

/// The frames; `Some(None)`: none are followed. `None`: a value is out of bounds.
fn frames(
    moved: Option<Box<MovedFrames>>,
    parts: &ArrivingParts,
    now: Tick,
) -> Option<Option<Box<Frames>>> {
    let Some(moved) = moved else {
        return Some(None);
    };
    let resume = match (&moved.resume, &parts.resume) {
        (Some(moved), Some(here)) => {
            let migrator = Arc::clone(&here.migrator);
            let state = ResumeState::import(moved, migrator, here.settings.clone(), now)?;
            Some(Box::new(state))
        }
        _ => None,
    };
    Frames::import(*moved, resume, now).map(|frames| Some(Box::new(frames)))
}

impl Session {
    /// Goes on with a session whose state and sockets were checked. `None`: they were not.
    pub(in crate::relay) fn import(
        arriving: ArrivingSession,
        (client, backend): (OwnedFd, Option<OwnedFd>),
        now: Tick,
    ) -> Option<Session> {
        let ArrivingSession { state, parts } = arriving;
        let frames = frames(state.frames, &parts, now)?;
        let backend = match (&state.backend, backend) {
            (Some(moved), Some(socket)) => Leg::import(moved, socket)?,
            (None, None) => Leg::absent()?,
            _ => return None,
        };
        let phase = match state.gap {
            Some(gap) => SessionPhase::Gap(Box::new(import_gap(*gap, now)?)),
            None => SessionPhase::Open,
        };
        let client = Leg::import(&state.client, client)?;
        let record =
            ConnectionRecord::import(&state.record, &parts.listener, parts.backend.as_ref());
        let timeouts = state.timeouts;
        Some(Session {
            record,
            legs: [client, backend],
            directions: [
                Direction::import(state.from_client, now),
                Direction::import(state.from_backend, now),
            ],
            frames,
            phase,
            idle_timeout: Ticks::of_milliseconds(timeouts.idle_ms),
            fin_timeout: Ticks::of_milliseconds(timeouts.fin_ms),
            lifetime: timeouts
                .lifetime_ms
                .map_or(Ticks::MAX, Ticks::of_milliseconds),
            last_activity: now.before_ms(state.idle_ms),
            unsent_before: NonZeroU32::new(state.unsent_before),
            first_fin: state.first_fin.map(|side| match side {
                MovedSide::Client => Side::Client,
                MovedSide::Backend => Side::Backend,
            }),
            guards: parts.guards,
            is_queued: false,
            is_awaited: false,
        })
    }
}

fn import_gap(gap: MovedGap, now: Tick) -> Option<BackendGap> {
    Some(BackendGap {
        since: now.before_ms(gap.since_ms),
        ended: now.before_ms(gap.ended_ms),
        held: gap.held,
        lost: LostMessages::of_count(gap.lost),
        cause: Cause::of_word(&gap.cause)?,
        was_short: gap.was_short,
        search: None,
    })
}
