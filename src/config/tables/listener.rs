//! `[[listener]]`: a bound address with its protocol, TLS and rules.

use std::time::Duration;

use super::admission::{
    Admission, NETWORKS, Trusted, networks, refuse_other_clients, refuse_others,
};
use super::http::{HEADER_SIZE, HEADERS};
use super::listener_tls::{self, ListenerTls};
use super::long_life::FrameLimits;
use super::route::{self, Route};
use super::socket::{TCP_KEYS, TcpOptions, whole_seconds};
use super::socket_file::{FileRights, file_rights};
use super::tag::Tag;
use crate::base::head_limits::HeadLimits;
use crate::config::address::Bind;
use crate::config::declare::Parts;
use crate::config::error::ErrorKind;
use crate::config::name::read_name;
use crate::config::reader::TableReader;
use crate::config::spec::{DAY, HOUR, number, seconds, text, texts, time};
use crate::config::value_types::{self, parsed};

/// Allowed for `bind`; the admin and the metrics endpoint have the same.
pub(super) const BIND: &str =
    "an IP address and a port, such as \"0.0.0.0:8443\" or \"[::]:8443\", or \"unix:/path\"";

table! {
    /// A bound address with its protocol, TLS and rules.
    pub struct Listener {
        /// Unique name in logs, metrics and the admin endpoint. A reload knows the listener by it.
        name: String = text("a unique name of letters, digits and - _ . :"),
            required by value_types::text(read_name);
        /// Address that it listens on; `[::]` takes IPv4 and IPv6.
        bind: Bind = text(BIND), required by parsed;
        /// `tcp` relays bytes as they are; `websocket` speaks HTTP/1.1, checks WebSocket upgrades
        /// and proxies other requests.
        protocol: Protocol, required;
        /// TLS that is terminated, or passed through and routed by what the client says first.
        /// Without it: plain.
        tls: Option<ListenerTls>, optional;
        /// Pool of connections that no route matches. Without it they are refused.
        pool: Option<String> = text("the name of a [pool.NAME] of this file"), optional;
        /// Rules in order; the first that matches decides.
        routes as "route": Vec<Route>, empty;
        /// Clients that are let in.
        admission: Admission, keys;
        /// Networks whose `X-Forwarded-*` headers are believed and extended (`websocket` only), and
        /// from which PROXY headers come (`accept_proxy`); `unix` on a unix socket.
        trusted: Vec<Trusted> = texts(NETWORKS), default(Vec::new()) by networks;
        /// Every connection begins with a PROXY header, of version 1 or 2, that says who the client
        /// is. It needs `trusted`; others are refused.
        ///
        /// A header that anybody may send would let anybody be anyone.
        accept_proxy: bool, default(false);
        /// Fields that tell a backend of the client: `x` for X-Forwarded-* and X-Real-IP, `rfc7239`
        /// for Forwarded, or `both`; `websocket` only.
        ///
        /// Application servers read them.
        forwarded: ForwardedFields, default(ForwardedFields::X);
        /// Client of a request from a `trusted` peer: `forwarded`, the rightmost address that is
        /// not `trusted` in the field that `forwarded` names, or `peer`; `websocket` only.
        ///
        /// A balancer in front carries many clients on one connection; an operator who trusts it
        /// wants to tell them apart.
        client_ip_from: ClientIpFrom, default(ClientIpFrom::Forwarded);
        /// Each request has an X-Request-Id, a `trusted` peer's or a new one, for its backend and
        /// the access log; `websocket` only. Without it the field passes as it came.
        ///
        /// A request that has no name cannot be followed through the logs of those who handled it.
        request_id: bool, default(true);
        /// Handling of `%2f`, `%5c`, `%00` and `\` in a path where a route with `path` has `allow`
        /// or `deny`: `refuse` answers 400; `websocket` only. Other listeners pass them.
        ///
        /// Readers differ on whether it separates, and a guard by path must not be read two ways.
        encoded_slash: EncodedSlash, default(EncodedSlash::Refuse);
        /// Tag of its sessions.
        tag: Option<Tag>, keys;
        /// Time from accept to routed: TLS handshake or ClientHello, and HTTP head, but not the
        /// wait for a turn. Never extended by bytes. Not on a plain `tcp` listener, which reads
        /// nothing before it routes.
        ///
        /// Enough for a TLS handshake over a bad mobile link, short enough that idle openers do not
        /// pile up.
        handshake_timeout: Duration = time(100, HOUR), default(seconds(10));
        /// Longest wait for the backend's answer to an upgrade; `websocket` only.
        ///
        /// Application servers authenticate in the upgrade; beyond this the client has given up.
        upgrade_timeout: Duration = time(100, HOUR), default(seconds(10));
        /// Longest time between two HTTP requests of one connection; `websocket` only.
        ///
        /// Longer than the polling interval of Socket.IO (25 s), as nginx (75 s) and HAProxy users
        /// set it.
        keep_alive_timeout: Duration = time(100, DAY), default(seconds(60));
        /// Longest head of a request, from its request line to the empty line; a longer one is a
        /// 431; `websocket` only.
        ///
        /// As Node's `--max-http-header-size`: cookies and the tokens of single sign-on are long. A
        /// head is held here until it is whole.
        max_header_size: usize = HEADER_SIZE, default(HeadLimits::REQUEST.max_bytes);
        /// Most header fields of a request; one with more is a 431; `websocket` only.
        ///
        /// As Apache's `LimitRequestFields`; browsers send 10 to 30.
        max_headers: usize = HEADERS, default(HeadLimits::REQUEST.max_fields);
        /// Follow where the frames of a WebSocket begin and end; `websocket` only. Payload is not
        /// looked at.
        ///
        /// The cost cannot be measured, and all that acts between two frames needs it.
        follow_frames: bool, default(true);
        /// Bounds on the frames of clients; `websocket` only. They need `follow_frames`.
        frames: FrameLimits, nested;
        /// Length of the kernel's queue of connections not yet accepted; `net.core.somaxconn`
        /// bounds it too.
        ///
        /// The kernel's own maximum (`net.core.somaxconn`) since Linux 5.4: a reconnect storm waits
        /// here instead of failing.
        backlog: u32 = number(1, 65_535), default(4_096);
        /// Options of the clients' sockets.
        tcp: TcpOptions, keys;
        /// Time that the kernel keeps a connection until its client has said something, about. Only
        /// where the client speaks first: `websocket`, `tls` or `accept_proxy`.
        tcp_defer_accept: Option<Duration> = time(1_000, HOUR), optional by whole_seconds;
        /// Rights of the file of a unix socket.
        file: FileRights, keys by file_rights;
    }
    rules refuse_useless;
}

words! {
    /// Protocols of a listener.
    pub enum Protocol {
        Tcp = "tcp",
        Websocket = "websocket",
    }
}

words! {
    /// Client of a request that a `trusted` peer passes on.
    pub enum ClientIpFrom {
        /// Named by the forwarding field.
        Forwarded = "forwarded",
        /// The peer itself.
        Peer = "peer",
    }
}

words! {
    /// Header fields that tell a backend where a request came from.
    pub enum ForwardedFields {
        /// `X-Forwarded-For`, `-Proto`, `-Host` and `X-Real-IP`.
        X = "x",
        /// `Forwarded`.
        Rfc7239 = "rfc7239",
        Both = "both",
    }
}

impl ForwardedFields {
    pub fn has_x(self) -> bool {
        matches!(self, Self::X | Self::Both)
    }

    pub fn has_rfc7239(self) -> bool {
        matches!(self, Self::Rfc7239 | Self::Both)
    }
}

words! {
    /// Handling of `%2f`, `%5c`, `%00` and `\` in a path by a listener with a guarded path.
    pub enum EncodedSlash {
        /// 400.
        Refuse = "refuse",
        Pass = "pass",
    }
}

impl Listener {
    /// Limits of a request's head.
    pub fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            max_bytes: self.max_header_size,
            max_fields: self.max_headers,
        }
    }
}

/// Keys that mean something to HTTP only.
const WEBSOCKET_ONLY: [&str; 12] = [
    "request_id",
    "forwarded",
    "client_ip_from",
    "encoded_slash",
    "tag",
    "tag_hash",
    "upgrade_timeout",
    "keep_alive_timeout",
    "max_header_size",
    "max_headers",
    "follow_frames",
    "frames",
];

fn refuse_useless(table: &TableReader<'_>, listener: &mut Parts<Listener>) {
    match listener.protocol {
        Some(Protocol::Tcp) => refuse_of_tcp(table, listener),
        Some(Protocol::Websocket) => refuse_of_websocket(table, listener),
        None => {}
    }
    if !table.has("pool") && !table.has("route") {
        table.missing(
            "pool",
            "without `pool` and without a route every connection would be refused",
            "`pool`",
        );
    }
    refuse_peers(table, listener);
    refuse_same_routes(table, listener.routes.as_deref());
    if matches!(listener.bind, Some(Bind::Unix(_))) {
        let why = "this listener is a unix socket";
        table.conflicts(&TCP_KEYS, why);
        table.conflict("tcp_defer_accept", why);
    }
}

fn refuse_of_tcp(table: &TableReader<'_>, listener: &Parts<Listener>) {
    let accept_proxy = listener.accept_proxy == Some(true);
    let why = "only a listener with protocol = \"websocket\" has this";
    table.conflicts(&WEBSOCKET_ONLY, why);
    if !accept_proxy {
        let why = "only a listener with protocol = \"websocket\" or `accept_proxy` has this";
        table.conflict("trusted", why);
    }
    if listener.tls == Some(None) && !accept_proxy {
        table.conflict(
            "handshake_timeout",
            "a plain tcp listener waits for nothing before it routes; leave it out, or give the \
             listener `tls`",
        );
        table.conflict(
            "tcp_defer_accept",
            "on a plain tcp listener the server may speak first, and would wait for the client",
        );
    }
    for route in table.tables("route") {
        route::refuse_of_tcp(&route, listener.tls.as_ref());
    }
}

fn refuse_of_websocket(table: &TableReader<'_>, listener: &Parts<Listener>) {
    if listener.follow_frames == Some(false) {
        table.conflict(
            "frames",
            "the frames of clients are bounded only with `follow_frames`",
        );
    }
    if table.has("tls") {
        let tls = listener.tls.as_ref().and_then(Option::as_ref);
        listener_tls::refuse_of_websocket(table, tls);
    }
    for route in table.tables("route") {
        route::refuse_of_websocket(&route);
    }
}

/// Refuses networks that no client of this listener can have. A PROXY header may announce any
/// client, and an HTTP balancer in front names clients that have addresses.
fn refuse_peers(table: &TableReader<'_>, listener: &Parts<Listener>) {
    if listener.accept_proxy == Some(true) {
        refuse_untrusting(table, listener);
        return;
    }
    let names_clients = listener.protocol == Some(Protocol::Websocket)
        && listener.client_ip_from == Some(ClientIpFrom::Forwarded)
        && table.has("trusted");
    let bind = listener.bind.as_ref();
    refuse_other_clients(table, bind);
    let is_unix = matches!(bind, Some(Bind::Unix(_)));
    if is_unix && !names_clients {
        table.conflict(
            "per_source",
            "clients of a unix socket have no address; `max_connections` and \
             `max_connection_rate` of the listener bound them together",
        );
    }
    for route in table.tables("route") {
        refuse_other_clients(&route, bind.filter(|_| !(is_unix && names_clients)));
    }
    // Where `trusted` as a whole is refused, its words are not looked at twice.
    if let Some(bind) = bind.filter(|_| listener.protocol != Some(Protocol::Tcp)) {
        let trusted = listener.trusted.as_deref().unwrap_or_default();
        let has_chains = names_clients && trusted.contains(&Trusted::Unix);
        refuse_others(table, "trusted", bind, has_chains);
    }
}

/// Without a source that may send the header every connection would be refused.
fn refuse_untrusting(table: &TableReader<'_>, listener: &Parts<Listener>) {
    let trusted = listener.trusted.as_deref().unwrap_or_default();
    if matches!(listener.bind, Some(Bind::Unix(_))) {
        if !trusted.contains(&Trusted::Unix) {
            table.missing(
                "trusted",
                "`accept_proxy` on a unix socket without `trusted` \"unix\": every connection \
                 would be refused",
                "`trusted = [\"unix\"]`",
            );
        }
    } else if !trusted.iter().any(|one| matches!(one, Trusted::Network(_))) {
        table.missing(
            "trusted",
            "`accept_proxy` without `trusted` networks: every connection would be refused",
            "`trusted`, the networks of the balancers in front",
        );
    }
}

fn refuse_same_routes(table: &TableReader<'_>, routes: Option<&[Route]>) {
    let tables = table.tables("route");
    for (index, (table, route)) in tables.iter().zip(routes.unwrap_or_default()).enumerate() {
        let mut earlier = routes.into_iter().flatten().take(index);
        if earlier.any(|other| route.conditions() == other.conditions()) {
            table.refuse(
                ErrorKind::Conflict,
                "an earlier route has the same conditions, so this one is never reached",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{each_refused, listener, pool, right};

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
                ErrorKind::Missing,
            ),
            (
                listener("protocol = \"udp\"\npool = \"p\"\ntrusted = []"),
                "listener[0].protocol",
                ErrorKind::Value,
            ),
            (
                listener("protocol = \"tcp\""),
                "listener[0].pool",
                ErrorKind::Missing,
            ),
            (
                listener("protocol = \"tcp\"\npool = \"q\""),
                "listener[0].pool",
                ErrorKind::Reference,
            ),
            (tcp("backlog = 0"), "listener[0].backlog", ErrorKind::Value),
            (
                listener("protocol = \"websocket\"\npool = \"p\"\nhandshake_timeout = \"0s\""),
                "listener[0].handshake_timeout",
                ErrorKind::Value,
            ),
            // It was accepted and bounded nothing.
            (
                tcp("handshake_timeout = \"9s\""),
                "listener[0].handshake_timeout",
                ErrorKind::Conflict,
            ),
            (
                tcp("idle_timeout = \"1h\""),
                "listener[0].idle_timeout",
                ErrorKind::UnknownKey,
            ),
            (
                tcp("trusted = [\"10.0.0.0/8\"]"),
                "listener[0].trusted",
                ErrorKind::Conflict,
            ),
            (
                tcp("upgrade_timeout = \"1s\""),
                "listener[0].upgrade_timeout",
                ErrorKind::Conflict,
            ),
            (
                tcp("follow_frames = false"),
                "listener[0].follow_frames",
                ErrorKind::Conflict,
            ),
            (
                tcp("keep_alive_timeout = \"1s\""),
                "listener[0].keep_alive_timeout",
                ErrorKind::Conflict,
            ),
            (
                tcp("max_header_size = \"16KiB\""),
                "listener[0].max_header_size",
                ErrorKind::Conflict,
            ),
            (
                tcp("max_headers = 100"),
                "listener[0].max_headers",
                ErrorKind::Conflict,
            ),
            (
                tcp("client_ip_from = \"peer\""),
                "listener[0].client_ip_from",
                ErrorKind::Conflict,
            ),
            (
                listener("protocol = \"websocket\"\npool = \"p\"\nclient_ip_from = \"x\""),
                "listener[0].client_ip_from",
                ErrorKind::Value,
            ),
            (
                again("l", "[::]:81"),
                "listener[1].name",
                ErrorKind::Conflict,
            ),
            (
                again("m", "127.0.0.1:80"),
                "listener[1].bind",
                ErrorKind::Conflict,
            ),
            (
                pool("").replace("[::]:80", "chat:80"),
                "listener[0].bind",
                ErrorKind::Value,
            ),
        ]);
    }

    #[test]
    fn the_head_of_a_request_is_bounded() {
        let web = |keys: &str| listener(&format!("protocol = \"websocket\"\npool = \"p\"\n{keys}"));
        let limits = |keys: &str| right(&web(keys)).listeners[0].head_limits();
        assert_eq!(limits(""), HeadLimits::REQUEST);
        let most = limits("max_header_size = \"256KiB\"\nmax_headers = 1000");
        assert_eq!((most.max_bytes, most.max_fields), (256 << 10, 1000));
        let least = limits("max_header_size = \"1KiB\"\nmax_headers = 1");
        assert_eq!((least.max_bytes, least.max_fields), (1 << 10, 1));
        for (key, wrong) in [
            ("max_header_size", "\"1023B\""),
            ("max_header_size", "\"257KiB\""),
            ("max_headers", "0"),
            ("max_headers", "1001"),
        ] {
            each_refused([(
                web(&format!("{key} = {wrong}")),
                &*format!("listener[0].{key}"),
                ErrorKind::Value,
            )]);
        }
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
            ErrorKind::Value,
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
                ErrorKind::Value,
            ),
            (
                of("[::]:80", "unix"),
                "listener[0].trusted[0]",
                ErrorKind::Value,
            ),
            (peers_only, "listener[0].trusted[1]", ErrorKind::Value),
        ]);
    }
}
