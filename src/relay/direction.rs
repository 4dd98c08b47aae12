//! One direction of a session: from one leg to the other. Nothing is read while something is still to be written, so
//! an idle or flowing direction holds no buffer, and a stalled one holds what one read gave.

use super::leg::{Input, Leg, Scratch};

/// Reads of one direction in one turn: a bulk transfer must not starve the worker's other connections.
pub(super) const READS_PER_TURN: usize = 16;

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

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, from: &mut Leg, to: &mut Leg, scratch: &mut Scratch) -> Flow {
        for _ in 0..READS_PER_TURN {
            if !self.flush(to) {
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
            match from.read(scratch) {
                Input::Data(count) => self.deliver(&scratch.plain[..count], to),
                Input::Blocked => return Flow::Blocked,
                Input::Fin => self.ended = true,
                Input::Broken => self.broken = true,
            }
        }
        Flow::OutOfBudget
    }

    fn deliver(&mut self, bytes: &[u8], to: &mut Leg) {
        self.bytes += bytes.len() as u64;
        let taken = to.write(bytes);
        if taken < bytes.len() {
            self.pending = bytes[taken..].to_vec();
            self.written = 0;
        }
    }

    /// True once `to` has taken everything that was read.
    fn flush(&mut self, to: &mut Leg) -> bool {
        if !to.flush() {
            return false;
        }
        if self.pending.is_empty() {
            return true;
        }
        if !to.writable {
            return false;
        }
        self.written += to.write(&self.pending[self.written..]);
        if self.written < self.pending.len() {
            return false;
        }
        self.pending = Vec::new();
        self.written = 0;
        to.flush()
    }
}
