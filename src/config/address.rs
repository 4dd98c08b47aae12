//! Addresses as operators write them: `10.0.0.1:9501`, `[::1]:9501`, `chat.internal:9501`,
//! `unix:/run/chat.sock`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `[::]` is dual-stack.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Where a backend is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    /// A host name and port; resolved by the discovery plane, which keeps the last good answer.
    Name(String, u16),
    /// `unix:/path`
    Unix(PathBuf),
}

/// `check.address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckAddress {
    pub ip: IpAddr,
    pub port: Option<u16>,
}

/// Longest path of a unix socket, in bytes: `sun_path` of `unix(7)` holds 108 with its closing
/// zero.
const UNIX_PATH_MAX: usize = 107;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Name(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp(address) => write!(f, "{address}"),
            Bind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Address, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Address::Unix);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err(PORT_ZERO)
            } else {
                Ok(Address::Tcp(address))
            };
        }
        let (host, port) = host_and_port(text)?;
        Ok(Address::Name(host, port))
    }
}

impl FromStr for Bind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Bind, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Bind::Unix);
        }
        text.parse()
            .map(Bind::Tcp)
            .map_err(|_| "it is not an IP address and a port")
    }
}

impl Bind {
    /// Whether the kernel refuses to bind one beside the other.
    pub fn overlaps(&self, other: &Bind) -> bool {
        match (self, other) {
            (Bind::Unix(a), Bind::Unix(b)) => a == b,
            (Bind::Tcp(a), Bind::Tcp(b)) => {
                a.port() == b.port() && a.port() != 0 && addresses_overlap(a, b)
            }
            _ => false,
        }
    }
}

fn addresses_overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V4(wide) => wide.is_unspecified() && narrow.is_ipv4(),
        // `[::]` is bound dual-stack.
        IpAddr::V6(wide) => wide.is_unspecified(),
    };
    let (a, b) = (a.ip().to_canonical(), b.ip().to_canonical());
    a == b || covers(a, b) || covers(b, a)
}

impl FromStr for CheckAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<CheckAddress, Self::Err> {
        if let Ok(ip) = text.parse() {
            return Ok(CheckAddress { ip, port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Err(PORT_ZERO),
            Ok(address) => Ok(CheckAddress {
                ip: address.ip(),
                port: Some(address.port()),
            }),
            Err(_) => Err("it is not an IP address"),
        }
    }
}

const PORT_ZERO: &str = "nothing can be reached on port 0";

/// `host:port` with a host name, in lower case.
pub(super) fn host_and_port(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let port = match port.parse::<u16>() {
        Ok(0) => return Err(PORT_ZERO),
        Ok(port) if !port_has_sign(text) => port,
        _ => return Err("the port is not a number from 1 to 65535"),
    };
    Ok((host_name(host)?, port))
}

fn port_has_sign(text: &str) -> bool {
    text.contains(":+")
}

/// A DNS name in lower case, as RFC 1123 and underscores (SRV) allow it. A trailing dot is kept: it
/// stops search domains.
pub(super) fn host_name(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("the host name is missing");
    }
    if name.len() > 253 {
        return Err("a host name has at most 253 characters");
    }
    let label_is_right = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.split('.').all(label_is_right) {
        return Err("it is not a host name");
    }
    // RFC 3696, 2: a last label of digits alone is a mistyped address, never a name.
    if name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err("it is not an IP address, and a host name cannot end in a number");
    }
    Ok(text.to_ascii_lowercase())
}

fn unix_path(path: &str) -> Result<PathBuf, &'static str> {
    if !path.starts_with('/') {
        return Err("the path of a unix socket must be absolute");
    }
    if path.len() > UNIX_PATH_MAX || path.contains('\0') {
        return Err("the path of a unix socket has at most 107 bytes");
    }
    Ok(Path::new(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read_and_written() {
        for text in [
            "10.0.0.1:9501",
            "[fd00::1]:9501",
            "chat.internal:9501",
            "_a.b_c.:1",
            "unix:/run/a b.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["0.0.0.0:80", "[::]:0", "unix:/run/a.sock"] {
            assert_eq!(text.parse::<Bind>().unwrap().to_string(), text);
        }
        assert_eq!(
            "Chat.Internal:1".parse(),
            Ok(Address::Name("chat.internal".to_owned(), 1))
        );
    }

    #[test]
    fn what_cannot_be_reached_is_refused() {
        let long = format!("unix:/{}", "a".repeat(107));
        for text in [
            "",
            "chat",
            ":80",
            "chat:",
            "chat:0",
            "chat:65536",
            "chat:+80",
            "chat:-1",
            "10.0.0.1:0",
            "10.0.0.1",
            "10.0.0.256:80",
            "::1:80",
            "[::1]",
            "-a:80",
            "a-:80",
            "a..b:80",
            "a b:80",
            "caf\u{e9}:80",
            "http://a:80",
            "unix:",
            "unix:a",
            &long,
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_listener_binds_numbers_only() {
        for text in [
            "",
            "80",
            ":80",
            "localhost:80",
            "*:80",
            "0.0.0.0",
            "[::]",
            "unix:run/a",
        ] {
            assert!(text.parse::<Bind>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_overlaps() {
        let overlapping = [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "0.0.0.0:80"),
            ("[::1]:80", "[::]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("unix:/run/a", "unix:/run/a"),
        ];
        let apart = [
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("0.0.0.0:80", "0.0.0.0:81"),
            ("0.0.0.0:80", "[::1]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("unix:/run/a", "unix:/run/b"),
        ];
        let check = |(a, b): (&str, &str)| {
            let (a, b): (Bind, Bind) = (a.parse().unwrap(), b.parse().unwrap());
            (a.overlaps(&b), b.overlaps(&a))
        };
        assert!(
            overlapping
                .into_iter()
                .all(|pair| check(pair) == (true, true))
        );
        assert!(apart.into_iter().all(|pair| check(pair) == (false, false)));
    }

    #[test]
    fn a_check_address_has_a_port_or_none() {
        let read = |text: &str| {
            text.parse::<CheckAddress>()
                .map(|address| (address.ip.to_string(), address.port))
        };
        assert_eq!(read("10.0.0.1"), Ok(("10.0.0.1".to_owned(), None)));
        assert_eq!(read("::1"), Ok(("::1".to_owned(), None)));
        assert_eq!(read("[::1]:80"), Ok(("::1".to_owned(), Some(80))));
        assert!(read("10.0.0.1:0").is_err() && read("a:80").is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "([a-z0-9.:-]|\\[|\\]){1,30}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
    }
}
