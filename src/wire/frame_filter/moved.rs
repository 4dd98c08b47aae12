//! A filter on its way to another process, at whatever place inside a frame.

use super::control_filter::{CloseCause, CloseFilter, ControlFilter};
use super::handover::Handover;
use super::insertion::Insertion;
use super::{FrameEdits, FrameFilter, Marks, Output, SourceClose};
use crate::base::close_code::MAX_REASON_BYTES;
use crate::wire::control::PING_BYTES;
use crate::wire::frames::MAX_HEADER_BYTES;
use crate::wire::moved::{MovedClose, MovedEdits, MovedFilter, MovedOutput};

/// Longest control frame: with its header, and 125 bytes of payload, which a reason leaves two of.
const MAX_HELD_BYTES: usize = MAX_HEADER_BYTES + 2 + MAX_REASON_BYTES;

const MESSAGES: u8 = 1;
const INSERTED: u8 = 1 << 1;
const SPOKEN: u8 = 1 << 2;

impl FrameFilter {
    /// The whole state. `None`: it pauses, as it does while a session leaves its backend.
    pub fn export(&self) -> Option<MovedFilter> {
        let (position, is_message_open) = self.walker.export();
        let edits = self.edits.as_deref();
        if edits.is_some_and(|edits| edits.handover.is_pausing()) {
            return None;
        }
        Some(MovedFilter {
            position,
            is_message_open,
            output: match self.output {
                Output::Open => MovedOutput::Open,
                Output::Discarding => MovedOutput::Discarding,
                Output::Truncated => MovedOutput::Truncated,
                Output::Closed => MovedOutput::Closed,
            },
            source_close: match self.source_close {
                SourceClose::None => 0,
                SourceClose::Came => 1,
                SourceClose::TakenOut(CloseCause::GoingAway) => 2,
                SourceClose::TakenOut(CloseCause::Restart) => 3,
                SourceClose::TakenOut(CloseCause::Later) => 4,
                SourceClose::TakenOut(CloseCause::Other) => 5,
            },
            close_filter: match self.close_filter {
                CloseFilter::None => MovedClose::None,
                CloseFilter::Leaving => MovedClose::Leaving,
                CloseFilter::Any => MovedClose::Any,
            },
            is_guarded: self.is_guarded,
            marks: self.marks.bits(),
            edits: edits.map(|edits| Box::new(edits.export())),
        })
    }

    /// This new filter in the state of another one. `None`: no filter comes into that state.
    pub fn import(self, moved: MovedFilter) -> Option<FrameFilter> {
        let edits = match moved.edits {
            Some(edits) => Some(Box::new(FrameEdits::import(*edits)?)),
            None => None,
        };
        Some(FrameFilter {
            walker: self.walker.at(moved.position, moved.is_message_open)?,
            output: match moved.output {
                MovedOutput::Open => Output::Open,
                MovedOutput::Discarding => Output::Discarding,
                MovedOutput::Truncated => Output::Truncated,
                MovedOutput::Closed => Output::Closed,
            },
            source_close: match moved.source_close {
                0 => SourceClose::None,
                1 => SourceClose::Came,
                2 => SourceClose::TakenOut(CloseCause::GoingAway),
                3 => SourceClose::TakenOut(CloseCause::Restart),
                4 => SourceClose::TakenOut(CloseCause::Later),
                5 => SourceClose::TakenOut(CloseCause::Other),
                _ => return None,
            },
            close_filter: match moved.close_filter {
                MovedClose::None => CloseFilter::None,
                MovedClose::Leaving => CloseFilter::Leaving,
                MovedClose::Any => CloseFilter::Any,
            },
            is_guarded: moved.is_guarded,
            marks: Marks::of_bits(moved.marks),
            edits,
        })
    }
}

impl Marks {
    fn bits(self) -> u8 {
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        bit(self.messages, MESSAGES) | bit(self.inserted, INSERTED) | bit(self.spoken, SPOKEN)
    }

    fn of_bits(bits: u8) -> Marks {
        Marks {
            messages: bits & MESSAGES != 0,
            inserted: bits & INSERTED != 0,
            spoken: bits & SPOKEN != 0,
        }
    }
}

impl FrameEdits {
    fn export(&self) -> MovedEdits {
        let (insert, is_close) = self.insertion.parts();
        let ControlFilter {
            held,
            awaited_pong,
            ping,
            close_code,
        } = &self.control;
        MovedEdits {
            insert: insert.to_vec(),
            is_close,
            held: held.clone(),
            awaited_pong: awaited_pong.map(u64::from_be_bytes),
            ping: ping.clone(),
            close_code: *close_code,
            is_reader_absent: self.handover.is_reader_absent(),
            drops_frame: self.handover.drops_frame(),
            drops_message: self.handover.drops_message(),
        }
    }

    fn import(moved: MovedEdits) -> Option<FrameEdits> {
        let is_short = |bytes: &[u8]| bytes.len() <= MAX_HELD_BYTES;
        let is_ping = moved.ping.as_deref().is_none_or(is_short);
        if !is_short(&moved.held) || !is_ping {
            return None;
        }
        let awaited_pong: Option<[u8; PING_BYTES]> = moved.awaited_pong.map(u64::to_be_bytes);
        Some(FrameEdits {
            insertion: Insertion::of_parts(moved.insert, moved.is_close),
            control: ControlFilter {
                held: moved.held,
                awaited_pong,
                ping: moved.ping,
                close_code: moved.close_code,
            },
            handover: Handover::at(
                moved.is_reader_absent,
                moved.drops_frame,
                moved.drops_message,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::control::{self, ControlReader};
    use crate::wire::frame_filter::{Filtered, FrameAction};
    use crate::wire::moved::MovedPosition;

    /// A filter as it comes out of its bytes.
    fn moved(filter: &FrameFilter, is_client: bool) -> FrameFilter {
        let new = if is_client {
            FrameFilter::from_client()
        } else {
            FrameFilter::from_server()
        };
        new.import(filter.export().unwrap()).unwrap()
    }

    fn pass(filter: &mut FrameFilter, bytes: &[u8]) -> Vec<u8> {
        let mut out = filter.take_insert().unwrap_or_default();
        out.extend(match filter.pass(bytes, |_| FrameAction::Pass) {
            Filtered::Whole => bytes.to_vec(),
            Filtered::Edited(edited) => edited,
        });
        out
    }

    fn frame(is_client: bool, first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = if is_client { 0x80 } else { 0 };
        let length = match payload.len() {
            short @ 0..126 => vec![mask | short as u8],
            long => [&[mask | 126][..], &(long as u16).to_be_bytes()].concat(),
        };
        let key = if is_client { &[0; 4][..] } else { &[] };
        [&[first][..], &length, key, payload].concat()
    }

    /// Frames, a broken one perhaps.
    fn streams(is_client: bool) -> impl Strategy<Value = Vec<u8>> {
        let kinds = prop_oneof![
            4 => (Just(0x82u8), 0usize..300),
            1 => (Just(0x02u8), 0usize..20),
            1 => (Just(0x80u8), 0usize..20),
            2 => (prop_oneof![Just(0x89u8), Just(0x8a)], 0usize..20),
            1 => (Just(0x88u8), 2usize..9),
        ];
        let frame = move |(first, length): (u8, usize)| frame(is_client, first, &vec![3; length]);
        prop::collection::vec(kinds, 0..8)
            .prop_map(move |all| all.into_iter().flat_map(frame).collect())
    }

    proptest! {
        /// Moved before every chunk, at whatever byte of a frame that is.
        #[test]
        fn a_moved_filter_does_as_one_that_stayed(
            (is_client, stream) in any::<bool>().prop_flat_map(|is| (Just(is), streams(is))),
            size in 1usize..30,
            is_guarded: bool,
            leaving: bool,
            pong: bool,
            insert_at in 0usize..20,
            absent_at in 0usize..40,
        ) {
            let mut stays = if is_client { FrameFilter::from_client() } else { FrameFilter::from_server() };
            if is_guarded {
                stays = stays.guarded();
            }
            if leaving {
                stays = stays.with_close_filter(CloseFilter::Any);
            }
            if pong {
                stays.expect_pong([3; PING_BYTES]);
            }
            let mut moves = moved(&stays, is_client);
            for (at, chunk) in stream.chunks(size).enumerate() {
                for filter in [&mut stays, &mut moves] {
                    if at == insert_at {
                        filter.insert(&control::ping([1; PING_BYTES], ControlReader::Client));
                    }
                    if at == absent_at {
                        let _ = filter.detach_reader();
                    }
                }
                moves = moved(&moves, is_client);
                prop_assert_eq!(pass(&mut stays, chunk), pass(&mut moves, chunk));
                prop_assert_eq!(stays.violation(), moves.violation());
                prop_assert_eq!(stays.is_discarding(), moves.is_discarding());
                prop_assert_eq!(stays.take_spoken(), moves.take_spoken());
                prop_assert_eq!(stays.left(), moves.left());
                prop_assert_eq!(stays.take_ping(), moves.take_ping());
            }
            let both = [stays.export(), moves.export()];
            prop_assert!(both[0] == both[1]);
        }
    }

    #[test]
    fn a_place_at_which_no_filter_stands_is_refused() {
        let at = |position| MovedFilter {
            position,
            ..MovedFilter::default()
        };
        let kept = |first: &[u8]| {
            let mut kept = [0; 10];
            kept[..first.len()].copy_from_slice(first);
            kept
        };
        let header = |count, first: &[u8]| {
            at(MovedPosition::Header {
                count,
                kept: kept(first),
            })
        };
        let imported = |moved| FrameFilter::from_server().import(moved);
        for (why, moved) in [
            ("no byte", header(0, &[])),
            ("a whole header", header(2, &[0x82, 1])),
            ("too long", header(14, &[0x82, 127])),
            ("masked", header(2, &[0x82, 0xfe])),
            ("no payload left", at(MovedPosition::Payload { left: 0 })),
            (
                "more than 63 bits",
                at(MovedPosition::Payload { left: 1 << 63 }),
            ),
            (
                "a violation of later",
                at(MovedPosition::Lost { violation: 10 }),
            ),
        ] {
            assert!(imported(moved).is_none(), "{why}");
        }
        assert!(imported(header(1, &[0x82])).is_some());
        assert!(imported(header(5, &[0x82, 127, 0, 0, 0])).is_some());
        let unknown_close = MovedFilter {
            source_close: 6,
            ..MovedFilter::default()
        };
        assert!(imported(unknown_close).is_none());
    }
}
