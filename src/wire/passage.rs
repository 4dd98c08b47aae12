//! One direction of a WebSocket on its way through: followed frame by frame, and edited at frame boundaries. A frame of
//! our own is put in between two frames, never inside one; the pongs to our own pings, and only those, are taken out; and
//! behind a Close of ours nothing more passes.
//!
//! What passes unedited is not copied. RFC 6455 sections 5.4 and 5.5: control frames may stand between the fragments of a
//! message, and nothing may follow a Close.

use super::control::{self, PING_BYTES};
use super::frames::{Frame, Opcode, Violation, Walker};

/// Longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL_BYTES: u64 = 125;

/// What becomes of bytes that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    /// All of them pass as they are.
    Whole,
    /// These go on in their place.
    Edited(Vec<u8>),
}

/// What is to become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// Nothing passes from here on.
    Refuse,
}

/// Follows and edits one direction.
#[derive(Debug)]
pub struct Passage {
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
    edit: Option<Box<Edit>>,
}

/// What is to be edited; only there while something is.
#[derive(Debug, Default)]
struct Edit {
    /// Goes in at the next boundary.
    insert: Vec<u8>,
    /// Nothing passes behind it.
    is_last: bool,
    /// Our latest ping that was not answered yet.
    pong: Option<[u8; PING_BYTES]>,
    /// What has come of a frame that may be a pong to be taken out.
    held: Vec<u8>,
}

impl Passage {
    pub const fn from_client() -> Passage {
        Passage::new(Walker::from_client())
    }

    pub const fn from_server() -> Passage {
        Passage::new(Walker::from_server())
    }

    const fn new(walker: Walker) -> Passage {
        Passage {
            walker,
            has_closed: false,
            is_deaf: false,
            is_cut: false,
            is_told: false,
            messages: false,
            inserted: false,
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
        let may_skip = !self.is_deaf && self.edit.as_ref().is_none_or(|edit| edit.held.is_empty());
        match may_skip {
            true => self.walker.payload_left(),
            false => 0,
        }
    }

    /// So many of them went by.
    pub fn skip(&mut self, count: u64) {
        self.messages = true;
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
        let waits = |edit: &Edit| !edit.insert.is_empty();
        self.edit.as_deref().is_some_and(waits)
    }

    fn edit(&mut self) -> &mut Edit {
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
        let is_idle = |edit: &Edit| {
            edit.insert.is_empty() && edit.held.is_empty() && (edit.pong.is_none() || self.is_deaf)
        };
        if self.edit.as_deref().is_some_and(is_idle) {
            self.edit = None;
        }
    }

    /// Takes the next bytes of the source; `watch` sees each frame as soon as its header is whole. What was to be put in at
    /// a boundary among them is.
    #[inline]
    pub fn pass(&mut self, bytes: &[u8], mut watch: impl FnMut(&Frame) -> Verdict) -> Passed {
        // A part of a payload that is too long for a control frame's.
        self.messages |= self.walker.payload_left() > MAX_CONTROL_BYTES;
        if self.edit.is_some() || self.is_deaf {
            return Passed::Edited(self.pass_edited(bytes, watch));
        }
        let mut rest = bytes;
        // A violation is kept by the walker.
        while let Ok(Some(frame)) = self.walker.next_frame(&mut rest) {
            self.note(&frame);
            if watch(&frame) == Verdict::Refuse {
                let behind_header = bytes.len() - rest.len();
                let kept = behind_header.checked_sub(frame.header_bytes.into());
                self.is_deaf = true;
                self.is_cut = kept.is_none();
                let _ = self.pass_edited(rest, watch);
                return Passed::Edited(bytes[..kept.unwrap_or(0)].to_vec());
            }
        }
        Passed::Whole
    }

    #[inline]
    fn note(&mut self, frame: &Frame) {
        self.has_closed |= frame.opcode == Opcode::Close;
        self.messages |= !frame.opcode.is_control();
    }

    #[cold]
    fn pass_edited(
        &mut self,
        mut bytes: &[u8],
        mut watch: impl FnMut(&Frame) -> Verdict,
    ) -> Vec<u8> {
        let mut passed = Vec::new();
        loop {
            if let Some(frame) = self.take_insert() {
                passed.extend_from_slice(&frame);
            }
            if bytes.is_empty() {
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
        }
        self.forget_edit();
        passed
    }

    /// A header, or what there is of it.
    fn pass_header(
        &mut self,
        bytes: &mut &[u8],
        passed: &mut Vec<u8>,
        watch: &mut impl FnMut(&Frame) -> Verdict,
    ) {
        let begins = self.walker.at_boundary();
        let before = *bytes;
        let found = self.walker.next_frame(bytes);
        let piece = &before[..before.len() - bytes.len()];
        if let Ok(Some(frame)) = &found {
            self.note(frame);
            if !self.is_deaf && watch(frame) == Verdict::Refuse {
                self.is_deaf = true;
                let held = self
                    .edit
                    .as_mut()
                    .map(|edit| std::mem::take(&mut edit.held));
                self.is_cut = !begins && held.is_none_or(|held| held.is_empty());
                return;
            }
        }
        if found.is_err() {
            // What the walker made of them is not known: all goes on as it came.
            *bytes = &[];
            return self.keep(before, passed);
        }
        let awaits = self.edit.as_ref().is_some_and(|edit| edit.pong.is_some());
        let may_be_pong = piece.first().is_some_and(|first| first & 0x0f == 0x0a);
        if begins && awaits && may_be_pong && !self.is_deaf {
            self.edit().held.extend_from_slice(piece);
        } else {
            self.keep(piece, passed);
        }
    }

    /// Where bytes of a frame belong: to what is held, to what passes, or nowhere.
    fn keep(&mut self, bytes: &[u8], passed: &mut Vec<u8>) {
        match &mut self.edit {
            _ if self.is_deaf => {}
            Some(edit) if !edit.held.is_empty() => edit.held.extend_from_slice(bytes),
            _ => passed.extend_from_slice(bytes),
        }
    }

    /// What is held is let go as soon as it is known whether it is our pong.
    fn judge_held(&mut self, passed: &mut Vec<u8>) {
        let is_known = self.walker.at_boundary() || self.walker.lost().is_some();
        let Some(edit) = self
            .edit
            .as_mut()
            .filter(|edit| is_known && !edit.held.is_empty())
        else {
            return;
        };
        let held = std::mem::take(&mut edit.held);
        let awaited = edit.pong.as_ref().map(|payload| &payload[..]);
        if awaited.is_some() && control::payload(&held).as_deref() == awaited {
            edit.pong = None;
        } else {
            passed.extend_from_slice(&held);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::control::Reader;

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

    fn passage(is_masked: bool) -> Passage {
        match is_masked {
            true => Passage::from_client(),
            false => Passage::from_server(),
        }
    }

    fn reader(is_masked: bool) -> Reader {
        match is_masked {
            true => Reader::Backend(KEY),
            false => Reader::Client,
        }
    }

    /// Passes the chunks, with `act` before the one of that number and a look for what may be put in after each.
    fn run(
        passage: &mut Passage,
        chunks: &[&[u8]],
        at: usize,
        mut act: impl FnMut(&mut Passage),
    ) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, chunk) in chunks.iter().enumerate() {
            if number == at {
                act(passage);
                out.extend(passage.take_insert().unwrap_or_default());
            }
            match passage.pass(chunk, |_| Verdict::Pass) {
                Passed::Whole => out.extend_from_slice(chunk),
                Passed::Edited(bytes) => out.extend(bytes),
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
                    if seen > refused { Verdict::Refuse } else { Verdict::Pass }
                };
                match passage.pass(chunk, watch) {
                    Passed::Whole => out.extend_from_slice(chunk),
                    Passed::Edited(bytes) => out.extend(bytes),
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
}
