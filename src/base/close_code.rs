//! The codes of WebSocket Close frames.

/// Longest reason of a Close: a control frame's payload has at most 125 bytes, 2 of which are the
/// code (RFC 6455 section 5.5.1).
pub(crate) const MAX_REASON_BYTES: usize = 123;

/// "Going away": the server is (RFC 6455 section 7.4.1).
pub(crate) const GOING_AWAY: u16 = 1001;
/// A violation of the protocol (RFC 6455 section 7.4.1).
pub(crate) const PROTOCOL_ERROR: u16 = 1002;
/// Stands for the code of a Close without one (RFC 6455 section 7.4.1); never sent.
pub(crate) const NO_CODE: u16 = 1005;
/// "Service restart" (IANA): the client is to reconnect.
pub(crate) const SERVICE_RESTART: u16 = 1012;

/// "Try again later" (IANA).
pub(crate) const TRY_AGAIN_LATER: u16 = 1013;

/// Codes that may be sent (RFC 6455 section 7.4; 1012 and 1013 from the IANA registry): never 1005,
/// 1006 or 1015, which stand for what was not sent. 3000 to 4999 are for libraries and
/// applications.
pub(crate) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Whether a server announces by this code that it goes away and another may serve.
pub(crate) fn is_leaving(code: u16) -> bool {
    matches!(code, GOING_AWAY | SERVICE_RESTART | TRY_AGAIN_LATER)
}
