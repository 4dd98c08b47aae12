//! A direction on its way to another relay.

use super::{Direction, SourceState};
use crate::relay::clock::Tick;
use crate::relay::scratch::Scratch;
use crate::wire::moved::{MovedDirection, MovedSource};

impl Direction {
    /// Takes bytes out of a pipe, which cannot move. False: some are left there.
    pub(in crate::relay) fn empty_pipe(&mut self, scratch: &mut Scratch) -> bool {
        self.free_pipe(scratch);
        let stalled = self.stalled.as_deref();
        stalled.is_none_or(|stalled| stalled.pipe.is_none())
    }

    pub(in crate::relay) fn export(&self) -> MovedDirection {
        let stalled = self.stalled.as_deref();
        let rest = stalled.and_then(|stalled| stalled.bytes.get(stalled.written..));
        MovedDirection {
            stalled: rest.unwrap_or_default().to_vec(),
            source: match self.source {
                SourceState::Open => MovedSource::Open,
                SourceState::Ended => MovedSource::Ended,
                SourceState::Finished => MovedSource::Finished,
                SourceState::Broken => MovedSource::Broken,
            },
        }
    }

    pub(in crate::relay) fn import(moved: MovedDirection, now: Tick) -> Direction {
        let mut direction = Direction::new(moved.stalled, now);
        direction.source = match moved.source {
            MovedSource::Open => SourceState::Open,
            MovedSource::Ended => SourceState::Ended,
            MovedSource::Finished => SourceState::Finished,
            MovedSource::Broken => SourceState::Broken,
        };
        direction
    }
}
