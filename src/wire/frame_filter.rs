//! One direction of a WebSocket on its way through: followed frame by frame, and edited at frame boundaries. A frame of
//! our own is put in between two frames, never inside one; the pongs to our own pings, and only those, are taken out; and
//! behind a Close of ours nothing more passes.
//!
//! What passes unedited is not copied. RFC 6455 sections 5.4 and 5.5: control frames may stand between the fragments of a
//! message, and nothing may follow a Close.
//!
//! Its source or its far end may change: see `handover`. Of a source that is bounded no part of a bad frame passes: see
//! `guard`.

mod close_filter;
mod guard;

pub use self::close_filter::CloseCause;
use self::close_filter::CloseFilter;
use super::control::{self, PING_BYTES};
use super::frames::{Frame, Opcode, Violation, Walker};
use crate::base::close_code::NO_CODE;

/// Longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL_BYTES: u64 = 125;
/// Opcodes of control frames, and what they have in common.
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const IS_CONTROL: u8 = 0x8;

/// What becomes of bytes that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Filtered {
    /// All of them pass as they are.
    Whole,
    /// These go on in their place.
    Edited(Vec<u8>),
}

/// What is to become of a frame.
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
    /// The header of the source's Close has come.
    has_closed: bool,
    /// Nothing passes any more; what comes is still followed, for the source's Close.
    is_deaf: bool,
    /// It went deaf inside a frame of which a part has passed.
    is_cut: bool,
    /// The other side was told Close, by us or by the source.
    is_told: bool,
    /// See [`Passage::take_messages`].
    messages: bool,
    /// See [`Passage::take_inserted`].
    inserted: bool,
    /// See [`Passage::take_spoken`].
    has_spoken: bool,
    /// See [`Passage::guarded`].
    is_guarded: bool,
    /// Which Close of the source is taken out.
    takes: CloseFilter,
    /// One was; nothing passes behind it.
    left: Option<CloseCause>,
    edit: Option<Box<FrameEdits>>,
}

/// What is to be edited; only there while something is.
#[derive(Debug, Default)]
struct FrameEdits {
    /// Goes in at the next boundary.
    insert: Vec<u8>,
    /// Nothing passes behind it.
    is_last: bool,
    /// Our latest ping that was not answered yet.
    pong: Option<[u8; PING_BYTES]>,
    /// What has come of a Close, or of another frame that may have to be taken out.
    held: Vec<u8>,
    /// Nothing more passes between two messages: see [`Passage::pause`].
    pauses: bool,
    /// What came behind the pause.
    rest: Vec<u8>,
    /// See [`Passage::bridge`].
    is_bridged: bool,
    /// Payload of the latest ping that was taken out and not answered.
    ping: Option<Vec<u8>>,
    /// The present frame is thrown away to its end, ...
    drops_frame: bool,
    /// ... and what is still to come of the present message.
    drops_message: bool,
    /// See [`Passage::take_close_code`].
    said: Option<u16>,
}

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
            has_closed: false,
            is_deaf: false,
            is_cut: false,
            is_told: false,
            messages: false,
            inserted: false,
            has_spoken: false,
            is_guarded: false,
            takes: CloseFilter::None,
            left: None,
            edit: None,
        }
    }

    /// The violation after which nothing is known any more.
    pub fn lost(&self) -> Option<Violation> {
        self.walker.lost()
    }

    /// Nothing passes any more.
    pub fn is_deaf(&self) -> bool {
        self.is_deaf
    }

    /// Nothing passes any more, and what passed last is not a whole frame.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The other side was told Close; nothing may follow it.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// The source has said Close, and its frame has come whole.
    pub fn has_closed(&self) -> bool {
        self.has_closed && self.walker.at_boundary()
    }

    /// Bytes of the present frame that need not be seen; 0 where all must be.
    pub fn unseen(&self) -> u64 {
        let passes = |edit: &FrameEdits| edit.held.is_empty() && !edit.drops_frame;
        let may_skip = !self.is_deaf && self.edit.as_deref().is_none_or(passes);
        match may_skip {
            true => self.walker.payload_left(),
            false => 0,
        }
    }

    /// So many of them went by.
    pub fn skip(&mut self, count: u64) {
        self.messages = true;
        self.has_spoken = true;
        self.walker.skip(count);
    }

    /// Whether a frame of a message, or a part of one, has come since the last time this was asked.
    pub fn take_messages(&mut self) -> bool {
        std::mem::take(&mut self.messages)
    }

    /// Whether a frame of ours went in since the last time this was asked.
    pub fn take_inserted(&mut self) -> bool {
        std::mem::take(&mut self.inserted)
    }

    /// Between two messages, with nothing held.
    pub fn at_message_boundary(&self) -> bool {
        self.walker.at_message_boundary() && !self.holds()
    }

    /// Between two frames, with nothing held.
    pub fn at_frame_boundary(&self) -> bool {
        self.walker.at_boundary() && !self.holds()
    }

    /// Puts a frame in at the next boundary: see [`Passage::take_insert`]. Behind a Close nothing is put in.
    pub fn insert(&mut self, frame: &[u8]) {
        let says_close = self.edit.as_ref().is_some_and(|edit| edit.is_last);
        if !self.is_deaf && !self.has_closed && !says_close {
            self.edit().insert.extend_from_slice(frame);
        }
    }

    /// The same with a Close: nothing passes behind it. What else was to be put in is left out.
    pub fn insert_close(&mut self, frame: Vec<u8>) {
        if !self.is_told && !self.is_cut {
            let edit = self.edit();
            edit.insert = frame;
            edit.is_last = true;
        }
    }

    /// Takes out the pong with this payload when it comes.
    pub fn expect_pong(&mut self, payload: [u8; PING_BYTES]) {
        if !self.is_deaf {
            self.edit().pong = Some(payload);
        }
    }

    /// Nothing passes from here on, in the middle of a frame.
    pub fn cut(&mut self) {
        self.is_deaf = true;
        self.is_cut = true;
        self.edit = None;
    }

    /// A part of a frame is held that may be a pong to be taken out.
    pub fn holds(&self) -> bool {
        self.edit.as_ref().is_some_and(|edit| !edit.held.is_empty())
    }

    /// Something is to be put in.
    pub fn has_insert(&self) -> bool {
        let waits = |edit: &FrameEdits| !edit.insert.is_empty();
        self.edit.as_deref().is_some_and(waits)
    }

    fn edit(&mut self) -> &mut FrameEdits {
        self.edit.get_or_insert_default()
    }

    /// What is to be put in and may be put in here, behind all that has passed.
    pub fn take_insert(&mut self) -> Option<Vec<u8>> {
        let edit = self.edit.as_mut()?;
        // Of a frame that was refused nothing has passed.
        let at_boundary = self.is_deaf || self.walker.at_boundary();
        if edit.insert.is_empty() || !edit.held.is_empty() || !at_boundary {
            return None;
        }
        let frame = std::mem::take(&mut edit.insert);
        // The source may have said Close itself.
        let was_told = self.is_told || (self.has_closed && !self.is_deaf);
        if edit.is_last {
            self.is_deaf = true;
            self.is_told = true;
        }
        self.inserted = true;
        self.forget_edit();
        (!was_told).then_some(frame)
    }

    /// Nothing is left to be edited.
    fn forget_edit(&mut self) {
        let is_deaf = self.is_deaf;
        if self
            .edit
            .as_deref()
            .is_some_and(|edit| edit.is_idle(is_deaf))
        {
            self.edit = None;
        }
    }

    /// Takes the next bytes of the source; `watch` sees each frame as soon as its header is whole. What was to be put in at
    /// a boundary among them is.
    #[inline]
    pub fn pass(&mut self, bytes: &[u8], mut watch: impl FnMut(&Frame) -> FrameAction) -> Filtered {
        // A part of a payload that is too long for a control frame's.
        let is_message = self.walker.payload_left() > MAX_CONTROL_BYTES;
        self.messages |= is_message;
        self.has_spoken |= is_message;
        if self.edit.is_some() || self.is_deaf {
            return Filtered::Edited(self.pass_edited(bytes, watch));
        }
        let mut rest = bytes;
        // A violation is kept by the walker.
        while let Ok(Some(frame)) = self.walker.next_frame(&mut rest) {
            if frame.opcode == Opcode::Close {
                return Filtered::Edited(self.pass_close(bytes, rest, &frame, watch));
            }
            self.note(&frame);
            if watch(&frame) == FrameAction::Refuse {
                let behind_header = bytes.len() - rest.len();
                let kept = behind_header.checked_sub(frame.header_bytes.into());
                self.is_deaf = true;
                self.is_cut = kept.is_none();
                let _ = self.pass_edited(rest, watch);
                return Filtered::Edited(bytes[..kept.unwrap_or(0)].to_vec());
            }
        }
        match self.is_guarded {
            true => self.guard(bytes, rest),
            false => self.hold_close(bytes),
        }
    }

    /// The header of a Close ends where `rest` begins. It is held until it is whole: it may have to be taken out, and its code
    /// is kept.
    #[cold]
    fn pass_close(
        &mut self,
        bytes: &[u8],
        rest: &[u8],
        frame: &Frame,
        watch: impl FnMut(&Frame) -> FrameAction,
    ) -> Vec<u8> {
        let behind_header = bytes.len() - rest.len();
        // None of it has passed: see `hold_close`.
        let before = behind_header.saturating_sub(frame.header_bytes.into());
        let (before, header) = bytes[..behind_header].split_at(before);
        let mut passed = before.to_vec();
        self.edit().held.extend_from_slice(header);
        self.judge_held(&mut passed);
        passed.extend(self.pass_edited(rest, watch));
        passed
    }

    #[inline]
    fn note(&mut self, frame: &Frame) {
        let is_message = !frame.opcode.is_control();
        self.messages |= is_message;
        self.has_spoken |= is_message;
    }

    #[cold]
    fn pass_edited(
        &mut self,
        mut bytes: &[u8],
        mut watch: impl FnMut(&Frame) -> FrameAction,
    ) -> Vec<u8> {
        let mut passed = Vec::new();
        loop {
            if let Some(frame) = self.take_insert() {
                passed.extend_from_slice(&frame);
            }
            if bytes.is_empty() {
                break;
            }
            if self.is_paused()
                && let Some(edit) = &mut self.edit
            {
                edit.rest.extend_from_slice(bytes);
                break;
            }
            if self.walker.lost().is_some() {
                self.keep(bytes, &mut passed);
                break;
            }
            match self.walker.payload_left() {
                0 => self.pass_header(&mut bytes, &mut passed, &mut watch),
                left => {
                    let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let (payload, behind) = bytes.split_at(count);
                    self.walker.skip(count as u64);
                    self.keep(payload, &mut passed);
                    bytes = behind;
                }
            }
            self.judge_held(&mut passed);
            if self.walker.at_boundary()
                && let Some(edit) = &mut self.edit
            {
                edit.drops_frame = false;
            }
        }
        self.forget_edit();
        passed
    }

    /// A header, or what there is of it.
    fn pass_header(
        &mut self,
        bytes: &mut &[u8],
        passed: &mut Vec<u8>,
        watch: &mut impl FnMut(&Frame) -> FrameAction,
    ) {
        let begins = self.walker.at_boundary();
        let before = *bytes;
        let found = self.walker.next_frame(bytes);
        let piece = &before[..before.len() - bytes.len()];
        let first = piece.first().copied().filter(|_| begins);
        if let (Some(first), Some(edit)) = (first, &mut self.edit) {
            edit.drops_frame = edit.drops_message && first & IS_CONTROL == 0;
        }
        if let Ok(Some(frame)) = &found {
            self.note(frame);
            if let Some(edit) = self.edit.as_mut().filter(|edit| edit.drops_frame) {
                edit.drops_message &= frame.opcode.is_control();
                edit.drops_message |= !frame.is_final;
            }
            if !self.is_deaf && watch(frame) == FrameAction::Refuse {
                return self.refuse_held(begins);
            }
        }
        if found.is_err() && self.is_guarded {
            *bytes = &[];
            return self.refuse_held(begins);
        }
        if found.is_err() {
            // What the walker made of them is not known: all goes on as it came.
            *bytes = &[];
            return self.keep(before, passed);
        }
        let is_begun = matches!(found, Ok(None)) && self.guards_header();
        let is_held = |first| match self.is_deaf {
            true => is(first, CLOSE),
            false => is_begun || self.may_take(first),
        };
        if first.is_some_and(is_held) {
            self.edit().held.extend_from_slice(piece);
        } else {
            self.keep(piece, passed);
        }
    }

    /// Whether a frame with this first byte may be one to be taken out.
    fn may_take(&self, first: u8) -> bool {
        let edit = self.edit.as_deref();
        let awaits_pong = edit.is_some_and(|edit| edit.pong.is_some());
        let is_bridged = edit.is_some_and(|edit| edit.is_bridged);
        (is(first, PONG) && awaits_pong)
            || is(first, CLOSE)
            || (first & IS_CONTROL != 0 && is_bridged)
    }

    /// Where bytes of a frame belong: to what is held, to what passes, or nowhere.
    fn keep(&mut self, bytes: &[u8], passed: &mut Vec<u8>) {
        match &mut self.edit {
            Some(edit) if !edit.held.is_empty() => edit.held.extend_from_slice(bytes),
            _ if self.is_deaf => {}
            Some(edit) if edit.drops_frame => {}
            _ => passed.extend_from_slice(bytes),
        }
    }

    /// What is held is let go as soon as it is known whether it is to be taken out.
    fn judge_held(&mut self, passed: &mut Vec<u8>) {
        let is_lost = self.walker.lost().is_some();
        let is_known = self.walker.at_boundary() || is_lost || self.has_guarded_header();
        let Some(edit) = self
            .edit
            .as_mut()
            .filter(|edit| is_known && !edit.held.is_empty())
        else {
            return;
        };
        let held = std::mem::take(&mut edit.held);
        let Some(payload) = control::payload(&held).filter(|_| !is_lost) else {
            // A violation, or a header that was guarded: the rest of it is not known.
            return match self.is_deaf {
                true => {}
                false => passed.extend_from_slice(&held),
            };
        };
        let first = held.first().copied().unwrap_or(0);
        // What comes behind the first one is no word of the source any more.
        if is(first, CLOSE) && self.left.is_none() && !self.has_closed {
            edit.said = Some(close_filter::code_of(&payload).unwrap_or(NO_CODE));
        }
        if is(first, CLOSE) && (self.is_deaf || edit.is_bridged) {
            self.has_closed |= self.takes == CloseFilter::None;
        } else if is(first, PONG) && edit.pong.as_ref().is_some_and(|pong| pong[..] == payload) {
            edit.pong = None;
        } else if edit.is_bridged {
            if is(first, PING) {
                // RFC 6455 section 5.5.3: the latest one is answered.
                edit.ping = Some(payload);
            }
        } else if is(first, CLOSE) && self.takes.is_meant(&payload) {
            self.left = Some(CloseCause::of(&payload));
            self.is_deaf = true;
        } else {
            self.has_closed |= is(first, CLOSE);
            passed.extend_from_slice(&held);
        }
    }
}

impl FrameEdits {
    /// Nothing is left to be edited.
    fn is_idle(&self, is_deaf: bool) -> bool {
        let FrameEdits {
            insert,
            is_last: _,
            pong,
            held,
            pauses,
            rest,
            is_bridged,
            ping,
            drops_frame,
            drops_message,
            said,
        } = self;
        let is_empty = said.is_none()
            && insert.is_empty()
            && held.is_empty()
            && rest.is_empty()
            && ping.is_none();
        let acts = *pauses || *is_bridged || *drops_frame || *drops_message;
        is_empty && !acts && (pong.is_none() || is_deaf)
    }
}

/// The first byte of a frame says that it is one of this opcode.
fn is(first: u8, opcode: u8) -> bool {
    first & 0x0f == opcode
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::control::ControlReader;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    const TOKEN: [u8; PING_BYTES] = *b"\x01token-\x02";

    /// A frame as a reader of its own takes it apart.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Whole {
        first: u8,
        payload: Vec<u8>,
    }

    impl Whole {
        fn encode(&self, is_masked: bool) -> Vec<u8> {
            let length = self.payload.len();
            let mask_bit = if is_masked { 0x80 } else { 0 };
            let mut bytes = vec![self.first];
            match length {
                0..126 => bytes.push(length as u8 | mask_bit),
                _ => {
                    bytes.push(126 | mask_bit);
                    bytes.extend_from_slice(&(length as u16).to_be_bytes());
                }
            }
            if is_masked {
                bytes.extend_from_slice(&KEY);
            }
            let key = KEY
                .iter()
                .cycle()
                .map(|key| if is_masked { *key } else { 0 });
            bytes.extend(self.payload.iter().zip(key).map(|(byte, key)| byte ^ key));
            bytes
        }

        /// All frames, or what is left of one that is not whole.
        fn decode(mut bytes: &[u8]) -> (Vec<Whole>, Vec<u8>) {
            let mut frames = Vec::new();
            while let Some((frame, length)) = Whole::first(bytes) {
                frames.push(frame);
                bytes = &bytes[length..];
            }
            (frames, bytes.to_vec())
        }

        fn first(bytes: &[u8]) -> Option<(Whole, usize)> {
            let (first, second) = (*bytes.first()?, *bytes.get(1)?);
            let (length, mut at) = match second & 0x7f {
                126 => (
                    usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
                    4,
                ),
                short => (usize::from(short), 2),
            };
            let mut key = [0; 4];
            if second & 0x80 != 0 {
                key.copy_from_slice(bytes.get(at..at + 4)?);
                at += 4;
            }
            let payload = bytes.get(at..at + length)?;
            let payload = payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key);
            let frame = Whole {
                first,
                payload: payload.collect(),
            };
            Some((frame, at + length))
        }
    }

    fn control_frames() -> impl Strategy<Value = Whole> {
        let pongs = prop_oneof![
            Just(TOKEN.to_vec()),
            Just(TOKEN[..7].to_vec()),
            Just([&TOKEN[..], b"!"].concat()),
            prop::collection::vec(any::<u8>(), 0..126),
        ];
        (prop_oneof![Just(0x89u8), Just(0x8a), Just(0x8a)], pongs)
            .prop_map(|(first, payload)| Whole { first, payload })
    }

    /// Messages of one to three fragments, with control frames anywhere between.
    fn streams() -> impl Strategy<Value = Vec<Whole>> {
        let fragment = prop::collection::vec(any::<u8>(), 0..300);
        let fragments = prop::collection::vec((fragment, prop::option::of(control_frames())), 1..4);
        prop::collection::vec(fragments, 0..5).prop_map(|messages| {
            let mut frames = Vec::new();
            for message in messages {
                let last = message.len() - 1;
                for (place, (payload, control)) in message.into_iter().enumerate() {
                    let opcode = if place == 0 { 2 } else { 0 };
                    let fin = if place == last { 0x80 } else { 0 };
                    frames.push(Whole {
                        first: opcode | fin,
                        payload,
                    });
                    frames.extend(control);
                }
            }
            frames
        })
    }

    fn chunks<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    fn passage(is_masked: bool) -> FrameFilter {
        match is_masked {
            true => FrameFilter::from_client(),
            false => FrameFilter::from_server(),
        }
    }

    fn reader(is_masked: bool) -> ControlReader {
        match is_masked {
            true => ControlReader::Backend(KEY),
            false => ControlReader::Client,
        }
    }

    /// Passes the chunks, with `act` before the one of that number and a look for what may be put in after each.
    fn run(
        passage: &mut FrameFilter,
        chunks: &[&[u8]],
        at: usize,
        mut act: impl FnMut(&mut FrameFilter),
    ) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, chunk) in chunks.iter().enumerate() {
            if number == at {
                act(passage);
                out.extend(passage.take_insert().unwrap_or_default());
            }
            match passage.pass(chunk, |_| FrameAction::Pass) {
                Filtered::Whole => out.extend_from_slice(chunk),
                Filtered::Edited(bytes) => out.extend(bytes),
            }
            out.extend(passage.take_insert().unwrap_or_default());
        }
        out
    }

    proptest! {
        #[test]
        fn untouched_it_passes_every_byte(frames in streams(), masked: bool, cuts: Vec<prop::sample::Index>) {
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(masked)).collect();
            let mut passage = passage(masked);
            prop_assert_eq!(run(&mut passage, &chunks(&bytes, &cuts), 0, |_| {}), bytes);
            prop_assert!(passage.lost().is_none() && passage.edit.is_none());
        }

        #[test]
        fn a_ping_goes_in_between_two_frames(
            frames in streams(), masked: bool, cuts: Vec<prop::sample::Index>, at: prop::sample::Index,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(masked)).collect();
            let chunks = chunks(&bytes, &cuts);
            let ping = control::ping(*b"our-ping", reader(masked));
            let mut passage = passage(masked);
            let out = run(&mut passage, &chunks, at.index(chunks.len()), |passage| passage.insert(&ping));
            let (mut passed, rest) = Whole::decode(&out);
            prop_assert!(rest.is_empty());
            let ours = passed.iter().position(|frame| frame.first == 0x89 && frame.payload == b"our-ping");
            passed.remove(ours.expect("it went in"));
            prop_assert_eq!(passed, frames);
            prop_assert!(passage.edit.is_none());
        }

        #[test]
        fn only_the_first_pong_to_our_ping_is_taken_out(
            frames in streams(), masked: bool, cuts: Vec<prop::sample::Index>, at: prop::sample::Index,
        ) {
            let mut bytes = Vec::new();
            let mut begins = Vec::new();
            for frame in &frames {
                begins.push(bytes.len());
                bytes.extend(frame.encode(masked));
            }
            let chunks = chunks(&bytes, &cuts);
            let at = at.index(chunks.len());
            let asked_at: usize = chunks[..at].iter().map(|chunk| chunk.len()).sum();
            let mut passage = passage(masked);
            let out = run(&mut passage, &chunks, at, |passage| passage.expect_pong(TOKEN));
            let ours = frames.iter().zip(&begins).position(|(frame, begin)| {
                *begin >= asked_at && frame.first == 0x8a && frame.payload == TOKEN
            });
            let mut wanted = frames.clone();
            if let Some(ours) = ours {
                wanted.remove(ours);
            }
            prop_assert_eq!(Whole::decode(&out), (wanted, Vec::new()));
            prop_assert_eq!(passage.edit.is_none(), ours.is_some());
        }

        #[test]
        fn behind_our_close_nothing_passes_and_theirs_is_heard(
            frames in streams(), masked: bool, answers: bool, cuts: Vec<prop::sample::Index>, at: prop::sample::Index,
        ) {
            let mut bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(masked)).collect();
            if answers {
                let answer = Whole { first: 0x88, payload: vec![3, 0xe9] };
                bytes.extend(answer.encode(masked));
            }
            let chunks = chunks(&bytes, &cuts);
            let close = control::close(1012, "restart", reader(masked));
            let mut passage = passage(masked);
            let at = at.index(chunks.len());
            let out = run(&mut passage, &chunks, at, |passage| passage.insert_close(close.clone()));
            let (mut passed, rest) = Whole::decode(&out);
            prop_assert!(rest.is_empty());
            let last = passed.pop().expect("a close");
            prop_assert_eq!(last.first, 0x88);
            prop_assert!(passed.len() <= frames.len() && passed[..] == frames[..passed.len()]);
            prop_assert!(passage.is_deaf() && passage.is_told() && !passage.is_cut());
            prop_assert_eq!(passage.has_closed(), answers);
            prop_assert_eq!(passage.take_close_code(), answers.then_some(1001));
        }

        #[test]
        fn a_refused_frame_does_not_pass(
            frames in streams(), masked: bool, cuts: Vec<prop::sample::Index>, refused: prop::sample::Index,
        ) {
            prop_assume!(!frames.is_empty());
            let refused = refused.index(frames.len());
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(masked)).collect();
            let mut passage = passage(masked);
            let (mut seen, mut out) = (0, Vec::new());
            for chunk in chunks(&bytes, &cuts) {
                let watch = |_: &Frame| {
                    seen += 1;
                    if seen > refused { FrameAction::Refuse } else { FrameAction::Pass }
                };
                match passage.pass(chunk, watch) {
                    Filtered::Whole => out.extend_from_slice(chunk),
                    Filtered::Edited(bytes) => out.extend(bytes),
                }
            }
            let (passed, rest) = Whole::decode(&out);
            prop_assert_eq!(&passed[..], &frames[..refused]);
            prop_assert_eq!(passage.is_cut(), !rest.is_empty());
            prop_assert!(passage.is_deaf());
        }

        #[test]
        fn any_bytes_pass_in_the_end(bytes: Vec<u8>, masked: bool, cuts: Vec<prop::sample::Index>) {
            let mut passage = passage(masked);
            passage.expect_pong(TOKEN);
            let out = run(&mut passage, &chunks(&bytes, &cuts), 0, |_| {});
            prop_assert!(bytes.starts_with(&out) || passage.lost().is_none());
            if passage.lost().is_some() {
                prop_assert_eq!(out, bytes);
            }
        }
    }

    /// What a far end reads: whole frames, or the parts of one.
    fn pass_all(passage: &mut FrameFilter, bytes: &[u8]) -> Vec<u8> {
        match passage.pass(bytes, |_| FrameAction::Pass) {
            Filtered::Whole => bytes.to_vec(),
            Filtered::Edited(bytes) => bytes,
        }
    }

    fn is_data(frame: &Whole) -> bool {
        frame.first & 0x08 == 0
    }

    /// Only frames of messages, and whether each ends one.
    fn messages(frames: &[Whole]) -> Vec<Whole> {
        frames
            .iter()
            .filter(|frame| is_data(frame))
            .cloned()
            .collect()
    }

    proptest! {
        /// Whatever the far end had when it went: the next one gets whole messages, each frame once and in order, and of the
        /// frames of messages only those are missing that belong to the message that was cut.
        #[test]
        fn a_far_end_that_goes_gets_a_prefix_and_the_next_one_whole_messages(
            frames in streams(), at in any::<prop::sample::Index>(), size in 1usize..40, back in prop::option::of(0usize..200),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(true)).collect();
            let at = at.index(stream.len() + 1);
            let mut passage = FrameFilter::from_client();
            let mut first = Vec::new();
            for chunk in stream[..at].chunks(size) {
                first.extend(pass_all(&mut passage, chunk));
            }
            let (cut, rest) = passage.bridge();
            prop_assert!(rest.is_empty());
            let behind = back.map_or(stream.len(), |back| (at + back).min(stream.len()));
            let mut second = Vec::new();
            let mut pings = 0;
            for chunk in stream[at..behind].chunks(size) {
                second.extend(pass_all(&mut passage, chunk));
                pings += usize::from(passage.take_ping().is_some());
            }
            passage.arrive();
            for chunk in stream[behind..].chunks(size) {
                second.extend(pass_all(&mut passage, chunk));
            }
            prop_assert!(passage.edit.is_none());
            let (had, part) = Whole::decode(&first);
            let (has, left) = Whole::decode(&second);
            prop_assert!(left.is_empty());
            // The first frame of the next far end begins a message.
            let has_messages = messages(&has);
            prop_assert!(has_messages.first().is_none_or(|frame| frame.first & 0x0f != 0));
            let had_messages = messages(&had);
            let all = messages(&frames);
            prop_assert_eq!(&had_messages[..], &all[..had_messages.len()]);
            prop_assert_eq!(&has_messages[..], &all[all.len() - has_messages.len()..]);
            let missing = &all[had_messages.len()..all.len() - has_messages.len()];
            // What is missing continues what was cut: at most one message's end.
            let begun = missing.iter().skip(usize::from(!part.is_empty())).filter(|frame| frame.first & 0x0f != 0);
            prop_assert_eq!(begun.count(), 0);
            prop_assert!(missing.is_empty() || cut);
            let asked = frames.iter().filter(|frame| frame.first == 0x89).count();
            let passed = had.iter().chain(&has).filter(|frame| frame.first == 0x89).count();
            prop_assert!(pings + passed <= asked);
        }

        /// A pause falls between two messages, and nothing is lost at it.
        #[test]
        fn a_pause_falls_between_two_messages(
            frames in streams(), at in any::<prop::sample::Index>(), size in 1usize..400,
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(true)).collect();
            let at = at.index(stream.len() + 1);
            let mut passage = FrameFilter::from_client();
            let mut first = pass_all(&mut passage, &stream[..at]);
            passage.pause();
            let mut come = at;
            for chunk in stream[at..].chunks(size) {
                if passage.is_paused() {
                    break;
                }
                come += chunk.len();
                first.extend(pass_all(&mut passage, chunk));
            }
            prop_assume!(passage.is_paused());
            let (cut, rest) = passage.bridge();
            prop_assert!(!cut);
            let mut second = pass_all(&mut passage, &rest);
            second.extend(pass_all(&mut passage, &stream[come..]));
            let (had, part) = Whole::decode(&first);
            prop_assert!(part.is_empty());
            let (has, left) = Whole::decode(&second);
            prop_assert!(left.is_empty());
            let both = [messages(&had), messages(&has)].concat();
            prop_assert_eq!(both, messages(&frames));
            prop_assert!(messages(&had).last().is_none_or(|frame| frame.first & 0x80 != 0));
        }

        /// A Close by which a server goes away is not seen by its client, in any chunking, and any other is.
        #[test]
        fn only_a_close_of_who_goes_away_is_taken_out(
            frames in streams(), code in prop_oneof![Just(1000u16), Just(1001), Just(1012), Just(1013), Just(4000)],
            reason in "[a-z]{0,20}", size in 1usize..40, behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
            let close = Whole { first: 0x88, payload };
            let before: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(false)).collect();
            let stream = [before.clone(), close.encode(false)].concat();
            let mut passage = FrameFilter::from_server().taking_leave();
            let mut passed = Vec::new();
            for chunk in stream.chunks(size) {
                passed.extend(pass_all(&mut passage, chunk));
            }
            let leaves = code != 1000 && code != 4000;
            prop_assert_eq!(passage.has_left(), leaves);
            prop_assert_eq!(passage.has_closed(), !leaves);
            prop_assert_eq!(&passed, if leaves { &before } else { &stream });
            prop_assert_eq!(passage.take_close_code(), Some(code));
            prop_assert_eq!(passage.take_close_code(), None);
            if leaves {
                prop_assert!(pass_all(&mut passage, &behind).is_empty());
                passage.renew();
                prop_assert_eq!(&pass_all(&mut passage, &stream[..before.len()]), &before);
                prop_assert!(passage.edit.is_none());
            }
        }
    }
}
