//! Admission of clients: by address, and by number.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};

use crate::base::rate::Rate;
use crate::config::address::Bind;
use crate::config::declare::AsWritten;
use crate::config::error::ErrorKind;
use crate::config::reader::TableReader;
use crate::config::spec::{COUNT_MAX, ValueKind, number, texts};
use crate::config::value::ValueReader;

pub(super) const NETWORKS: &str = "a network such as \"10.0.0.0/8\", an address, or \"unix\"";

table! {
    /// `allow` and `deny` of a listener, a route or an endpoint.
    #[derive(Eq)]
    pub struct Access: Default {
        /// Networks whose clients may connect, or use the route; none = everybody. A listener or
        /// an endpoint resets others before anything is read. A route answers 403, or resets on a
        /// `tcp` listener.
        allow: Vec<Trusted> = texts(NETWORKS), default(Vec::new()) by networks;
        /// Networks whose clients may not, whatever `allow` says.
        deny: Vec<Trusted> = texts(NETWORKS), default(Vec::new()) by networks;
    }
}

impl Access {
    /// Whether everybody is let in.
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

table! {
    /// Clients that a listener lets in.
    #[derive(Eq)]
    pub struct Admission: Default {
        /// Networks that are let in.
        access: Access, keys;
        /// Live connections of this listener at once; one more is reset. 0 = no own limit.
        ///
        /// The process's limit bounds them.
        max_connections: u64 = number(0, COUNT_MAX), default(0);
        /// Connections of this listener in a time; one more is reset. Without it there is no such
        /// bound.
        max_connection_rate: Option<Rate>, optional;
        /// Limits of every source for itself. Without it: none.
        per_source: Option<PerSource>, optional;
    }
}

table! {
    /// Limits of every source for itself; a source is the client's address, of IPv6 its network of
    /// 64 bits.
    #[derive(Copy, Eq)]
    pub struct PerSource {
        /// Live connections of one source at once; one more is reset. 0 = no limit. Of a client
        /// that a `trusted` HTTP balancer names: its WebSockets; one more is told 429.
        ///
        /// A carrier's address may stand for thousands of clients, and only the operator knows.
        max_connections: u64 = number(0, COUNT_MAX), default(0);
        /// Connections of one source in a time; one more is reset. Of a client that a `trusted`
        /// HTTP balancer names: its WebSockets; one more is told 429.
        max_connection_rate: Option<Rate>, optional;
        /// Bits of an address that make a source.
        prefixes: Prefixes, keys;
    }
    then refuse_idle;
}

table! {
    /// Bits of an address that make a source.
    #[derive(Copy, Eq)]
    pub struct Prefixes: Default {
        /// Bits of an IPv4 address that make a source.
        v4 as "v4_prefix": u8 = number(0, 32), default(32);
        /// Bits of an IPv6 address that make a source.
        ///
        /// A client usually has a network of 64 bits to itself: by the address it could be any of
        /// 2^64 sources.
        v6 as "v6_prefix": u8 = number(0, 128), default(64);
    }
}

/// A network or kind of client that a list names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    Network(IpNet),
    /// Clients of a unix socket; the rights of its file guard it.
    Unix,
}

impl Trusted {
    /// Clients are canonical, so a network of v4-mapped addresses is the IPv4 network that it
    /// stands for.
    pub fn network(network: IpNet) -> Trusted {
        let mapped = match network {
            IpNet::V6(v6) if v6.prefix_len() >= 96 => {
                let ip = v6.addr().to_ipv4_mapped();
                ip.and_then(|ip| Ipv4Net::new(ip, v6.prefix_len() - 96).ok())
            }
            _ => None,
        };
        Trusted::Network(mapped.map_or(network, IpNet::V4).trunc())
    }

    /// `None` is a client without an address: that of a unix socket.
    pub fn covers(&self, client: Option<IpAddr>) -> bool {
        match (self, client) {
            (Trusted::Network(network), Some(client)) => network.contains(&client),
            (Trusted::Unix, None) => true,
            _ => false,
        }
    }
}

impl AsWritten for Trusted {
    fn as_written(&self, _: &ValueKind) -> Value {
        match self {
            Trusted::Network(network) => json!(network.to_string()),
            Trusted::Unix => json!("unix"),
        }
    }
}

fn refuse_idle(table: &TableReader<'_>, limits: &mut PerSource) {
    let is_given = table.has("max_connections") || table.has("max_connection_rate");
    if limits.max_connections == 0 && limits.max_connection_rate.is_none() && !is_given {
        table.refuse(
            ErrorKind::Missing,
            "it limits nothing; it needs `max_connections` or `max_connection_rate`",
        );
    }
}

/// Reads a list of networks and warns of those with bits behind their prefix: `10.1.2.3/8` is all
/// of `10.0.0.0/8`.
pub(super) fn networks(value: &ValueReader<'_>) -> Option<Vec<Trusted>> {
    let one = |item: ValueReader<'_>| {
        let network = item.text_by(read_network)?;
        if let Ok(written) = item.string()?.parse::<IpNet>()
            && written.trunc() != written
        {
            let whole = written.trunc();
            item.warn(format!(
                "{written} has bits behind its prefix and stands for {whole}; a single address has \
                 no prefix"
            ));
        }
        Some(network)
    };
    Some(value.items().filter_map(one).collect())
}

fn read_network(text: &str) -> Result<Trusted, &'static str> {
    if text == "unix" {
        return Ok(Trusted::Unix);
    }
    let network: Result<IpNet, _> = text.parse();
    network
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(Trusted::network)
        .map_err(|_| "it is not a network")
}

/// Refuses networks of a list that no client of `bind` can have. `has_chains`: the peer names its
/// client in a chain, whose other hops have addresses.
pub(super) fn refuse_others(table: &TableReader<'_>, key: &str, bind: &Bind, has_chains: bool) {
    let list = table.value(key).filter(ValueReader::is_list);
    for item in list.iter().flat_map(ValueReader::items) {
        let network = item.string().map(read_network);
        match (network, bind) {
            (Some(Ok(Trusted::Network(_))), Bind::Unix(_)) if !has_chains => {
                item.refuse_value("clients of a unix socket have no address; write \"unix\"");
            }
            (Some(Ok(Trusted::Unix)), Bind::Tcp(_)) => {
                item.refuse_value("this listener is not a unix socket");
            }
            _ => {}
        }
    }
}

/// Refuses networks of `allow` and `deny` that no client of `bind` can have.
pub(super) fn refuse_other_clients(table: &TableReader<'_>, bind: Option<&Bind>) {
    for key in ["allow", "deny"] {
        if let Some(bind) = bind {
            refuse_others(table, key, bind, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Trusted;
    use crate::config::testing::{each_refused, listener, right};

    fn tcp(keys: &str) -> String {
        listener(&format!("protocol = \"tcp\"\npool = \"p\"\n{keys}"))
    }

    fn routed(keys: &str) -> String {
        listener(&format!(
            "protocol = \"websocket\"\nroute = [{{ path = \"/a\", pool = \"p\", {keys} }}]"
        ))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let unix = |keys: &str| tcp(keys).replace("[::]:80", "unix:/run/a.sock");
        let at = |key: &str| format!("listener[0].{key}");
        let cases = [
            (
                tcp("allow = [\"10.0.0.0/33\"]"),
                "allow[0]",
                ErrorKind::Value,
            ),
            (tcp("deny = [\"unix\"]"), "deny[0]", ErrorKind::Value),
            (unix("deny = [\"::1\"]"), "deny[0]", ErrorKind::Value),
            (tcp("allow = \"10.0.0.0/8\""), "allow", ErrorKind::Type),
            (
                routed("allow = [\"x\"]"),
                "route[0].allow[0]",
                ErrorKind::Value,
            ),
            (
                tcp("max_connections = -1"),
                "max_connections",
                ErrorKind::Value,
            ),
            (
                tcp("max_connection_rate = \"5\""),
                "max_connection_rate",
                ErrorKind::Value,
            ),
            (tcp("per_source = {}"), "per_source", ErrorKind::Missing),
            (
                tcp("per_source = { v4_prefix = 24 }"),
                "per_source",
                ErrorKind::Missing,
            ),
            (
                tcp("per_source = { max_connections = 1, v4_prefix = 33 }"),
                "per_source.v4_prefix",
                ErrorKind::Value,
            ),
            (
                tcp("per_source = { max_connections = 1, v6_prefix = 129 }"),
                "per_source.v6_prefix",
                ErrorKind::Value,
            ),
            (
                unix("per_source = { max_connections = 1 }"),
                "per_source",
                ErrorKind::Conflict,
            ),
        ];
        for (text, key, fault) in cases {
            each_refused([(text, &at(key), fault)]);
        }
    }

    #[test]
    fn a_listener_has_lists_and_limits() {
        let config = right(&tcp(
            "allow = [\"10.0.0.0/8\", \"::1\"]\ndeny = [\"10.1.0.0/16\"]\nmax_connections = 7\n\
             max_connection_rate = \"9/s\"\nper_source = { max_connection_rate = \"2/m\", v6_prefix = 56 }",
        ));
        let admission = &config.listeners[0].admission;
        assert_eq!(admission.access.allow.len(), 2);
        assert_eq!(
            admission.access.deny,
            [Trusted::Network("10.1.0.0/16".parse().unwrap())]
        );
        assert_eq!(admission.max_connections, 7);
        let source = admission.per_source.unwrap();
        assert_eq!(source.prefixes, Prefixes { v4: 32, v6: 56 });
        assert_eq!(source.max_connection_rate, Some("2/m".parse().unwrap()));
        assert_eq!(right(&tcp("")).listeners[0].admission, Admission::default());
    }

    #[test]
    fn a_route_has_lists_of_its_own() {
        let config = right(&routed("deny = [\"10.0.0.1\"]"));
        assert_eq!(config.listeners[0].routes[0].access.deny.len(), 1);
    }

    #[test]
    fn a_balancer_behind_a_unix_socket_names_clients_that_have_addresses() {
        let unix = |keys: &str| {
            let keys =
                format!("protocol = \"websocket\"\npool = \"p\"\ntrusted = [\"unix\"]\n{keys}");
            listener(&keys).replace("[::]:80", "unix:/run/a.sock")
        };
        let limit = "per_source = { max_connections = 1 }";
        let list = "route = [{ path = \"/a\", pool = \"p\", deny = [\"10.0.0.1\"] }]";
        right(&unix(&format!("{limit}\n{list}")));
        let of_peer = |key: &str| unix(&format!("client_ip_from = \"peer\"\n{key}"));
        each_refused([
            (
                of_peer(limit),
                "listener[0].per_source",
                ErrorKind::Conflict,
            ),
            (
                of_peer(list),
                "listener[0].route[0].deny[0]",
                ErrorKind::Value,
            ),
        ]);
    }
}
