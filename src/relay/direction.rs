//! One direction of a session: from one leg to the other. Nothing is read while something is still
//! to be written, so an idle or flowing direction holds no buffer, and a stalled one holds the
//! bytes of one read.

mod moved;

use super::clock::Tick;
use super::leg::{Input, Leg};
use super::pipe::{CAPACITY, Pipe};
use super::scratch::{self, BufferBudget, Scratch};
use super::websocket::frames::DirectionFrames;
use crate::tls::record::{self, TlsSession};
use crate::wire::frame_filter::Filtered;

/// Reads of one direction in one turn: a bulk transfer must not starve the worker's other
/// connections.
pub(super) const READS_PER_TURN: usize = 16;

/// A read of a direction that is not bulk: the cost of a stalled reader.
pub(super) const SMALL_READ: usize = 8 * 1024;
/// Bytes that one session holds at most for peers that do not take them, both ways together. Bytes
/// from elsewhere have their own bound: those read before its adoption, and those held between two
/// backends (`resume.max_buffer`).
pub(super) const MAX_HELD: usize = 64 * 1024;
/// Bytes that sealing adds to that much.
const SEALING: usize = TlsSession::sealed_bound(MAX_HELD) - MAX_HELD;
/// A TLS leg is read up to the end of a record, whatever else is held: with less, the rest of a
/// long one would never come.
const WHOLE_RECORD: usize = record::MAX_RECORD_BYTES + SEALING;
const _: () = assert!(2 * WHOLE_RECORD <= MAX_HELD, "each direction has its share");

/// Full reads in a row that prove a direction to be bulk (128 KiB).
const BULK_READS: u8 = 16;

/// Outcome of pumping a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Waits for an event of either leg.
    Blocked,
    /// Has more to do; another turn is needed.
    OutOfBudget,
    /// Reads nothing because the worker's sessions hold too much; no event tells when that is over.
    Starved,
    /// The source's FIN has come; passing it on is left to a later turn, as the caller asked.
    Ended,
    /// The FIN was passed on behind the last byte.
    Finished,
    /// The source broke and all that it had sent before was delivered.
    Broken,
}

#[derive(Default)]
pub(super) struct Direction {
    stalled: Option<Box<Stalled>>,
    /// Bytes that stand in the worker's account for this direction.
    accounted: u32,
    /// Full reads in a row, up to [`BULK_READS`].
    full_reads: u8,
    source: SourceState,
}

/// State of the leg that a direction reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum SourceState {
    #[default]
    Open,
    /// The leg has said that no more comes.
    Ended,
    /// That end was passed on.
    Finished,
    /// The leg is broken, and everything it had sent was read.
    Broken,
}

/// Bytes that were read and not taken by the other leg, in memory or in a pipe.
struct Stalled {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that were taken.
    written: usize,
    pipe: Option<Pipe>,
    since: Tick,
}

/// Conditions of one pump of a direction.
pub(super) struct Pump<'a> {
    /// Counts bytes read from the source.
    pub bytes: &'a mut u64,
    /// Follows the frames of the source.
    pub frames: Option<DirectionFrames<'a>>,
    /// Bytes that the other direction holds.
    pub other_held: usize,
    /// Leave the source's FIN to a later turn.
    pub hold_fin: bool,
    /// The other direction is finished: the end of this one is followed by the close.
    pub is_last: bool,
}

impl Pump<'_> {
    fn holds_fin(&self) -> bool {
        self.hold_fin || self.frames.as_ref().is_some_and(DirectionFrames::holds_fin)
    }
}

impl Direction {
    /// Starts with bytes that were read from the source before adoption.
    pub(super) fn new(read: Vec<u8>, now: Tick) -> Self {
        let mut direction = Self::default();
        direction.stall(read, None, now);
        direction
    }

    /// Goes on with another source. Bytes that were read are still to be taken.
    pub(super) fn reopen(&mut self) {
        self.full_reads = 0;
        self.source = SourceState::Open;
    }

    /// Throws away what was read: the other leg is gone.
    pub(super) fn clear(&mut self) {
        self.stalled = None;
        self.reopen();
    }

    /// Goes on to another leg, with bytes for it.
    pub(super) fn restart(&mut self, bytes: Vec<u8>, now: Tick) {
        self.clear();
        self.stall(bytes, None, now);
    }

    /// Brings the worker's account of held bytes up to date.
    pub(super) fn account(&mut self, held: usize, budget: &mut BufferBudget) {
        if held != self.accounted as usize {
            budget.change(self.accounted as usize, held);
            self.accounted = u32::try_from(held).unwrap_or(u32::MAX);
        }
    }

    /// Whether it holds bytes in the worker's account.
    pub(super) fn is_accounted(&self) -> bool {
        self.accounted > 0
    }

    /// Puts bytes behind what was read and not taken.
    pub(super) fn append(&mut self, bytes: Vec<u8>, now: Tick) {
        match &mut self.stalled {
            // Frames that are followed are in a pipe only up to the end of their payload; it is
            // emptied first.
            Some(stalled) => {
                if let Some(pipe) = &mut stalled.pipe {
                    pipe.empty_into(&mut stalled.bytes);
                }
                stalled.bytes.extend(bytes);
            }
            None => self.stall(bytes, None, now),
        }
    }

    /// Bytes that were read and not taken by the other leg.
    pub(super) fn is_blocked(&self) -> bool {
        self.stalled.is_some()
    }

    /// The source's end was passed on.
    pub(super) fn is_finished(&self) -> bool {
        self.source == SourceState::Finished
    }

    /// The source has said that no more comes.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.source, SourceState::Ended | SourceState::Finished)
    }

    /// Nothing more comes from its source, in whatever way that ended.
    pub(super) fn is_over(&self) -> bool {
        self.source != SourceState::Open
    }

    /// Bytes held, in memory or in a pipe.
    pub(super) fn held_bytes(&self) -> usize {
        let held = |stalled: &Stalled| {
            stalled.bytes.len() + stalled.pipe.as_ref().map_or(0, Pipe::held_bytes)
        };
        self.stalled.as_deref().map_or(0, held)
    }

    /// Since when a pipe has been stalled here.
    pub(super) fn pipe_since(&self) -> Option<Tick> {
        let stalled = self.stalled.as_deref()?;
        stalled.pipe.is_some().then_some(stalled.since)
    }

    /// Takes the bytes out of a stalled pipe, so that the pipe can serve another.
    pub(super) fn free_pipe(&mut self, scratch: &mut Scratch) {
        let Some(stalled) = &mut self.stalled else {
            return;
        };
        if let Some(mut pipe) = stalled.pipe.take() {
            pipe.empty_into(&mut stalled.bytes);
            if pipe.is_empty() {
                scratch.pipes.give(pipe);
            } else {
                stalled.pipe = Some(pipe);
            }
        }
    }

    /// Moves what can be moved.
    pub(super) fn pump(
        &mut self,
        from: &mut Leg,
        to: &mut Leg,
        scratch: &mut Scratch,
        mut pump: Pump<'_>,
    ) -> Flow {
        // Room of the sink, as far as is known.
        let mut room = 0;
        for _ in 0..READS_PER_TURN {
            if !self.flush(to, scratch) {
                return Flow::Blocked;
            }
            if self.is_finished() {
                return Flow::Finished;
            }
            if let Some(frames) = &mut pump.frames {
                if let Some(frame) = frames.filter.take_insert() {
                    self.write_own(to, &frame, scratch);
                    continue;
                }
                if frames.filter.is_paused() {
                    return Flow::Blocked;
                }
            }
            match self.source {
                SourceState::Broken => return Flow::Broken,
                SourceState::Ended if pump.holds_fin() => return Flow::Ended,
                SourceState::Ended => {
                    if to.finish(pump.is_last) {
                        self.source = SourceState::Finished;
                    }
                    continue;
                }
                SourceState::Open | SourceState::Finished => {}
            }
            if is_starved(from, to, scratch) {
                return Flow::Starved;
            }
            match self.take((from, to), scratch, &mut room, &mut pump) {
                Input::Data(count) => *pump.bytes += count as u64,
                Input::Blocked => return Flow::Blocked,
                Input::Short => return Flow::Starved,
                Input::Fin => self.source = SourceState::Ended,
                Input::Broken => self.source = SourceState::Broken,
            }
        }
        Flow::OutOfBudget
    }

    fn is_bulk(&self) -> bool {
        self.full_reads >= BULK_READS
    }

    /// Bytes that may be read at once, into memory.
    fn limit(&self, from: &Leg, to: &Leg, scratch: &Scratch, share: usize) -> usize {
        let raw = from.is_raw() && to.is_raw();
        // Bulk between raw legs goes through a pipe. Where every pipe is taken by a stalled reader,
        // there are many of them: each is to cost little.
        let is_small = if self.is_bulk() { raw } else { from.is_raw() };
        if is_small || !scratch.held.has_room() {
            least_read(from).min(share)
        } else {
            share
        }
    }

    /// Takes what the source has and gives `to` what it takes of it.
    fn take(
        &mut self,
        (from, to): (&mut Leg, &mut Leg),
        scratch: &mut Scratch,
        room: &mut usize,
        pump: &mut Pump<'_>,
    ) -> Input {
        let share = share(from, to, pump.other_held);
        if self.is_bulk()
            && from.is_raw()
            && to.is_raw()
            && !from.is_urgent()
            && let Some(unseen) = unseen(scratch, pump.frames.as_ref())
            && let Some(pipe) = scratch.pipes.take()
        {
            // Bytes that are not taken stay in the pipe for as long as the other leg stalls. Asking
            // costs less than smaller fills; until the room that it has named is used up it is not
            // asked again.
            if *room < CAPACITY {
                *room = to.takes_now();
            }
            let limit = unseen.min(*room + share);
            let input = self.splice((from, to), pipe, scratch, limit);
            if let Input::Data(count) = input {
                *room = room.saturating_sub(count + count / 8);
                if let Some(frames) = &mut pump.frames {
                    frames.filter.skip(count as u64);
                }
            }
            if input != Input::Blocked || !from.is_readable() {
                return input;
            }
        }
        let was_active = from.is_active();
        let limit = self.limit(from, to, scratch, share);
        let input = from.read(scratch, limit, pump.is_last);
        if let Input::Data(count) = input {
            self.note(count);
            let filtered = match &mut pump.frames {
                None => Filtered::Whole,
                Some(frames) => frames.pass(&scratch.plain[..count], scratch.now),
            };
            match filtered {
                Filtered::Whole => {
                    let taken = to.write(&scratch.plain[..count], &mut scratch.sealed);
                    if taken < count {
                        self.stall(scratch.plain[taken..count].to_vec(), None, scratch.now);
                    }
                }
                Filtered::Edited(bytes) if bytes.is_empty() => from.mark_active(was_active),
                Filtered::Edited(bytes) => self.write_all(to, &bytes, scratch),
            }
        }
        input
    }

    /// Writes bytes that do not stand in the scratch.
    fn write_all(&mut self, to: &mut Leg, bytes: &[u8], scratch: &mut Scratch) {
        let mut taken = 0;
        // A TLS leg takes no more than a scratch at a time, and needs a flush before the next.
        while taken < bytes.len() && to.is_writable() {
            taken += to.write(&bytes[taken..], &mut scratch.sealed);
            if !to.flush() {
                break;
            }
        }
        self.stall(bytes[taken..].to_vec(), None, scratch.now);
    }

    /// Writes a frame of our own.
    fn write_own(&mut self, to: &mut Leg, frame: &[u8], scratch: &mut Scratch) {
        let was_active = to.is_active();
        self.write_all(to, frame, scratch);
        to.mark_active(was_active);
    }

    /// Bulk: from socket to socket through a pipe.
    fn splice(
        &mut self,
        (from, to): (&mut Leg, &mut Leg),
        mut pipe: Pipe,
        scratch: &mut Scratch,
        limit: usize,
    ) -> Input {
        let input = from.fill(&mut pipe, limit);
        if let Input::Data(count) = input {
            self.note(count);
            if !to.drain(&mut pipe) {
                self.stall(Vec::new(), Some(pipe), scratch.now);
                return input;
            }
        }
        scratch.pipes.give(pipe);
        input
    }

    /// A direction that has turned chatty is copied again.
    fn note(&mut self, count: usize) {
        self.full_reads = match count {
            SMALL_READ.. => (self.full_reads + 1).min(BULK_READS),
            _ => 0,
        };
    }

    fn stall(&mut self, bytes: Vec<u8>, pipe: Option<Pipe>, since: Tick) {
        if !bytes.is_empty() || pipe.is_some() {
            self.stalled = Some(Box::new(Stalled {
                bytes,
                written: 0,
                pipe,
                since,
            }));
        }
    }

    /// True once `to` has taken everything that was read.
    fn flush(&mut self, to: &mut Leg, scratch: &mut Scratch) -> bool {
        if !to.flush() {
            return false;
        }
        let Some(stalled) = &mut self.stalled else {
            return true;
        };
        if !to.is_writable() || !stalled.flush(to, scratch) {
            return false;
        }
        self.stalled = None;
        to.flush()
    }
}

/// The worker's sessions hold too much already for more to be held. Bytes for a peer that has taken
/// everything so far will not have to be.
fn is_starved(from: &Leg, to: &Leg, scratch: &Scratch) -> bool {
    // A broken leg never takes what the kernel still counts for it.
    !scratch.held.has_room() && from.is_readable() && !to.is_broken() && to.unsent_bytes() > 0
}

/// Bytes that one read of a direction may leave behind: the part of [`MAX_HELD`] that the other
/// direction has not taken, which is left enough for a read of its own. Two peers that write before
/// they read would otherwise wait for each other for ever.
fn share(from: &Leg, to: &Leg, other_held: usize) -> usize {
    let other = other_held + to.begun_bytes() + from.held_bytes();
    let share = MAX_HELD.saturating_sub(other.max(least_read(to)));
    let sealing = if to.is_raw() { 0 } else { SEALING };
    share.max(least_read(from)) - sealing
}

/// Bytes that a leg is always read, or a record that is begun would never end.
pub(super) fn least_read(from: &Leg) -> usize {
    if from.is_raw() {
        SMALL_READ
    } else {
        WHOLE_RECORD
    }
}

/// Bytes that may go through a pipe, which nobody looks into; `None` where it is not worth one.
/// Headers of frames that are followed have to be seen.
fn unseen(scratch: &Scratch, frames: Option<&DirectionFrames<'_>>) -> Option<usize> {
    let payload = frames.map_or(u64::MAX, |frames| frames.filter.unseen());
    let room = scratch.held.room() as u64;
    let most = usize::try_from(room.min(payload)).unwrap_or(usize::MAX);
    (most >= scratch::LENGTH).then_some(most)
}

impl Stalled {
    /// True once `to` has taken everything. The bytes came before what is in the pipe.
    fn flush(&mut self, to: &mut Leg, scratch: &mut Scratch) -> bool {
        // A TLS leg takes no more than a scratch at a time.
        while self.written < self.bytes.len() {
            let taken = to.write(&self.bytes[self.written..], &mut scratch.sealed);
            self.written += taken;
            if taken == 0 || !to.is_writable() || !to.flush() {
                return false;
            }
        }
        let Some(mut pipe) = self.pipe.take() else {
            return true;
        };
        if to.drain(&mut pipe) {
            scratch.pipes.give(pipe);
            return true;
        }
        self.pipe = Some(pipe);
        false
    }
}
