//! What the driver tells its copies to do, and what they answer: JSON on the command line and on standard output.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How the load speaks to the balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    Tcp,
    Tls,
    Websocket,
    TlsWebsocket,
}

impl Transport {
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Websocket | Self::TlsWebsocket)
    }
}

/// Which way bulk goes, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    Down,
    Up,
    /// As many bytes each way at the same time.
    Both,
}

/// One fixed amount of work.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Work {
    /// Messages that the backend sends back. Without a rate every connection waits for its answer (closed loop); with one,
    /// messages are due at fixed times whatever became of those before (open loop), over random connections.
    Echo {
        connections: usize,
        messages: u64,
        bytes: usize,
        rate: Option<u32>,
    },
    /// Connect, one message there and back, close. A WebSocket has its handshake before that and a
    /// Close there and back behind it.
    Short {
        connections: u64,
        at_once: u64,
        bytes: usize,
    },
    /// HTTP GETs over connections that are kept, each waiting for its answer.
    Get { connections: usize, requests: u64 },
    Bulk {
        connections: usize,
        bytes_each: u64,
        direction: Direction,
    },
    /// Connections that carry `bytes` each way and then stay open.
    Hold { connections: usize, bytes: usize },
    /// Connections that ask for an endless answer and never read it.
    Stall { connections: usize },
    /// Active checks that a balancer makes; the load answers them.
    Checks { checks: u64, is_http: bool },
}

/// The order of one load process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub core: usize,
    pub target: SocketAddr,
    pub transport: Transport,
    /// The certificate that TLS clients trust, PEM.
    pub root: PathBuf,
    pub work: Work,
}

/// What the backend process listens for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Services {
    pub core: usize,
    /// Sends back what it gets.
    pub echo: SocketAddr,
    /// Answers a WebSocket upgrade and sends back every frame's payload; closes behind a Close.
    pub websocket: SocketAddr,
    /// Answers every GET with the same 128 bytes and keeps the connection.
    pub http: SocketAddr,
    /// Reads or writes as many bytes as the first nine bytes ask for.
    pub bulk: SocketAddr,
}

/// Answer of a load process to `go`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// Messages, connections or bytes, as the work counts.
    pub units: u64,
    pub seconds: f64,
    pub latency: Option<Latency>,
}

/// Times from when a message was due to its whole answer, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

/// Length of the request of the bulk service: `D`, `U` or `B`, and the number of bytes, little-endian.
pub const BULK_REQUEST_BYTES: usize = 9;

/// A request to the bulk service.
pub fn bulk_request(direction: Direction, bytes: u64) -> [u8; BULK_REQUEST_BYTES] {
    let mut request = [0; BULK_REQUEST_BYTES];
    request[0] = match direction {
        Direction::Down => b'D',
        Direction::Up => b'U',
        Direction::Both => b'B',
    };
    request[1..].copy_from_slice(&bytes.to_le_bytes());
    request
}

/// Reads a request to the bulk service.
pub fn parse_bulk_request(request: &[u8; BULK_REQUEST_BYTES]) -> (Direction, u64) {
    let [first, bytes @ ..] = *request;
    let direction = match first {
        b'D' => Direction::Down,
        b'B' => Direction::Both,
        _ => Direction::Up,
    };
    (direction, u64::from_le_bytes(bytes))
}
