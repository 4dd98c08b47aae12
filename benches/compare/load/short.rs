//! Connections that carry one message there and back and are closed, a fixed number of them at once.
//! A WebSocket has its handshake before that and a Close there and back behind it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::link::{Dialer, Exchange, server_name};
use super::{Finished, Load, payload};
use crate::http::{self, MAX_HEAD_BYTES};
use crate::websocket;

/// Longest life of one such connection.
const VISIT_TIMEOUT: Duration = Duration::from_secs(20);
/// One part in so many of the connections goes ahead of the measured ones.
const WARM_UP: u64 = 10;

/// All connections of one such load.
pub struct Visits {
    runtime: Runtime,
    dialer: Arc<Dialer>,
    connections: u64,
    at_once: u64,
    script: Arc<Script>,
}

/// The bytes of a visit, the same in all of them.
struct Script {
    message: Exchange,
    /// The end of a WebSocket, which a handshake has begun; none on a transport that is not one.
    close: Option<Exchange>,
}

impl Visits {
    pub fn prepare(dialer: Dialer, connections: u64, at_once: u64, bytes: usize) -> Result<Self> {
        let script = Script {
            message: dialer.exchange(&payload(bytes)),
            close: dialer.close(),
        };
        let visits = Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            dialer: Arc::new(dialer),
            connections,
            at_once,
            script: Arc::new(script),
        };
        visits.work(connections / WARM_UP)?;
        Ok(visits)
    }

    /// Returns how many connections were made: `connections`, rounded up to whole turns of the visitors.
    fn work(&self, connections: u64) -> Result<u64> {
        let each = connections.div_ceil(self.at_once);
        self.runtime.block_on(async {
            let mut visitors = JoinSet::new();
            for _ in 0..self.at_once {
                visitors.spawn(visitor(self.dialer.clone(), self.script.clone(), each));
            }
            while let Some(ended) = visitors.join_next().await {
                ended??;
            }
            Ok(each * self.at_once)
        })
    }
}

impl Load for Visits {
    fn go(&mut self) -> Result<Finished> {
        Ok(Finished {
            units: self.work(self.connections)?,
            latency: None,
        })
    }
}

async fn visitor(dialer: Arc<Dialer>, script: Arc<Script>, visits: u64) -> Result<()> {
    let mut buffer = vec![0; script.message.answer.len().max(MAX_HEAD_BYTES)];
    for _ in 0..visits {
        let visit = visit(&dialer, &script, &mut buffer);
        tokio::time::timeout(VISIT_TIMEOUT, visit)
            .await
            .context("a short connection hangs")??;
    }
    Ok(())
}

async fn visit(dialer: &Dialer, script: &Script, buffer: &mut [u8]) -> Result<()> {
    let socket = TcpStream::connect(dialer.target).await.context("connect")?;
    socket.set_nodelay(true)?;
    match &dialer.tls {
        None => converse(socket, script, buffer).await,
        Some(config) => {
            let connector = TlsConnector::from(config.clone());
            let stream = connector
                .connect(server_name()?, socket)
                .await
                .context("TLS handshake")?;
            converse(stream, script, buffer).await
        }
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: &Script,
    buffer: &mut [u8],
) -> Result<()> {
    let Some(close) = &script.close else {
        ask(&mut stream, &script.message, buffer).await?;
        return Ok(stream.shutdown().await?);
    };
    upgrade(&mut stream, buffer).await?;
    ask(&mut stream, &script.message, buffer).await?;
    ask(&mut stream, close, buffer).await.context("the Close")?;
    // The backend closes too. Nothing is wrong if the balancer did so before and takes no more.
    let _ = stream.shutdown().await;
    Ok(())
}

async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    exchange: &Exchange,
    buffer: &mut [u8],
) -> Result<()> {
    let answer = &mut buffer[..exchange.answer.len()];
    stream.write_all(&exchange.request).await?;
    stream.read_exact(answer).await.context("the answer")?;
    ensure!(
        answer == exchange.answer,
        "the answer differs from what was sent"
    );
    Ok(())
}

/// Nothing follows the head of the answer until a frame is sent: what is read ends with it.
async fn upgrade(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut [u8],
) -> Result<()> {
    stream.write_all(websocket::UPGRADE).await?;
    let mut seen = 0;
    while http::head_end(&buffer[..seen]) != Some(seen) {
        let count = stream.read(&mut buffer[seen..]).await?;
        ensure!(count > 0, "no answer to the upgrade");
        seen += count;
    }
    ensure!(
        websocket::is_accepted(&buffer[..seen]),
        "the upgrade was refused: {}",
        String::from_utf8_lossy(&buffer[..seen])
    );
    Ok(())
}
