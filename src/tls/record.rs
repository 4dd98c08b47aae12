//! The record layer of an established TLS connection, without I/O and, while it idles, without
//! buffers: what kernel TLS would do, in user space. TLS 1.2 (RFC 5246, with AES-GCM and
//! ChaCha20-Poly1305) and TLS 1.3 (RFC 8446), both sides.
//!
//! rustls makes the handshake and tells its traffic secrets; aws-lc-rs keeps the primitives; this
//! module has the rest: framing, sequence numbers and nonces, alerts, key updates and the keys
//! behind them, limits.
//!
//! # How a leg drives it
//! - **Adopting**: `TlsStreamParts` has the plaintext that came with the set-up (send it
//!   on first) and the ciphertext not yet sent (write it first); then look at
//!   [`TlsSession::status`], since the set-up may have read up to the end already.
//! - **Reading**: `recv` into a ciphertext scratch, then [`TlsSession::open`] into a plaintext
//!   scratch with room for the input and [`TlsSession::buffered`]: then everything is consumed, and
//!   a record not complete yet is kept inside. Send on `filled` bytes *first*, whatever the status
//!   says; then act on [`PeerStatus`]: `Closed` is the peer's FIN (its close_notify; the other
//!   direction goes on), `Failed` is a RST. A `recv` of 0 while the status is `Open` is a
//!   truncation: a RST.
//! - **Owed records**: after each `open`, if [`TlsSession::has_control`], give
//!   [`TlsSession::take_control`] a scratch and write the result. This is the answer to a key
//!   update or the alert of a failure. Before data it need not be called: `seal` begins with it.
//! - **Writing**: [`TlsSession::seal`] plaintext into a scratch of [`TlsSession::sealed_bound`]
//!   bytes and `send` it. What the socket does not take must be kept and sent before anything
//!   sealed later: records cannot be sealed twice. So seal no more than may be kept.
//!   [`SealError::Exhausted`] (TLS 1.2 after 2^24 records of AES-GCM): close the connection.
//! - **Closing**: to pass on a FIN, [`TlsSession::close`], then `take_control`, `send`, then
//!   `shutdown(SHUT_WR)`; reading goes on. To pass on a RST, do none of it: an abnormal end never
//!   sends close_notify. After `Failed`, send what `take_control` seals if the socket takes it,
//!   then reset.
//! - **Idling**: [`TlsSession::drop_keys`] drops the expanded keys; the next record makes them
//!   again. A client then lets go of rustls, too.
//! - **Moving** to another process: [`TlsSession::export`] and [`TlsSession::import`], between any
//!   two calls.
//!
//! # Size
//! In memory, all counted: 1,499 bytes for a TLS 1.3 session with AES-256-GCM in use and 177
//! without expanded keys, 1,544 and 176 for TLS 1.2 (`an_idle_session_is_small` measures). The
//! session itself is 160. A client has rustls' half on top until it idles.

mod capture;
mod error;
mod frame;
mod incomplete;
mod keys;
mod message;
mod moved;
mod pending;
mod rustls_half;
mod schedule;
mod session;
mod suite;
mod takeover;
#[cfg(test)]
mod tests;
mod ticket;

pub use capture::{TrafficSecrets, key_log};
pub use error::RecordError;
pub use frame::{HEADER_BYTES, MAX_RECORD_BYTES};
pub use moved::{DirectionSecret, ImportError, MessageCounts, TlsKeys};
pub use pending::PendingControl;
pub use session::{
    MAX_CONTROL_BYTES, OpenedRecords, PeerStatus, SealError, SealedRecords, TlsSession,
};
pub use suite::RecordCipher;
