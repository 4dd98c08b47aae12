//! `check = {...}`: active health checks of a pool.

use super::super::defaults;
use super::super::keys::{Absent, DAY, HOUR, Kind, Section, key, number, time};
use super::super::model::{Check, CheckAddress, ProxyVersion, RedisRole};
use super::super::table::Table;
use super::super::words::{CheckType, words};
use super::{backend_tls, check_kind};

/// What `send_binary` and its kin allow.
const HEX: &str = "bytes in hexadecimal, with or without spaces, such as \"00 0a ff\"";

pub static CHECK: Section = Section {
    doc: "How each backend is checked.",
    keys: &[
        key(
            "type",
            Kind::Word(words::<CheckType>),
            Absent::Required,
            "`tcp`: it connects. `http`: a request gets an expected status. `websocket`: a handshake succeeds. `expect`: it says what it should. `redis`: it answers a PING, in its `role`.",
        ),
        key(
            "interval",
            time(100, DAY),
            Absent::Time(defaults::CHECK_INTERVAL),
            "Between two checks of a backend.",
        ),
        key(
            "down_interval",
            time(100, DAY),
            Absent::None,
            "The same while it is down. Without it: `interval`.",
        ),
        key(
            "timeout",
            time(10, HOUR),
            Absent::Time(defaults::CHECK_TIMEOUT),
            "One whole check.",
        ),
        key(
            "rise",
            number(1, 1_000),
            Absent::Number(defaults::RISE),
            "Successes in a row that bring a backend up.",
        ),
        key(
            "fall",
            number(1, 1_000),
            Absent::Number(defaults::FALL),
            "Failures in a row that take it down.",
        ),
        key(
            "jitter",
            Kind::Percent { min: 0, max: 50 },
            Absent::Percent(defaults::JITTER_PERCENT),
            "Part of the interval by which each wait differs.",
        ),
        key(
            "port",
            number(1, 65_535),
            Absent::None,
            "Check this port in place of the backend's.",
        ),
        key(
            "address",
            Kind::Text("an IP address such as \"10.0.0.9\" or \"10.0.0.9:8080\""),
            Absent::None,
            "Check this address in place of the backend's.",
        ),
        key(
            "tls",
            Kind::FlagOrTable(&backend_tls::CHECK_TLS),
            Absent::None,
            "Check over TLS: `true`, or a table of details. Without it: as the pool, and plain where `port` or `address` is given.",
        ),
        key(
            "send_proxy",
            Kind::Flag,
            Absent::None,
            "Whether a check of a pool with `send_proxy` begins with a PROXY header of no client. Without it: yes, unless it has a `port` or `address` of its own.",
        ),
        key(
            "method",
            Kind::Text("an HTTP method such as \"GET\" or \"HEAD\""),
            Absent::Text(defaults::CHECK_METHOD),
            "`http` only: method of the request.",
        ),
        key(
            "path",
            Kind::Text("a path that begins with \"/\"; it may have a query"),
            Absent::Text(defaults::CHECK_PATH),
            "`http` and `websocket` only: what is asked for.",
        ),
        key(
            "host",
            Kind::Text("a host name or an IP address, with or without a port"),
            Absent::None,
            "`http` and `websocket` only: the Host header. Without it: the backend's address.",
        ),
        key(
            "status",
            Kind::Statuses,
            Absent::Texts(defaults::CHECK_STATUS),
            "`http` and `websocket` only: statuses that are a success. Of `websocket` without it: 101; another one is a success without a handshake.",
        ),
        key(
            "headers",
            Kind::Headers,
            Absent::None,
            "`http` and `websocket` only: further header fields of the request, spelled as they are here, such as { Origin = \"https://chat.example.org\" }.",
        ),
        key(
            "protocol",
            Kind::Text("a token of RFC 9110 such as \"wamp.2.json\""),
            Absent::None,
            "`websocket` only: the subprotocol that the handshake offers.",
        ),
        key(
            "ping",
            Kind::Flag,
            Absent::Flag(defaults::CHECK_PING),
            "`websocket` only: send a ping after the handshake and wait for its pong.",
        ),
        key(
            "send",
            Kind::Text("a string; TOML escapes such as \\r\\n or \\u0000 stand for themselves"),
            Absent::None,
            "`expect` only: sent after connecting. Without it: nothing is sent.",
        ),
        key(
            "send_binary",
            Kind::Text(HEX),
            Absent::None,
            "`expect` only: the same as `send`, in hexadecimal.",
        ),
        key(
            "expect",
            Kind::Text("a string that is not empty"),
            Absent::None,
            "`expect` only: a success is when the backend says this.",
        ),
        key(
            "expect_binary",
            Kind::Text(HEX),
            Absent::None,
            "`expect` only: the same as `expect`, in hexadecimal.",
        ),
        key(
            "expect_regex",
            Kind::Text("a regular expression of the Rust regex crate"),
            Absent::None,
            "`expect` only: a success is when what the backend says matches this.",
        ),
        key(
            "expect_not",
            Kind::Text("a string that is not empty"),
            Absent::None,
            "`expect` only: a failure is when the backend says this. Judged once its answer has ended or paused for 100 ms. Without another `expect`: whatever else it says is a success.",
        ),
        key(
            "role",
            Kind::Word(words::<RedisRole>),
            Absent::None,
            "`redis` only: what `INFO replication` must say. Without it: any role.",
        ),
    ],
};

/// `pool_has_tls`: its pool speaks TLS to the backends; `send_proxy` is the pool's.
pub fn decode(
    table: &Table<'_>,
    pool_has_tls: bool,
    send_proxy: Option<ProxyVersion>,
) -> Option<Check> {
    let kind = check_kind::decode(table);
    let interval = table.time("interval");
    let port = table.maybe_number("port");
    let address: Option<CheckAddress> = table.text("address");
    if address.is_some_and(|address| address.port.is_some()) {
        table.conflict("port", "`address` has a port already");
    }
    let elsewhere = port.is_some() || address.is_some();
    let tls = backend_tls::decode_check(table, pool_has_tls, elsewhere);
    let wanted = table.entry("send_proxy").and_then(|entry| entry.flag());
    if send_proxy.is_none() {
        table.conflict("send_proxy", "the pool has no `send_proxy`");
    }
    let with_header = wanted.unwrap_or(!elsewhere);
    Some(Check {
        send_proxy: send_proxy.filter(|_| with_header),
        interval,
        down_interval: table.maybe_time("down_interval").unwrap_or(interval),
        timeout: table.time("timeout"),
        rise: table.number("rise"),
        fall: table.number("fall"),
        jitter_percent: table.percent("jitter"),
        port,
        address,
        tls: tls?,
        kind: kind?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::model::CheckTls;
    use super::super::super::testing::{each_refused, pool, right};

    fn check(keys: &str) -> String {
        pool(&format!("check = {{ {keys} }}"))
    }

    fn tcp(keys: &str) -> String {
        check(&format!("type = \"tcp\", {keys}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let unix = |keys: &str| tcp(keys).replace("10.0.0.1:80", "unix:/run/a");
        each_refused([
            (
                check("interval = \"2s\""),
                "pool.p.check.type",
                Fault::Missing,
            ),
            (
                check("type = \"htp\", path = \"/\""),
                "pool.p.check.type",
                Fault::Value,
            ),
            (
                tcp("interval = \"99ms\""),
                "pool.p.check.interval",
                Fault::Value,
            ),
            (tcp("rise = 0"), "pool.p.check.rise", Fault::Value),
            (tcp("jitter = \"51%\""), "pool.p.check.jitter", Fault::Value),
            (tcp("jitter = \"10\""), "pool.p.check.jitter", Fault::Value),
            (tcp("jitter = 10"), "pool.p.check.jitter", Fault::Type),
            (tcp("port = 65536"), "pool.p.check.port", Fault::Value),
            (
                tcp("address = \"node\""),
                "pool.p.check.address",
                Fault::Value,
            ),
            (
                tcp("address = \"10.0.0.1:80\", port = 80"),
                "pool.p.check.port",
                Fault::Conflict,
            ),
            (unix("port = 80"), "pool.p.check.port", Fault::Conflict),
            // The unix socket itself was checked.
            (
                unix("address = \"10.0.0.9\""),
                "pool.p.check.address",
                Fault::Conflict,
            ),
            (tcp("tls = \"yes\""), "pool.p.check.tls", Fault::Type),
            (
                tcp("tls = { sni = \"a b\" }"),
                "pool.p.check.tls.sni",
                Fault::Value,
            ),
            (
                tcp("tls = { verify = false, ca = \"a\" }"),
                "pool.p.check.tls.ca",
                Fault::Conflict,
            ),
            (
                tcp("tls = { cert = \"a\" }"),
                "pool.p.check.tls.cert",
                Fault::UnknownKey,
            ),
        ]);
    }

    #[test]
    fn in_place_of_a_unix_socket_a_whole_address_may_be_checked() {
        for whole in [
            "address = \"10.0.0.9:80\"",
            "address = \"10.0.0.9\", port = 80",
        ] {
            right(&tcp(whole).replace("10.0.0.1:80", "unix:/run/a"));
        }
    }

    #[test]
    fn tls_has_details_of_its_own() {
        let config = right(&tcp("tls = { ca = \"roots.pem\" }"));
        let Some(CheckTls::Own(tls)) = config.pools["p"].check.as_ref().map(|it| it.tls.clone())
        else {
            panic!("no TLS of its own")
        };
        assert!(tls.verify && tls.sni.is_none());
        assert_eq!(tls.ca, Some("/etc/evenkeel/roots.pem".into()));
    }

    #[test]
    fn without_an_interval_of_its_own_a_down_backend_is_checked_as_often() {
        let read = |keys: &str| {
            right(&tcp(keys)).pools["p"]
                .check
                .as_ref()
                .unwrap()
                .down_interval
                .as_secs()
        };
        assert_eq!(read("interval = \"7s\""), 7);
        assert_eq!(read("interval = \"7s\", down_interval = \"1s\""), 1);
    }
}
