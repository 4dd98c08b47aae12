//! What a check does: the keys of `check` that depend on its `type`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::super::address::{host_and_port, host_name};
use super::super::defaults;
use super::super::entry::Entry;
use super::super::error::Fault;
use super::super::model::CheckKind;
use super::super::table::Table;
use super::super::words::{CheckType, Word};
use super::{check_expect, check_headers};

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
            status: status(table).unwrap_or_else(default_status),
            headers: check_headers::decode(table),
        },
        CheckType::Websocket => CheckKind::Websocket {
            path: table.text_by("path", read_target)?,
            host: table.text_by("host", read_host),
            ping: table.flag("ping"),
            protocol: table.text_by("protocol", read_token),
            status: status(table).unwrap_or_else(|| vec![defaults::CHECK_HANDSHAKE_STATUS]),
            headers: check_headers::decode(table),
        },
        CheckType::Expect => check_expect::decode(table)?,
        CheckType::Redis => CheckKind::Redis {
            role: table.maybe_word("role"),
        },
    };
    Some(kind)
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

/// RFC 9110, 5.6.2.
pub(super) fn read_token(text: &str) -> Result<String, &'static str> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    match text {
        "" => Err("it is empty"),
        _ if !text.bytes().all(is_token) => Err("it has a character that no token has"),
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

/// `None`: it is not there.
fn status(table: &Table<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let entry = table.entry("status")?;
    if entry.is_empty_list() {
        entry.refuse(
            Fault::Value,
            "no status is a success: every backend would be down",
        );
    }
    Some(entry.items().filter_map(|item| one_status(&item)).collect())
}

fn default_status() -> Vec<RangeInclusive<u16>> {
    let ranges = defaults::CHECK_STATUS.iter();
    ranges.filter_map(|range| read_range(range).ok()).collect()
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
    use super::super::super::model::RedisRole;
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
                check("\"tcp\", status = [200]"),
                "pool.p.check.status",
                Fault::Conflict,
            ),
            (
                check("\"http\", protocol = \"chat\""),
                "pool.p.check.protocol",
                Fault::Conflict,
            ),
            (
                check("\"websocket\", protocol = \"a b\""),
                "pool.p.check.protocol",
                Fault::Value,
            ),
            (
                check("\"redis\", role = \"master\""),
                "pool.p.check.role",
                Fault::Value,
            ),
            (
                check("\"expect\", expect = \"a\", role = \"primary\""),
                "pool.p.check.role",
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
                ping: true,
                protocol: None,
                status: vec![101..=101],
                headers: Vec::new(),
            }
        );
        assert_eq!(
            read("\"redis\", role = \"replica\""),
            CheckKind::Redis {
                role: Some(RedisRole::Replica)
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
                status,
                headers: Vec::new(),
            }
        );
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
