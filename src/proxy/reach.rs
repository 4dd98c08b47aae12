//! From a picked backend to a leg: connect, then a PROXY header and TLS where the pool has them. Nothing of the client is sent here, so that
//! whatever fails may be tried again elsewhere.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::MaybeTlsStream;
use crate::base::units::format_duration;
use crate::config;
use crate::net::{
    ConnectError, Endpoint, Stream, begin_connect, connect, connect_unless, is_local_shortage,
};
use crate::pool::{Backend, Pool};
use crate::tls::BackendTlsConfig;

/// How a backend is reached at one moment: behind a wait it is asked for anew.
pub(super) struct Connector {
    pub settings: Arc<config::Pool>,
    /// `None`: it has lost its address between pick and connect.
    endpoint: Option<Endpoint>,
    tls: Option<Arc<BackendTlsConfig>>,
}

impl Connector {
    /// In this order: a reload sets the TLS before the addresses, so that none is reached without it.
    pub fn to(backend: &Backend, pool: &Pool) -> Self {
        let (settings, endpoint) = (pool.settings(), backend.endpoint());
        let tls = pool.tls();
        Self {
            settings,
            endpoint,
            tls,
        }
    }

    /// A connect is all that it takes.
    pub fn is_bare(&self) -> bool {
        self.tls.is_none() && self.settings.send_proxy.is_none()
    }

    /// Begins to connect, without a wait.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn begin(&self) -> Result<OwnedFd, ConnectError> {
        begin_connect(self.endpoint()?, &self.settings.dial)
    }

    /// Connects and closes the connection again: whether somebody is there.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn probe(&self, timeout: Duration) -> Result<(), ConnectError> {
        let connected = connect(self.endpoint()?, &self.settings.dial, timeout).await;
        connected.map(drop)
    }

    /// Connects, sends a PROXY `header`, and makes the handshake, all within the pool's
    /// `connect_timeout`. `gives_up` is asked when the connect is overdue.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn reach(
        &self,
        backend: &Backend,
        header: Option<Vec<u8>>,
        gives_up: impl FnMut() -> bool,
    ) -> Result<MaybeTlsStream, ConnectError> {
        let timeout = self.settings.connect_timeout;
        let deadline = Instant::now() + timeout;
        let connecting = connect_unless(self.endpoint()?, &self.settings.dial, timeout, gives_up);
        let mut stream = connecting.await?;
        if let Some(header) = header {
            // It goes before any other byte, those of TLS included. A fresh socket has room for most of them.
            timeout_at(deadline, stream.write_all(&header))
                .await
                .map_err(|_| ConnectError::TimedOut(timeout))??;
        }
        let Some(tls) = &self.tls else {
            return Ok(MaybeTlsStream::Plain(stream));
        };
        let host = backend.host();
        let shaking = encrypt(stream, tls, &host);
        timeout_at(deadline, shaking).await.unwrap_or_else(|_| {
            let why = format!("no answer within {}", format_duration(timeout));
            let error = io::Error::new(io::ErrorKind::TimedOut, why);
            Err(ConnectError::Tls(error))
        })
    }

    fn endpoint(&self) -> Result<&Endpoint, ConnectError> {
        self.endpoint.as_ref().ok_or_else(ConnectError::unresolved)
    }
}

async fn encrypt(
    stream: Stream,
    tls: &BackendTlsConfig,
    host: &str,
) -> Result<MaybeTlsStream, ConnectError> {
    match tls.connect(stream, host).await {
        Ok(stream) => Ok(MaybeTlsStream::Tls(Box::new(stream))),
        Err(error) if is_local_shortage(&error) => Err(ConnectError::Local(error)),
        Err(error) => Err(ConnectError::Tls(error)),
    }
}
