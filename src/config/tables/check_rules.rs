//! Rules between the keys of `check`, and between it and its pool.

use std::ops::RangeInclusive;

use super::backend::Backend;
use super::backend_tls;
use super::check::Check;
use super::check_expect::Expect;
use super::check_kind::{CheckKind, CheckType};
use super::socket::ProxyVersion;
use crate::config::address::Address;
use crate::config::declare::{InParts, Parts};
use crate::config::reader::TableReader;
use crate::config::words::Word;

/// Reads the check of a pool. `pool_has_tls`: it speaks TLS to the backends; `send_proxy` is the
/// pool's.
pub(super) fn check(
    table: &TableReader<'_>,
    pool_has_tls: bool,
    send_proxy: Option<ProxyVersion>,
) -> Option<Check> {
    let mut check = Check::parts(table);
    check.kind = kind(table, &mut check);
    let address = check.address.flatten();
    if address.is_some_and(|address| address.port.is_some()) {
        table.conflict("port", "`address` has a port already");
    }
    if send_proxy.is_none() {
        table.conflict("send_proxy", "the pool has no `send_proxy`");
    }
    let elsewhere = check.port.flatten().is_some() || address.is_some();
    let with_header = check.with_header.flatten().unwrap_or(!elsewhere);
    check.send_proxy = Some(send_proxy.filter(|_| with_header));
    check.down_interval = check.while_down.flatten().or(check.interval);
    let own_tls = check.own_tls.take();
    check.tls = own_tls.map(|own| backend_tls::of_check(own, pool_has_tls, elsewhere));
    Check::whole(check)
}

/// Refuses a check that takes over a part of an address that a unix socket does not have.
pub(super) fn refuse_unix(pool: &TableReader<'_>, check: Option<&Check>, backends: &[Backend]) {
    let is_unix = |address: &Address| matches!(address, Address::Unix(_));
    let mut addresses = backends.iter().map(|backend| &backend.address);
    let Some(check) = check.filter(|_| addresses.any(is_unix)) else {
        return;
    };
    let (key, lacks) = match (check.port, check.address) {
        (Some(_), None) => ("port", "no IP address; give `address` too"),
        (None, Some(address)) if address.port.is_none() => {
            ("address", "no port; give the address with its port")
        }
        _ => return,
    };
    let why = format!("a backend of this pool is a unix socket: it has {lacks}");
    pool.table("check").conflict(key, &why);
}

/// Keys that only some types have.
const KEYS: [(&str, &[CheckType]); 14] = [
    ("method", &[CheckType::Http]),
    ("path", &[CheckType::Http, CheckType::Websocket]),
    ("host", &[CheckType::Http, CheckType::Websocket]),
    ("status", &[CheckType::Http, CheckType::Websocket]),
    ("headers", &[CheckType::Http, CheckType::Websocket]),
    ("protocol", &[CheckType::Websocket]),
    ("ping", &[CheckType::Websocket]),
    ("send", &[CheckType::Expect]),
    ("expect", &[CheckType::Expect]),
    ("expect_regex", &[CheckType::Expect]),
    ("send_binary", &[CheckType::Expect]),
    ("expect_binary", &[CheckType::Expect]),
    ("expect_not", &[CheckType::Expect]),
    ("role", &[CheckType::Redis]),
];

fn kind(table: &TableReader<'_>, check: &mut Parts<Check>) -> Option<CheckKind> {
    let check_type = check.check_type?;
    for (key, types) in KEYS
        .iter()
        .filter(|(_, types)| !types.contains(&check_type))
    {
        let types: Vec<_> = types.iter().map(|of| of.word()).collect();
        let why = format!("only a check of type {} has this", types.join(" or "));
        table.conflict(key, &why);
    }
    Some(match check_type {
        CheckType::Tcp => CheckKind::Tcp,
        CheckType::Http => CheckKind::Http {
            method: check.method.take()?,
            path: check.path.take()?,
            host: check.host.take()?,
            status: check.status.take()?,
            headers: check.headers.take()?,
        },
        CheckType::Websocket => CheckKind::Websocket {
            path: check.path.take()?,
            host: check.host.take()?,
            ping: check.ping?,
            protocol: check.protocol.take()?,
            status: check
                .status
                .take()
                .filter(|_| table.has("status"))
                .unwrap_or_else(|| vec![HANDSHAKE_STATUS]),
            headers: check.headers.take()?,
        },
        CheckType::Expect => expect_kind(table, check)?,
        CheckType::Redis => CheckKind::Redis { role: check.role? },
    })
}

/// A client needs it.
const HANDSHAKE_STATUS: RangeInclusive<u16> = 101..=101;

/// Keys of which a check has one.
const WANTED: [&str; 3] = ["expect", "expect_binary", "expect_regex"];

fn expect_kind(table: &TableReader<'_>, check: &mut Parts<Check>) -> Option<CheckKind> {
    only_one(table, &["send", "send_binary"]);
    only_one(table, &WANTED);
    if !WANTED.iter().any(|key| table.has(key)) && !table.has("expect_not") {
        let keys = "`expect`, `expect_binary`, `expect_regex` or `expect_not`";
        table.missing("expect", "nothing is expected", keys);
        return None;
    }
    let send = check.send.take().flatten().map(String::into_bytes);
    let expect = check.expect.take().flatten();
    let expect = expect.or(check.expect_binary.take().flatten());
    let regex = check.expect_regex.take().flatten().map(Expect::Regex);
    Some(CheckKind::Expect {
        send: send
            .or(check.send_binary.take().flatten())
            .unwrap_or_default(),
        expect: expect.map(Expect::Bytes).or(regex),
        unwanted: check.expect_not.take().flatten(),
    })
}

/// Notes every key that stands beside an earlier one of its kind.
fn only_one(table: &TableReader<'_>, keys: &[&str]) {
    let mut given = keys.iter().filter(|key| table.has(key));
    if let Some(first) = given.next() {
        given.for_each(|key| {
            table.conflict(key, &format!("`{first}` is given too; give one of them"));
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::config::CheckTls;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

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
                ErrorKind::Missing,
            ),
            (
                check("type = \"htp\", path = \"/\""),
                "pool.p.check.type",
                ErrorKind::Value,
            ),
            (
                tcp("interval = \"99ms\""),
                "pool.p.check.interval",
                ErrorKind::Value,
            ),
            (tcp("rise = 0"), "pool.p.check.rise", ErrorKind::Value),
            (
                tcp("jitter = \"51%\""),
                "pool.p.check.jitter",
                ErrorKind::Value,
            ),
            (
                tcp("jitter = \"10\""),
                "pool.p.check.jitter",
                ErrorKind::Value,
            ),
            (tcp("jitter = 10"), "pool.p.check.jitter", ErrorKind::Type),
            (tcp("port = 65536"), "pool.p.check.port", ErrorKind::Value),
            (
                tcp("address = \"node\""),
                "pool.p.check.address",
                ErrorKind::Value,
            ),
            (
                tcp("address = \"10.0.0.1:80\", port = 80"),
                "pool.p.check.port",
                ErrorKind::Conflict,
            ),
            (unix("port = 80"), "pool.p.check.port", ErrorKind::Conflict),
            // The unix socket itself was checked.
            (
                unix("address = \"10.0.0.9\""),
                "pool.p.check.address",
                ErrorKind::Conflict,
            ),
            (tcp("tls = \"yes\""), "pool.p.check.tls", ErrorKind::Type),
            (
                tcp("tls = { sni = \"a b\" }"),
                "pool.p.check.tls.sni",
                ErrorKind::Value,
            ),
            (
                tcp("tls = { verify = false, ca = \"a\" }"),
                "pool.p.check.tls.ca",
                ErrorKind::Conflict,
            ),
            (
                tcp("tls = { cert = \"a\" }"),
                "pool.p.check.tls.cert",
                ErrorKind::UnknownKey,
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
