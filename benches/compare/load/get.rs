//! GETs over connections that are kept: each client waits for its answer before its next request.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::link::Dialer;
use super::{Finished, Load};
use crate::http::{self, MAX_HEAD_BYTES};

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// One part in so many of the requests goes ahead of the measured ones.
const WARM_UP: u64 = 10;

/// All clients of one such load.
pub struct Getters {
    runtime: Runtime,
    getters: Vec<Getter>,
    requests: u64,
}

struct Getter {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Getters {
    pub fn prepare(dialer: &Dialer, connections: usize, requests: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let open = || runtime.block_on(Getter::open(dialer));
        let mut getters = Self {
            getters: (0..connections).map(|_| open()).collect::<Result<_>>()?,
            runtime,
            requests,
        };
        getters.work(requests / WARM_UP)?;
        Ok(getters)
    }

    /// Returns how many requests were made: `requests`, rounded up to as many for each client.
    fn work(&mut self, requests: u64) -> Result<u64> {
        let clients = self.getters.len() as u64;
        let each = requests.div_ceil(clients);
        let getters = std::mem::take(&mut self.getters);
        self.getters = self.runtime.block_on(async {
            let mut under_way = JoinSet::new();
            for getter in getters {
                under_way.spawn(getter.work(each));
            }
            let mut done = Vec::new();
            while let Some(ended) = under_way.join_next().await {
                done.push(ended??);
            }
            anyhow::Ok(done)
        })?;
        Ok(each * clients)
    }
}

impl Load for Getters {
    fn go(&mut self) -> Result<Finished> {
        Ok(Finished {
            units: self.work(self.requests)?,
            latency: None,
        })
    }
}

impl Getter {
    async fn open(dialer: &Dialer) -> Result<Self> {
        let stream = TcpStream::connect(dialer.target).await.context("connect")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; MAX_HEAD_BYTES],
        })
    }

    async fn work(mut self, requests: u64) -> Result<Self> {
        for _ in 0..requests {
            tokio::time::timeout(ANSWER_TIMEOUT, self.get())
                .await
                .context("a request hangs")??;
        }
        Ok(self)
    }

    async fn get(&mut self) -> Result<()> {
        self.stream.write_all(http::REQUEST).await?;
        let mut seen = 0;
        while !http::is_whole(&self.buffer[..seen])? {
            let count = self.stream.read(&mut self.buffer[seen..]).await?;
            ensure!(count > 0, "the connection was closed before the answer");
            seen += count;
        }
        Ok(())
    }
}
