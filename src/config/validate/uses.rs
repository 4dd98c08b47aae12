//! Keys of a pool beside the listeners that use it: without a connection that gives a key a meaning
//! it would do nothing.

use crate::config::hash_key::HashKey;
use crate::config::reader::TableReader;
use crate::config::tables::{
    Activity, Balance, Global, Listener, ListenerTls, Pool, Protocol, ReadPool, UntoldSessions,
};

/// Keys that mean something to HTTP requests only.
const WEBSOCKET_ONLY: [(&str, &str); 12] = [
    (
        "name_header",
        "leave it out: a raw connection has no fields",
    ),
    (
        "response_timeout",
        "leave it out: `idle_timeout` bounds a raw connection",
    ),
    (
        "body_timeout",
        "leave it out: `idle_timeout` bounds a raw connection",
    ),
    ("http_reuse", ONE_CLIENT),
    ("http_reuse_timeout", ONE_CLIENT),
    ("max_idle_connections", ONE_CLIENT),
    (
        "send_timeout",
        "leave it out: `idle_timeout` bounds a raw connection",
    ),
    (
        "min_body_rate",
        "leave it out: a raw connection has no bodies",
    ),
    (
        "max_header_size",
        "leave it out: a raw connection has no heads",
    ),
    (
        "max_headers",
        "leave it out: a raw connection has no fields",
    ),
    (
        "sticky",
        "leave it out: a raw connection has no cookies; `balance = \"ip_hash\"` goes by the address",
    ),
    (
        "retry_after",
        "leave it out: a raw connection is refused by a reset",
    ),
];

const ONE_CLIENT: &str = "leave it out: a raw connection to a backend is of one client";

/// Notes the keys of `pools` that do nothing behind `listeners`.
pub(super) fn refuse_useless(pools: &[ReadPool<'_>], listeners: &[Listener]) {
    let known = pools
        .iter()
        .filter_map(|read| Some((&read.table, read.pool.as_ref()?)));
    for (table, pool) in known {
        let users = listeners.iter().filter(|one| uses(one, &pool.name));
        let users: Vec<_> = users.collect();
        // Of a pool that nobody uses yet nothing has an effect, whatever its keys.
        if !users.is_empty() {
            refuse_hash_key(table, pool, &users);
            refuse_http_keys(table, &users);
            refuse_tls(table, pool, &users);
            refuse_unfollowed(table, pool, &users);
            refuse_rebalance(table, pool, &users);
        }
    }
}

/// Notes the keys of `[global]` that bound TLS handshakes where no listener has any. The default
/// says nothing: a file may show every key.
pub(super) fn refuse_handshake_keys(
    root: &TableReader<'_>,
    global: Option<&Global>,
    listeners: &[Listener],
) {
    let terminates = |one: &Listener| matches!(one.tls, Some(ListenerTls::Terminate(_)));
    if listeners.iter().any(terminates) {
        return;
    }
    let why = "no listener terminates TLS, so there is no handshake to bound; leave it out";
    let table = root.table("global");
    if global.is_some_and(|global| global.max_handshakes != 0) {
        table.conflict("max_handshakes", why);
    }
    table.conflict("max_handshake_rate", why);
}

/// Whether a listener has this pool for some of its clients.
pub(super) fn uses(listener: &Listener, pool: &str) -> bool {
    let routed = listener.routes.iter().map(|route| &route.pool);
    let mut targets = routed.chain(&listener.pool);
    targets.any(|target| target == pool)
}

/// A key that no connection has would hash nothing.
fn refuse_hash_key(table: &TableReader<'_>, pool: &Pool, users: &[&Listener]) {
    let Some(key) = pool.request_key() else {
        return;
    };
    if users.iter().any(|listener| knows(listener, key)) {
        return;
    }
    match &pool.balance {
        Balance::Hash(_) => table.conflict("hash_key", why(key)),
        _ => table.table("affinity").conflict("key", why(key)),
    }
}

fn refuse_http_keys(table: &TableReader<'_>, users: &[&Listener]) {
    if users.iter().any(|listener| reads_requests(listener)) {
        return;
    }
    for (key, advice) in WEBSOCKET_ONLY {
        let why = format!(
            "only a listener with protocol = \"websocket\" reads requests, and this pool has none; {advice}"
        );
        table.conflict(key, &why);
    }
}

/// Keys that need to know where frames begin and end.
fn refuse_unfollowed(table: &TableReader<'_>, pool: &Pool, users: &[&Listener]) {
    if users.iter().any(|listener| follows(listener)) {
        return;
    }
    let keys = [
        ("ping", pool.ping.is_some()),
        ("activity", pool.activity != Activity::Any),
        ("resume", pool.resume.is_some()),
    ];
    for (key, _) in keys.iter().filter(|(_, is_set)| *is_set) {
        table.conflict(
            key,
            "no listener of this pool follows the frames of WebSockets; it needs one with protocol = \"websocket\" and `follow_frames`",
        );
    }
}

/// Moving that would move nobody, and what becomes of sessions that no listener has.
fn refuse_rebalance(table: &TableReader<'_>, pool: &Pool, users: &[&Listener]) {
    let Some(rebalance) = pool.rebalance else {
        return;
    };
    let told = |listener: &&Listener| follows(listener);
    let closes = rebalance.tcp == UntoldSessions::Close;
    if !closes && !users.iter().any(told) {
        table.conflict(
            "rebalance",
            "no listener of this pool follows the frames of WebSockets, so no client can be told to reconnect; it needs `tcp = \"close\"` in this table, or such a listener",
        );
    }
    if closes && users.iter().all(told) {
        table.table("rebalance").conflict(
            "tcp",
            "every listener of this pool tells its clients by a Close frame; leave it out",
        );
    }
}

/// TLS to backends that would only break what a listener sends them.
fn refuse_tls(table: &TableReader<'_>, pool: &Pool, users: &[&Listener]) {
    let Some(tls) = &pool.tls else {
        return;
    };
    let passes_through = |one: &&&Listener| matches!(one.tls, Some(ListenerTls::Passthrough));
    if let Some(listener) = users.iter().find(passes_through) {
        let why = format!(
            "the listener \"{}\" passes TLS through to this pool: it would be encrypted twice",
            listener.name
        );
        table.conflict("tls", &why);
    }
    let other = |one: &String| one != "http/1.1" && one != "http/1.0";
    if tls.alpn.iter().any(other) && users.iter().any(|listener| reads_requests(listener)) {
        table.table("tls").conflict(
            "alpn",
            "a listener with protocol = \"websocket\" speaks HTTP/1.1 to this pool; allowed: [\"http/1.1\"], or none",
        );
    }
}

fn knows(listener: &Listener, key: &HashKey) -> bool {
    match key {
        HashKey::Sni => listener.tls.is_some(),
        HashKey::Path | HashKey::Header(_) | HashKey::Query(_) | HashKey::Cookie(_) => {
            reads_requests(listener)
        }
    }
}

/// Whether the frames of its WebSockets are followed.
fn follows(listener: &Listener) -> bool {
    reads_requests(listener) && listener.follow_frames
}

fn reads_requests(listener: &Listener) -> bool {
    listener.protocol == Protocol::Websocket
}

fn why(key: &HashKey) -> &'static str {
    match key {
        HashKey::Sni => {
            "no listener of this pool has `tls`, so no client sends a server name (SNI); allowed: `balance = \"ip_hash\"`, or a listener with `tls`"
        }
        _ => {
            "only a listener with protocol = \"websocket\" reads requests, and this pool has none; allowed: `balance = \"ip_hash\"`, or \"sni\" behind `tls`"
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, listener, right};

    const TCP: &str = "protocol = \"tcp\"\npool = \"p\"\n";
    const WEBSOCKET: &str = "protocol = \"websocket\"\npool = \"p\"\n";
    const ROUTED: &str = "[[listener]]\nname = \"w\"\nbind = \"[::]:81\"\nprotocol = \"websocket\"\n\
                          route = [{ path = \"/a\", pool = \"p\" }]\n";

    /// The pool with `pool_keys`, the listener with `keys`.
    fn pool_behind(pool_keys: &str, keys: &str) -> String {
        listener(keys).replace("[pool.p]\n", &format!("[pool.p]\n{pool_keys}\n"))
    }

    fn hashed(key: &str, keys: &str) -> String {
        pool_behind(&format!("balance = \"hash\"\nhash_key = \"{key}\""), keys)
    }

    #[test]
    fn a_key_that_no_listener_of_the_pool_knows_is_refused() {
        let at = "pool.p.hash_key";
        each_refused([
            (hashed("path", TCP), at, ErrorKind::Conflict),
            (hashed("header:x", TCP), at, ErrorKind::Conflict),
            (hashed("query:x", TCP), at, ErrorKind::Conflict),
            (hashed("cookie:x", TCP), at, ErrorKind::Conflict),
            (hashed("sni", TCP), at, ErrorKind::Conflict),
            (hashed("sni", WEBSOCKET), at, ErrorKind::Conflict),
        ]);
    }

    #[test]
    fn one_listener_that_knows_the_key_is_enough() {
        let passthrough = "protocol = \"tcp\"\ntls = { passthrough = true }\npool = \"p\"";
        right(&hashed("sni", passthrough));
        right(&hashed("path", &format!("{TCP}{ROUTED}")));
    }

    #[test]
    fn keys_of_http_requests_need_a_listener_that_reads_requests() {
        for (key, value) in [
            ("http_reuse", "\"never\""),
            ("http_reuse_timeout", "\"9s\""),
            ("max_idle_connections", "9"),
            ("send_timeout", "\"9s\""),
            ("min_body_rate", "9"),
            ("max_header_size", "\"9KiB\""),
            ("max_headers", "9"),
        ] {
            let line = format!("{key} = {value}");
            let at = format!("pool.p.{key}");
            each_refused([(pool_behind(&line, TCP), &*at, ErrorKind::Conflict)]);
            right(&pool_behind(&line, WEBSOCKET));
        }
    }

    // Both were accepted and bounded nothing.
    #[test]
    fn times_of_http_requests_need_a_listener_that_reads_requests() {
        let (response, body) = ("response_timeout = \"60s\"", "body_timeout = \"9s\"");
        each_refused([
            (
                pool_behind(response, TCP),
                "pool.p.response_timeout",
                ErrorKind::Conflict,
            ),
            (
                pool_behind(body, TCP),
                "pool.p.body_timeout",
                ErrorKind::Conflict,
            ),
        ]);
        for key in [response, body] {
            right(&pool_behind(key, WEBSOCKET));
            right(&pool_behind(key, &format!("{TCP}{ROUTED}")));
        }
    }

    #[test]
    fn tls_to_backends_fits_what_the_listeners_send() {
        let passthrough = "protocol = \"tcp\"\ntls = { passthrough = true }\npool = \"p\"";
        let alpn = |name: &str| format!("tls = {{ alpn = [\"{name}\"] }}");
        each_refused([
            (
                pool_behind("tls = true", passthrough),
                "pool.p.tls",
                ErrorKind::Conflict,
            ),
            (
                pool_behind(&alpn("h2"), WEBSOCKET),
                "pool.p.tls.alpn",
                ErrorKind::Conflict,
            ),
        ]);
        right(&pool_behind(&alpn("http/1.1"), WEBSOCKET));
        right(&pool_behind(&alpn("mqtt"), TCP));
    }

    #[test]
    fn moving_connections_needs_some_that_can_be_moved() {
        let (moves, closes) = ("rebalance = {}", "rebalance = { tcp = \"close\" }");
        let unfollowed = format!("{WEBSOCKET}follow_frames = false\n");
        each_refused([
            (
                pool_behind(moves, TCP),
                "pool.p.rebalance",
                ErrorKind::Conflict,
            ),
            (
                pool_behind(moves, &unfollowed),
                "pool.p.rebalance",
                ErrorKind::Conflict,
            ),
            (
                pool_behind(closes, WEBSOCKET),
                "pool.p.rebalance.tcp",
                ErrorKind::Conflict,
            ),
        ]);
        right(&pool_behind(closes, TCP));
        right(&pool_behind(closes, &unfollowed));
        right(&pool_behind("rebalance = { tcp = \"keep\" }", WEBSOCKET));
        for keys in [moves, closes] {
            right(&pool_behind(keys, &format!("{TCP}{ROUTED}")));
        }
    }

    #[test]
    fn bounds_of_handshakes_need_a_listener_that_terminates_tls() {
        let global = |keys: &str| format!("[global]\n{keys}\n{}", listener(TCP));
        each_refused([
            (
                global("max_handshakes = 9"),
                "global.max_handshakes",
                ErrorKind::Conflict,
            ),
            (
                global("max_handshake_rate = \"9/s\""),
                "global.max_handshake_rate",
                ErrorKind::Conflict,
            ),
        ]);
        right(&global("max_handshakes = 0"));
    }

    #[test]
    fn a_pool_that_no_listener_uses_may_have_any_key() {
        let unused = "[pool.q]\nbackend = [{ address = \"10.0.0.2:80\" }]\nbalance = \"hash\"\n\
                      hash_key = \"path\"\nresponse_timeout = \"9s\"\nbody_timeout = \"9s\"\n";
        right(&format!("{unused}{}", listener(TCP)));
    }
}
