//! The beginning of a session: it takes a connection over from rustls.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;

use super::capture::TrafficSecrets;
use super::frame::Version;
use super::keys::{DirectionKeys, RustlsKeys};
use super::pending::PendingControl;
use super::rustls_half::RustlsHalf;
use super::session::{PeerStatus, TlsSession};
use super::suite::{Keying, Suite};

impl TlsSession {
    /// Takes over a server's connection whose handshake is complete and whose output is all
    /// encoded. Its configuration needs `enable_secret_extraction`. `secrets` are those that its
    /// steps told; without them the session keeps rustls' key schedule and cannot be exported.
    ///
    /// # Errors
    /// rustls', when a condition above does not hold.
    pub fn server(
        connection: UnbufferedServerConnection,
        secrets: TrafficSecrets,
    ) -> Result<Self, rustls::Error> {
        let (extracted, kernel) = connection.dangerous_into_kernel_connection()?;
        Self::new(extracted, RustlsHalf::Server(kernel), secrets)
    }

    /// As [`TlsSession::server`], for a client's connection.
    ///
    /// # Errors
    /// As [`TlsSession::server`].
    pub fn client(
        connection: UnbufferedClientConnection,
        secrets: TrafficSecrets,
    ) -> Result<Self, rustls::Error> {
        let (extracted, kernel) = connection.dangerous_into_kernel_connection()?;
        Self::new(extracted, RustlsHalf::Client(kernel), secrets)
    }

    fn new(
        extracted: rustls::ExtractedSecrets,
        rustls: RustlsHalf,
        secrets: TrafficSecrets,
    ) -> Result<Self, rustls::Error> {
        let unknown = || rustls::Error::General("cipher without a record layer".into());
        let version = rustls.version().ok_or_else(unknown)?;
        let read = RustlsKeys::new(extracted.rx).ok_or_else(unknown)?;
        let write = RustlsKeys::new(extracted.tx).ok_or_else(unknown)?;
        let is_server = matches!(rustls, RustlsHalf::Server(_));
        let cipher = read.cipher;
        let secrets = match version {
            Version::Tls12 => None,
            Version::Tls13 => secrets.directions(cipher, is_server),
        };
        let keying = match (version, &secrets) {
            (Version::Tls12, _) => Keying::Tls12,
            (Version::Tls13, Some(_)) => Keying::Tls13,
            (Version::Tls13, None) => Keying::Tls13ByRustls,
        };
        let (read_secret, write_secret) = secrets.unzip();
        let keeps_rustls = match keying {
            Keying::Tls12 => false,
            Keying::Tls13 => !is_server,
            Keying::Tls13ByRustls => true,
        };
        Ok(Self {
            rustls: keeps_rustls.then(|| Box::new(rustls)),
            ..Self::between(
                Suite { cipher, keying },
                is_server,
                DirectionKeys::new(&read, read_secret).ok_or_else(unknown)?,
                DirectionKeys::new(&write, write_secret).ok_or_else(unknown)?,
            )
        })
    }

    /// A session between two records, of which nothing has gone wrong.
    pub(super) fn between(
        suite: Suite,
        is_server: bool,
        read: DirectionKeys,
        write: DirectionKeys,
    ) -> Self {
        Self {
            read,
            write,
            rustls: None,
            incomplete: None,
            suite,
            is_server,
            key_limit: suite.cipher.key_limit(),
            status: PeerStatus::Open,
            pending: PendingControl::default(),
            is_finished: false,
            empty_records: 0,
            idle_messages: 0,
            warnings: 0,
            is_renegotiation_refused: false,
        }
    }
}
