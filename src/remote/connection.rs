//! Connections to the servers of a service: by name or address, plain or TLS, with keepalive, so
//! that one to a machine that is gone ends within 40 s.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout as within;

use super::RemoteError;
use crate::config::{BackendTls, RegistryUrl};
use crate::net::dns::DnsResolver;
use crate::tls::BackendTlsConfig;

/// A machine that does not answer three probes is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Least time of an address: a handshake over any distance, with one packet lost, ends in it.
const MIN_CONNECT: Duration = Duration::from_millis(1500);

/// A stream to a service.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Bytes for T {}

/// A connection to a service, before its protocol.
pub(crate) type RemoteStream = Pin<Box<dyn Bytes>>;

/// The servers of a service. The one that served last goes on to; after a fault another one.
#[derive(Debug)]
pub(crate) struct RemoteServers {
    /// In random order, so that many balancers do not ask the same one.
    urls: Vec<RegistryUrl>,
    present: usize,
    settings: BackendTls,
    tls: Option<BackendTlsConfig>,
}

impl RemoteServers {
    pub(crate) fn new(urls: &[RegistryUrl], tls: Option<&BackendTls>) -> RemoteServers {
        let mut urls = urls.to_vec();
        fastrand::shuffle(&mut urls);
        RemoteServers {
            urls,
            present: 0,
            settings: tls.cloned().unwrap_or_default(),
            tls: None,
        }
    }

    /// The present server; `None` where there is none at all.
    pub(crate) fn url(&self) -> Option<&RegistryUrl> {
        self.urls.get(self.present)
    }

    /// Turns to the next server, and has the files of TLS read again.
    pub(crate) fn turn(&mut self) {
        self.present = (self.present + 1) % self.urls.len().max(1);
        self.tls = None;
    }

    /// Connects to the present server. The caller bounds the time.
    ///
    /// # Errors
    /// Names the server.
    pub(crate) async fn connect(&mut self, timeout: Duration) -> Result<RemoteStream, RemoteError> {
        let Some(url) = self.urls.get(self.present) else {
            return Err(unreachable("no address of the service"));
        };
        let stream = connect_tcp(url, timeout).await?;
        if !url.is_tls {
            return Ok(Box::pin(stream));
        }
        let tls = match self.tls.take() {
            Some(tls) => tls,
            None => BackendTlsConfig::load(&self.settings)
                .map_err(|error| unreachable(format!("{url}: {error}")))?,
        };
        let tls = self.tls.insert(tls);
        let stream = tls.connect(stream, &url.host).await;
        let stream = stream.map_err(|error| unreachable(format!("{url}: TLS: {error}")))?;
        Ok(Box::pin(stream))
    }
}

async fn connect_tcp(url: &RegistryUrl, timeout: Duration) -> Result<TcpStream, RemoteError> {
    let failed = |error: &dyn std::fmt::Display| unreachable(format!("{url}: {error}"));
    let mut addresses = match url.host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => {
            let dns = DnsResolver::new(&[], timeout).map_err(|error| failed(&error))?;
            let answer = dns.lookup_addresses(&url.host).await;
            answer.map_err(|error| failed(&error))?.records
        }
    };
    fastrand::shuffle(&mut addresses);
    let addresses = addresses.into_iter().map(|ip| (ip, url.port).into());
    let connected = connect_any(&addresses.collect::<Vec<_>>(), timeout).await;
    let stream = connected.map_err(|error| failed(&error))?;
    keep_alive(&stream).map_err(|error| failed(&error))?;
    Ok(stream)
}

/// Connects to the first address that answers. Each has its part of the time: one that drops what
/// is sent to it must not use up all of it.
async fn connect_any(addresses: &[SocketAddr], timeout: Duration) -> Result<TcpStream, String> {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let limit = (timeout / count.max(1)).max(MIN_CONNECT.min(timeout));
    let mut last = "no address".to_owned();
    for address in addresses {
        match within(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("{address} does not answer"),
        }
    }
    Err(last)
}

fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_INTERVAL)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn unreachable(message: impl Into<String>) -> RemoteError {
    RemoteError::Unreachable(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_address_that_drops_everything_does_not_use_up_the_time() {
        // One that nobody accepts from drops what comes once its queue is full.
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        silent.bind(&any.into()).unwrap();
        silent.listen(0).unwrap();
        let at = silent.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        let patience = Duration::from_millis(300);
        while let Ok(Ok(stream)) = within(patience, TcpStream::connect(at)).await {
            queued.push(stream);
        }
        let live = TcpListener::bind(any).await.unwrap();
        let other = live.local_addr().unwrap();
        let time = Duration::from_secs(4);
        let stream = within(time, connect_any(&[at, other], time)).await;
        assert_eq!(stream.unwrap().unwrap().peer_addr().unwrap(), other);
    }
}
