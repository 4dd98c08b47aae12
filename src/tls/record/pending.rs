//! Control records that wait to be sealed: a few bits, so that the answers to many requests become
//! one.

use super::error::CLOSE_NOTIFY;

pub(super) const WARNING: u8 = 1;
pub(super) const FATAL: u8 = 2;

/// Control records to be sealed before any data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendingControl {
    /// A key update; true: one that asks for the peer's.
    pub key_update: Option<bool>,
    /// A refusal of a renegotiation.
    pub no_renegotiation: bool,
    /// Level and description of an alert after which nothing is sealed.
    pub last: Option<(u8, u8)>,
}

impl PendingControl {
    /// A close_notify, and nothing else: the answer to a key update is due before the next data,
    /// and there is none.
    pub(super) const CLOSE: PendingControl = PendingControl {
        key_update: None,
        no_renegotiation: false,
        last: Some((WARNING, CLOSE_NOTIFY)),
    };

    /// True when the last record is an alert.
    pub(super) fn is_last(&self) -> bool {
        self.last.is_some()
    }

    /// Queues a fatal alert, and drops all else.
    pub(super) fn fatal(&mut self, description: u8) {
        *self = Self {
            last: Some((FATAL, description)),
            ..Self::default()
        };
    }
}
