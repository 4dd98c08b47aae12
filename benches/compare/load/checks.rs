//! The server that active checks ask: it answers a fixed number of them, each on a connection of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Finished, Load};
use crate::http::{self, MAX_HEAD_BYTES};

/// One part in so many of the checks goes ahead of the measured ones: the first ones found nobody.
const WARM_UP: u64 = 10;
/// Longest wait for a balancer that has connected.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that is checked.
pub struct Checked {
    listener: TcpListener,
    checks: u64,
    is_http: bool,
}

impl Checked {
    pub fn prepare(address: SocketAddr, checks: u64, is_http: bool) -> Result<Self> {
        let listener = TcpListener::bind(address).context("listen for checks")?;
        let checked = Self {
            listener,
            checks,
            is_http,
        };
        checked.answer(checks / WARM_UP)?;
        Ok(checked)
    }

    fn answer(&self, checks: u64) -> Result<()> {
        for at in 0..checks {
            let (stream, _) = self.listener.accept()?;
            self.serve(stream).with_context(|| format!("check {at}"))?;
        }
        Ok(())
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(STEP_TIMEOUT))?;
        let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
        while self.is_http && http::head_end(&head).is_none() {
            let count = stream.read(&mut chunk)?;
            ensure!(
                count > 0 && head.len() < MAX_HEAD_BYTES,
                "a check asked for nothing"
            );
            head.extend_from_slice(&chunk[..count]);
        }
        if self.is_http {
            stream.write_all(&http::ANSWER)?;
            stream.shutdown(Shutdown::Write)?;
        }
        // Its end, a reset with some balancers.
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Load for Checked {
    fn go(&mut self) -> Result<Finished> {
        self.answer(self.checks)?;
        Ok(Finished {
            units: self.checks,
            latency: None,
        })
    }
}
