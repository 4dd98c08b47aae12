//! A passage whose source or far end changes: a Close by which a source only goes away is taken out, a source can be paused
//! between two of its messages, and while nobody is there to read it its control frames are taken out.

use super::{FrameEdits, FrameFilter};
use crate::base::close_code::{self, GOING_AWAY, SERVICE_RESTART, TRY_AGAIN_LATER};

/// Which Close of a source is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseFilter {
    None,
    /// By which it goes away: RFC 6455 section 7.4.1, and 1012 and 1013 of its registry.
    Leaving,
    Any,
}

impl CloseFilter {
    pub fn is_meant(self, payload: &[u8]) -> bool {
        let code = code_of(payload);
        match self {
            CloseFilter::None => false,
            CloseFilter::Leaving => code.is_some_and(close_code::is_leaving),
            CloseFilter::Any => true,
        }
    }
}

/// How a source went that said Close and whose Close was taken out. In one byte: a session has it for hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// By 1001.
    GoingAway,
    /// By 1012.
    Restart,
    /// By 1013.
    Later,
    /// By another code, or by none.
    Otherwise,
}

impl CloseCause {
    pub(super) fn of(payload: &[u8]) -> CloseCause {
        match code_of(payload) {
            Some(GOING_AWAY) => CloseCause::GoingAway,
            Some(SERVICE_RESTART) => CloseCause::Restart,
            Some(TRY_AGAIN_LATER) => CloseCause::Later,
            _ => CloseCause::Otherwise,
        }
    }

    /// Whether its Close answers one with this code: an answer "typically echos the status code" (RFC 6455 section 5.5.1).
    /// One that only goes away says so by itself, and has not seen ours; where it does so by the same code at the same moment,
    /// nothing tells that from an answer.
    pub fn answers(self, code: u16) -> bool {
        self == CloseCause::Otherwise || self == CloseCause::of(&code.to_be_bytes())
    }
}

pub(super) fn code_of(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|code| u16::from_be_bytes(*code))
}

impl FrameFilter {
    /// The same, with a Close by which the source goes away (1001, 1012, 1013) taken out: see [`Passage::has_left`].
    pub const fn taking_leave(mut self) -> FrameFilter {
        self.takes = CloseFilter::Leaving;
        self
    }

    /// Whether a part of a message has passed, or is held for the next far end, since this was last
    /// asked.
    pub fn take_spoken(&mut self) -> bool {
        std::mem::take(&mut self.has_spoken)
    }

    /// The source has gone away with a Close that was taken out. What it sent behind it is thrown away.
    pub fn has_left(&self) -> bool {
        self.left.is_some()
    }

    /// How it has.
    pub fn left(&self) -> Option<CloseCause> {
        self.left
    }

    /// What the far end has is whole messages: of what is held it has nothing.
    pub fn has_passed_whole(&self) -> bool {
        !self.walker.is_message_open() && self.has_passed_whole_frames()
    }

    /// What the far end has is whole frames.
    pub fn has_passed_whole_frames(&self) -> bool {
        self.walker.at_boundary() || self.holds()
    }

    /// The code of the source's Close, once: 1005 for one without a code.
    pub fn take_close_code(&mut self) -> Option<u16> {
        let code = self.edit.as_mut()?.said.take()?;
        self.forget_edit();
        Some(code)
    }

    /// From here on whatever Close comes is taken out: the source was asked for it.
    pub fn take_any_close(&mut self) {
        self.takes = CloseFilter::Any;
    }

    /// From here on no Close is taken out.
    pub fn take_no_close(&mut self) {
        self.takes = CloseFilter::None;
    }

    /// The source has ended: from here on no Close is taken out. Returns what was held of a frame
    /// that might have been one.
    #[must_use]
    pub fn let_go(&mut self) -> Vec<u8> {
        self.takes = CloseFilter::None;
        let edit = self.edit.as_mut();
        let held = edit.map(|edit| std::mem::take(&mut edit.held));
        self.forget_edit();
        held.unwrap_or_default()
    }

    /// Another source has taken the place of this one, which had come to a message's end.
    pub fn renew(&mut self) {
        self.walker = self.walker.renewed();
        self.has_closed = false;
        self.is_deaf = false;
        self.left = None;
        if self.takes == CloseFilter::Any {
            self.takes = CloseFilter::Leaving;
        }
        if let Some(edit) = &mut self.edit {
            edit.held.clear();
            edit.pong = None;
        }
        self.forget_edit();
    }

    /// Lets nothing pass from the end of the present message on: see [`Passage::is_paused`].
    pub fn pause(&mut self) {
        self.edit().pauses = true;
    }

    /// Lets everything pass again. Returns what had come behind the pause: the next bytes to be passed.
    #[must_use]
    pub fn go_on(&mut self) -> Vec<u8> {
        let rest = self.edit.as_mut().map(|edit| {
            edit.pauses = false;
            std::mem::take(&mut edit.rest)
        });
        self.forget_edit();
        rest.unwrap_or_default()
    }

    /// It has come to where it was to pause.
    pub fn is_paused(&self) -> bool {
        let pauses = |edit: &FrameEdits| edit.pauses && edit.held.is_empty();
        self.edit.as_deref().is_some_and(pauses) && self.walker.at_message_boundary()
    }

    /// The far end is gone. Until [`Passage::arrive`] control frames are taken out, and what is still to come of a message of
    /// which the far end had got a part is thrown away; so is what was to be put in for it. Returns whether there was such a
    /// message, and what had come behind a pause: the next bytes to be passed.
    pub fn bridge(&mut self) -> (bool, Vec<u8>) {
        let (at_boundary, is_open) = (self.walker.at_boundary(), self.walker.is_message_open());
        self.has_spoken = false;
        let edit = self.edit();
        // Of what is held nothing has passed.
        let is_within = !at_boundary && edit.held.is_empty();
        let (held, rest) = (
            std::mem::take(&mut edit.held),
            std::mem::take(&mut edit.rest),
        );
        *edit = FrameEdits {
            held,
            is_bridged: true,
            drops_frame: is_within,
            drops_message: is_open,
            ..FrameEdits::default()
        };
        (is_within || is_open, rest)
    }

    /// The payload of the latest ping that was taken out, to be answered.
    pub fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.edit.as_mut()?.ping.take()
    }

    /// Another far end is there: everything passes again.
    pub fn arrive(&mut self) {
        if let Some(edit) = &mut self.edit {
            edit.is_bridged = false;
            edit.ping = None;
        }
        self.forget_edit();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Filtered, FrameAction};
    use super::*;

    fn pass(passage: &mut FrameFilter, bytes: &[u8]) -> Filtered {
        passage.pass(bytes, |_| FrameAction::Pass)
    }

    /// A byte of a length, first in what was read, was taken for the begin of a Close, and the frame was held to its end.
    #[test]
    fn a_length_that_looks_like_a_close_is_not_held() {
        let mut passage = FrameFilter::from_server().taking_leave();
        let pieces: [&[u8]; 4] = [&[0x82, 126], &[0x08], &[0x00], &[1; 1000]];
        for piece in pieces {
            assert_eq!(pass(&mut passage, piece), Filtered::Whole, "{piece:?}");
            assert!(!passage.holds());
        }
    }

    /// A long frame that was cut went on to the next far end where nobody looked at it: through a pipe.
    #[test]
    fn what_is_thrown_away_is_not_let_by_unseen() {
        let mut passage = FrameFilter::from_client();
        let head = [0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];
        assert_eq!(pass(&mut passage, &head), Filtered::Whole);
        assert!(passage.unseen() > 0);
        assert_eq!(passage.bridge(), (true, Vec::new()));
        passage.arrive();
        assert_eq!(passage.unseen(), 0);
        assert_eq!(
            pass(&mut passage, &[7; 0x1000]),
            Filtered::Edited(Vec::new())
        );
    }

    #[test]
    fn a_part_of_a_frame_that_is_held_is_not_at_the_far_end() {
        let mut passage = FrameFilter::from_server().taking_leave();
        pass(&mut passage, &[0x01, 1, b'a', 0x88]);
        assert!(passage.has_passed_whole_frames() && !passage.has_passed_whole());
        let mut passage = FrameFilter::from_server().taking_leave();
        pass(&mut passage, &[0x81, 1, b'a', 0x88, 2, 3]);
        assert!(passage.has_passed_whole() && !passage.at_message_boundary());
    }

    /// It was kept for good, where its source ended behind it and that was no loss.
    #[test]
    fn a_part_of_a_close_is_let_go_as_it_came() {
        let mut passage = FrameFilter::from_server().taking_leave();
        assert_eq!(
            pass(&mut passage, &[0x81, 1, b'a', 0x88, 2]),
            Filtered::Edited(vec![0x81, 1, b'a'])
        );
        assert_eq!(passage.let_go(), [0x88, 2]);
        assert!(!passage.holds() && passage.let_go().is_empty());
    }

    #[test]
    fn only_a_close_of_the_same_code_or_of_no_leaving_one_is_an_answer() {
        for (code, answers) in [(1012u16, true), (1000, true), (1001, false), (1013, false)] {
            let left = CloseCause::of(&code.to_be_bytes());
            assert_eq!(left.answers(1012), answers, "{code}");
        }
        assert!(CloseCause::of(&[]).answers(1012));
    }
}
