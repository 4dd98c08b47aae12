//! One direction of a session: from one leg to the other. Nothing is read while something is still to be written, so
//! an idle or flowing direction holds no buffer, and a stalled one holds what one read gave.

use super::leg::{Input, Leg, Scratch};
use super::pipe::{Pipe, Pipes};

/// Reads of one direction in one turn: a bulk transfer must not starve the worker's other connections.
pub(super) const READS_PER_TURN: usize = 16;

/// A read of a direction that is not bulk: what a stalled reader costs.
const SMALL_READ: usize = 8 * 1024;
/// Full reads in a row that prove a direction to be bulk (128 KiB).
const BULK_READS: u8 = 16;

/// Where a direction stands after it was pumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Waits for an event of either leg.
    Blocked,
    /// Has more to do; another turn is needed.
    OutOfBudget,
    /// The FIN was passed on behind the last byte.
    Finished,
    /// The source broke and all that it had sent before was delivered.
    Broken,
}

#[derive(Default)]
pub(super) struct Direction {
    /// Read and not yet taken by the other leg.
    pending: Vec<u8>,
    /// How much of `pending` was taken.
    written: usize,
    /// Between two raw legs, while bulk is under way.
    pipe: Option<Pipe>,
    /// Full reads in a row, up to [`BULK_READS`].
    full_reads: u8,
    /// The source has said that no more comes.
    ended: bool,
    /// The source's end was passed on.
    finished: bool,
    /// The source is broken, and everything it had sent was read.
    broken: bool,
    /// Read from the source, bytes.
    pub bytes: u64,
}

impl Direction {
    /// Starts with what was read from the source before adoption.
    pub fn new(read: Vec<u8>) -> Self {
        Self {
            bytes: read.len() as u64,
            pending: read,
            ..Self::default()
        }
    }

    /// Bytes that were read and not taken by the other leg.
    pub fn is_blocked(&self) -> bool {
        !self.pending.is_empty() || self.pipe.is_some()
    }

    /// The source's end was passed on.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, from: &mut Leg, to: &mut Leg, scratch: &mut Scratch) -> Flow {
        for _ in 0..READS_PER_TURN {
            if !self.flush(to, scratch) {
                return Flow::Blocked;
            }
            if self.finished {
                return Flow::Finished;
            }
            if self.broken {
                return Flow::Broken;
            }
            if self.ended {
                self.finished = to.finish();
                continue;
            }
            match self.take(from, to, scratch) {
                Input::Data(_) => {}
                Input::Blocked => return Flow::Blocked,
                Input::Fin => self.ended = true,
                Input::Broken => self.broken = true,
            }
        }
        Flow::OutOfBudget
    }

    /// Takes what the source has and gives `to` what it takes of it.
    fn take(&mut self, from: &mut Leg, to: &mut Leg, scratch: &mut Scratch) -> Input {
        let bulk = self.full_reads >= BULK_READS;
        let raw = from.is_raw() && to.is_raw();
        if bulk
            && raw
            && let Some(pipe) = scratch.pipes.take()
        {
            return self.splice(from, pipe, &mut scratch.pipes);
        }
        // Where every pipe is taken by a stalled reader, there are many of them: each is to cost little.
        let limit = if bulk && !raw { usize::MAX } else { SMALL_READ };
        let input = from.read(scratch, limit);
        if let Input::Data(count) = input {
            self.note(count);
            let taken = to.write(&scratch.plain[..count], &mut scratch.sealed);
            self.bytes += count as u64;
            self.keep(&scratch.plain[taken..count]);
        }
        input
    }

    /// Bulk: into the pipe; the next flush takes it out.
    fn splice(&mut self, from: &mut Leg, mut pipe: Pipe, pipes: &mut Pipes) -> Input {
        let input = from.fill(&mut pipe);
        match input {
            Input::Data(count) => {
                self.note(count);
                self.bytes += count as u64;
                self.pipe = Some(pipe);
            }
            Input::Blocked | Input::Fin | Input::Broken => pipes.give(pipe),
        }
        input
    }

    /// A direction that has turned chatty is copied again.
    fn note(&mut self, count: usize) {
        self.full_reads = match count {
            SMALL_READ.. => (self.full_reads + 1).min(BULK_READS),
            _ => 0,
        };
    }

    fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.pending = rest.to_vec();
            self.written = 0;
        }
    }

    /// True once `to` has taken everything that was read.
    fn flush(&mut self, to: &mut Leg, scratch: &mut Scratch) -> bool {
        if !to.flush() {
            return false;
        }
        if self.pending.is_empty() && self.pipe.is_none() {
            return true;
        }
        to.writable
            && self.flush_pipe(to, &mut scratch.pipes)
            && self.flush_pending(to, &mut scratch.sealed)
            && to.flush()
    }

    fn flush_pipe(&mut self, to: &mut Leg, pipes: &mut Pipes) -> bool {
        let Some(mut pipe) = self.pipe.take() else {
            return true;
        };
        if to.drain(&mut pipe) {
            pipes.give(pipe);
            return true;
        }
        self.pipe = Some(pipe);
        false
    }

    fn flush_pending(&mut self, to: &mut Leg, sealed: &mut [u8]) -> bool {
        self.written += to.write(&self.pending[self.written..], sealed);
        if self.written < self.pending.len() {
            return false;
        }
        self.pending = Vec::new();
        self.written = 0;
        true
    }
}
