//! Sides of a session: indices of its legs, its directions and its frame filters.

use crate::observe::{Cause, Phase, Side, Termination};

pub(super) const CLIENT: usize = 0;
pub(super) const BACKEND: usize = 1;
pub(super) const SIDES: [usize; 2] = [CLIENT, BACKEND];

/// A side as records name it.
pub(super) fn named(side: usize) -> Side {
    if side == CLIENT {
        Side::Client
    } else {
        Side::Backend
    }
}

/// The end of a session that this side has brought about.
pub(super) fn ended_by(side: usize, cause: Cause) -> Termination {
    Termination::new(named(side), Phase::Relay, cause)
}

/// The end of a session by our own decision.
pub(super) fn ended_by_us(cause: Cause) -> Termination {
    Termination::new(Side::Evenkeel, Phase::Relay, cause)
}
