//! `discover = {...}`: backends from DNS.

use std::net::{IpAddr, SocketAddr};

use super::super::address::{host_and_port, host_name};
use super::super::defaults;
use super::super::keys::{Absent, COUNT_MAX, DAY, HOUR, Kind, Section, key, number, time};
use super::super::model::{Discover, DiscoverSource};
use super::super::table::Table;

pub static DISCOVER: Section = Section {
    doc: "Backends from DNS: either `dns` or `srv`. An error or an empty answer keeps the last good set.",
    keys: &[
        key(
            "dns",
            Kind::Text("a host name and a port, such as \"chat.internal:9501\""),
            Absent::None,
            "Every A and AAAA record of this name is a backend, on this port.",
        ),
        key(
            "srv",
            Kind::Text("a service name, such as \"_ws._tcp.chat.internal\""),
            Absent::None,
            "Every SRV record is a backend with its target, port and weight; those above the lowest priority are backups.",
        ),
        key(
            "nameservers",
            Kind::Texts("an IP address such as \"10.0.0.53\" or \"10.0.0.53:5353\""),
            Absent::Texts(&[]),
            "Name servers to ask; none = the system's.",
        ),
        key(
            "min_ttl",
            time(100, DAY),
            Absent::Time(defaults::MIN_TTL),
            "Looked up again no sooner than this, whatever the records say.",
        ),
        key(
            "max_ttl",
            time(100, DAY),
            Absent::Time(defaults::MAX_TTL),
            "And no later than this.",
        ),
        key(
            "timeout",
            time(10, HOUR),
            Absent::Time(defaults::DISCOVER_TIMEOUT),
            "One lookup.",
        ),
        key(
            "weight",
            number(0, defaults::WEIGHT_MAX),
            Absent::Number(defaults::WEIGHT),
            "`dns` only: weight of every backend that is found.",
        ),
        key(
            "max_connections",
            number(0, COUNT_MAX),
            Absent::Number(defaults::BACKEND_MAX_CONNECTIONS),
            "Live connections at once on every backend that is found; 0 = no own limit.",
        ),
    ],
};

pub fn decode(table: &Table<'_>) -> Option<Discover> {
    let source = source(table);
    let (min_ttl, max_ttl) = (table.time("min_ttl"), table.time("max_ttl"));
    if min_ttl > max_ttl {
        let key = if table.has("min_ttl") {
            "min_ttl"
        } else {
            "max_ttl"
        };
        table.conflict(key, "`min_ttl` is longer than `max_ttl`");
    }
    Some(Discover {
        nameservers: table.texts_by("nameservers", read_nameserver),
        min_ttl,
        max_ttl,
        timeout: table.time("timeout"),
        weight: table.number("weight"),
        max_connections: table.number("max_connections"),
        source: source?,
    })
}

fn source(table: &Table<'_>) -> Option<DiscoverSource> {
    let dns = table
        .text_by("dns", host_and_port)
        .map(|(host, port)| DiscoverSource::Dns { host, port });
    let srv = table
        .text_by("srv", read_service)
        .map(|name| DiscoverSource::Srv { name });
    match (table.has("dns"), table.has("srv")) {
        (true, true) => table.conflict("srv", "`dns` is given too; give one of them"),
        (false, false) => table.missing("dns", "nothing to look up", "`dns` or `srv`"),
        (false, true) => table.conflict("weight", "SRV records have weights of their own"),
        (true, false) => {}
    }
    dns.or(srv)
}

fn read_service(text: &str) -> Result<String, &'static str> {
    if text.contains(':') {
        return Err("SRV records have ports of their own");
    }
    host_name(text)
}

fn read_nameserver(text: &str) -> Result<SocketAddr, &'static str> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, DNS_PORT)),
        Err(_) => text.parse().map_err(|_| "it is not an IP address"),
    }
}

/// RFC 1035.
const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, right};
    use super::*;

    fn discover(keys: &str) -> String {
        pool(&format!("discover = {{ {keys} }}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (
                discover("min_ttl = \"1s\""),
                "pool.p.discover.dns",
                Fault::Missing,
            ),
            (
                discover("dns = \"a:1\", srv = \"_a._tcp.b\""),
                "pool.p.discover.srv",
                Fault::Conflict,
            ),
            (discover("dns = \"a\""), "pool.p.discover.dns", Fault::Value),
            (
                discover("dns = \"10.0.0.1:80\""),
                "pool.p.discover.dns",
                Fault::Value,
            ),
            (
                discover("srv = \"_a._tcp.b:80\""),
                "pool.p.discover.srv",
                Fault::Value,
            ),
            (
                discover("srv = \"_a._tcp.b\", weight = 2"),
                "pool.p.discover.weight",
                Fault::Conflict,
            ),
            (
                discover("dns = \"a:1\", nameservers = [\"dns.internal\"]"),
                "pool.p.discover.nameservers[0]",
                Fault::Value,
            ),
            (
                discover("dns = \"a:1\", nameservers = \"10.0.0.1\""),
                "pool.p.discover.nameservers",
                Fault::Type,
            ),
            (
                discover("dns = \"a:1\", min_ttl = \"10m\""),
                "pool.p.discover.min_ttl",
                Fault::Conflict,
            ),
            (
                discover("dns = \"a:1\", max_ttl = \"500ms\""),
                "pool.p.discover.max_ttl",
                Fault::Conflict,
            ),
            (
                discover("dns = \"a:1\", min_ttl = \"1ms\""),
                "pool.p.discover.min_ttl",
                Fault::Value,
            ),
        ]);
    }

    #[test]
    fn name_servers_have_a_port_or_that_of_dns() {
        let text =
            discover("dns = \"a:1\", nameservers = [\"10.0.0.53\", \"::1\", \"[::1]:5353\"]");
        let config = right(&text);
        let discover = config.pools["p"].discover.as_ref().unwrap();
        let nameservers: Vec<_> = discover
            .nameservers
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        assert_eq!(nameservers, ["10.0.0.53:53", "[::1]:53", "[::1]:5353"]);
    }
}
