//! What sockets are given beside their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::super::defaults;

/// Options of TCP sockets, by the kernel's words; on unix sockets they do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOptions {
    pub keepalive: Keepalive,
    /// Data unacknowledged for this long ends the connection. Default 2 min.
    pub user_timeout: Duration,
    /// `None`: the machine's (`net.ipv4.tcp_congestion_control`). Default none.
    pub congestion: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe. Default 60 s.
    pub idle: Duration,
    /// Between two probes. Default 10 s.
    pub interval: Duration,
    /// Unanswered probes until the connection is dead. Default 6.
    pub count: u32,
}

impl TcpOptions {
    pub const DEFAULT: TcpOptions = TcpOptions {
        keepalive: Keepalive {
            idle: defaults::KEEPALIVE_IDLE,
            interval: defaults::KEEPALIVE_INTERVAL,
            count: defaults::KEEPALIVE_COUNT as u32,
        },
        user_timeout: defaults::TCP_USER_TIMEOUT,
        congestion: None,
    };
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The rights of a unix socket's file; `None` leaves what the umask and the process give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileRights {
    /// Its lowest nine bits.
    pub mode: Option<u32>,
    /// By name or number.
    pub owner: Option<String>,
    /// By name or number.
    pub group: Option<String>,
}

/// How connections to backends are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dial {
    pub tcp: TcpOptions,
    pub source: Sources,
}

/// Addresses of this machine that connections to backends come from; those of the backend's family count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
}

impl Sources {
    /// None at all: the kernel chooses.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// How many there are for a backend at `ip`.
    pub fn count_for(&self, ip: IpAddr) -> usize {
        match ip {
            IpAddr::V4(_) => self.v4.len(),
            IpAddr::V6(_) => self.v6.len(),
        }
    }

    /// One of those for a backend at `ip`; the index goes round.
    pub fn nth_for(&self, ip: IpAddr, index: usize) -> Option<IpAddr> {
        let place = index.checked_rem(self.count_for(ip))?;
        match ip {
            IpAddr::V4(_) => self.v4.get(place).map(|ip| (*ip).into()),
            IpAddr::V6(_) => self.v6.get(place).map(|ip| (*ip).into()),
        }
    }
}
