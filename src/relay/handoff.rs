//! Sockets and counts that go from the data path to the relay, and back.

use std::os::fd::OwnedFd;

use crate::admission::ConnectionPermit;
use crate::pool::Lease;
use crate::tls::record;

/// A socket of a session, with the bytes that were read from it.
pub(crate) struct SocketHandoff {
    /// Non-blocking, in no other epoll.
    pub socket: OwnedFd,
    pub transport: Transport,
    /// Plaintext already read from this socket and not yet written to the other.
    pub read: Vec<u8>,
}

/// Encoding of the bytes on a socket.
pub(crate) enum Transport {
    Raw,
    /// After its handshake.
    Tls(Tls),
}

/// An established TLS connection.
pub(crate) struct Tls {
    /// Holds a record of which not all has come.
    pub session: Box<record::TlsSession>,
    /// Ciphertext to be written before anything that the session seals.
    pub output: Vec<u8>,
}

/// Counts that a session holds to its end. They are dropped in this order.
#[derive(Debug)]
pub(crate) struct SessionGuards {
    /// `None`: its session has lost one backend and looks for another.
    pub lease: Option<Lease>,
    pub permit: ConnectionPermit,
}

impl SessionGuards {
    pub(crate) fn new(lease: Lease, permit: ConnectionPermit) -> SessionGuards {
        SessionGuards {
            lease: Some(lease),
            permit,
        }
    }
}
