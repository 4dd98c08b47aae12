//! rustls' half of an established connection: a client's tickets, and the key schedule of a session
//! whose secrets were not captured.
//!
//! It holds the peer's certificates, so a session lets go of it as soon as it can.

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{Error, ProtocolVersion};

use super::frame::Version;
use super::keys::RustlsKeys;

pub(super) enum RustlsHalf {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

/// Evaluates an expression for the connection of either side.
macro_rules! either {
    ($half:expr, $kernel:ident => $value:expr) => {
        match $half {
            RustlsHalf::Server($kernel) => $value,
            RustlsHalf::Client($kernel) => $value,
        }
    };
}

impl RustlsHalf {
    pub(super) fn version(&self) -> Option<Version> {
        match either!(self, kernel => kernel.protocol_version()) {
            ProtocolVersion::TLSv1_2 => Some(Version::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Version::Tls13),
            _ => None,
        }
    }

    /// The next keys of what is read; `None`: rustls has none.
    pub(super) fn next_read(&mut self) -> Option<RustlsKeys> {
        RustlsKeys::new(either!(self, kernel => kernel.update_rx_secret()).ok()?)
    }

    /// The next keys of what is written; `None`: rustls has none.
    pub(super) fn next_write(&mut self) -> Option<RustlsKeys> {
        RustlsKeys::new(either!(self, kernel => kernel.update_tx_secret()).ok()?)
    }

    /// Hands a ticket to the client's session store.
    pub(super) fn ticket(&mut self, body: &[u8]) -> Result<(), Error> {
        match self {
            Self::Server(_) => Err(Error::General("a server takes no ticket".into())),
            Self::Client(kernel) => kernel.handle_new_session_ticket(body),
        }
    }
}
