//! Filter of a source that is bounded: no part of a frame that is refused or breaks the protocol
//! passes, in any chunking. A header that has come in part is held until it is whole; payload never
//! is. Where the source is not bounded, only the header of a Close is held.

use super::{CLOSE, Filtered, FrameFilter, Output, is};

impl FrameFilter {
    /// Adds that nothing of a refused or broken frame passes.
    pub const fn guarded(mut self) -> FrameFilter {
        self.is_guarded = true;
        self
    }

    /// Holds the part of a header with which `bytes` end. Where the frames are lost, the bad header
    /// begins where `rest` does.
    pub(super) fn guard(&mut self, bytes: &[u8], rest: &[u8]) -> Filtered {
        if self.violation().is_some() {
            self.output = Output::Discarding;
            return Filtered::Edited(bytes[..bytes.len() - rest.len()].to_vec());
        }
        let begun = self.walker.header_come().min(bytes.len());
        if begun == 0 {
            return Filtered::Whole;
        }
        let (before, part) = bytes.split_at(bytes.len() - begun);
        self.edits().control.held.extend_from_slice(part);
        Filtered::Edited(before.to_vec())
    }

    /// Holds the part of a header with which `bytes` end where it is a Close's.
    #[inline]
    pub(super) fn hold_close(&mut self, bytes: &[u8]) -> Filtered {
        // The part of one that began in earlier bytes has passed, and its first byte is not here.
        let begin = bytes.len().checked_sub(self.walker.header_come());
        let (before, part) = bytes.split_at(begin.unwrap_or(bytes.len()));
        if part.first().is_some_and(|first| is(*first, CLOSE)) {
            self.edits().control.held.extend_from_slice(part);
            return Filtered::Edited(before.to_vec());
        }
        Filtered::Whole
    }

    /// Lets nothing pass from the present header on, of which a part may have passed before.
    pub(super) fn refuse_header(&mut self, begins_here: bool) {
        if self.is_discarding() {
            return;
        }
        let edits = self.edits.as_mut();
        let held = edits.map(|edits| std::mem::take(&mut edits.control.held));
        let has_passed = !begins_here && held.is_none_or(|held| held.is_empty());
        self.output = Output::without(has_passed);
    }

    /// Whether a header that has come in part is to be held.
    pub(super) fn holds_headers(&self) -> bool {
        let edits = self.edits.as_deref();
        self.is_guarded && !edits.is_some_and(|edits| edits.handover.drops_frame())
    }

    /// Whether a whole header is held of a frame that is not to be taken out.
    pub(super) fn has_guarded_header(&self) -> bool {
        let edits = self.edits.as_deref();
        let first = edits.and_then(|edits| edits.control.held.first().copied());
        self.is_guarded
            && self.walker.header_come() == 0
            && first.is_some_and(|first| !self.may_take_out(first))
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

    fn passed(filter: &mut FrameFilter, bytes: &[u8]) -> Vec<u8> {
        match filter.pass(bytes, |_| FrameAction::Pass) {
            Filtered::Whole => bytes.to_vec(),
            Filtered::Edited(edited) => edited,
        }
    }

    proptest! {
        #[test]
        fn nothing_of_a_broken_frame_passes_in_any_chunking(
            before in whole_messages(), broken in broken(), behind: Vec<u8>, size in 1usize..40, pings: bool,
        ) {
            let mut filter = FrameFilter::from_client().guarded();
            if pings {
                filter.expect_pong(*b"awaited!");
            }
            let mut out = Vec::new();
            for chunk in [&before[..], &broken, &behind].concat().chunks(size) {
                out.extend(passed(&mut filter, chunk));
            }
            prop_assert_eq!(out, before);
            prop_assert!(filter.violation().is_some() && filter.is_discarding() && !filter.is_truncated());
            let close = control::close(1001, "", ControlReader::Backend([1, 2, 3, 4]));
            filter.insert_close(close.clone());
            prop_assert_eq!(filter.take_insert(), Some(close));
        }

        #[test]
        fn all_of_good_frames_passes_and_nothing_is_kept(stream in whole_messages(), size in 1usize..40) {
            let mut filter = FrameFilter::from_client().guarded();
            let mut out = Vec::new();
            for chunk in stream.chunks(size) {
                out.extend(passed(&mut filter, chunk));
                // Nobody waits for payload.
                let mut walker = Walker::from_client();
                let come = out.len() + filter.edits.as_ref().map_or(0, |edits| edits.control.held.len());
                prop_assert!(walker.walk(&stream[..come]).is_ok());
                prop_assert!(!filter.is_holding() || walker.header_come() > 0);
            }
            prop_assert_eq!(out, stream);
            prop_assert!(filter.edits.is_none());
        }

        #[test]
        fn a_refused_frame_cuts_nothing_in_two(stream in whole_messages(), size in 1usize..20, limit in 0usize..12) {
            let mut filter = FrameFilter::from_client().guarded();
            let (mut out, mut seen) = (Vec::new(), 0);
            for chunk in stream.chunks(size) {
                let watch = |_: &_| {
                    seen += 1;
                    if seen > limit { FrameAction::Refuse } else { FrameAction::Pass }
                };
                match filter.pass(chunk, watch) {
                    Filtered::Whole => out.extend_from_slice(chunk),
                    Filtered::Edited(edited) => out.extend(edited),
                }
            }
            let mut walker = Walker::from_client();
            prop_assert!(walker.walk(&out).is_ok() && walker.at_boundary());
            prop_assert!(!filter.is_truncated() && stream.starts_with(&out));
        }
    }
}
