//! Connections that carry one message there and back and are closed, a fixed number of them at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::link::{Dialer, server_name};
use super::{Finished, Load, payload};

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
    payload: Arc<Vec<u8>>,
}

impl Visits {
    pub fn prepare(dialer: Dialer, connections: u64, at_once: u64, bytes: usize) -> Result<Self> {
        let visits = Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            dialer: Arc::new(dialer),
            connections,
            at_once,
            payload: Arc::new(payload(bytes)),
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
                visitors.spawn(visitor(self.dialer.clone(), self.payload.clone(), each));
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

async fn visitor(dialer: Arc<Dialer>, payload: Arc<Vec<u8>>, visits: u64) -> Result<()> {
    let mut answer = vec![0; payload.len()];
    for _ in 0..visits {
        let visit = visit(&dialer, &payload, &mut answer);
        tokio::time::timeout(VISIT_TIMEOUT, visit)
            .await
            .context("a short connection hangs")??;
    }
    Ok(())
}

async fn visit(dialer: &Dialer, payload: &[u8], answer: &mut [u8]) -> Result<()> {
    let socket = TcpStream::connect(dialer.target).await.context("connect")?;
    socket.set_nodelay(true)?;
    match &dialer.tls {
        None => converse(socket, payload, answer).await,
        Some(config) => {
            let connector = TlsConnector::from(config.clone());
            let stream = connector
                .connect(server_name()?, socket)
                .await
                .context("TLS handshake")?;
            converse(stream, payload, answer).await
        }
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    payload: &[u8],
    answer: &mut [u8],
) -> Result<()> {
    stream.write_all(payload).await?;
    stream.read_exact(answer).await.context("the answer")?;
    ensure!(answer == payload, "the answer differs from what was sent");
    Ok(stream.shutdown().await?)
}
