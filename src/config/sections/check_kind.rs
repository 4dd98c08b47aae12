//! What a check does: the keys of `check` that depend on its `type`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::super::address::{host_and_port, host_name};
use super::super::defaults;
use super::super::entry::Entry;
use super::super::error::Fault;
use super::super::model::{CheckKind, Expect};
use super::super::table::Table;
use super::super::words::{CheckType, Word};

/// Keys that only some types have.
const KEYS: [(&str, &[CheckType]); 8] = [
    ("method", &[CheckType::Http]),
    ("path", &[CheckType::Http, CheckType::Websocket]),
    ("host", &[CheckType::Http, CheckType::Websocket]),
    ("status", &[CheckType::Http]),
    ("ping", &[CheckType::Websocket]),
    ("send", &[CheckType::Expect]),
    ("expect", &[CheckType::Expect]),
    ("expect_regex", &[CheckType::Expect]),
];

pub fn decode(table: &Table<'_>) -> Option<CheckKind> {
    let check_type: CheckType = table.maybe_word("type")?;
    for (key, types) in KEYS
        .iter()
        .filter(|(_, types)| !types.contains(&check_type))
    {
        let types: Vec<_> = types.iter().map(|of| of.word()).collect();
        let why = format!("only a check of type {} has this", types.join(" or "));
        table.conflict(key, &why);
    }
    let kind = match check_type {
        CheckType::Tcp => CheckKind::Tcp,
        CheckType::Http => CheckKind::Http {
            method: table.text_by("method", read_method)?,
            path: table.text_by("path", read_target)?,
            host: table.text_by("host", read_host),
            status: status(table),
        },
        CheckType::Websocket => CheckKind::Websocket {
            path: table.text_by("path", read_target)?,
            host: table.text_by("host", read_host),
            ping: table.flag("ping"),
        },
        CheckType::Expect => CheckKind::Expect {
            send: table
                .text_by("send", |text| Ok(text.as_bytes().to_vec()))
                .unwrap_or_default(),
            expect: expect(table)?,
        },
    };
    Some(kind)
}

fn expect(table: &Table<'_>) -> Option<Expect> {
    match (table.has("expect"), table.has("expect_regex")) {
        (true, true) => table.conflict("expect_regex", "`expect` is given too; give one of them"),
        (false, false) => table.missing(
            "expect",
            "nothing is expected",
            "`expect` or `expect_regex`",
        ),
        _ => {}
    }
    let bytes = table.text_by("expect", |text| match text {
        "" => Err("it is empty: every backend says that"),
        _ => Ok(Expect::Bytes(text.as_bytes().to_vec())),
    });
    bytes.or_else(|| table.text_by("expect_regex", read_regex).map(Expect::Regex))
}

fn read_regex(text: &str) -> Result<String, &'static str> {
    match regex::bytes::Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(regex::Error::CompiledTooBig(_)) => Err("it is too large when compiled"),
        Err(_) => Err("it is not a regular expression"),
    }
}

/// A token of RFC 9110, 5.6.2. CONNECT is refused: its target is not a path.
fn read_method(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("it is empty"),
        "CONNECT" => Err("it asks for a tunnel"),
        _ if !text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') => {
            Err("it is not a method in upper case")
        }
        _ => Ok(text.to_owned()),
    }
}

fn read_target(text: &str) -> Result<String, &'static str> {
    match text {
        _ if !text.starts_with('/') => Err("it must begin with \"/\""),
        _ if text.contains('#') => Err("a fragment is not sent"),
        _ if !text.bytes().all(|b| b.is_ascii_graphic()) => {
            Err("it has a character that must be percent-encoded")
        }
        _ => Ok(text.to_owned()),
    }
}

fn read_host(text: &str) -> Result<String, &'static str> {
    let is_address = text.parse::<SocketAddr>().is_ok()
        || text
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok();
    match text {
        _ if is_address => Ok(text.to_owned()),
        _ if text.contains(':') => host_and_port(text).map(|(host, port)| format!("{host}:{port}")),
        _ => host_name(text),
    }
}

fn status(table: &Table<'_>) -> Vec<RangeInclusive<u16>> {
    let Some(entry) = table.entry("status") else {
        return defaults::CHECK_STATUS
            .iter()
            .filter_map(|range| read_range(range).ok())
            .collect();
    };
    if entry.is_empty_list() {
        entry.refuse(
            Fault::Value,
            "no status is a success: every backend would be down",
        );
    }
    entry.items().filter_map(|item| one_status(&item)).collect()
}

fn one_status(item: &Entry<'_>) -> Option<RangeInclusive<u16>> {
    if item.is_string() {
        return item.text_by(read_range);
    }
    let status = item.number()?;
    let status = u16::try_from(status)
        .ok()
        .filter(|status| STATUSES.contains(status));
    if status.is_none() {
        item.refuse_value("a status is from 100 to 599");
    }
    status.map(|status| status..=status)
}

/// RFC 9110, 15: five classes.
const STATUSES: RangeInclusive<u16> = 100..=599;

fn read_range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let read = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|status| STATUSES.contains(status))
    };
    match (read(low), read(high)) {
        (Some(low), Some(high)) if low <= high => Ok(low..=high),
        (Some(_), Some(_)) => Err("its end is below its beginning"),
        _ => Err("a status is from 100 to 599"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{each_refused, pool, right};
    use super::*;

    fn check(keys: &str) -> String {
        pool(&format!("check = {{ type = {keys} }}"))
    }

    fn read(keys: &str) -> CheckKind {
        right(&check(keys)).pools["p"].check.clone().unwrap().kind
    }

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (
                check("\"http\", method = \"get\""),
                "pool.p.check.method",
                Fault::Value,
            ),
            (
                check("\"http\", method = \"CONNECT\""),
                "pool.p.check.method",
                Fault::Value,
            ),
            (
                check("\"http\", path = \"x\""),
                "pool.p.check.path",
                Fault::Value,
            ),
            (
                check("\"http\", path = \"/a b\""),
                "pool.p.check.path",
                Fault::Value,
            ),
            (
                check("\"http\", host = \"a b\""),
                "pool.p.check.host",
                Fault::Value,
            ),
            (
                check("\"http\", status = []"),
                "pool.p.check.status",
                Fault::Value,
            ),
            (
                check("\"http\", status = 200"),
                "pool.p.check.status",
                Fault::Type,
            ),
            (
                check("\"http\", status = [200, 600]"),
                "pool.p.check.status[1]",
                Fault::Value,
            ),
            (
                check("\"http\", status = [\"300-200\"]"),
                "pool.p.check.status[0]",
                Fault::Value,
            ),
            (
                check("\"http\", status = [\"2xx\"]"),
                "pool.p.check.status[0]",
                Fault::Value,
            ),
            (
                check("\"http\", ping = true"),
                "pool.p.check.ping",
                Fault::Conflict,
            ),
            (
                check("\"websocket\", status = [200]"),
                "pool.p.check.status",
                Fault::Conflict,
            ),
            (
                check("\"tcp\", path = \"/\""),
                "pool.p.check.path",
                Fault::Conflict,
            ),
            (
                check("\"tcp\", send = \"x\""),
                "pool.p.check.send",
                Fault::Conflict,
            ),
            (
                check("\"expect\", send = \"x\""),
                "pool.p.check.expect",
                Fault::Missing,
            ),
            (
                check("\"expect\", expect = \"\""),
                "pool.p.check.expect",
                Fault::Value,
            ),
            (
                check("\"expect\", expect_regex = \"(\""),
                "pool.p.check.expect_regex",
                Fault::Value,
            ),
            (
                check("\"expect\", expect_regex = \"(a{999}){999}\""),
                "pool.p.check.expect_regex",
                Fault::Value,
            ),
            (
                check("\"expect\", expect = \"a\", expect_regex = \"a\""),
                "pool.p.check.expect_regex",
                Fault::Conflict,
            ),
        ]);
    }

    #[test]
    fn each_type_reads_its_keys() {
        let (path, host) = ("/".to_owned(), None);
        assert_eq!(read("\"tcp\""), CheckKind::Tcp);
        assert_eq!(
            read("\"websocket\", ping = true"),
            CheckKind::Websocket {
                path,
                host,
                ping: true
            }
        );
        let (method, path, host) = (
            "HEAD".to_owned(),
            "/a?b".to_owned(),
            Some("a:80".to_owned()),
        );
        let status = vec![200..=200, 300..=399, 404..=404];
        let keys = "\"http\", method = \"HEAD\", path = \"/a?b\", host = \"A:80\", status = [200, \"300-399\", \"404\"]";
        assert_eq!(
            read(keys),
            CheckKind::Http {
                method,
                path,
                host,
                status
            }
        );
        let (send, expect) = (b"\x00PING\r\n".to_vec(), Expect::Regex("^PONG".to_owned()));
        let keys = "\"expect\", send = \"\\u0000PING\\r\\n\", expect_regex = \"^PONG\"";
        assert_eq!(read(keys), CheckKind::Expect { send, expect });
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for (host, right) in [
            ("a", true),
            ("10.0.0.1", true),
            ("10.0.0.1:80", true),
            ("[::1]", true),
            ("[::1]:80", true),
        ]
        .into_iter()
        .chain([
            ("", false),
            ("a/b", false),
            ("a\r\nb", false),
            ("10.0.0.300", false),
            ("[a]", false),
        ]) {
            assert_eq!(read_host(host).is_ok(), right, "{host}");
        }
    }
}
