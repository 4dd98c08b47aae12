//! Sockets of listeners and towards backends: `tcp_keepalive`, `tcp_user_timeout`,
//! `tcp_congestion`, `source`, and the PROXY header that a connection begins with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde_json::{Value, json};

use super::backend::Backend;
use crate::config::address::Address;
use crate::config::declare::AsWritten;
use crate::config::error::ErrorKind;
use crate::config::reader::TableReader;
use crate::config::spec::{DAY, ValueKind, number, seconds, text, texts, time};
use crate::config::value::ValueReader;
use crate::config::value_types;

/// The kernel's `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`, in seconds.
const KEEPALIVE_TIME_MAX: u64 = 32_767;
/// The kernel's `MAX_TCP_KEEPCNT`.
const KEEPALIVE_COUNT_MAX: u64 = 127;
/// The kernel's `TCP_CA_NAME_MAX`, without its closing zero.
const CONGESTION_NAME_MAX: usize = 15;
/// More would be a network, not a list.
const SOURCES_MAX: usize = 256;

table! {
    /// When a silent connection is probed, and when it is dead.
    #[derive(Copy, Eq)]
    pub struct Keepalive {
        /// Silence before the first probe; whole seconds.
        ///
        /// NATs and cloud balancers forget silent flows after minutes.
        idle: Duration = time(1_000, KEEPALIVE_TIME_MAX),
            default(TcpOptions::DEFAULT.keepalive.idle) by whole_seconds;
        /// Time between two probes; whole seconds.
        ///
        /// With the count below a dead peer is noticed within two minutes.
        interval: Duration = time(1_000, KEEPALIVE_TIME_MAX),
            default(TcpOptions::DEFAULT.keepalive.interval) by whole_seconds;
        /// Unanswered probes until the connection is dead.
        ///
        /// A minute of probes survives a change of network.
        count: u32 = number(1, KEEPALIVE_COUNT_MAX),
            default(TcpOptions::DEFAULT.keepalive.count);
    }
}

table! {
    /// Options of TCP sockets, by the kernel's words; on unix sockets they do nothing.
    #[derive(Eq)]
    pub struct TcpOptions {
        /// Probes of silent connections.
        keepalive as "tcp_keepalive": Keepalive, nested;
        /// Time that data may be unacknowledged by the peer; then the connection ends.
        ///
        /// Keepalive does not run while data is unacknowledged: the same two minutes for such a
        /// peer.
        user_timeout as "tcp_user_timeout": Duration = time(1_000, DAY),
            default(TcpOptions::DEFAULT.user_timeout);
        /// Congestion control of sent data. Without it: the machine's.
        congestion as "tcp_congestion": Option<String> =
            text("a congestion control of the kernel, such as \"cubic\" or \"bbr\""),
            optional by value_types::text(read_congestion);
    }
}

impl TcpOptions {
    pub const DEFAULT: TcpOptions = TcpOptions {
        keepalive: Keepalive {
            idle: seconds(60),
            interval: seconds(10),
            count: 6,
        },
        user_timeout: seconds(120),
        congestion: None,
    };
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

table! {
    /// How connections to backends are made.
    #[derive(Default, Eq)]
    pub struct Dial {
        /// Addresses that connections to backends, and checks, come from; those of the backend's
        /// family. A connection begins at a random one and takes the next if that has no port left.
        /// Each is good for about 28,000 connections per backend.
        source: SourceAddresses = texts("an IP address of this machine"),
            default(SourceAddresses::default()) by source_addresses;
        /// Options of the sockets.
        tcp: TcpOptions, keys;
    }
}

/// Addresses of this machine that connections to backends come from; those of the backend's family
/// count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceAddresses {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
}

impl SourceAddresses {
    /// Without addresses the kernel chooses.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Number of addresses for a backend at `ip`.
    pub fn count_for(&self, ip: IpAddr) -> usize {
        match ip {
            IpAddr::V4(_) => self.v4.len(),
            IpAddr::V6(_) => self.v6.len(),
        }
    }

    /// An address for a backend at `ip`; the index goes round.
    pub fn nth_for(&self, ip: IpAddr, index: usize) -> Option<IpAddr> {
        let index = index.checked_rem(self.count_for(ip))?;
        match ip {
            IpAddr::V4(_) => self.v4.get(index).map(|ip| (*ip).into()),
            IpAddr::V6(_) => self.v6.get(index).map(|ip| (*ip).into()),
        }
    }
}

impl AsWritten for SourceAddresses {
    fn as_written(&self, _: &ValueKind) -> Value {
        let v4 = self.v4.iter().map(ToString::to_string);
        json!(
            v4.chain(self.v6.iter().map(ToString::to_string))
                .collect::<Vec<_>>()
        )
    }
}

words! {
    /// Versions of the PROXY protocol.
    pub enum ProxyVersion {
        V1 = "v1",
        V2 = "v2",
    }
}

/// Keys that mean nothing to unix sockets.
pub(super) const TCP_KEYS: [&str; 3] = ["tcp_keepalive", "tcp_user_timeout", "tcp_congestion"];

/// The kernel counts these times in seconds.
pub(super) fn whole_seconds(value: &ValueReader<'_>) -> Option<Duration> {
    let time = value.time()?;
    if time.subsec_nanos() != 0 {
        value.refuse(ErrorKind::Conflict, "the kernel counts whole seconds");
    }
    Some(time)
}

fn read_congestion(text: &str) -> Result<String, &'static str> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match text.len() {
        1..=CONGESTION_NAME_MAX if text.bytes().all(is_name) => Ok(text.to_owned()),
        _ => Err("it is not the name of a congestion control"),
    }
}

/// Refuses options that none of these `backends` has, and addresses that cannot reach one: it would
/// never be connected.
pub(super) fn refuse_unreachable(pool: &TableReader<'_>, dial: &Dial, backends: &[Backend]) {
    let is_unix = |backend: &Backend| matches!(backend.address, Address::Unix(_));
    if !pool.has("discover") && backends.iter().all(is_unix) {
        let why = "all backends of this pool are unix sockets";
        pool.conflicts(&TCP_KEYS, why);
        pool.conflict("source", why);
        return;
    }
    for backend in backends.iter().filter(|_| !dial.source.is_empty()) {
        let Address::Tcp(address) = &backend.address else {
            continue;
        };
        if dial.source.count_for(address.ip()) == 0 {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let why = format!(
                "backend {address} is reached over {family}, but no source address is {family}"
            );
            pool.conflict("source", &why);
        }
    }
}

fn source_addresses(value: &ValueReader<'_>) -> Option<SourceAddresses> {
    let mut sources = SourceAddresses::default();
    let items: Vec<_> = value.items().collect();
    if items.len() > SOURCES_MAX {
        value.refuse(ErrorKind::Value, "at most 256 addresses");
    }
    for item in &items {
        let is_new = match item.text_by(read_source) {
            Some(IpAddr::V4(ip)) => push_new(&mut sources.v4, ip),
            Some(IpAddr::V6(ip)) => push_new(&mut sources.v6, ip),
            None => true,
        };
        if !is_new {
            item.refuse(ErrorKind::Conflict, "it is in the list already");
        }
    }
    Some(sources)
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, one: T) -> bool {
    let is_new = !list.contains(&one);
    if is_new {
        list.push(one);
    }
    is_new
}

fn read_source(text: &str) -> Result<IpAddr, &'static str> {
    let ip: IpAddr = text.parse().map_err(|_| "it is not an IP address")?;
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        return Err("it cannot be the source of a connection");
    }
    Ok(ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{each_refused, listener, pool, right};

    fn raw(keys: &str) -> String {
        listener(&format!("protocol = \"tcp\"\npool = \"p\"\n{keys}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let web = |keys: &str| listener(&format!("protocol = \"websocket\"\npool = \"p\"\n{keys}"));
        let unix = |text: String| text.replace("[::]:80", "unix:/run/l.sock");
        each_refused([
            (
                pool("tcp_keepalive = { idle = \"500ms\" }"),
                "pool.p.tcp_keepalive.idle",
                ErrorKind::Value,
            ),
            (
                pool("tcp_keepalive = { interval = \"1500ms\" }"),
                "pool.p.tcp_keepalive.interval",
                ErrorKind::Conflict,
            ),
            (
                pool("tcp_keepalive = { count = 128 }"),
                "pool.p.tcp_keepalive.count",
                ErrorKind::Value,
            ),
            (
                pool("tcp_congestion = \"no such name\""),
                "pool.p.tcp_congestion",
                ErrorKind::Value,
            ),
            (
                pool("source = [\"here\"]"),
                "pool.p.source[0]",
                ErrorKind::Value,
            ),
            (
                pool("source = [\"0.0.0.0\"]"),
                "pool.p.source[0]",
                ErrorKind::Value,
            ),
            (
                pool("source = [\"10.0.0.5\", \"10.0.0.5\"]"),
                "pool.p.source[1]",
                ErrorKind::Conflict,
            ),
            (
                pool("source = [\"::1\"]"),
                "pool.p.source",
                ErrorKind::Conflict,
            ),
            (
                raw("tcp_defer_accept = \"5s\""),
                "listener[0].tcp_defer_accept",
                ErrorKind::Conflict,
            ),
            (
                web("tcp_defer_accept = \"1500ms\""),
                "listener[0].tcp_defer_accept",
                ErrorKind::Conflict,
            ),
            (
                unix(raw("tcp_user_timeout = \"5s\"")),
                "listener[0].tcp_user_timeout",
                ErrorKind::Conflict,
            ),
        ]);
        right(&web("tcp_defer_accept = \"5s\""));
        right(&pool("source = [\"10.0.0.5\", \"::1\"]"));
    }

    #[test]
    fn a_pool_of_unix_sockets_has_none_of_it() {
        let unix = |keys: &str| pool(keys).replace("10.0.0.1:80", "unix:/run/n.sock");
        each_refused([
            (
                unix("source = [\"10.0.0.5\"]"),
                "pool.p.source",
                ErrorKind::Conflict,
            ),
            (
                unix("tcp_congestion = \"cubic\""),
                "pool.p.tcp_congestion",
                ErrorKind::Conflict,
            ),
        ]);
    }

    #[test]
    fn sources_go_round_within_the_family() {
        let sources = SourceAddresses {
            v4: vec!["10.0.0.5".parse().unwrap(), "10.0.0.6".parse().unwrap()],
            v6: vec!["::1".parse().unwrap()],
        };
        let to = "10.0.0.1".parse().unwrap();
        let taken: Vec<_> = (3..6)
            .filter_map(|index| sources.nth_for(to, index))
            .collect();
        assert_eq!(taken, [sources.v4[1], sources.v4[0], sources.v4[1]]);
        assert_eq!(SourceAddresses::default().nth_for(to, 0), None);
    }
}
