//! A passage whose source is bounded: of a frame that is refused or breaks the protocol nothing passes, in any chunking.
//! A header that has come in part is held until it is whole; payload never is. Of other passages a Close's header is.

use super::{CLOSE, Filtered, FrameFilter, is};

impl FrameFilter {
    /// The same, with nothing of a refused or broken frame let by.
    pub const fn guarded(mut self) -> FrameFilter {
        self.is_guarded = true;
        self
    }

    /// The header that is not whole, or is none, ends `bytes` or begins where `rest` does.
    pub(super) fn guard(&mut self, bytes: &[u8], rest: &[u8]) -> Filtered {
        if self.walker.lost().is_some() {
            self.is_deaf = true;
            return Filtered::Edited(bytes[..bytes.len() - rest.len()].to_vec());
        }
        let begun = self.walker.header_come().min(bytes.len());
        if begun == 0 {
            return Filtered::Whole;
        }
        let (before, part) = bytes.split_at(bytes.len() - begun);
        self.edit().held.extend_from_slice(part);
        Filtered::Edited(before.to_vec())
    }

    /// The part of a header with which `bytes` end is held where it is a Close's.
    #[inline]
    pub(super) fn hold_close(&mut self, bytes: &[u8]) -> Filtered {
        // The part of one that began in earlier bytes has passed, and its first byte is not among these.
        let begin = bytes.len().checked_sub(self.walker.header_come());
        let (before, part) = bytes.split_at(begin.unwrap_or(bytes.len()));
        if part.first().is_some_and(|first| is(*first, CLOSE)) {
            self.edit().held.extend_from_slice(part);
            return Filtered::Edited(before.to_vec());
        }
        Filtered::Whole
    }

    /// Lets nothing pass from the present header on, with which these bytes begin or not.
    pub(super) fn refuse_held(&mut self, begins: bool) {
        if std::mem::replace(&mut self.is_deaf, true) {
            return;
        }
        let edit = self.edit.as_mut();
        let held = edit.map(|edit| std::mem::take(&mut edit.held));
        self.is_cut = !begins && held.is_none_or(|held| held.is_empty());
    }

    /// A header that has come in part is to be held.
    pub(super) fn guards_header(&self) -> bool {
        let drops = self.edit.as_deref().is_some_and(|edit| edit.drops_frame);
        self.is_guarded && !drops
    }

    /// What is held is a header that has become whole, of a frame that is not to be taken out.
    pub(super) fn has_guarded_header(&self) -> bool {
        let first = |edit: &super::FrameEdits| edit.held.first().copied();
        self.is_guarded
            && self.walker.header_come() == 0
            && self
                .edit
                .as_deref()
                .and_then(first)
                .is_some_and(|first| !self.may_take(first))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Filtered, FrameAction};
    use super::*;
    use crate::wire::control::{self, ControlReader};
    use crate::wire::frames::Walker;

    /// A masked frame with this first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = match payload.len() {
            short @ 0..126 => vec![0x80 | short as u8],
            long => [&[0x80 | 126][..], &(long as u16).to_be_bytes()].concat(),
        };
        [&[first][..], &length, &[0; 4], payload].concat()
    }

    fn whole_messages() -> impl Strategy<Value = Vec<u8>> {
        let payload = || prop::collection::vec(any::<u8>(), 0..200);
        let control = (prop_oneof![Just(0x89u8), Just(0x8a)], 0..126usize)
            .prop_map(|(first, length)| frame(first, &vec![7; length]));
        let parted = (payload(), control, payload()).prop_map(|(one, control, other)| {
            [frame(0x02, &one), control, frame(0x80, &other)].concat()
        });
        let whole = payload().prop_map(|payload| frame(0x82, &payload));
        prop::collection::vec(prop_oneof![whole, parted], 0..5).prop_map(|all| all.concat())
    }

    /// Each of them is none that a client may send between two messages.
    fn broken() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(frame(0x83, b"reserved opcode")),
            Just(vec![0x81, 5, b'p', b'l', b'a', b'i', b'n']),
            Just(frame(0x80, b"nothing to go on with")),
            Just(frame(0x09, b"a fragmented ping")),
            Just(frame(0x89, &[1; 126])),
            Just(vec![0x82, 0xfe, 0, 1, 0, 0, 0, 0, 7]),
            Just(vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ]
    }

    fn passed(passage: &mut FrameFilter, bytes: &[u8]) -> Vec<u8> {
        match passage.pass(bytes, |_| FrameAction::Pass) {
            Filtered::Whole => bytes.to_vec(),
            Filtered::Edited(edited) => edited,
        }
    }

    proptest! {
        #[test]
        fn nothing_of_a_broken_frame_passes_in_any_chunking(
            before in whole_messages(), broken in broken(), behind: Vec<u8>, size in 1usize..40, pings: bool,
        ) {
            let mut passage = FrameFilter::from_client().guarded();
            if pings {
                passage.expect_pong(*b"awaited!");
            }
            let mut out = Vec::new();
            for chunk in [&before[..], &broken, &behind].concat().chunks(size) {
                out.extend(passed(&mut passage, chunk));
            }
            prop_assert_eq!(out, before);
            prop_assert!(passage.lost().is_some() && passage.is_deaf() && !passage.is_cut());
            let close = control::close(1001, "", ControlReader::Backend([1, 2, 3, 4]));
            passage.insert_close(close.clone());
            prop_assert_eq!(passage.take_insert(), Some(close));
        }

        #[test]
        fn all_of_good_frames_passes_and_nothing_is_kept(stream in whole_messages(), size in 1usize..40) {
            let mut passage = FrameFilter::from_client().guarded();
            let mut out = Vec::new();
            for chunk in stream.chunks(size) {
                out.extend(passed(&mut passage, chunk));
                // Nobody waits for payload.
                let mut walker = Walker::from_client();
                let come = out.len() + passage.edit.as_ref().map_or(0, |edit| edit.held.len());
                prop_assert!(walker.walk(&stream[..come]).is_ok());
                prop_assert!(!passage.holds() || walker.header_come() > 0);
            }
            prop_assert_eq!(out, stream);
            prop_assert!(passage.edit.is_none());
        }

        #[test]
        fn a_refused_frame_cuts_nothing_in_two(stream in whole_messages(), size in 1usize..20, limit in 0usize..12) {
            let mut passage = FrameFilter::from_client().guarded();
            let (mut out, mut seen) = (Vec::new(), 0);
            for chunk in stream.chunks(size) {
                let watch = |_: &_| {
                    seen += 1;
                    if seen > limit { FrameAction::Refuse } else { FrameAction::Pass }
                };
                match passage.pass(chunk, watch) {
                    Filtered::Whole => out.extend_from_slice(chunk),
                    Filtered::Edited(edited) => out.extend(edited),
                }
            }
            let mut walker = Walker::from_client();
            prop_assert!(walker.walk(&out).is_ok() && walker.at_boundary());
            prop_assert!(!passage.is_cut() && stream.starts_with(&out));
        }
    }
}
