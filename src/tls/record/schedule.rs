//! rustls' half of an established connection: the key schedule, and a client's tickets.

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, Error, ProtocolVersion, SupportedCipherSuite};

use super::frame::Version;

pub(super) enum KeySchedule {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

/// Evaluates an expression for the connection of either side.
macro_rules! either {
    ($schedule:expr, $kernel:ident => $value:expr) => {
        match $schedule {
            KeySchedule::Server($kernel) => $value,
            KeySchedule::Client($kernel) => $value,
        }
    };
}

impl KeySchedule {
    pub(super) fn version(&self) -> Option<Version> {
        match either!(self, kernel => kernel.protocol_version()) {
            ProtocolVersion::TLSv1_2 => Some(Version::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Version::Tls13),
            _ => None,
        }
    }

    /// Records that one key may seal.
    pub(super) fn confidentiality_limit(&self) -> u64 {
        match either!(self, kernel => kernel.negotiated_cipher_suite()) {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        }
    }

    pub(super) fn next_read(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        either!(self, kernel => kernel.update_rx_secret())
    }

    pub(super) fn next_write(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        either!(self, kernel => kernel.update_tx_secret())
    }

    /// Hands a ticket to the client's session store.
    pub(super) fn ticket(&mut self, body: &[u8]) -> Result<(), Error> {
        match self {
            Self::Server(_) => Err(Error::General("a server takes no ticket".into())),
            Self::Client(kernel) => kernel.handle_new_session_ticket(body),
        }
    }
}
