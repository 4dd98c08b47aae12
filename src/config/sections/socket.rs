//! `tcp_keepalive`, `tcp_user_timeout`, `tcp_congestion`, `tcp_defer_accept`, `source`: what sockets are given.

use std::net::IpAddr;
use std::time::Duration;

use super::super::defaults;
use super::super::error::Fault;
use super::super::keys::{Absent, DAY, HOUR, Key, Kind, Section, key, number, time};
use super::super::model::{Address, Backend, Dial, Keepalive, Sources, TcpOptions};
use super::super::table::Table;

/// The kernel's `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`, in seconds.
const KEEPALIVE_TIME_MAX: u64 = 32_767;
/// The kernel's `MAX_TCP_KEEPCNT`.
const KEEPALIVE_COUNT_MAX: u64 = 127;
/// The kernel's `TCP_CA_NAME_MAX`, without its closing zero.
const CONGESTION_NAME_MAX: usize = 15;
/// More would be a network, not a list.
const SOURCES_MAX: usize = 256;

pub static KEEPALIVE: Section = Section {
    doc: "When a silent connection is probed, and when it is dead.",
    keys: &[
        key(
            "idle",
            time(1_000, KEEPALIVE_TIME_MAX),
            Absent::Time(defaults::KEEPALIVE_IDLE),
            "Silence before the first probe; whole seconds.",
        ),
        key(
            "interval",
            time(1_000, KEEPALIVE_TIME_MAX),
            Absent::Time(defaults::KEEPALIVE_INTERVAL),
            "Between two probes; whole seconds.",
        ),
        key(
            "count",
            number(1, KEEPALIVE_COUNT_MAX),
            Absent::Number(defaults::KEEPALIVE_COUNT),
            "Unanswered probes until the connection is dead.",
        ),
    ],
};

pub const TCP_KEEPALIVE: Key = key(
    "tcp_keepalive",
    Kind::Table(&KEEPALIVE),
    Absent::None,
    "Probes of silent connections.",
);
pub const TCP_USER_TIMEOUT: Key = key(
    "tcp_user_timeout",
    time(1_000, DAY),
    Absent::Time(defaults::TCP_USER_TIMEOUT),
    "Data unacknowledged for this long ends the connection.",
);
pub const TCP_CONGESTION: Key = key(
    "tcp_congestion",
    Kind::Text("a congestion control of the kernel, such as \"cubic\" or \"bbr\""),
    Absent::None,
    "Congestion control of what is sent. Without it: the machine's.",
);
pub const TCP_DEFER_ACCEPT: Key = key(
    "tcp_defer_accept",
    time(1_000, HOUR),
    Absent::None,
    "Let the kernel keep a connection until its client has said something, for about this long. Only where the client speaks first: `websocket`, `tls` or `accept_proxy`.",
);
pub const SOURCE: Key = key(
    "source",
    Kind::Texts("an IP address of this machine"),
    Absent::Texts(&[]),
    "Addresses that connections to backends, and checks, come from, in turn; those of the backend's family. Each is good for about 28,000 connections per backend.",
);

/// Keys that mean nothing to unix sockets.
pub const TCP_KEYS: [&str; 3] = ["tcp_keepalive", "tcp_user_timeout", "tcp_congestion"];

pub fn options(table: &Table<'_>) -> TcpOptions {
    let keepalive = table.table("tcp_keepalive");
    TcpOptions {
        keepalive: Keepalive {
            idle: whole_seconds(&keepalive, "idle"),
            interval: whole_seconds(&keepalive, "interval"),
            count: keepalive.number("count"),
        },
        user_timeout: table.time("tcp_user_timeout"),
        congestion: table.text_by("tcp_congestion", read_congestion),
    }
}

/// The kernel counts these in seconds.
pub fn whole_seconds(table: &Table<'_>, key: &str) -> Duration {
    let time = table.time(key);
    if time.subsec_nanos() != 0 {
        table.conflict(key, "the kernel counts whole seconds");
    }
    time
}

fn read_congestion(text: &str) -> Result<String, &'static str> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match text.len() {
        1..=CONGESTION_NAME_MAX if text.bytes().all(is_name) => Ok(text.to_owned()),
        _ => Err("it is no name of a congestion control"),
    }
}

/// How a pool with these `backends` connects. `None` of them: they were wrong, which was noted.
pub fn dial(table: &Table<'_>, backends: Option<&[Backend]>) -> Dial {
    let dial = Dial {
        tcp: options(table),
        source: sources(table),
    };
    let Some(backends) = backends else {
        return dial;
    };
    let is_unix = |backend: &Backend| matches!(backend.address, Address::Unix(_));
    if !table.has("discover") && backends.iter().all(is_unix) {
        for key in TCP_KEYS.iter().chain(&["source"]) {
            table.conflict(key, "all backends of this pool are unix sockets");
        }
    } else if !dial.source.is_empty() {
        refuse_unreachable(table, &dial.source, backends);
    }
    dial
}

/// A backend that no source address can reach would never be connected.
fn refuse_unreachable(table: &Table<'_>, sources: &Sources, backends: &[Backend]) {
    for backend in backends {
        let Address::Tcp(address) = &backend.address else {
            continue;
        };
        if sources.count_for(address.ip()) == 0 {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let why = format!(
                "backend {address} is reached over {family}, and none of these is {family}"
            );
            table.conflict("source", &why);
        }
    }
}

fn sources(table: &Table<'_>) -> Sources {
    let mut sources = Sources::default();
    let Some(entry) = table.entry("source") else {
        return sources;
    };
    let items: Vec<_> = entry.items().collect();
    if items.len() > SOURCES_MAX {
        entry.refuse(Fault::Value, "at most 256 addresses");
    }
    for item in &items {
        let is_new = match item.text_by(read_source) {
            Some(IpAddr::V4(ip)) => push_new(&mut sources.v4, ip),
            Some(IpAddr::V6(ip)) => push_new(&mut sources.v6, ip),
            None => true,
        };
        if !is_new {
            item.refuse(Fault::Conflict, "it is in the list already");
        }
    }
    sources
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
        return Err("no connection can come from it");
    }
    Ok(ip)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{each_refused, listener, pool, right};
    use super::*;

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
                Fault::Value,
            ),
            (
                pool("tcp_keepalive = { interval = \"1500ms\" }"),
                "pool.p.tcp_keepalive.interval",
                Fault::Conflict,
            ),
            (
                pool("tcp_keepalive = { count = 128 }"),
                "pool.p.tcp_keepalive.count",
                Fault::Value,
            ),
            (
                pool("tcp_congestion = \"no such name\""),
                "pool.p.tcp_congestion",
                Fault::Value,
            ),
            (
                pool("source = [\"here\"]"),
                "pool.p.source[0]",
                Fault::Value,
            ),
            (
                pool("source = [\"0.0.0.0\"]"),
                "pool.p.source[0]",
                Fault::Value,
            ),
            (
                pool("source = [\"10.0.0.5\", \"10.0.0.5\"]"),
                "pool.p.source[1]",
                Fault::Conflict,
            ),
            (pool("source = [\"::1\"]"), "pool.p.source", Fault::Conflict),
            (
                raw("tcp_defer_accept = \"5s\""),
                "listener[0].tcp_defer_accept",
                Fault::Conflict,
            ),
            (
                web("tcp_defer_accept = \"1500ms\""),
                "listener[0].tcp_defer_accept",
                Fault::Conflict,
            ),
            (
                unix(raw("tcp_user_timeout = \"5s\"")),
                "listener[0].tcp_user_timeout",
                Fault::Conflict,
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
                Fault::Conflict,
            ),
            (
                unix("tcp_congestion = \"cubic\""),
                "pool.p.tcp_congestion",
                Fault::Conflict,
            ),
        ]);
    }

    #[test]
    fn sources_go_round_within_the_family() {
        let sources = Sources {
            v4: vec!["10.0.0.5".parse().unwrap(), "10.0.0.6".parse().unwrap()],
            v6: vec!["::1".parse().unwrap()],
        };
        let to = "10.0.0.1".parse().unwrap();
        let taken: Vec<_> = (3..6)
            .filter_map(|index| sources.nth_for(to, index))
            .collect();
        assert_eq!(taken, [sources.v4[1], sources.v4[0], sources.v4[1]]);
        assert_eq!(Sources::default().nth_for(to, 0), None);
    }
}
