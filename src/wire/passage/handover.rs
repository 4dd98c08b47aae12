//! A passage whose source or far end changes: a Close by which a source only goes away is taken out, a source can be paused
//! between two of its messages, and while nobody is there to read it its control frames are taken out.

use super::{Edit, Passage};
use crate::base::close_code;

/// Which Close of a source is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    None,
    /// By which it goes away: RFC 6455 section 7.4.1, and 1012 and 1013 of its registry.
    Leaving,
    Any,
}

impl Takes {
    pub fn is_meant(self, payload: &[u8]) -> bool {
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        match self {
            Takes::None => false,
            Takes::Leaving => code.is_some_and(close_code::is_leaving),
            Takes::Any => true,
        }
    }
}

impl Passage {
    /// The same, with a Close by which the source goes away (1001, 1012, 1013) taken out: see [`Passage::has_left`].
    pub const fn taking_leave(mut self) -> Passage {
        self.takes = Takes::Leaving;
        self
    }

    /// Whether a frame of a message has passed to the present far end.
    pub fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// The source has gone away with a Close that was taken out. What it sent behind it is thrown away.
    pub fn has_left(&self) -> bool {
        self.has_left
    }

    /// From here on whatever Close comes is taken out: the source was asked for it.
    pub fn take_any_close(&mut self) {
        self.takes = Takes::Any;
    }

    /// From here on no Close is taken out.
    pub fn take_no_close(&mut self) {
        self.takes = Takes::None;
    }

    /// Another source has taken the place of this one, which had come to a message's end.
    pub fn renew(&mut self) {
        self.walker = self.walker.renewed();
        self.has_closed = false;
        self.is_deaf = false;
        self.has_left = false;
        if self.takes == Takes::Any {
            self.takes = Takes::Leaving;
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

    /// Lets everything pass again, where nothing has come behind the pause.
    pub fn go_on(&mut self) {
        if let Some(edit) = &mut self.edit {
            edit.pauses = false;
        }
        self.forget_edit();
    }

    /// It has come to where it was to pause.
    pub fn is_paused(&self) -> bool {
        let pauses = |edit: &Edit| edit.pauses && edit.held.is_empty();
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
        *edit = Edit {
            held,
            is_bridged: true,
            drops_frame: is_within,
            drops_message: is_open,
            ..Edit::default()
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
