//! `discover = {...}`: backends from DNS or from a registry.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::discover_policy::DiscoverPolicy;
use super::registry::{self, Registry, RegistrySettings};
use crate::config::address::{host_and_port, host_name};
use crate::config::declare::Parts;
use crate::config::defaults::{DISCOVER_TIMEOUT, MAX_TTL, MIN_TTL, WEIGHT_MAX};
use crate::config::reader::TableReader;
use crate::config::spec::{COUNT_MAX, DAY, HOUR, number, text, texts, time};
use crate::config::value_types;

table! {
    /// Backends from DNS or from a registry: one of `dns`, `srv`, `file`, `http`, `consul`, `etcd`,
    /// `redis`, `eureka`, `nacos`, `kubernetes`, `zookeeper` and `gatewayworker`. An error or an
    /// empty answer keeps the last good set.
    pub struct Discover {
        /// Name servers to ask; none = the system's. Of `dns` and `srv`.
        nameservers: Vec<SocketAddr> =
            texts("an IP address such as \"10.0.0.53\" or \"10.0.0.53:5353\""),
            default(Vec::new()) by value_types::texts(read_nameserver);
        /// Least time between two lookups, whatever the records say. Of `dns` and `srv`.
        ///
        /// Floor for zones that answer with a TTL of 0.
        min_ttl: Duration = time(100, DAY), default(MIN_TTL);
        /// Longest time between two lookups. Of `dns` and `srv`.
        ///
        /// A change of the set is seen after this at the latest, however long its TTL.
        max_ttl: Duration = time(100, DAY), default(MAX_TTL);
        /// Time limit of one lookup, over all name servers, or of one request to a registry.
        timeout: Duration = time(10, HOUR), default(DISCOVER_TIMEOUT);
        /// Weight of every backend that is found without one of its own; SRV records have theirs.
        ///
        /// All alike.
        weight: u16 = number(0, WEIGHT_MAX), default(1);
        /// Live connections at once on every backend that is found; 0 = no own limit.
        max_connections: u64 = number(0, COUNT_MAX), default(0);
    }
    parts {
        /// Name of which every A and AAAA record is a backend, on this port.
        dns: Option<DiscoverSource> =
            text("a host name and a port, such as \"chat.internal:9501\""),
            optional by value_types::text(read_dns);
        /// Name of which every SRV record is a backend with its target, port and weight. Records
        /// above the lowest priority are backups.
        srv: Option<DiscoverSource> = text("a service name, such as \"_ws._tcp.chat.internal\""),
            optional by value_types::text(read_service);
        /// Where a registry is and what is asked for.
        registry: RegistrySettings, keys;
        /// Handling of backends that are not found any more.
        handling: DiscoverPolicy, keys;
    }
    with {
        /// Names or service that are looked up.
        source: DiscoverSource,
        /// Handling of backends that are not found any more.
        policy: DiscoverPolicy,
    }
    rules choose_source;
}

/// Names or service that are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoverSource {
    /// Every A and AAAA record is a backend.
    Dns { host: String, port: u16 },
    /// SRV: target, port, weight; priorities above the lowest become `backup`.
    Srv { name: String },
    /// A service of a registry, or a list of backends.
    Registry(Arc<Registry>),
}

impl DiscoverSource {
    /// Whether both list the same, wherever and however they are asked.
    pub fn lists_as(&self, other: &DiscoverSource) -> bool {
        match (self, other) {
            (DiscoverSource::Registry(one), DiscoverSource::Registry(other)) => one.lists_as(other),
            _ => self == other,
        }
    }
}

/// Keys that choose a source, each a kind of its own.
const SOURCES: [&str; 12] = [
    "dns",
    "srv",
    "file",
    "http",
    "consul",
    "etcd",
    "redis",
    "eureka",
    "nacos",
    "kubernetes",
    "zookeeper",
    "gatewayworker",
];

fn choose_source(table: &TableReader<'_>, discover: &mut Parts<Discover>) {
    let given: Vec<&str> = SOURCES.into_iter().filter(|key| table.has(key)).collect();
    match given[..] {
        [] => {
            let sources = SOURCES.map(|key| format!("`{key}`"));
            table.missing("dns", "nothing to look up", &sources.join(", "));
        }
        [first, ref others @ ..] => {
            let why = format!("`{first}` is given too; give one of them");
            table.conflicts(others, &why);
        }
    }
    if table.has("srv") {
        table.conflict("weight", "SRV records have weights of their own");
    }
    let dns = discover.dns.take().flatten();
    let name = dns.or(discover.srv.take().flatten());
    discover.policy = discover.handling.take();
    let settings = discover.registry.take();
    let registry = match given[..] {
        [source] => registry::choose(table, settings, source),
        _ => None,
    };
    discover.source = name.or(registry.map(DiscoverSource::Registry));
    refuse_short_stale(table, discover);
    if discover.min_ttl > discover.max_ttl {
        table.conflict(
            table.first_of(["min_ttl", "max_ttl"]),
            "`min_ttl` is longer than `max_ttl`",
        );
    }
}

/// A set must not be stale while its source only has nothing new to say.
fn refuse_short_stale(table: &TableReader<'_>, discover: &Parts<Discover>) {
    let period = match &discover.source {
        Some(DiscoverSource::Registry(registry)) => Some(registry.longest_period()),
        _ => discover.max_ttl,
    };
    let max_stale = discover.policy.as_ref().map(|policy| policy.max_stale);
    if let (Some(period), Some(max_stale)) = (period, max_stale)
        && !max_stale.is_zero()
        && max_stale < period.saturating_mul(2)
    {
        let why = format!(
            "it is less than twice the {} s that may be between two answers",
            period.as_secs()
        );
        table.conflict("max_stale", &why);
    }
}

fn read_dns(text: &str) -> Result<DiscoverSource, &'static str> {
    host_and_port(text).map(|(host, port)| DiscoverSource::Dns { host, port })
}

fn read_service(text: &str) -> Result<DiscoverSource, &'static str> {
    if text.contains(':') {
        return Err("SRV records have ports of their own");
    }
    host_name(text).map(|name| DiscoverSource::Srv { name })
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
    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn discover(keys: &str) -> String {
        pool(&format!("discover = {{ {keys} }}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (
                discover("min_ttl = \"1s\""),
                "pool.p.discover.dns",
                ErrorKind::Missing,
            ),
            (
                discover("dns = \"a:1\", srv = \"_a._tcp.b\""),
                "pool.p.discover.srv",
                ErrorKind::Conflict,
            ),
            (
                discover("dns = \"a\""),
                "pool.p.discover.dns",
                ErrorKind::Value,
            ),
            (
                discover("dns = \"10.0.0.1:80\""),
                "pool.p.discover.dns",
                ErrorKind::Value,
            ),
            (
                discover("srv = \"_a._tcp.b:80\""),
                "pool.p.discover.srv",
                ErrorKind::Value,
            ),
            (
                discover("srv = \"_a._tcp.b\", weight = 2"),
                "pool.p.discover.weight",
                ErrorKind::Conflict,
            ),
            (
                discover("dns = \"a:1\", nameservers = [\"dns.internal\"]"),
                "pool.p.discover.nameservers[0]",
                ErrorKind::Value,
            ),
            (
                discover("dns = \"a:1\", nameservers = \"10.0.0.1\""),
                "pool.p.discover.nameservers",
                ErrorKind::Type,
            ),
            (
                discover("dns = \"a:1\", min_ttl = \"10m\""),
                "pool.p.discover.min_ttl",
                ErrorKind::Conflict,
            ),
            (
                discover("dns = \"a:1\", max_ttl = \"500ms\""),
                "pool.p.discover.max_ttl",
                ErrorKind::Conflict,
            ),
            (
                discover("dns = \"a:1\", min_ttl = \"1ms\""),
                "pool.p.discover.min_ttl",
                ErrorKind::Value,
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
