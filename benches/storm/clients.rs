//! Those who are there all the while, and what all clients have in common.

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs as crypto;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Speech, websocket};

/// Between two messages of one established client.
const BEAT: Duration = Duration::from_secs(1);
const MESSAGE: [u8; 128] = [7; 128];

/// Holds `count` connections that say something once a second each; tells the round trips since the last order at each one.
pub fn echo(target: SocketAddr, count: usize, speech: Speech) -> Result<()> {
    let runtime = runtime()?;
    let seen = Arc::new(Mutex::new(Histogram::<u64>::new_with_max(120_000_000, 3)?));
    runtime.block_on(async {
        let config = config();
        for number in 0..count {
            let mut link = match speech {
                Speech::Tls => Link::Tls(Box::new(TlsLink::open(target, session(&config)?).await?)),
                Speech::WebSocket => Link::WebSocket(open_websocket(target).await?),
            };
            link.converse().await?;
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                tokio::time::sleep(BEAT * number as u32 / count as u32).await;
                let mut beats = tokio::time::interval(BEAT);
                loop {
                    // From when it is due: a late sender is a late answer.
                    let due = beats.tick().await;
                    if link.converse().await.is_err() {
                        return;
                    }
                    let took = due.elapsed().as_micros() as u64;
                    let _ = seen.lock().unwrap_or_else(|e| e.into_inner()).record(took);
                }
            });
        }
        println!("ready");
        loop {
            tokio::task::spawn_blocking(wait_for_order).await??;
            let mut seen = seen.lock().unwrap_or_else(|e| e.into_inner());
            let at = |quantile| seen.value_at_quantile(quantile) as f64 / 1e3;
            println!(
                "{} round trips, p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
                seen.len(),
                at(0.5),
                at(0.99),
                seen.max() as f64 / 1e3
            );
            seen.reset();
        }
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

pub fn wait_for_order() -> Result<()> {
    let mut line = String::new();
    let count = io::stdin().lock().read_line(&mut line)?;
    ensure!(count > 0, "told to end");
    Ok(())
}

/// TLS 1.3, X25519, no resumption.
pub fn config() -> Arc<ClientConfig> {
    let mut provider = crypto::default_provider();
    provider.kx_groups = vec![crypto::kx_group::X25519];
    provider.cipher_suites = vec![crypto::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

pub fn session(config: &Arc<ClientConfig>) -> Result<ClientConnection> {
    let name = ServerName::try_from("localhost")?;
    Ok(ClientConnection::new(Arc::clone(config), name)?)
}

/// A connection that is established.
enum Link {
    Tls(Box<TlsLink>),
    WebSocket(TcpStream),
}

impl Link {
    /// One round trip.
    async fn converse(&mut self) -> Result<()> {
        match self {
            Link::Tls(link) => link.converse(&MESSAGE).await,
            Link::WebSocket(stream) => {
                stream.write_all(&websocket::client_frame(&MESSAGE)).await?;
                let due = websocket::server_frame(&MESSAGE);
                let mut answer = vec![0; due.len()];
                stream.read_exact(&mut answer).await?;
                ensure!(answer == due, "another message");
                Ok(())
            }
        }
    }
}

/// A stream behind its 101.
async fn open_websocket(target: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(target).await.context("connect")?;
    stream.set_nodelay(true)?;
    stream.write_all(websocket::UPGRADE).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    ensure!(websocket::is_accepted(&head), "no 101");
    Ok(stream)
}

/// A connection whose TLS was begun before it was opened.
struct TlsLink {
    stream: TcpStream,
    session: ClientConnection,
}

/// The socket as rustls wants it: what would wait says so.
struct Now<'a>(&'a TcpStream);

impl Read for Now<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsLink {
    async fn open(target: SocketAddr, session: ClientConnection) -> Result<TlsLink> {
        let stream = TcpStream::connect(target).await.context("connect")?;
        stream.set_nodelay(true)?;
        let mut link = TlsLink { stream, session };
        while link.session.is_handshaking() {
            link.step().await?;
        }
        Ok(link)
    }

    async fn converse(&mut self, message: &[u8]) -> Result<()> {
        self.session.writer().write_all(message)?;
        let (mut answer, mut had) = ([0; 256], 0);
        while had < message.len() {
            self.step().await?;
            match self.session.reader().read(&mut answer) {
                Ok(0) => anyhow::bail!("it was closed"),
                Ok(count) => had += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends what is due, then takes what comes.
    async fn step(&mut self) -> Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Now(&self.stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.stream.readable().await?;
        match self.session.read_tls(&mut Now(&self.stream)) {
            Ok(0) => anyhow::bail!("it was closed"),
            Ok(_) => {
                self.session.process_new_packets()?;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes any certificate for good.
#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
