//! One connection to the balancer, set up while blocking: TCP, then TLS and the WebSocket upgrade where the plan says so.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::http::{self, MAX_HEAD_BYTES};
use crate::plan::{Plan, Transport};
use crate::websocket;

/// Longest wait for any step of the set-up, and for any read of bulk: far above what a loaded machine needs.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// The name in the certificate.
pub const SERVER_NAME: &str = "localhost";

/// Opens connections as the plan says.
#[derive(Clone)]
pub struct Dialer {
    pub target: SocketAddr,
    transport: Transport,
    pub tls: Option<Arc<ClientConfig>>,
}

/// A socket, blocking or not, and its TLS state.
pub struct Link<S> {
    pub socket: S,
    tls: Option<Box<ClientConnection>>,
}

/// A request and the answer that is due for it.
pub struct Exchange {
    pub request: Vec<u8>,
    pub answer: Vec<u8>,
}

impl Dialer {
    pub fn new(plan: &Plan) -> Result<Self> {
        Ok(Self {
            target: plan.target,
            transport: plan.transport,
            tls: match plan.transport {
                Transport::Tls | Transport::TlsWebsocket => Some(client_config(&plan.root)?),
                Transport::Tcp | Transport::Websocket => None,
            },
        })
    }

    pub fn exchange(&self, payload: &[u8]) -> Exchange {
        match self.transport {
            Transport::Websocket | Transport::TlsWebsocket => Exchange {
                request: websocket::client_frame(payload),
                answer: websocket::server_frame(payload),
            },
            Transport::Tcp | Transport::Tls => Exchange {
                request: payload.to_vec(),
                answer: payload.to_vec(),
            },
        }
    }

    /// The end of a WebSocket, for transports that are one.
    pub fn close(&self) -> Option<Exchange> {
        self.transport.is_websocket().then(|| Exchange {
            request: websocket::client_close(),
            answer: websocket::server_close(),
        })
    }

    /// A connection through which messages can go at once.
    pub fn open(&self) -> Result<Link<TcpStream>> {
        let mut link = self.connect()?;
        self.ask(&mut link)?;
        self.hear(&mut link)?;
        Ok(link)
    }

    /// The first step of a set-up: the connection alone.
    pub fn connect(&self) -> Result<Link<TcpStream>> {
        let socket = TcpStream::connect_timeout(&self.target, STEP_TIMEOUT).context("connect")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(STEP_TIMEOUT))?;
        socket.set_write_timeout(Some(STEP_TIMEOUT))?;
        let tls = self.tls.as_ref().map(session).transpose()?;
        Ok(Link { socket, tls })
    }

    /// The second step: asks for the upgrade, through TLS behind its handshake.
    pub fn ask(&self, link: &mut Link<TcpStream>) -> Result<()> {
        if self.transport.is_websocket() {
            link.write_all(websocket::UPGRADE)
                .context("upgrade to WebSocket")?;
        }
        Ok(())
    }

    /// The last step: the answer to the upgrade.
    pub fn hear(&self, link: &mut Link<TcpStream>) -> Result<()> {
        if self.transport.is_websocket() {
            upgraded(link).context("upgrade to WebSocket")?;
        }
        Ok(())
    }
}

impl Link<TcpStream> {
    /// Sends one request and waits for its answer.
    pub fn converse(&mut self, exchange: &Exchange) -> Result<()> {
        self.write_all(&exchange.request)?;
        let mut answer = vec![0; exchange.answer.len()];
        self.read_exact(&mut answer)?;
        anyhow::ensure!(
            answer == exchange.answer,
            "the answer differs from what was sent"
        );
        Ok(())
    }

    pub fn into_nonblocking(self) -> io::Result<Link<mio::net::TcpStream>> {
        self.socket.set_nonblocking(true)?;
        Ok(Link {
            socket: mio::net::TcpStream::from_std(self.socket),
            tls: self.tls,
        })
    }
}

impl<S: Read + Write> Read for Link<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).read(into),
            None => self.socket.read(into),
        }
    }
}

impl<S: Read + Write> Write for Link<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).write(bytes),
            None => self.socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).flush(),
            None => self.socket.flush(),
        }
    }
}

pub fn server_name() -> Result<ServerName<'static>> {
    Ok(ServerName::try_from(SERVER_NAME)?)
}

fn session(config: &Arc<ClientConfig>) -> Result<Box<ClientConnection>> {
    Ok(Box::new(ClientConnection::new(
        config.clone(),
        server_name()?,
    )?))
}

/// The versions, groups and ciphers that a client with OpenSSL 3 offers, in its order, as far as rustls has them: each
/// balancer chooses what it would with such clients. Without resumption.
fn client_config(root: &Path) -> Result<Arc<ClientConfig>> {
    use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519};
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519, SECP256R1, SECP384R1];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).context("the certificate to trust")?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Nothing follows the head of the answer until a frame is sent, so what is read up to its end is all there is.
fn upgraded(link: &mut Link<TcpStream>) -> Result<()> {
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while http::head_end(&head).is_none() {
        let count = link.read(&mut chunk)?;
        anyhow::ensure!(
            count > 0 && head.len() < MAX_HEAD_BYTES,
            "no answer to the upgrade"
        );
        head.extend_from_slice(&chunk[..count]);
    }
    anyhow::ensure!(
        websocket::is_accepted(&head),
        "the upgrade was refused: {}",
        String::from_utf8_lossy(&head)
    );
    Ok(())
}
