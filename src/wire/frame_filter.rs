//! Filter of one direction of a WebSocket: follows it frame by frame and edits it at frame
//! boundaries.
//!
//! Three small filters do the editing. `insertion` puts frames of our own in between two frames,
//! never inside one. `control_filter` takes out control frames that are not for the other side.
//! `handover` holds messages while the side that reads them is replaced. Of a source that is
//! bounded, `guard` sees to it that no part of a bad frame passes.
//!
//! Bytes that pass unedited are not copied. RFC 6455 sections 5.4 and 5.5: control frames may stand
//! between the fragments of a message, and nothing may follow a Close.

mod control_filter;
mod guard;
mod handover;
mod insertion;
mod moved;
mod passing;
#[cfg(test)]
mod tests;

use self::control_filter::ControlFilter;
pub use self::control_filter::{CloseCause, CloseFilter};
use self::handover::Handover;
use self::insertion::Insertion;
use super::control::PING_BYTES;
use super::frames::{Violation, Walker};

/// Opcode of a Close frame.
const CLOSE: u8 = 0x8;

/// Outcome for bytes that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Filtered {
    /// All of them pass as they are.
    Whole,
    /// These go on in their place.
    Edited(Vec<u8>),
}

/// Verdict on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameAction {
    Pass,
    /// Nothing passes from here on.
    Refuse,
}

/// Follows and edits one direction.
#[derive(Debug)]
pub struct FrameFilter {
    walker: Walker,
    output: Output,
    source_close: SourceClose,
    close_filter: CloseFilter,
    /// Nothing of a refused or broken frame passes.
    is_guarded: bool,
    marks: Marks,
    /// There only while something is edited.
    edits: Option<Box<FrameEdits>>,
}

/// A session has two, for hours.
const _: () = assert!(size_of::<FrameFilter>() <= 32);

/// State of the other side's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Open,
    /// Input is discarded but parsed, to see the source's Close.
    Discarding,
    /// Discarding inside a frame of which a part has passed: no Close can follow.
    Truncated,
    /// Discarding behind a Close of ours.
    Closed,
}

impl Output {
    /// Without the rest of the stream.
    fn without(has_part_passed: bool) -> Output {
        if has_part_passed {
            Output::Truncated
        } else {
            Output::Discarding
        }
    }
}

/// Close of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceClose {
    None,
    Came,
    /// A Close that was taken out; nothing passes behind it.
    TakenOut(CloseCause),
}

/// Facts that a caller takes once.
#[derive(Debug, Clone, Copy)]
struct Marks {
    /// See [`FrameFilter::take_messages`].
    messages: bool,
    /// See [`FrameFilter::take_inserted`].
    inserted: bool,
    /// See [`FrameFilter::take_spoken`].
    spoken: bool,
}

/// State of the three filters.
#[derive(Debug, Default)]
struct FrameEdits {
    insertion: Insertion,
    control: ControlFilter,
    handover: Handover,
}

/// Construction, and what is known of the stream.
impl FrameFilter {
    pub const fn from_client() -> FrameFilter {
        FrameFilter::new(Walker::from_client())
    }

    pub const fn from_server() -> FrameFilter {
        FrameFilter::new(Walker::from_server())
    }

    const fn new(walker: Walker) -> FrameFilter {
        FrameFilter {
            walker,
            output: Output::Open,
            source_close: SourceClose::None,
            close_filter: CloseFilter::None,
            is_guarded: false,
            marks: Marks {
                messages: false,
                inserted: false,
                spoken: false,
            },
            edits: None,
        }
    }

    /// Adds that these Close frames of the source are taken out: see [`FrameFilter::has_left`].
    pub const fn with_close_filter(mut self, filter: CloseFilter) -> FrameFilter {
        self.close_filter = filter;
        self
    }

    /// The violation after which nothing is known any more.
    pub fn violation(&self) -> Option<Violation> {
        self.walker.lost()
    }

    /// Nothing passes any more.
    pub fn is_discarding(&self) -> bool {
        self.output != Output::Open
    }

    /// Nothing passes any more, and the part that passed last is not a whole frame.
    pub fn is_truncated(&self) -> bool {
        self.output == Output::Truncated
    }

    /// The other side was sent our Close; nothing may follow it.
    pub fn is_closed(&self) -> bool {
        self.output == Output::Closed
    }

    /// The source has said Close, and its frame has come whole.
    pub fn has_closed(&self) -> bool {
        self.source_close == SourceClose::Came && self.walker.at_boundary()
    }

    /// The source has gone away with a Close that was taken out. Bytes behind it are thrown away.
    pub fn has_left(&self) -> bool {
        self.left().is_some()
    }

    /// The reason that it gave.
    pub fn left(&self) -> Option<CloseCause> {
        match self.source_close {
            SourceClose::TakenOut(cause) => Some(cause),
            SourceClose::None | SourceClose::Came => None,
        }
    }

    /// Whether bytes are held, of a control frame or of a header.
    pub fn is_holding(&self) -> bool {
        let edits = self.edits.as_ref();
        edits.is_some_and(|edits| edits.control.is_holding())
    }

    /// Between two messages, with nothing held.
    pub fn at_message_boundary(&self) -> bool {
        self.walker.at_message_boundary() && !self.is_holding()
    }

    /// Between two frames, with nothing held.
    pub fn at_frame_boundary(&self) -> bool {
        self.walker.at_boundary() && !self.is_holding()
    }

    /// The reader has whole messages. Of a frame that is held it has nothing.
    pub fn has_passed_whole_messages(&self) -> bool {
        !self.walker.is_message_open() && self.has_passed_whole_frames()
    }

    /// The reader has whole frames.
    pub fn has_passed_whole_frames(&self) -> bool {
        self.walker.at_boundary() || self.is_holding()
    }

    /// Bytes of the present frame that need not be seen; 0 where all must be.
    pub fn unseen(&self) -> u64 {
        let is_edited = self
            .edits
            .as_deref()
            .is_some_and(|edits| edits.control.is_holding() || edits.handover.drops_frame());
        if self.is_discarding() || is_edited {
            0
        } else {
            self.walker.payload_left()
        }
    }

    /// So many of them went by.
    pub fn skip(&mut self, count: u64) {
        self.mark_message();
        self.walker.skip(count);
    }

    fn mark_message(&mut self) {
        self.marks.messages = true;
        self.marks.spoken = true;
    }

    /// Whether a part of a message has come since the last call.
    pub fn take_messages(&mut self) -> bool {
        std::mem::take(&mut self.marks.messages)
    }

    /// Whether a frame of ours went in since the last call.
    pub fn take_inserted(&mut self) -> bool {
        std::mem::take(&mut self.marks.inserted)
    }

    /// Whether a part of a message has passed, or is held for the next reader, since the last call.
    pub fn take_spoken(&mut self) -> bool {
        std::mem::take(&mut self.marks.spoken)
    }

    /// Code of the source's Close, once: 1005 for one without a code.
    pub fn take_close_code(&mut self) -> Option<u16> {
        let code = self.edits.as_mut()?.control.close_code.take()?;
        self.forget_edits();
        Some(code)
    }

    fn edits(&mut self) -> &mut FrameEdits {
        self.edits.get_or_insert_default()
    }

    /// Frees the edits where none is left.
    fn forget_edits(&mut self) {
        let is_discarding = self.is_discarding();
        self.edits.take_if(|edits| edits.is_idle(is_discarding));
    }
}

/// Frames of our own.
impl FrameFilter {
    /// Puts a frame in at the next boundary: see [`FrameFilter::take_insert`]. Behind a Close
    /// nothing is put in.
    pub fn insert(&mut self, frame: &[u8]) {
        if !self.is_discarding() && self.source_close != SourceClose::Came {
            self.edits().insertion.push(frame);
        }
    }

    /// Puts a Close in, behind which nothing passes, and in place of all that was to be put in.
    pub fn insert_close(&mut self, frame: Vec<u8>) {
        if !self.is_closed() && !self.is_truncated() {
            self.edits().insertion.replace_with_close(frame);
        }
    }

    /// Something is to be put in.
    pub fn has_insert(&self) -> bool {
        let edits = self.edits.as_deref();
        edits.is_some_and(|edits| !edits.insertion.is_empty())
    }

    /// Frames to put in here, behind all that has passed.
    pub fn take_insert(&mut self) -> Option<Vec<u8>> {
        // Of a frame that was refused nothing has passed.
        let at_boundary = self.is_discarding() || self.walker.at_boundary();
        let edits = self.edits.as_mut()?;
        if edits.insertion.is_empty() || edits.control.is_holding() || !at_boundary {
            return None;
        }
        let frame = edits.insertion.take();
        let is_close = edits.insertion.is_close();
        // The source may have said Close itself.
        let source_has_closed =
            self.output == Output::Open && self.source_close == SourceClose::Came;
        let is_too_late = self.is_closed() || source_has_closed;
        if is_close {
            self.output = Output::Closed;
        }
        self.marks.inserted = true;
        self.forget_edits();
        (!is_too_late).then_some(frame)
    }
}

/// Control frames of the source.
impl FrameFilter {
    /// From here on these Close frames are taken out.
    pub fn set_close_filter(&mut self, filter: CloseFilter) {
        self.close_filter = filter;
    }

    /// Takes out the pong with this payload when it comes.
    pub fn expect_pong(&mut self, payload: [u8; PING_BYTES]) {
        if !self.is_discarding() {
            self.edits().control.awaited_pong = Some(payload);
        }
    }

    /// The payload of the latest ping that was taken out, to be answered.
    pub fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.edits.as_mut()?.control.ping.take()
    }

    /// The source has ended: from here on no Close is taken out. Returns the held part of a frame
    /// that might have been one.
    #[must_use]
    pub fn release_held(&mut self) -> Vec<u8> {
        self.close_filter = CloseFilter::None;
        let edits = self.edits.as_mut();
        let held = edits.map(|edits| std::mem::take(&mut edits.control.held));
        self.forget_edits();
        held.unwrap_or_default()
    }
}

/// Changes of the source and of the reader.
impl FrameFilter {
    /// Nothing passes from here on, in the middle of a frame.
    pub fn truncate(&mut self) {
        self.output = Output::Truncated;
        self.edits = None;
    }

    /// Another source has taken the place of this one, which had come to a message's end.
    pub fn replace_source(&mut self) {
        self.walker = self.walker.renewed();
        self.source_close = SourceClose::None;
        if self.output == Output::Discarding {
            self.output = Output::Open;
        }
        if self.close_filter == CloseFilter::Any {
            self.close_filter = CloseFilter::Leaving;
        }
        if let Some(edits) = &mut self.edits {
            edits.control.held.clear();
            edits.control.awaited_pong = None;
        }
        self.forget_edits();
    }

    /// Lets nothing pass from the end of the present message on: see [`FrameFilter::is_paused`].
    pub fn pause(&mut self) {
        self.edits().handover.pause();
    }

    /// Whether it has come to the message boundary at which it was to pause.
    pub fn is_paused(&self) -> bool {
        let edits = self.edits.as_deref();
        edits.is_some_and(|edits| edits.handover.is_pausing() && !edits.control.is_holding())
            && self.walker.at_message_boundary()
    }

    /// Lets everything pass again. Returns the bytes behind the pause: the next to be passed.
    #[must_use]
    pub fn end_pause(&mut self) -> Vec<u8> {
        let edits = self.edits.as_mut();
        let rest = edits.map(|edits| edits.handover.end_pause());
        self.forget_edits();
        rest.unwrap_or_default()
    }

    /// The reader is gone. Until [`FrameFilter::attach_reader`] control frames are taken out. The
    /// rest of a message of which the reader had a part is thrown away, and so are frames that were
    /// to be put in. Returns whether there was such a message, and the bytes behind a pause: the
    /// next to be passed.
    pub fn detach_reader(&mut self) -> (bool, Vec<u8>) {
        let (at_boundary, is_open) = (self.walker.at_boundary(), self.walker.is_message_open());
        self.marks.spoken = false;
        let edits = self.edits();
        // Of the bytes that are held nothing has passed.
        let is_within = !at_boundary && !edits.control.is_holding();
        let rest = edits.handover.end_pause();
        *edits = FrameEdits {
            insertion: Insertion::default(),
            control: ControlFilter {
                held: std::mem::take(&mut edits.control.held),
                ..ControlFilter::default()
            },
            handover: Handover::to_next_reader(is_within, is_open),
        };
        (is_within || is_open, rest)
    }

    /// Another reader is there: everything passes again.
    pub fn attach_reader(&mut self) {
        if let Some(edits) = &mut self.edits {
            edits.handover.end_absence();
            edits.control.ping = None;
        }
        self.forget_edits();
    }
}

impl FrameEdits {
    fn is_idle(&self, is_discarding: bool) -> bool {
        self.insertion.is_empty() && self.control.is_idle(is_discarding) && self.handover.is_idle()
    }
}

/// Whether the first byte of a frame says that it is one of this opcode.
fn is(first: u8, opcode: u8) -> bool {
    first & 0x0f == opcode
}
