//! From a picked backend to a stream: connect, then a PROXY header and TLS where the pool has them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use crate::base::units::format_duration;
use crate::config;
use crate::net::{
    ConnectError, Endpoint, Stream, begin_connect, connect, connect_unless, is_local_shortage,
};
use crate::pool::{Backend, Pool};
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::tls::BackendTlsConfig;

/// Address and TLS settings of a backend as of now; take a new one after each wait.
pub(in crate::proxy) struct Connector {
    pub settings: Arc<config::Pool>,
    /// `None`: it has lost its address between pick and connect.
    endpoint: Option<Endpoint>,
    tls: Option<Arc<BackendTlsConfig>>,
}

impl Connector {
    pub(crate) fn to(backend: &Backend, pool: &Pool) -> Self {
        // In this order: a reload sets TLS before addresses, so that none is dialled without it.
        let (settings, endpoint) = (pool.settings(), backend.endpoint());
        let tls = pool.tls();
        Self {
            settings,
            endpoint,
            tls,
        }
    }

    /// Whether a connect is all that is needed.
    pub(crate) fn is_bare(&self) -> bool {
        self.tls.is_none() && self.settings.send_proxy.is_none()
    }

    /// Begins to connect, without a wait.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) fn begin(&self) -> Result<OwnedFd, ConnectError> {
        begin_connect(self.endpoint()?, &self.settings.dial)
    }

    /// Connects and closes the connection again, to see whether the backend listens.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn probe(&self, timeout: Duration) -> Result<(), ConnectError> {
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
    pub(crate) async fn dial(
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
            // It goes before any other byte, those of TLS included. A fresh socket has room for
            // most.
            timeout_at(deadline, stream.write_all(&header))
                .await
                .map_err(|_| ConnectError::TimedOut(timeout))??;
        }
        let Some(tls) = &self.tls else {
            return Ok(MaybeTlsStream::Plain(stream));
        };
        let host = backend.host();
        let handshake = encrypt(stream, tls, &host);
        timeout_at(deadline, handshake).await.unwrap_or_else(|_| {
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
