//! `allow`, `deny`, `max_connections`, `max_connection_rate` and `per_source` of a listener; `allow` and `deny` of a route.

use super::super::defaults;
use super::super::error::Fault;
use super::super::keys::{Absent, COUNT_MAX, RATE_MAX, Section, key, number, rate};
use super::super::model::{Access, Admission, Bind, PerSource, Prefixes};
use super::super::table::Table;
use super::listener::read_trusted;
use super::warnings::warn_of_host_bits;

pub const NETWORKS: &str = "a network such as \"10.0.0.0/8\", an address, or \"unix\"";

pub static PER_SOURCE: Section = Section {
    doc: "Limits of every source for itself; a source is the client's address, of IPv6 its network of 64 bits.",
    keys: &[
        key(
            "max_connections",
            number(0, COUNT_MAX),
            Absent::Number(defaults::SOURCE_MAX_CONNECTIONS),
            "Live connections of one source at once; one more is reset. 0 = no limit. Of a client that a `trusted` HTTP balancer names: its WebSockets; one more is told 429.",
        ),
        key(
            "max_connection_rate",
            rate(RATE_MAX),
            Absent::None,
            "Connections of one source in a time; one more is reset. Of a client that a `trusted` HTTP balancer names: its WebSockets; one more is told 429.",
        ),
        key(
            "v4_prefix",
            number(0, 32),
            Absent::Number(defaults::V4_PREFIX as u64),
            "Bits of an IPv4 address that make a source.",
        ),
        key(
            "v6_prefix",
            number(0, 128),
            Absent::Number(defaults::V6_PREFIX as u64),
            "Bits of an IPv6 address that make a source; a client usually has a network of 64 bits to itself.",
        ),
    ],
};

/// Reads the keys of a listener; of one on a unix socket no client has an address, unless its peers name their clients.
pub fn decode(table: &Table<'_>, bind: Option<&Bind>, names_clients: bool) -> Admission {
    if matches!(bind, Some(Bind::Unix(_))) && !names_clients {
        table.conflict(
            "per_source",
            "clients of a unix socket have no address; `max_connections` and `max_connection_rate` of the listener bound them together",
        );
    }
    Admission {
        access: access(table, bind),
        max_connections: table.number("max_connections"),
        max_connection_rate: table.maybe_rate("max_connection_rate"),
        per_source: table.maybe_table("per_source").as_ref().map(per_source),
    }
}

/// `allow` and `deny`.
pub fn access(table: &Table<'_>, bind: Option<&Bind>) -> Access {
    for key in ["allow", "deny"] {
        warn_of_host_bits(table, key);
    }
    Access {
        allow: table.texts_by("allow", |text| read_trusted(text, bind, false, false)),
        deny: table.texts_by("deny", |text| read_trusted(text, bind, false, false)),
    }
}

fn per_source(table: &Table<'_>) -> PerSource {
    let limits = PerSource {
        max_connections: table.number("max_connections"),
        max_connection_rate: table.maybe_rate("max_connection_rate"),
        prefixes: Prefixes {
            v4: table.number("v4_prefix"),
            v6: table.number("v6_prefix"),
        },
    };
    let is_given = table.has("max_connections") || table.has("max_connection_rate");
    if limits.max_connections == 0 && limits.max_connection_rate.is_none() && !is_given {
        table.refuse(
            Fault::Missing,
            "it limits nothing; needed: `max_connections` or `max_connection_rate`",
        );
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{each_refused, listener, right};
    use super::*;
    use crate::config::Trusted;

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
            (tcp("allow = [\"10.0.0.0/33\"]"), "allow[0]", Fault::Value),
            (tcp("deny = [\"unix\"]"), "deny[0]", Fault::Value),
            (unix("deny = [\"::1\"]"), "deny[0]", Fault::Value),
            (tcp("allow = \"10.0.0.0/8\""), "allow", Fault::Type),
            (routed("allow = [\"x\"]"), "route[0].allow[0]", Fault::Value),
            (tcp("max_connections = -1"), "max_connections", Fault::Value),
            (
                tcp("max_connection_rate = \"5\""),
                "max_connection_rate",
                Fault::Value,
            ),
            (tcp("per_source = {}"), "per_source", Fault::Missing),
            (
                tcp("per_source = { v4_prefix = 24 }"),
                "per_source",
                Fault::Missing,
            ),
            (
                tcp("per_source = { max_connections = 1, v4_prefix = 33 }"),
                "per_source.v4_prefix",
                Fault::Value,
            ),
            (
                tcp("per_source = { max_connections = 1, v6_prefix = 129 }"),
                "per_source.v6_prefix",
                Fault::Value,
            ),
            (
                unix("per_source = { max_connections = 1 }"),
                "per_source",
                Fault::Conflict,
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
            (of_peer(limit), "listener[0].per_source", Fault::Conflict),
            (of_peer(list), "listener[0].route[0].deny[0]", Fault::Value),
        ]);
    }
}
