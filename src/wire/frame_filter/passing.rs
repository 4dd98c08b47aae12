//! Bytes of the source on their way through the filter.

use super::control_filter::{self, CloseCause, CloseFilter};
use super::{CLOSE, Filtered, FrameAction, FrameFilter, Output, SourceClose, is};
use crate::base::close_code::NO_CODE;
use crate::wire::control;
use crate::wire::frames::{Frame, Opcode};

/// Longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL_BYTES: u64 = 125;
/// Opcodes of other control frames, and the bit that all have in common.
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const IS_CONTROL: u8 = 0x8;

impl FrameFilter {
    /// Takes the next bytes of the source; `watch` sees each frame as soon as its header is whole.
    /// Frames that wait for a boundary among them are put in.
    #[inline]
    pub fn pass(&mut self, bytes: &[u8], mut watch: impl FnMut(&Frame) -> FrameAction) -> Filtered {
        // A part of a payload that is too long for a control frame's.
        let is_message = self.walker.payload_left() > MAX_CONTROL_BYTES;
        self.marks.messages |= is_message;
        self.marks.spoken |= is_message;
        if self.edits.is_some() || self.is_discarding() {
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
                self.output = Output::without(kept.is_none());
                let _ = self.pass_edited(rest, watch);
                return Filtered::Edited(bytes[..kept.unwrap_or(0)].to_vec());
            }
        }
        if self.is_guarded {
            self.guard(bytes, rest)
        } else {
            self.hold_close(bytes)
        }
    }

    /// Holds a Close until it is whole: it may have to be taken out, and its code is kept. Its
    /// header ends where `rest` begins.
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
        self.edits().control.held.extend_from_slice(header);
        self.judge_held(&mut passed);
        passed.extend(self.pass_edited(rest, watch));
        passed
    }

    #[inline]
    fn note(&mut self, frame: &Frame) {
        let is_message = !frame.opcode.is_control();
        self.marks.messages |= is_message;
        self.marks.spoken |= is_message;
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
            if self.is_paused() {
                self.edits().handover.keep(bytes);
                break;
            }
            if self.violation().is_some() {
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
                && let Some(edits) = &mut self.edits
            {
                edits.handover.end_frame();
            }
        }
        self.forget_edits();
        passed
    }

    /// Passes a header, or the part of it that has come.
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
        if let (Some(first), Some(edits)) = (first, &mut self.edits) {
            edits.handover.begin_frame(first & IS_CONTROL != 0);
        }
        if let Ok(Some(frame)) = &found {
            self.note(frame);
            if let Some(edits) = &mut self.edits {
                edits.handover.note(frame);
            }
            if !self.is_discarding() && watch(frame) == FrameAction::Refuse {
                return self.refuse_header(begins);
            }
        }
        if found.is_err() {
            *bytes = &[];
            if self.is_guarded {
                return self.refuse_header(begins);
            }
            // The walker's place among them is not known: all goes on as it came.
            return self.keep(before, passed);
        }
        let is_begun = matches!(found, Ok(None)) && self.holds_headers();
        let is_held = first.is_some_and(|first| {
            if self.is_discarding() {
                is(first, CLOSE)
            } else {
                is_begun || self.may_take_out(first)
            }
        });
        if is_held {
            self.edits().control.held.extend_from_slice(piece);
        } else {
            self.keep(piece, passed);
        }
    }

    /// Whether a frame with this first byte may be one to be taken out.
    pub(super) fn may_take_out(&self, first: u8) -> bool {
        let edits = self.edits.as_deref();
        let awaits_pong = edits.is_some_and(|edits| edits.control.awaited_pong.is_some());
        let has_no_reader = edits.is_some_and(|edits| edits.handover.is_reader_absent());
        (is(first, PONG) && awaits_pong)
            || is(first, CLOSE)
            || (first & IS_CONTROL != 0 && has_no_reader)
    }

    /// Puts bytes of a frame where they belong: to those that are held or that pass, or nowhere.
    fn keep(&mut self, bytes: &[u8], passed: &mut Vec<u8>) {
        let is_discarding = self.is_discarding();
        match &mut self.edits {
            Some(edits) if edits.control.is_holding() => {
                edits.control.held.extend_from_slice(bytes);
            }
            _ if is_discarding => {}
            Some(edits) if edits.handover.drops_frame() => {}
            _ => passed.extend_from_slice(bytes),
        }
    }

    /// Lets a held frame pass, or takes it out, as soon as it is known which.
    fn judge_held(&mut self, passed: &mut Vec<u8>) {
        let is_lost = self.violation().is_some();
        let is_known = self.walker.at_boundary() || is_lost || self.has_guarded_header();
        let is_discarding = self.is_discarding();
        let Some(edits) = &mut self.edits else {
            return;
        };
        if !is_known || !edits.control.is_holding() {
            return;
        }
        let held = std::mem::take(&mut edits.control.held);
        let Some(payload) = control::payload(&held).filter(|_| !is_lost) else {
            // A violation, or a header that was guarded: the rest of it is not known.
            if !is_discarding {
                passed.extend_from_slice(&held);
            }
            return;
        };
        let has_no_reader = edits.handover.is_reader_absent();
        let first = held.first().copied().unwrap_or(0);
        if is(first, CLOSE) {
            self.judge_close(&payload, &held, passed);
        } else if is(first, PONG) && edits.control.take_pong(&payload) {
            // Nobody asked for it but us.
        } else if !has_no_reader {
            passed.extend_from_slice(&held);
        } else if is(first, PING) {
            // RFC 6455 section 5.5.3: the latest one is answered.
            edits.control.ping = Some(payload);
        }
    }

    fn judge_close(&mut self, payload: &[u8], frame: &[u8], passed: &mut Vec<u8>) {
        let (filter, is_first) = (self.close_filter, self.source_close == SourceClose::None);
        let is_discarding = self.is_discarding();
        let edits = self.edits();
        if is_first {
            let code = control_filter::close_code(payload);
            edits.control.close_code = Some(code.unwrap_or(NO_CODE));
        }
        if is_discarding || edits.handover.is_reader_absent() {
            if filter == CloseFilter::None {
                self.source_close = SourceClose::Came;
            }
        } else if filter.takes_out(payload) {
            self.source_close = SourceClose::TakenOut(CloseCause::of(payload));
            self.output = Output::Discarding;
        } else {
            self.source_close = SourceClose::Came;
            passed.extend_from_slice(frame);
        }
    }
}
