//! Question and right answer of a check, and the values of the keys that say them.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::check_expect::Expect;
use crate::config::address::{host_and_port, host_name};
use crate::config::error::ErrorKind;
use crate::config::hash_key::is_token;
use crate::config::value::ValueReader;

/// Header names as they are written on the wire, with their values.
pub type CheckHeaders = Vec<(String, String)>;

/// Question and right answer of a check.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    Tcp,
    Http {
        method: String,
        path: String,
        /// `None`: the backend's address.
        host: Option<String>,
        status: Vec<RangeInclusive<u16>>,
        headers: CheckHeaders,
    },
    Websocket {
        path: String,
        /// `None`: the backend's address.
        host: Option<String>,
        /// Send a ping after the handshake and wait for its pong.
        ping: bool,
        /// Subprotocol that the handshake offers.
        protocol: Option<String>,
        /// Default 101. Another status is a success without a handshake.
        status: Vec<RangeInclusive<u16>>,
        headers: CheckHeaders,
    },
    Expect {
        /// Sent after connecting; may be empty.
        send: Vec<u8>,
        /// `None`: any answer without `unwanted`, which then is some.
        expect: Option<Expect>,
        /// Bytes that must not occur in the backend's answer.
        unwanted: Option<Vec<u8>>,
    },
    Redis {
        /// `None`: any.
        role: Option<RedisRole>,
    },
}

words! {
    /// Values of `check.type`.
    pub(in crate::config) enum CheckType {
        Tcp = "tcp",
        Http = "http",
        Websocket = "websocket",
        Expect = "expect",
        Redis = "redis",
    }
}

words! {
    /// Roles of a Redis server.
    pub enum RedisRole {
        Primary = "primary",
        Replica = "replica",
    }
}

/// A token of RFC 9110, 5.6.2. CONNECT is refused: its target is not a path.
pub(super) fn read_method(text: &str) -> Result<String, &'static str> {
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
    match text {
        "" => Err("it is empty"),
        _ if !text.bytes().all(is_token) => {
            Err("it has a character that is not allowed in a token")
        }
        _ => Ok(text.to_owned()),
    }
}

pub(super) fn read_target(text: &str) -> Result<String, &'static str> {
    match text {
        _ if !text.starts_with('/') => Err("it must begin with \"/\""),
        _ if text.contains('#') => Err("a fragment is not sent"),
        _ if !text.bytes().all(|b| b.is_ascii_graphic()) => {
            Err("it has a character that must be percent-encoded")
        }
        _ => Ok(text.to_owned()),
    }
}

pub(super) fn read_host(text: &str) -> Result<String, &'static str> {
    let is_address = text.parse::<SocketAddr>().is_ok()
        || text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    match text {
        _ if is_address => Ok(text.to_owned()),
        _ if text.contains(':') => host_and_port(text).map(|(host, port)| format!("{host}:{port}")),
        _ => host_name(text),
    }
}

pub(super) fn statuses(value: &ValueReader<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    if value.is_empty_list() {
        value.refuse(
            ErrorKind::Value,
            "no status is a success: every backend would be down",
        );
    }
    Some(value.items().filter_map(|item| one_status(&item)).collect())
}

fn one_status(item: &ValueReader<'_>) -> Option<RangeInclusive<u16>> {
    if item.is_string() {
        return item.text_by(read_range);
    }
    let status = u16::try_from(item.whole_number()?).ok();
    let status = status.filter(|status| STATUSES.contains(status));
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
        let status = text.parse::<u16>().ok();
        status.filter(|status| STATUSES.contains(status))
    };
    match (read(low), read(high)) {
        (Some(low), Some(high)) if low <= high => Ok(low..=high),
        (Some(_), Some(_)) => Err("its end is below its beginning"),
        _ => Err("a status is from 100 to 599"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RedisRole;
    use crate::config::testing::{each_refused, pool, right};

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
                ErrorKind::Value,
            ),
            (
                check("\"http\", method = \"CONNECT\""),
                "pool.p.check.method",
                ErrorKind::Value,
            ),
            (
                check("\"http\", path = \"x\""),
                "pool.p.check.path",
                ErrorKind::Value,
            ),
            (
                check("\"http\", path = \"/a b\""),
                "pool.p.check.path",
                ErrorKind::Value,
            ),
            (
                check("\"http\", host = \"a b\""),
                "pool.p.check.host",
                ErrorKind::Value,
            ),
            (
                check("\"http\", status = []"),
                "pool.p.check.status",
                ErrorKind::Value,
            ),
            (
                check("\"http\", status = 200"),
                "pool.p.check.status",
                ErrorKind::Type,
            ),
            (
                check("\"http\", status = [200, 600]"),
                "pool.p.check.status[1]",
                ErrorKind::Value,
            ),
            (
                check("\"http\", status = [\"300-200\"]"),
                "pool.p.check.status[0]",
                ErrorKind::Value,
            ),
            (
                check("\"http\", status = [\"2xx\"]"),
                "pool.p.check.status[0]",
                ErrorKind::Value,
            ),
            (
                check("\"http\", ping = true"),
                "pool.p.check.ping",
                ErrorKind::Conflict,
            ),
            (
                check("\"tcp\", status = [200]"),
                "pool.p.check.status",
                ErrorKind::Conflict,
            ),
            (
                check("\"http\", protocol = \"chat\""),
                "pool.p.check.protocol",
                ErrorKind::Conflict,
            ),
            (
                check("\"websocket\", protocol = \"a b\""),
                "pool.p.check.protocol",
                ErrorKind::Value,
            ),
            (
                check("\"redis\", role = \"master\""),
                "pool.p.check.role",
                ErrorKind::Value,
            ),
            (
                check("\"expect\", expect = \"a\", role = \"primary\""),
                "pool.p.check.role",
                ErrorKind::Conflict,
            ),
            (
                check("\"tcp\", path = \"/\""),
                "pool.p.check.path",
                ErrorKind::Conflict,
            ),
            (
                check("\"tcp\", send = \"x\""),
                "pool.p.check.send",
                ErrorKind::Conflict,
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
