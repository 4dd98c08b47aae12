//! `[[listener]]`: a bound address with its protocol, TLS and rules.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::defaults;
use super::super::error::Fault;
use super::super::keys::{
    Absent, COUNT_MAX, DAY, HOUR, Kind, RATE_MAX, Section, key, number, rate, time,
};
use super::super::model::{
    Bind, ClientIpFrom, EncodedSlash, ForwardedFields, Listener, ListenerTls, Protocol, Trusted,
};
use super::super::name::read_name;
use super::super::table::Table;
use super::super::words::words;
use super::{admission, listener_tls, long_life, route, socket, socket_file, tag};

/// What `bind` allows; the admin and the metrics endpoint have the same.
pub const BIND: &str =
    "an IP address and a port, such as \"0.0.0.0:8443\" or \"[::]:8443\", or \"unix:/path\"";

pub static LISTENER: Section = Section {
    doc: "A bound address with its protocol, TLS and rules.",
    keys: &[
        key(
            "name",
            Kind::Text("a unique name of letters, digits and - _ . :"),
            Absent::Required,
            "Its name in logs, metrics and the admin endpoint. A reload knows the listener by it.",
        ),
        key(
            "bind",
            Kind::Text(BIND),
            Absent::Required,
            "Where it listens; `[::]` takes IPv4 and IPv6.",
        ),
        socket_file::MODE,
        socket_file::OWNER,
        socket_file::GROUP,
        key(
            "protocol",
            Kind::Word(words::<Protocol>),
            Absent::Required,
            "`tcp` relays bytes as they are; `websocket` speaks HTTP/1.1, checks WebSocket upgrades and proxies other requests.",
        ),
        key(
            "tls",
            Kind::Table(&listener_tls::TLS),
            Absent::None,
            "Terminate TLS, or pass it through and route by what the client says first. Without it: plain.",
        ),
        key(
            "pool",
            Kind::Text("the name of a [pool.NAME] of this file"),
            Absent::None,
            "Where what no route matches goes. Without it, such connections are refused.",
        ),
        key(
            "route",
            Kind::Tables(&route::ROUTE),
            Absent::None,
            "Rules in order; the first that matches decides.",
        ),
        key(
            "allow",
            Kind::Texts(admission::NETWORKS),
            Absent::Texts(&[]),
            "Networks whose clients may connect; others are reset before anything is read. Empty: everybody.",
        ),
        key(
            "deny",
            Kind::Texts(admission::NETWORKS),
            Absent::Texts(&[]),
            "Networks whose clients may not connect, whatever `allow` says.",
        ),
        key(
            "max_connections",
            number(0, COUNT_MAX),
            Absent::Number(defaults::LISTENER_MAX_CONNECTIONS),
            "Live connections of this listener at once; one more is reset. 0 = no own limit.",
        ),
        key(
            "max_connection_rate",
            rate(RATE_MAX),
            Absent::None,
            "Connections of this listener in a time; one more is reset.",
        ),
        key(
            "per_source",
            Kind::Table(&admission::PER_SOURCE),
            Absent::None,
            "Limits of every source for itself. Without it: none.",
        ),
        key(
            "trusted",
            Kind::Texts(admission::NETWORKS),
            Absent::Texts(&[]),
            "Networks whose `X-Forwarded-*` headers are believed and extended (`websocket` only), and from which PROXY headers come (`accept_proxy`); `unix` on a unix socket.",
        ),
        key(
            "accept_proxy",
            Kind::Flag,
            Absent::Flag(defaults::ACCEPT_PROXY),
            "Every connection begins with a PROXY header, of version 1 or 2, that says who the client is. It needs `trusted`; others are refused.",
        ),
        key(
            "forwarded",
            Kind::Word(words::<ForwardedFields>),
            Absent::Text(defaults::FORWARDED),
            "`websocket` only: the fields that tell a backend of the client: `x` for X-Forwarded-* and X-Real-IP, `rfc7239` for Forwarded, or `both`.",
        ),
        key(
            "client_ip_from",
            Kind::Word(words::<ClientIpFrom>),
            Absent::Text(defaults::CLIENT_IP_FROM),
            "`websocket` only: who is the client of a request from a `trusted` peer: `forwarded`, the rightmost address that is not `trusted` in the field that `forwarded` names, or `peer`.",
        ),
        key(
            "request_id",
            Kind::Flag,
            Absent::Flag(defaults::REQUEST_ID),
            "`websocket` only: each request has an X-Request-Id, a `trusted` peer's or a new one, for its backend and the access log. Without it the field passes as it came.",
        ),
        key(
            "encoded_slash",
            Kind::Word(words::<EncodedSlash>),
            Absent::Text(defaults::ENCODED_SLASH),
            "`websocket` only: what becomes of `%2f`, `%5c`, `%00` and `\\` in a path where a route with `path` has `allow` or `deny`: `refuse` answers 400. Other listeners pass them.",
        ),
        tag::TAG,
        tag::TAG_HASH,
        key(
            "handshake_timeout",
            time(100, HOUR),
            Absent::Time(defaults::HANDSHAKE_TIMEOUT),
            "From accept to routed: TLS handshake or ClientHello, and HTTP head. Never extended by bytes. Not on a plain `tcp` listener, which reads nothing before it routes.",
        ),
        key(
            "upgrade_timeout",
            time(100, HOUR),
            Absent::Time(defaults::UPGRADE_TIMEOUT),
            "`websocket` only: wait for the backend's answer to an upgrade.",
        ),
        key(
            "keep_alive_timeout",
            time(100, DAY),
            Absent::Time(defaults::KEEP_ALIVE_TIMEOUT),
            "`websocket` only: between two HTTP requests of one connection.",
        ),
        key(
            "follow_frames",
            Kind::Flag,
            Absent::Flag(defaults::FOLLOW_FRAMES),
            "`websocket` only: follow where the frames of a WebSocket begin and end. Payload is not looked at.",
        ),
        key(
            "frames",
            Kind::Table(&long_life::FRAMES),
            Absent::None,
            "`websocket` only: bounds on what clients send. They need `follow_frames`.",
        ),
        key(
            "backlog",
            number(1, 65_535),
            Absent::Number(defaults::BACKLOG),
            "The kernel's queue of connections not yet accepted; `net.core.somaxconn` bounds it too.",
        ),
        socket::TCP_KEEPALIVE,
        socket::TCP_USER_TIMEOUT,
        socket::TCP_CONGESTION,
        socket::TCP_DEFER_ACCEPT,
    ],
};

/// Keys that mean something to HTTP only.
const WEBSOCKET_ONLY: [&str; 10] = [
    "request_id",
    "forwarded",
    "client_ip_from",
    "encoded_slash",
    "tag",
    "tag_hash",
    "upgrade_timeout",
    "keep_alive_timeout",
    "follow_frames",
    "frames",
];

pub fn decode(table: &Table<'_>, pools: &[&str]) -> Option<Listener> {
    let protocol = table.maybe_word("protocol");
    let accept_proxy = table.flag("accept_proxy");
    let tls = listener_tls::decode(table, protocol);
    if protocol == Some(Protocol::Tcp) {
        for key in WEBSOCKET_ONLY {
            table.conflict(
                key,
                "only a listener with protocol = \"websocket\" has this",
            );
        }
        if !accept_proxy {
            table.conflict(
                "trusted",
                "only a listener with protocol = \"websocket\" or `accept_proxy` has this",
            );
        }
        if matches!(tls, Some(None)) && !accept_proxy {
            table.conflict(
                "handshake_timeout",
                "a plain tcp listener waits for nothing before it routes; leave it out, or give the listener `tls`",
            );
            table.conflict(
                "tcp_defer_accept",
                "on a plain tcp listener the server may speak first, and would wait for the client",
            );
        }
    }
    let follow_frames = table.flag("follow_frames");
    if !follow_frames && protocol == Some(Protocol::Websocket) {
        table.conflict("frames", "without `follow_frames` nobody sees the frames");
    }
    let name = table.text_by("name", read_name);
    let bind = table.text("bind");
    let pool = table.text_by("pool", |pool| Ok(pool.to_owned()));
    if let (Some(pool), Some(entry)) = (&pool, table.entry("pool")) {
        refuse_unknown_pool(pool, &entry, pools);
    }
    let client_ip_from: ClientIpFrom = table.word("client_ip_from");
    let names_clients = protocol == Some(Protocol::Websocket)
        && client_ip_from == ClientIpFrom::Forwarded
        && table.has("trusted");
    let of_unix_clients = |bind: &&Bind| names_clients && matches!(bind, Bind::Unix(_));
    let routes = routes(
        table,
        protocol,
        tls.as_ref(),
        pools,
        bind.as_ref()
            .filter(|bind| !accept_proxy && !of_unix_clients(bind)),
    );
    if !table.has("pool") && !table.has("route") {
        table.missing(
            "pool",
            "without `pool` and without a route every connection would be refused",
            "`pool`",
        );
    }
    // Where `trusted` as a whole is refused, its words are not looked at twice.
    // A PROXY header may announce whoever.
    let admission = admission::decode(
        table,
        bind.as_ref().filter(|_| !accept_proxy),
        names_clients,
    );
    let peers = bind
        .as_ref()
        .filter(|_| protocol != Some(Protocol::Tcp) || accept_proxy);
    super::warnings::warn_of_host_bits(table, "trusted");
    let in_chains = names_clients && trusts_unix(table);
    let read = |text: &str| read_trusted(text, peers, accept_proxy, in_chains);
    let trusted = table.texts_by("trusted", read);
    if accept_proxy {
        refuse_nobody(table, bind.as_ref(), &trusted);
    }
    if matches!(bind, Some(Bind::Unix(_))) {
        for key in socket::TCP_KEYS.iter().chain(&["tcp_defer_accept"]) {
            table.conflict(key, "this listener is a unix socket");
        }
    }
    let tcp_defer_accept = table
        .has("tcp_defer_accept")
        .then(|| socket::whole_seconds(table, "tcp_defer_accept"));
    Some(Listener {
        admission,
        protocol: protocol?,
        pool,
        routes: routes?,
        trusted,
        accept_proxy,
        forwarded: table.word("forwarded"),
        client_ip_from,
        request_id: table.flag("request_id"),
        encoded_slash: table.word("encoded_slash"),
        tag: tag::decode(table),
        tcp: socket::options(table),
        tcp_defer_accept,
        file: socket_file::decode(table, bind.as_ref()),
        handshake_timeout: table.time("handshake_timeout"),
        upgrade_timeout: table.time("upgrade_timeout"),
        keep_alive_timeout: table.time("keep_alive_timeout"),
        follow_frames,
        frames: long_life::decode_frames(&table.table("frames")),
        backlog: table.number("backlog"),
        tls: tls?,
        name: name?,
        bind: bind?,
    })
}

pub fn refuse_unknown_pool(pool: &str, entry: &super::super::entry::Entry<'_>, pools: &[&str]) {
    if !pools.contains(&pool) {
        entry.unresolved("pool", pool, pools);
    }
}

fn routes(
    table: &Table<'_>,
    protocol: Option<Protocol>,
    tls: Option<&Option<ListenerTls>>,
    pools: &[&str],
    bind: Option<&Bind>,
) -> Option<Vec<super::super::model::Route>> {
    let tables = table.tables("route");
    let decoded: Vec<_> = tables
        .iter()
        .map(|route| route::decode(route, protocol, tls, pools, bind))
        .collect();
    for (index, (table, route)) in tables.iter().zip(&decoded).enumerate() {
        let same = |earlier: &Option<_>| {
            earlier
                .as_ref()
                .zip(route.as_ref())
                .is_some_and(|(a, b)| route::same(a, b))
        };
        if decoded[..index].iter().any(same) {
            table.refuse(
                Fault::Conflict,
                "an earlier route has the same conditions; this one is never reached",
            );
        }
    }
    decoded.into_iter().collect()
}

/// One that can be a client of a listener bound to `bind`; `None`: of any. A PROXY header may
/// announce a client of either kind. `in_chains`: the peer is trusted to name its client in a
/// chain, whose other hops have addresses.
pub fn read_trusted(
    text: &str,
    bind: Option<&Bind>,
    accept_proxy: bool,
    in_chains: bool,
) -> Result<Trusted, &'static str> {
    match (read_peer(text)?, bind) {
        (Trusted::Network(_), Some(Bind::Unix(_))) if !accept_proxy && !in_chains => {
            Err("clients of a unix socket have no address; \"unix\" trusts them")
        }
        (Trusted::Unix, Some(Bind::Tcp(_))) if !accept_proxy => {
            Err("this listener is no unix socket")
        }
        (trusted, _) => Ok(trusted),
    }
}

fn trusts_unix(table: &Table<'_>) -> bool {
    let entry = table.entry("trusted").filter(|entry| entry.is_list());
    let mut items = entry.iter().flat_map(|entry| entry.items());
    items.any(|item| item.is_string() && item.string() == Some("unix"))
}

/// Without a source that may send the header every connection would be refused.
fn refuse_nobody(table: &Table<'_>, bind: Option<&Bind>, trusted: &[Trusted]) {
    let may_send = |one: &Trusted| match bind {
        Some(Bind::Unix(_)) => matches!(one, Trusted::Unix),
        Some(Bind::Tcp(_)) | None => matches!(one, Trusted::Network(_)),
    };
    let (what, needed) = match bind {
        Some(Bind::Unix(_)) => (
            "`accept_proxy` on a unix socket without `trusted` \"unix\": every connection would be refused",
            "`trusted = [\"unix\"]`",
        ),
        _ => (
            "`accept_proxy` without `trusted` networks: every connection would be refused",
            "`trusted`, the networks of the balancers in front",
        ),
    };
    if !trusted.iter().any(may_send) {
        table.missing("trusted", what, needed);
    }
}

fn read_peer(text: &str) -> Result<Trusted, &'static str> {
    if text == "unix" {
        return Ok(Trusted::Unix);
    }
    let network: Result<IpNet, _> = text.parse();
    network
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(Trusted::network)
        .map_err(|_| "it is not a network")
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{each_refused, listener, pool, right};
    use super::*;

    #[test]
    fn each_wrong_value_is_refused() {
        let tcp = |keys: &str| listener(&format!("protocol = \"tcp\"\npool = \"p\"\n{keys}"));
        let again = |name: &str, bind: &str| {
            format!(
                "{}[[listener]]\nname = \"{name}\"\nbind = \"{bind}\"\nprotocol = \"tcp\"\npool = \"p\"\n",
                tcp("")
            )
        };
        each_refused([
            (
                listener("pool = \"p\""),
                "listener[0].protocol",
                Fault::Missing,
            ),
            (
                listener("protocol = \"udp\"\npool = \"p\"\ntrusted = []"),
                "listener[0].protocol",
                Fault::Value,
            ),
            (
                listener("protocol = \"tcp\""),
                "listener[0].pool",
                Fault::Missing,
            ),
            (
                listener("protocol = \"tcp\"\npool = \"q\""),
                "listener[0].pool",
                Fault::Reference,
            ),
            (tcp("backlog = 0"), "listener[0].backlog", Fault::Value),
            (
                listener("protocol = \"websocket\"\npool = \"p\"\nhandshake_timeout = \"0s\""),
                "listener[0].handshake_timeout",
                Fault::Value,
            ),
            // It was accepted and bounded nothing.
            (
                tcp("handshake_timeout = \"9s\""),
                "listener[0].handshake_timeout",
                Fault::Conflict,
            ),
            (
                tcp("idle_timeout = \"1h\""),
                "listener[0].idle_timeout",
                Fault::UnknownKey,
            ),
            (
                tcp("trusted = [\"10.0.0.0/8\"]"),
                "listener[0].trusted",
                Fault::Conflict,
            ),
            (
                tcp("upgrade_timeout = \"1s\""),
                "listener[0].upgrade_timeout",
                Fault::Conflict,
            ),
            (
                tcp("follow_frames = false"),
                "listener[0].follow_frames",
                Fault::Conflict,
            ),
            (
                tcp("keep_alive_timeout = \"1s\""),
                "listener[0].keep_alive_timeout",
                Fault::Conflict,
            ),
            (
                tcp("client_ip_from = \"peer\""),
                "listener[0].client_ip_from",
                Fault::Conflict,
            ),
            (
                listener("protocol = \"websocket\"\npool = \"p\"\nclient_ip_from = \"x\""),
                "listener[0].client_ip_from",
                Fault::Value,
            ),
            (again("l", "[::]:81"), "listener[1].name", Fault::Conflict),
            (
                again("m", "127.0.0.1:80"),
                "listener[1].bind",
                Fault::Conflict,
            ),
            (
                pool("").replace("[::]:80", "chat:80"),
                "listener[0].bind",
                Fault::Value,
            ),
        ]);
    }

    #[test]
    fn a_listener_that_reads_before_it_routes_has_a_handshake_timeout() {
        let websocket = "protocol = \"websocket\"";
        let passthrough = "protocol = \"tcp\"\ntls = { passthrough = true }";
        let terminated =
            "protocol = \"tcp\"\ntls = { certificates = [{ cert = \"a\", key = \"b\" }] }";
        for keys in [websocket, passthrough, terminated] {
            right(&listener(&format!(
                "{keys}\npool = \"p\"\nhandshake_timeout = \"9s\""
            )));
        }
    }

    #[test]
    fn networks_and_single_addresses_are_trusted() {
        let trusted = "trusted = [\"10.0.0.0/8\", \"fd00::/8\", \"192.0.2.1\"]";
        let config = right(&listener(&format!(
            "protocol = \"websocket\"\npool = \"p\"\n{trusted}"
        )));
        let networks = ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"];
        let networks = networks.map(|network| Trusted::Network(network.parse().unwrap()));
        assert_eq!(config.listeners[0].trusted, networks);
        each_refused([(
            listener(
                "protocol = \"websocket\"\npool = \"p\"\ntrusted = [\"::1\", \"10.0.0.0/33\"]",
            ),
            "listener[0].trusted[1]",
            Fault::Value,
        )]);
    }

    #[test]
    fn peers_of_a_unix_socket_are_trusted_by_the_word_unix_alone() {
        let of = |bind: &str, trusted: &str| {
            listener(&format!(
                "protocol = \"websocket\"\npool = \"p\"\ntrusted = [\"{trusted}\"]"
            ))
            .replace("[::]:80", bind)
        };
        // The peer of a chain that goes on over networks.
        let both = "unix\", \"10.0.0.0/8";
        assert_eq!(
            right(&of("unix:/run/a.sock", both)).listeners[0]
                .trusted
                .len(),
            2
        );
        let peers_only = of("unix:/run/a.sock", both)
            .replace("pool = \"p\"", "pool = \"p\"\nclient_ip_from = \"peer\"");
        let announced = |bind: &str| {
            of(bind, both).replace("pool = \"p\"", "pool = \"p\"\naccept_proxy = true")
        };
        right(&announced("unix:/run/a.sock"));
        right(&announced("[::]:80"));
        let config = right(&of("unix:/run/a.sock", "unix"));
        let trusted = &config.listeners[0].trusted[0];
        assert!(trusted.covers(None) && !trusted.covers(Some([127, 0, 0, 1].into())));
        each_refused([
            (
                of("unix:/run/a.sock", "10.0.0.0/8"),
                "listener[0].trusted[0]",
                Fault::Value,
            ),
            (
                of("[::]:80", "unix"),
                "listener[0].trusted[0]",
                Fault::Value,
            ),
            (peers_only, "listener[0].trusted[1]", Fault::Value),
        ]);
    }
}
