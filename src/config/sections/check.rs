//! `check = {...}`: active health checks of a pool.

use super::super::address::host_name;
use super::super::defaults;
use super::super::keys::{Absent, DAY, HOUR, Kind, Section, key, number, time};
use super::super::model::{Check, CheckAddress, CheckTls};
use super::super::table::Table;
use super::super::words::{CheckType, words};
use super::check_kind;

pub static CHECK: Section = Section {
    doc: "How each backend is checked.",
    keys: &[
        key(
            "type",
            Kind::Word(words::<CheckType>),
            Absent::Required,
            "`tcp`: it connects. `http`: a request gets an expected status. `websocket`: a handshake succeeds. `expect`: it says what it should.",
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
            Kind::Percent { max: 50 },
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
            Kind::FlagOrTable(&TLS),
            Absent::Flag(false),
            "Check over TLS: `true`, or a table of details.",
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
            "`http` only: statuses that are a success.",
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
            "expect",
            Kind::Text("a string that is not empty"),
            Absent::None,
            "`expect` only: a success is when the backend says this.",
        ),
        key(
            "expect_regex",
            Kind::Text("a regular expression of the Rust regex crate"),
            Absent::None,
            "`expect` only: a success is when what the backend says matches this.",
        ),
    ],
};

static TLS: Section = Section {
    doc: "How TLS of a check is done.",
    keys: &[
        key(
            "sni",
            Kind::Text("a host name"),
            Absent::None,
            "Name that is asked for and verified. Without it: the check's host, or the backend's.",
        ),
        key(
            "verify",
            Kind::Flag,
            Absent::Flag(defaults::CHECK_VERIFY),
            "Verify the backend's certificate.",
        ),
        key(
            "ca",
            Kind::Text("the path of a PEM file with certificates"),
            Absent::None,
            "Roots that are trusted. Without it: the system's.",
        ),
    ],
};

pub fn decode(table: &Table<'_>) -> Option<Check> {
    let kind = check_kind::decode(table);
    let interval = table.time("interval");
    let port = table.maybe_number("port");
    let address: Option<CheckAddress> = table.text("address");
    if address.is_some_and(|address| address.port.is_some()) {
        table.conflict("port", "`address` has a port already");
    }
    Some(Check {
        interval,
        down_interval: table.maybe_time("down_interval").unwrap_or(interval),
        timeout: table.time("timeout"),
        rise: table.number("rise"),
        fall: table.number("fall"),
        jitter_percent: table.percent("jitter"),
        port,
        address,
        tls: tls(table),
        kind: kind?,
    })
}

fn tls(table: &Table<'_>) -> Option<CheckTls> {
    let entry = table.entry("tls")?;
    if entry.is_flag() {
        let wanted = entry.flag().unwrap_or_default();
        return wanted.then_some(CheckTls {
            sni: None,
            verify: defaults::CHECK_VERIFY,
            ca: None,
        });
    }
    let table = entry.table()?;
    let verify = table.flag("verify");
    if !verify {
        table.conflict("ca", "`verify = false` uses no roots");
    }
    Some(CheckTls {
        sni: table.text_by("sni", host_name),
        verify,
        ca: table.path("ca"),
    })
}
