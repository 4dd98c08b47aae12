//! Limits of the head of an HTTP message. The readers of `wire::http` keep them, and the
//! configuration sets them.

/// Limits of one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// From the start line to the empty line.
    pub max_bytes: usize,
    /// At most [`MAX_FIELDS`].
    pub max_fields: usize,
}

/// Most fields that [`HeadLimits::max_fields`] can allow.
pub const MAX_FIELDS: usize = 1000;

impl HeadLimits {
    /// Default limits of a request's head.
    pub const REQUEST: HeadLimits = HeadLimits {
        max_bytes: 16 * 1024,
        max_fields: 100,
    };
    /// Default limits of an answer's head: backends set many and long cookies.
    pub const RESPONSE: HeadLimits = HeadLimits {
        max_bytes: 64 * 1024,
        max_fields: 100,
    };
}
