//! Connections that cost memory: idle ones, and ones whose reader has stalled.

use std::io::Write;
use std::net::TcpStream;

use anyhow::{Context, Result};

use super::link::{Dialer, Exchange};
use super::{Finished, Load, payload};
use crate::plan::{Direction, bulk_request};

/// Connections opened and closed ahead, so that what a balancer sets up once is not charged to the measured ones.
const WARM_UP: usize = 64;

/// Connections that carried something and then idle. TLS state is dropped: the balancer cannot see that, and this process
/// stays small.
pub struct Idle {
    dialer: Dialer,
    connections: usize,
    exchange: Exchange,
    sockets: Vec<TcpStream>,
}

impl Idle {
    pub fn prepare(dialer: Dialer, connections: usize, bytes: usize) -> Result<Self> {
        let mut idle = Self {
            exchange: dialer.exchange(&payload(bytes)),
            dialer,
            connections,
            sockets: Vec::with_capacity(connections),
        };
        idle.open(WARM_UP)?;
        idle.sockets.clear();
        Ok(idle)
    }

    fn open(&mut self, connections: usize) -> Result<()> {
        for at in 0..connections {
            let mut link = self
                .dialer
                .open()
                .with_context(|| format!("connection {at}"))?;
            link.converse(&self.exchange)
                .with_context(|| format!("connection {at}"))?;
            self.sockets.push(link.socket);
        }
        Ok(())
    }
}

impl Load for Idle {
    fn go(&mut self) -> Result<Finished> {
        self.open(self.connections)?;
        Ok(Finished {
            units: self.sockets.len() as u64,
            latency: None,
        })
    }
}

/// Connections that asked for an endless answer and read nothing of it.
pub struct Stalled {
    dialer: Dialer,
    connections: usize,
    sockets: Vec<TcpStream>,
}

impl Stalled {
    pub fn prepare(dialer: Dialer, connections: usize) -> Result<Self> {
        for _ in 0..WARM_UP {
            dialer.open()?;
        }
        Ok(Self {
            dialer,
            connections,
            sockets: Vec::with_capacity(connections),
        })
    }
}

impl Load for Stalled {
    fn go(&mut self) -> Result<Finished> {
        for _ in 0..self.connections {
            let mut link = self.dialer.open()?;
            link.write_all(&bulk_request(Direction::Down, u64::MAX))?;
            self.sockets.push(link.socket);
        }
        Ok(Finished {
            units: self.sockets.len() as u64,
            latency: None,
        })
    }
}
