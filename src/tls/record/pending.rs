//! Control records that wait to be sealed: a few bits, so that the answers to many requests become
//! one.

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
