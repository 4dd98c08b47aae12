//! `[[listener.route]]`: conditions of a connection that goes to a pool.

use super::admission::Access;
use super::listener_tls::{ListenerTls, read_alpn};
use crate::base::path::normalize_path;
use crate::config::address::host_name;
use crate::config::declare::Parts;
use crate::config::reader::TableReader;
use crate::config::spec::text;
use crate::config::value_types;

const HOST: &str = "a host name such as \"chat.example.org\" or \"*.example.org\", without a port";

table! {
    /// All conditions that are given must hold.
    #[derive(Eq)]
    pub struct Route {
        /// Name that the client asks for; `tcp` with TLS only. `*.` stands for one label.
        sni: Option<String> = text(HOST), optional by value_types::text(read_pattern);
        /// Protocol that the client offers; `tcp` with TLS only. With TLS passthrough one of its
        /// list, where TLS is terminated the one agreed on.
        alpn: Option<String> = text("a protocol name of 1 to 255 characters, such as \"mqtt\""),
            optional by value_types::text(read_alpn);
        /// Value of the Host header, without its port; `websocket` only. `*.` stands for one label.
        host: Option<String> = text(HOST), optional by value_types::text(read_pattern);
        /// Prefix of the path at a segment boundary: `/chat` matches `/chat/x`, not `/chatter`;
        /// `websocket` only. It is compared with the normal form of the request's path (`/%63hat`,
        /// `//chat` and `/a/../chat` too); with `allow` or `deny` also without regard to case.
        path: Option<String> = text("a path that begins with \"/\", without a query"),
            optional by value_types::text(read_path);
        /// Pool of the connections that match.
        pool: String = text("the name of a [pool.NAME] of this file"), required;
        /// Clients that may use the route once it has matched.
        access: Access, keys;
    }
    rules refuse_unconditional;
}

impl Route {
    /// Conditions with their keys.
    pub(in crate::config) fn conditions(&self) -> [(&'static str, &Option<String>); 4] {
        [
            ("sni", &self.sni),
            ("alpn", &self.alpn),
            ("host", &self.host),
            ("path", &self.path),
        ]
    }
}

fn refuse_unconditional(table: &TableReader<'_>, _: &mut Parts<Route>) {
    if !["sni", "alpn", "host", "path"]
        .iter()
        .any(|key| table.has(key))
    {
        table.missing(
            "",
            "a route without a condition; `pool` of the listener takes the rest",
            "sni, alpn, host or path",
        );
    }
}

/// Refuses conditions that a `websocket` listener can never know.
pub(super) fn refuse_of_websocket(route: &TableReader<'_>) {
    let why = "a websocket listener routes by `host`, which every client sends";
    route.conflict("sni", why);
    route.conflict("alpn", "a websocket listener speaks http/1.1 only");
}

/// Refuses conditions that a `tcp` listener can never know. `tls` is `None` when it was wrong: then
/// nothing is said of conditions that need it.
pub(super) fn refuse_of_tcp(route: &TableReader<'_>, tls: Option<&Option<ListenerTls>>) {
    route.conflicts(
        &["host", "path"],
        "a tcp listener does not read HTTP; protocol = \"websocket\" does",
    );
    if tls == Some(&None) {
        route.conflict("sni", "a plain listener sees no server name; give it `tls`");
    }
    let agrees = match tls {
        Some(Some(ListenerTls::Terminate(terminate))) => !terminate.alpn.is_empty(),
        Some(None) => false,
        Some(Some(ListenerTls::Passthrough)) | None => true,
    };
    if !agrees {
        route.conflict(
            "alpn",
            "only `tls = { passthrough = true }`, or `tls` with `alpn`, routes by it",
        );
    }
}

/// A host name, or `*.` before one.
fn read_pattern(text: &str) -> Result<String, &'static str> {
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", text),
    };
    if name.ends_with('.') {
        return Err("a trailing dot never matches");
    }
    Ok(format!("{wildcard}{}", host_name(name)?))
}

/// A path as HTTP sends it, in the form that paths of requests are compared in.
fn read_path(text: &str) -> Result<String, &'static str> {
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
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, listener, right};

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
                ErrorKind::Missing,
            ),
            (
                websocket("path = \"/\"\npool = \"q\""),
                "listener[0].route[0].pool",
                ErrorKind::Reference,
            ),
            (
                websocket("pool = \"p\""),
                "listener[0].route[0]",
                ErrorKind::Missing,
            ),
            (
                websocket("pool = \"p\"\npath = \"chat\""),
                "listener[0].route[0].path",
                ErrorKind::Value,
            ),
            (
                websocket("pool = \"p\"\npath = \"/a?b\""),
                "listener[0].route[0].path",
                ErrorKind::Value,
            ),
            (
                websocket("pool = \"p\"\npath = \"/a;b\""),
                "listener[0].route[0].path",
                ErrorKind::Value,
            ),
            (
                websocket(
                    "pool = \"p\"\npath = \"/a\"\n[[listener.route]]\npool = \"p\"\npath = \"//%61\"",
                ),
                "listener[0].route[1]",
                ErrorKind::Conflict,
            ),
            (
                websocket("pool = \"p\"\nhost = \"a:80\""),
                "listener[0].route[0].host",
                ErrorKind::Value,
            ),
            (
                websocket("pool = \"p\"\nhost = \"a.*.org\""),
                "listener[0].route[0].host",
                ErrorKind::Value,
            ),
            (
                websocket("pool = \"p\"\nhost = \"*\""),
                "listener[0].route[0].host",
                ErrorKind::Value,
            ),
            (
                websocket("pool = \"p\"\nhost = \"a.org.\""),
                "listener[0].route[0].host",
                ErrorKind::Value,
            ),
            (
                websocket("pool = \"p\"\nsni = \"a.org\""),
                "listener[0].route[0].sni",
                ErrorKind::Conflict,
            ),
            (
                websocket("pool = \"p\"\nalpn = \"mqtt\""),
                "listener[0].route[0].alpn",
                ErrorKind::Conflict,
            ),
            (
                passthrough("pool = \"p\"\nhost = \"a.org\""),
                "listener[0].route[0].host",
                ErrorKind::Conflict,
            ),
            (
                passthrough("pool = \"p\"\npath = \"/\""),
                "listener[0].route[0].path",
                ErrorKind::Conflict,
            ),
            (
                passthrough("pool = \"p\"\nalpn = \"\""),
                "listener[0].route[0].alpn",
                ErrorKind::Value,
            ),
            (
                with_route(plain, "pool = \"p\"\nsni = \"a.org\""),
                "listener[0].route[0].sni",
                ErrorKind::Conflict,
            ),
            (
                with_route(plain, "pool = \"p\"\nalpn = \"mqtt\""),
                "listener[0].route[0].alpn",
                ErrorKind::Conflict,
            ),
            (
                with_route(terminated, "pool = \"p\"\nalpn = \"mqtt\""),
                "listener[0].route[0].alpn",
                ErrorKind::Conflict,
            ),
            (
                websocket(
                    "pool = \"p\"\nhost = \"a.org\"\n[[listener.route]]\npool = \"p\"\nhost = \"A.org\"",
                ),
                "listener[0].route[1]",
                ErrorKind::Conflict,
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
