//! `[[listener.route]]`: what a connection must show to go to a pool.

use super::super::address::host_name;
use super::super::keys::{Absent, Kind, Section, key};
use super::super::model::{Bind, ListenerTls, Protocol, Route};
use super::super::table::Table;
use super::admission;
use super::listener::refuse_unknown_pool;
use crate::base::path::normalize_path;

const HOST: &str = "a host name such as \"chat.example.org\" or \"*.example.org\", without a port";

pub static ROUTE: Section = Section {
    doc: "All conditions that are given must hold.",
    keys: &[
        key(
            "sni",
            Kind::Text(HOST),
            Absent::None,
            "`tcp` with TLS only: name that the client asks for; `*.` stands for one label.",
        ),
        key(
            "alpn",
            Kind::Text("a protocol name of 1 to 255 characters, such as \"mqtt\""),
            Absent::None,
            "`tcp` with TLS passthrough only: one of the protocols that the client offers.",
        ),
        key(
            "host",
            Kind::Text(HOST),
            Absent::None,
            "`websocket` only: the Host header; `*.` stands for one label.",
        ),
        key(
            "path",
            Kind::Text("a path that begins with \"/\", without a query"),
            Absent::None,
            "`websocket` only: prefix of the path at a segment boundary: `/chat` matches `/chat/x`, not `/chatter`. It is compared with the normal form of the request's path; with `allow` or `deny` also without regard to case.",
        ),
        key(
            "allow",
            Kind::Texts(admission::NETWORKS),
            Absent::Texts(&[]),
            "Networks whose clients may use this route, once its conditions hold: others get 403, on a `tcp` listener a reset. Empty: everybody.",
        ),
        key(
            "deny",
            Kind::Texts(admission::NETWORKS),
            Absent::Texts(&[]),
            "Networks whose clients may not use it, whatever `allow` says.",
        ),
        key(
            "pool",
            Kind::Text("the name of a [pool.NAME] of this file"),
            Absent::Required,
            "Where it leads.",
        ),
    ],
};

const CONDITIONS: [&str; 4] = ["sni", "alpn", "host", "path"];

/// `protocol` and `tls` are `None` when they were wrong: then nothing is said of conditions that need them.
pub fn decode(
    table: &Table<'_>,
    protocol: Option<Protocol>,
    tls: Option<&Option<ListenerTls>>,
    pools: &[&str],
    bind: Option<&Bind>,
) -> Option<Route> {
    if !CONDITIONS.iter().any(|key| table.has(key)) {
        table.missing(
            "",
            "a route without a condition; `pool` of the listener takes the rest",
            "sni, alpn, host or path",
        );
    }
    refuse_unusable(table, protocol, tls);
    let route = Route {
        sni: table.text_by("sni", read_pattern),
        alpn: table.text_by("alpn", read_alpn),
        host: table.text_by("host", read_pattern),
        path: table.text_by("path", read_path),
        pool: table.text_by("pool", |pool| Ok(pool.to_owned()))?,
        access: admission::access(table, bind),
    };
    if let Some(entry) = table.entry("pool") {
        refuse_unknown_pool(&route.pool, &entry, pools);
    }
    Some(route)
}

/// Whether both match the same connections.
pub fn same(a: &Route, b: &Route) -> bool {
    (&a.sni, &a.alpn, &a.host, &a.path) == (&b.sni, &b.alpn, &b.host, &b.path)
}

/// Refuses conditions that the listener can never know.
fn refuse_unusable(
    table: &Table<'_>,
    protocol: Option<Protocol>,
    tls: Option<&Option<ListenerTls>>,
) {
    let Some(protocol) = protocol else { return };
    if protocol == Protocol::Websocket {
        table.conflict(
            "sni",
            "a websocket listener routes by `host`, which a client cannot leave out",
        );
        table.conflict("alpn", "a websocket listener speaks http/1.1 only");
        return;
    }
    for key in ["host", "path"] {
        table.conflict(
            key,
            "a tcp listener does not read HTTP; protocol = \"websocket\" does",
        );
    }
    if matches!(tls, Some(None)) {
        table.conflict("sni", "a plain listener sees no name; give it `tls`");
    }
    let agrees = match tls {
        Some(Some(ListenerTls::Terminate(terminate))) => !terminate.alpn.is_empty(),
        Some(None) => false,
        Some(Some(ListenerTls::Passthrough)) | None => true,
    };
    if !agrees {
        table.conflict(
            "alpn",
            "only `tls = { passthrough = true }`, or `tls` with `alpn`, routes by it",
        );
    }
}

/// A host name, or `*.` before one.
pub fn read_pattern(text: &str) -> Result<String, &'static str> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if name.ends_with('.') {
        return Err("a trailing dot never matches");
    }
    let name = host_name(name)?;
    Ok(if text.starts_with("*.") {
        format!("*.{name}")
    } else {
        name
    })
}

/// The name of a protocol as RFC 7301 has it.
pub fn read_alpn(text: &str) -> Result<String, &'static str> {
    match text.len() {
        1..=255 => Ok(text.to_owned()),
        _ => Err("its length is wrong"),
    }
}

/// A path as HTTP sends it, in the form that paths of requests are compared in.
pub fn read_path(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("it must begin with \"/\"");
    }
    if text.contains(['?', '#']) {
        return Err("a query or a fragment is no part of a path");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it has a character that must be percent-encoded");
    }
    if text.contains(';') {
        return Err("parameters behind a \";\" are left out when a path is matched");
    }
    Ok(normalize_path(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, listener, right};

    fn with_route(listener_keys: &str, route: &str) -> String {
        listener(&format!("{listener_keys}\n[[listener.route]]\n{route}\n"))
    }

    fn websocket(route: &str) -> String {
        with_route("protocol = \"websocket\"", route)
    }

    fn passthrough(route: &str) -> String {
        with_route("protocol = \"tcp\"\ntls = { passthrough = true }", route)
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let plain = "protocol = \"tcp\"\npool = \"p\"";
        let terminated =
            "protocol = \"tcp\"\ntls = { certificates = [{ cert = \"a\", key = \"b\" }] }";
        each_refused([
            (
                websocket("path = \"/\""),
                "listener[0].route[0].pool",
                Fault::Missing,
            ),
            (
                websocket("path = \"/\"\npool = \"q\""),
                "listener[0].route[0].pool",
                Fault::Reference,
            ),
            (
                websocket("pool = \"p\""),
                "listener[0].route[0]",
                Fault::Missing,
            ),
            (
                websocket("pool = \"p\"\npath = \"chat\""),
                "listener[0].route[0].path",
                Fault::Value,
            ),
            (
                websocket("pool = \"p\"\npath = \"/a?b\""),
                "listener[0].route[0].path",
                Fault::Value,
            ),
            (
                websocket("pool = \"p\"\npath = \"/a;b\""),
                "listener[0].route[0].path",
                Fault::Value,
            ),
            (
                websocket(
                    "pool = \"p\"\npath = \"/a\"\n[[listener.route]]\npool = \"p\"\npath = \"//%61\"",
                ),
                "listener[0].route[1]",
                Fault::Conflict,
            ),
            (
                websocket("pool = \"p\"\nhost = \"a:80\""),
                "listener[0].route[0].host",
                Fault::Value,
            ),
            (
                websocket("pool = \"p\"\nhost = \"a.*.org\""),
                "listener[0].route[0].host",
                Fault::Value,
            ),
            (
                websocket("pool = \"p\"\nhost = \"*\""),
                "listener[0].route[0].host",
                Fault::Value,
            ),
            (
                websocket("pool = \"p\"\nhost = \"a.org.\""),
                "listener[0].route[0].host",
                Fault::Value,
            ),
            (
                websocket("pool = \"p\"\nsni = \"a.org\""),
                "listener[0].route[0].sni",
                Fault::Conflict,
            ),
            (
                websocket("pool = \"p\"\nalpn = \"mqtt\""),
                "listener[0].route[0].alpn",
                Fault::Conflict,
            ),
            (
                passthrough("pool = \"p\"\nhost = \"a.org\""),
                "listener[0].route[0].host",
                Fault::Conflict,
            ),
            (
                passthrough("pool = \"p\"\npath = \"/\""),
                "listener[0].route[0].path",
                Fault::Conflict,
            ),
            (
                passthrough("pool = \"p\"\nalpn = \"\""),
                "listener[0].route[0].alpn",
                Fault::Value,
            ),
            (
                with_route(plain, "pool = \"p\"\nsni = \"a.org\""),
                "listener[0].route[0].sni",
                Fault::Conflict,
            ),
            (
                with_route(plain, "pool = \"p\"\nalpn = \"mqtt\""),
                "listener[0].route[0].alpn",
                Fault::Conflict,
            ),
            (
                with_route(terminated, "pool = \"p\"\nalpn = \"mqtt\""),
                "listener[0].route[0].alpn",
                Fault::Conflict,
            ),
            (
                websocket(
                    "pool = \"p\"\nhost = \"a.org\"\n[[listener.route]]\npool = \"p\"\nhost = \"A.org\"",
                ),
                "listener[0].route[1]",
                Fault::Conflict,
            ),
        ]);
    }

    #[test]
    fn names_are_compared_in_lower_case() {
        let route =
            &right(&websocket("pool = \"p\"\nhost = \"*.Example.ORG\"")).listeners[0].routes[0];
        assert_eq!(route.host.as_deref(), Some("*.example.org"));
        let route = &right(&passthrough(
            "pool = \"p\"\nsni = \"Example.ORG\"\nalpn = \"MQTT\"",
        ))
        .listeners[0]
            .routes[0];
        assert_eq!(
            (route.sni.as_deref(), route.alpn.as_deref()),
            (Some("example.org"), Some("MQTT"))
        );
    }
}
