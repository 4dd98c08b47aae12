//! The words of other balancers for what is a key or a value here: HAProxy's `maxconn`, nginx's
//! `upstream`, Envoy's `cluster`. For messages only.

/// In which tables, or for which keys; which words; and what they are here. Words are parted by
/// blanks.
type Words = &'static [(&'static str, &'static str, &'static str)];

/// A table is its path without names and numbers, `top` the file as a whole. Words are in lower
/// case, with `_` for each `-` and blank.
const KEYS: Words = &[
    (
        "top",
        "frontend frontends listen server servers http tcp stream entrypoints",
        "it is `[[listener]]` here, with `name`, `bind`, `protocol` and `pool`",
    ),
    (
        "top",
        "backend backends upstream upstreams clusters service services",
        "it is `[pool.NAME]` here, with `backend = [{ address = \"10.0.0.1:80\" }]`",
    ),
    (
        "top",
        "defaults",
        "nothing is inherited here: each key has a default of its own",
    ),
    (
        "top",
        "maxconn max_conns max_conn worker_connections",
        "it is `max_connections` of `[global]`, a `[[listener]]` or a backend here",
    ),
    ("top", "api stats dashboard control", "it is `[admin]` here"),
    ("top", "prometheus telemetry", "it is `[metrics]` here"),
    (
        "top",
        "log logs logging",
        "it is `[access_log]` here, and `log_level` of `[global]`",
    ),
    (
        "global listener pool.backend",
        "maxconn max_conns max_conn worker_connections",
        "it is `max_connections` here",
    ),
    (
        "pool",
        "maxconn max_conns max_conn max_connections",
        "it is `max_connections` of each backend here",
    ),
    ("pool", "slowstart", "it is `slow_start` here"),
    (
        "pool.backend",
        "slowstart slow_start",
        "it is `slow_start` of the pool here",
    ),
    (
        "global",
        "nbthread nbproc threads worker_processes worker_threads concurrency",
        "it is `workers` here",
    ),
    (
        "global",
        "shutdown_timeout worker_shutdown_timeout grace_period drain_time",
        "it is `hard_stop_after` here",
    ),
    (
        "global",
        "pre_stop_delay lame_duck_duration request_accept_grace_timeout requestacceptgracetimeout",
        "it is `shutdown_delay` here",
    ),
    (
        "global",
        "loglevel error_log level",
        "it is `log_level` here",
    ),
    (
        "global",
        "ulimit_n worker_rlimit_nofile",
        "the hard limit of open files is used; a systemd unit sets LimitNOFILE",
    ),
    ("global", "maxconnrate", "it is `max_connection_rate` here"),
    ("global", "maxsslrate", "it is `max_handshake_rate` here"),
    (
        "listener admin metrics",
        "listen address port bind_address bind_addr",
        "it is `bind = \"[::]:8443\"` here",
    ),
    (
        "listener",
        "default_backend backend use_backend proxy_pass upstream cluster service",
        "it is `pool` here, the name of a `[pool.NAME]`",
    ),
    (
        "listener",
        "acl rule rules routes location server_name host domain path sni",
        "it is `[[listener.route]]` here, with `sni`, `host` or `path`, and `pool`",
    ),
    (
        "listener",
        "ssl ssl_certificate ssl_certificate_key crt cert certificate certificates",
        "it is `tls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }` here",
    ),
    (
        "listener",
        "proxy_protocol",
        "it is `accept_proxy = true` here, with `trusted`",
    ),
    (
        "listener",
        "set_real_ip_from trusted_proxies trusted_ips trustedips",
        "it is `trusted` here",
    ),
    (
        "listener",
        "timeout_client client_timeout idle_timeout timeout_tunnel proxy_timeout",
        "it is `idle_timeout` of the pool here",
    ),
    (
        "listener",
        "timeout_http_request client_header_timeout ssl_handshake_timeout",
        "it is `handshake_timeout` here",
    ),
    (
        "listener",
        "keepalive_timeout timeout_http_keep_alive",
        "it is `keep_alive_timeout` here",
    ),
    (
        "listener",
        "large_client_header_buffers client_header_buffer_size max_request_headers_kb",
        "it is `max_header_size` here",
    ),
    (
        "listener pool",
        "client_body_timeout",
        "it is `body_timeout` of the pool here",
    ),
    (
        "pool",
        "server servers node nodes member members endpoint endpoints target targets upstream upstreams backends address addresses",
        "it is `backend = [{ address = \"10.0.0.1:80\" }]` here",
    ),
    (
        "pool",
        "algorithm lb_policy lb_algorithm load_balancing strategy policy method",
        "it is `balance` here",
    ),
    (
        "pool",
        "round_robin roundrobin",
        "it is `balance = \"round_robin\"` here",
    ),
    (
        "pool",
        "least_conn leastconn",
        "it is `balance = \"least_conn\"` here",
    ),
    ("pool", "ip_hash", "it is `balance = \"ip_hash\"` here"),
    (
        "pool",
        "hash",
        "it is `balance = \"hash\"` here, with `hash_key`",
    ),
    (
        "pool pool.backend",
        "health_check healthcheck health_checks health option httpchk option_httpchk inter",
        "it is `check = { type = \"tcp\" }` of the pool here",
    ),
    ("pool.backend", "check", "it is `check` of the pool here"),
    ("pool.check", "inter", "it is `interval` here"),
    (
        "pool.check",
        "fastinter downinter",
        "it is `down_interval` here",
    ),
    ("pool.check", "uri url endpoint", "it is `path` here"),
    (
        "pool.check",
        "expect_status expected_statuses expected_codes",
        "it is `status` here",
    ),
    ("pool.check", "healthy_threshold", "it is `rise` here"),
    (
        "pool.check",
        "unhealthy_threshold max_fails",
        "it is `fall` here",
    ),
    ("pool.check", "kind", "it is `type` here"),
    (
        "pool pool.backend",
        "max_fails fail_timeout outlier_detection circuit_breaker",
        "it is `outlier` of the pool here",
    ),
    (
        "pool",
        "timeout_connect proxy_connect_timeout",
        "it is `connect_timeout` here",
    ),
    (
        "pool",
        "timeout_server timeout_client timeout_tunnel proxy_timeout proxy_read_timeout",
        "it is `idle_timeout` here",
    ),
    (
        "pool",
        "keepalive pool_max_conn max_idle_conns max_idle_conns_per_host",
        "it is `max_idle_connections` here",
    ),
    (
        "pool",
        "keepalive_timeout pool_purge_delay idle_conn_timeout",
        "it is `http_reuse_timeout` here",
    ),
    ("pool", "proxy_send_timeout", "it is `send_timeout` here"),
    ("pool", "proxy_buffer_size", "it is `max_header_size` here"),
    ("pool", "timeout_queue", "it is `queue_timeout` here"),
    ("pool", "maxqueue queue_length", "it is `max_queue` here"),
    (
        "pool",
        "cookie sticky_cookie stick stick_table sticky_session session_affinity",
        "it is `sticky = { key_file = \"sticky.keys\" }` here",
    ),
    (
        "pool pool.backend",
        "proxy_protocol send_proxy_v2",
        "it is `send_proxy = \"v2\"` of the pool here",
    ),
    (
        "pool pool.backend",
        "ssl scheme https",
        "it is `tls = true` of the pool here",
    ),
    (
        "pool.backend",
        "host server url uri ip addr port target",
        "it is `address = \"10.0.0.1:80\"` here",
    ),
    (
        "pool.backend",
        "down disabled",
        "`evenkeel maint POOL/BACKEND` takes a backend out of service",
    ),
];

/// For which keys, which words, and what to write.
const VALUES: Words = &[
    (
        "protocol mode",
        "ws http http1 http/1.1 h1",
        "write `protocol = \"websocket\"`",
    ),
    (
        "protocol mode",
        "wss https",
        "write `protocol = \"websocket\"`, and `tls` beside it",
    ),
    (
        "protocol mode",
        "tcp tcp4 tcp6 stream raw",
        "write `protocol = \"tcp\"`",
    ),
    (
        "protocol mode",
        "tls ssl",
        "write `protocol = \"tcp\"`, and `tls` beside it",
    ),
    (
        "balance",
        "roundrobin rr wrr static_rr weighted",
        "write \"round_robin\"",
    ),
    (
        "balance",
        "leastconn lc wlc least_connections least_request",
        "write \"least_conn\"",
    ),
    (
        "balance",
        "source iphash sh client_ip source_ip",
        "write \"ip_hash\"",
    ),
    (
        "balance",
        "uri hdr url_param consistent consistent_hash chash ring_hash maglev",
        "write \"hash\", and `hash_key` beside it",
    ),
    ("balance", "p2c random2 first", "write \"random\""),
    ("type", "ws wss", "write \"websocket\""),
    ("type", "https", "write \"http\", and `tls` beside it"),
    ("type", "connect tcp_check l4", "write \"tcp\""),
    ("log_level", "err crit alert emerg fatal", "write \"error\""),
    ("log_level", "warning", "write \"warn\""),
    ("log_level", "notice", "write \"info\""),
    ("min_version", "tlsv1.2 tls1.2 tls12", "write \"1.2\""),
    ("min_version", "tlsv1.3 tls1.3 tls13", "write \"1.3\""),
    ("workers", "auto", "write 0: as many as cores"),
    (
        "max_connections",
        "unlimited infinite none",
        "write 0: no limit of its own",
    ),
    ("http_reuse", "aggressive always", "write \"safe\""),
    ("send_proxy", "1", "write \"v1\""),
    ("send_proxy", "2", "write \"v2\""),
];

/// A key of another program, in the words of this file. `table` is the path of the table, such as
/// `pool.chat.check`.
pub(super) fn key(table: &str, name: &str) -> Option<&'static str> {
    find(KEYS, &shape(table), name)
}

/// A value of another program, in the words of this file.
pub(super) fn value(key: &str, word: &str) -> Option<&'static str> {
    find(VALUES, key, word)
}

fn find(words: Words, place: &str, word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase().replace(['-', ' '], "_");
    let has = |all: &str, one: &str| all.split(' ').any(|other| other == one);
    let mut words = words.iter();
    let found = words.find(|(places, words, _)| has(places, place) && has(words, &word));
    found.map(|(_, _, here)| *here)
}

/// A path without the names that the operator chose, and without numbers: `pool.chat.backend[1]` is
/// `pool.backend`.
fn shape(path: &str) -> String {
    let mut parts: Vec<&str> = path
        .split('.')
        .map(|part| part.split('[').next().unwrap_or_default())
        .collect();
    if parts.first() == Some(&"pool") && parts.len() > 1 {
        parts.remove(1);
    }
    match parts.join(".") {
        root if root.is_empty() => "top".to_owned(),
        table => table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_peers_are_found_in_their_tables() {
        for (table, name, here) in [
            ("listener[0]", "maxconn", "`max_connections` here"),
            ("pool.chat.backend[2]", "maxconn", "`max_connections` here"),
            ("pool.chat", "maxconn", "`max_connections` of each backend"),
            ("pool.chat", "slowstart", "`slow_start`"),
            ("pool.chat", "timeout-connect", "`connect_timeout`"),
            ("", "frontend", "`[[listener]]`"),
            ("", "upstream", "`[pool.NAME]`"),
        ] {
            let found = key(table, name).unwrap_or_default();
            assert!(found.contains(here), "{table} {name}: {found}");
        }
        assert_eq!(key("admin", "maxconn"), None);
        assert_eq!(
            value("protocol", "WS"),
            Some("write `protocol = \"websocket\"`")
        );
        assert_eq!(value("balance", "static-rr"), Some("write \"round_robin\""));
    }

    /// A word that became a key would be refused as one of a peer.
    #[test]
    fn no_word_is_a_key_of_its_table() {
        use crate::config::declare::Declared;
        let section = |place: &str| {
            let mut section = crate::config::Config::SPEC;
            for part in place.split('.').filter(|part| *part != "top") {
                section = section.key(part).unwrap().kind.table().unwrap();
            }
            section
        };
        for (places, words, _) in KEYS {
            for place in places.split(' ') {
                let section = section(place);
                let known = words.split(' ').find(|word| section.key(word).is_some());
                assert_eq!(known, None, "{place}");
            }
        }
    }
}
