//! The Host of a request (RFC 9110 section 7.2): `uri-host [":" port]`, a narrow grammar that
//! routes can match.

use std::net::Ipv6Addr;

/// Longest name in DNS; nothing longer can be routed.
const MAX_NAME_BYTES: usize = 253;

/// A checked Host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Lower case, without port and without the root's dot; an IPv6 address keeps its brackets.
    pub name: String,
    pub port: Option<u16>,
}

impl std::fmt::Display for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)?;
        match self.port {
            Some(port) => write!(formatter, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Reads a Host value; `None` when it is empty or not a plain host name or address with an optional
/// port.
pub fn parse_host(value: &[u8]) -> Option<Host> {
    let value = str::from_utf8(value).ok()?;
    let (name, port) = match value.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (
                format!("[{address}]"),
                port.strip_prefix(':').or(port.is_empty().then_some("")),
            )
        }
        None => match value.split_once(':') {
            Some((name, port)) => (registered_name(name)?, Some(port)),
            None => (registered_name(value)?, Some("")),
        },
    };
    Some(Host {
        name: name.to_ascii_lowercase(),
        port: parse_port(port?)?,
    })
}

/// Letters, digits, `-`, `_` in labels: percent-encoding and sub-delimiters are legal in a URI, but
/// used only to find parsers that disagree.
fn registered_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (name.len() <= MAX_NAME_BYTES && name.split('.').all(label)).then(|| name.to_owned())
}

/// An empty port is legal and means the scheme's own.
fn parse_port(port: &str) -> Option<Option<u16>> {
    if port.is_empty() {
        return Some(None);
    }
    let digits = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| port.parse().ok()).flatten().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(value: &str) -> Option<String> {
        parse_host(value.as_bytes()).map(|host| host.name)
    }

    #[test]
    fn strips_port_and_case() {
        assert_eq!(
            name("Chat.Example.ORG:8443").as_deref(),
            Some("chat.example.org")
        );
        assert_eq!(name("example.org.").as_deref(), Some("example.org"));
        assert_eq!(name("example.org:").as_deref(), Some("example.org"));
        assert_eq!(name("[::1]:80").as_deref(), Some("[::1]"));
        assert_eq!(name("10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(
            parse_host(b"a:65535").and_then(|host| host.port),
            Some(65535)
        );
    }

    #[test]
    fn refuses_what_is_no_plain_host() {
        let bad = [
            "", " ", ":80", "a b", "a/b", "a@b", "user@a", "a:b", "a:1:2", "a:+1", "a:65536",
            "a:000080", "[::1", "[::1]x", "[::1]80", "[a]", "a..b", ".", "..", ".a", "a%41", "a,b",
            "a\u{e9}", "a\t",
        ];
        for value in bad {
            assert_eq!(parse_host(value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(parse_host(b"a\xff"), None);
        assert_eq!(parse_host("a".repeat(254).as_bytes()), None);
    }
}
