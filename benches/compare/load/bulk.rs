//! Bulk in one direction, or in both at once, over a few connections, a blocking thread each: what is measured is the balancer, not this.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use super::link::{Dialer, Link};
use super::{Finished, Load};
use crate::plan::{Direction, bulk_request};

/// Bytes of one read or write.
const CHUNK_BYTES: usize = 256 * 1024;
/// One part in so many of the bytes goes ahead of the measured ones.
const WARM_UP: u64 = 16;

/// The connections of one bulk load.
pub struct Streams {
    links: Vec<Link<TcpStream>>,
    bytes_each: u64,
    direction: Direction,
}

impl Streams {
    pub fn prepare(
        dialer: &Dialer,
        connections: usize,
        bytes_each: u64,
        direction: Direction,
    ) -> Result<Self> {
        let mut streams = Self {
            links: (0..connections)
                .map(|_| dialer.open())
                .collect::<Result<_>>()?,
            bytes_each,
            direction,
        };
        streams.work(bytes_each / WARM_UP)?;
        Ok(streams)
    }

    fn work(&mut self, bytes_each: u64) -> Result<()> {
        let direction = self.direction;
        thread::scope(|scope| {
            let movers: Vec<_> = (self.links.iter_mut())
                .map(|link| scope.spawn(move || transfer(link, bytes_each, direction)))
                .collect();
            (movers.into_iter()).try_for_each(|mover| {
                mover
                    .join()
                    .map_err(|_| anyhow!("a bulk thread panicked"))?
            })
        })
    }
}

impl Load for Streams {
    fn go(&mut self) -> Result<Finished> {
        self.work(self.bytes_each)?;
        let ways = match self.direction {
            Direction::Both => 2,
            Direction::Down | Direction::Up => 1,
        };
        Ok(Finished {
            units: ways * self.bytes_each * self.links.len() as u64,
            latency: None,
        })
    }
}

fn transfer(link: &mut Link<TcpStream>, bytes: u64, direction: Direction) -> Result<()> {
    link.write_all(&bulk_request(direction, bytes))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    match direction {
        Direction::Down => receive(link, bytes, &mut chunk),
        Direction::Up => {
            send(link, bytes, &chunk)?;
            link.flush()?;
            link.read_exact(&mut chunk[..1])
                .context("the receipt of bulk")
        }
        Direction::Both => both(&link.socket, bytes, &mut chunk),
    }
}

/// Plain connections only: TLS has one state for both ways.
fn both(socket: &TcpStream, bytes: u64, chunk: &mut [u8]) -> Result<()> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(&mut &*socket, bytes, &[0; CHUNK_BYTES]));
        // One byte more: the receipt behind what was sent.
        receive(&mut &*socket, bytes + 1, chunk)?;
        sender
            .join()
            .map_err(|_| anyhow!("a bulk thread panicked"))?
    })
}

fn receive(link: &mut impl Read, mut bytes_left: u64, chunk: &mut [u8]) -> Result<()> {
    while bytes_left > 0 {
        let count = link.read(chunk).context("read bulk")? as u64;
        ensure!(
            count > 0 && count <= bytes_left,
            "bulk ended {bytes_left} bytes early, or went on after its end"
        );
        bytes_left -= count;
    }
    Ok(())
}

fn send(link: &mut impl Write, mut bytes_left: u64, chunk: &[u8]) -> Result<()> {
    while bytes_left > 0 {
        let take = usize::try_from(bytes_left)
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        link.write_all(&chunk[..take]).context("write bulk")?;
        bytes_left -= take as u64;
    }
    Ok(())
}
