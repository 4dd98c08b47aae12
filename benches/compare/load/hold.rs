//! Connections that cost memory: idle ones, and ones whose reader has stalled.

use std::io::Write;
use std::net::TcpStream;

use anyhow::{Context, Result};

use super::link::{Dialer, Exchange};
use super::{Finished, Load, payload};
use crate::plan::{Direction, bulk_request};

/// Connections that are set up at once: all of them, and of TLS as many as a balancer shakes hands with before the first
/// wait too long.
const TLS_AT_ONCE: usize = 3_000;
/// Stalled connections opened and closed ahead, so that what a balancer sets up once is not charged to the measured ones.
const WARM_UP: usize = 64;

/// Connections that carried something and then idle, set up all at once: what set-up leaves behind is charged to them. TLS
/// state is dropped: the balancer cannot see that, and this process stays small.
pub struct Idle {
    dialer: Dialer,
    connections: usize,
    exchange: Exchange,
    sockets: Vec<TcpStream>,
}

impl Idle {
    pub fn new(dialer: Dialer, connections: usize, bytes: usize) -> Self {
        Self {
            exchange: dialer.exchange(&payload(bytes)),
            dialer,
            connections,
            sockets: Vec::with_capacity(connections),
        }
    }

    /// Each step is made for all connections before the next one is.
    fn open(&mut self, connections: usize) -> Result<()> {
        let mut links = Vec::with_capacity(connections);
        for at in 0..connections {
            let link = self.dialer.connect();
            links.push(link.with_context(|| format!("connection {at}"))?);
        }
        let of = |at: usize| format!("connection {at}");
        for (at, link) in links.iter_mut().enumerate() {
            self.dialer.ask(link).with_context(|| of(at))?;
        }
        for (at, link) in links.iter_mut().enumerate() {
            self.dialer.hear(link).with_context(|| of(at))?;
        }
        for (at, mut link) in links.into_iter().enumerate() {
            link.converse(&self.exchange).with_context(|| of(at))?;
            self.sockets.push(link.socket);
        }
        Ok(())
    }
}

impl Load for Idle {
    fn go(&mut self) -> Result<Finished> {
        let at_once = match self.dialer.tls {
            Some(_) => TLS_AT_ONCE,
            None => self.connections,
        };
        while self.sockets.len() < self.connections {
            self.open(at_once.min(self.connections - self.sockets.len()))?;
        }
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
