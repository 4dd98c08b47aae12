//! The client of a request that came through HTTP proxies: `X-Forwarded-For`, and `Forwarded` (RFC
//! 7239).
//!
//! The chain is read from its right end, where the nearest proxy has written: elements further left
//! come from unknown senders, and cannot change how those to their right are read.

use std::net::IpAddr;

/// The field that holds the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    XForwardedFor,
    Forwarded,
}

/// Finds the rightmost address that is not `trusted`; where all are, the leftmost. `None`: the last
/// element has no address, or there is none. For `lines` see [`addresses`].
pub(crate) fn client<'a>(
    chain: Chain,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut nearest = None;
    for address in addresses(chain, lines) {
        nearest = Some(address);
        if !trusted(address) {
            break;
        }
    }
    nearest
}

/// The addresses of the chain from its right end, up to an element that names none (`unknown`, an
/// obfuscated name, garbage). `lines` are the values of the field in the order of the head.
pub(crate) fn addresses<'a>(
    chain: Chain,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = IpAddr> {
    let elements = lines.rev().flat_map(move |line| elements(chain, line));
    elements
        .filter(|element| !element.is_empty())
        .map_while(move |element| address_of(chain, element))
}

/// The elements of one line, the last one first. A comma in a quoted string is no end of one.
fn elements(chain: Chain, line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let (before, element) = rsplit_unquoted(rest?, b',', chain == Chain::Forwarded);
        rest = before;
        Some(element)
    })
}

/// Cuts at the last separator that stands in no quoted string.
fn rsplit_unquoted(line: &[u8], separator: u8, has_quotes: bool) -> (Option<&[u8]>, &[u8]) {
    let mut quoted = false;
    for (at, &byte) in line.iter().enumerate().rev() {
        if has_quotes && byte == b'"' && !is_escaped(line, at) {
            quoted = !quoted;
        } else if byte == separator && !quoted {
            return (Some(&line[..at]), line[at + 1..].trim_ascii());
        }
    }
    (None, line.trim_ascii())
}

fn is_escaped(line: &[u8], at: usize) -> bool {
    let before = line[..at].iter().rev();
    before.take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

fn address_of(chain: Chain, element: &[u8]) -> Option<IpAddr> {
    match chain {
        Chain::XForwardedFor => parse_node(element),
        Chain::Forwarded => parse_node(unquoted(for_of(element)?)?),
    }
}

/// The value of the one `for` of an element.
fn for_of(element: &[u8]) -> Option<&[u8]> {
    let (mut found, mut rest) = (None, Some(element));
    while let Some(left) = rest {
        let (before, pair) = rsplit_unquoted(left, b';', true);
        rest = before;
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        if pair[..equals].trim_ascii().eq_ignore_ascii_case(b"for")
            && found.replace(pair[equals + 1..].trim_ascii()).is_some()
        {
            return None;
        }
    }
    found
}

/// An address needs no escapes, so a value with escapes is not one.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    match value.strip_prefix(b"\"") {
        Some(rest) => rest.strip_suffix(b"\""),
        None => Some(value),
    }
}

/// Reads `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7`, `[2001:db8::7]` or `[2001:db8::7]:80`. The
/// port is not kept.
fn parse_node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, behind) = rest.split_once(']')?;
            (IpAddr::V6(inner.parse().ok()?), behind)
        }
        None => {
            let (host, _) = text.split_once(':')?;
            (IpAddr::V4(host.parse().ok()?), text.strip_prefix(host)?)
        }
    };
    is_port(port).then(|| address.to_canonical())
}

/// Nothing, a port, or an obfuscated one (RFC 7239 section 6.2).
fn is_port(text: &str) -> bool {
    let is_obfuscated = |port: &str| {
        port.starts_with('_')
            && port
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match text.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok() || is_obfuscated(port),
        None => text.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(chain: Chain, lines: &[&str]) -> Option<String> {
        let lines = lines.iter().map(|line| line.as_bytes());
        let trusted = |ip: IpAddr| ip.to_string().starts_with("10.");
        client(chain, lines, trusted).map(|ip| ip.to_string())
    }

    fn x(lines: &[&str]) -> Option<String> {
        find(Chain::XForwardedFor, lines)
    }

    fn rfc(lines: &[&str]) -> Option<String> {
        find(Chain::Forwarded, lines)
    }

    fn is(address: &str) -> Option<String> {
        Some(address.to_owned())
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_client() {
        assert_eq!(x(&["6.6.6.6, 192.0.2.7, 10.0.0.1"]), is("192.0.2.7"));
        assert_eq!(x(&["6.6.6.6", "192.0.2.7", "10.0.0.1,"]), is("192.0.2.7"));
        assert_eq!(x(&["10.0.0.3, 10.0.0.2 ,, 10.0.0.1"]), is("10.0.0.3"));
        assert_eq!(x(&["6.6.6.6, unknown, 10.0.0.1"]), is("10.0.0.1"));
        assert_eq!(x(&["6.6.6.6, unknown"]), None);
        assert_eq!(x(&[]), None);
    }

    #[test]
    fn an_address_may_come_with_its_port() {
        assert_eq!(x(&["192.0.2.7:80"]), is("192.0.2.7"));
        assert_eq!(x(&["2001:db8::7"]), is("2001:db8::7"));
        assert_eq!(x(&["[2001:db8::7]"]), is("2001:db8::7"));
        assert_eq!(x(&["[2001:db8::7]:80"]), is("2001:db8::7"));
        assert_eq!(x(&["::ffff:192.0.2.7"]), is("192.0.2.7"));
        assert_eq!(rfc(&["for=\"192.0.2.7:_a1\""]), is("192.0.2.7"));
        for garbage in [
            "[192.0.2.7]",
            "192.0.2.7:x",
            "[2001:db8::7]80",
            "192.0.2.7 x",
        ] {
            assert_eq!(x(&[garbage]), None, "{garbage}");
        }
    }

    #[test]
    fn forwarded_is_read_with_its_quotes() {
        assert_eq!(
            rfc(&["for=192.0.2.7;proto=https, FOR=10.0.0.1"]),
            is("192.0.2.7")
        );
        assert_eq!(
            rfc(&["proto=http;For=\"[2001:db8::7]:80\""]),
            is("2001:db8::7")
        );
        assert_eq!(
            rfc(&["for=192.0.2.7;host=\"a,b\", for=10.0.0.1"]),
            is("192.0.2.7")
        );
        assert_eq!(
            rfc(&["for=6.6.6.6, for=_hidden, for=10.0.0.1"]),
            is("10.0.0.1")
        );
        assert_eq!(rfc(&["for=6.6.6.6;for=7.7.7.7"]), None);
        assert_eq!(
            rfc(&["for=192.0.2.7;host=\"a;for=6.6.6.6\""]),
            is("192.0.2.7")
        );
    }

    #[test]
    fn an_open_quote_swallows_nothing_that_a_proxy_appends() {
        assert_eq!(rfc(&["for=\"6.6.6.6, for=192.0.2.7"]), is("192.0.2.7"));
        assert_eq!(
            rfc(&["for=\"\\, for=192.0.2.7, for=10.0.0.1"]),
            is("192.0.2.7")
        );
    }

    proptest! {
        #[test]
        fn what_a_client_claims_never_moves_it(claim in any::<Vec<u8>>(), hops in 0usize..4) {
            for (chain, client_text, hop) in [
                (Chain::XForwardedFor, ", 192.0.2.7", ", 10.0.0.1"),
                (Chain::Forwarded, ", for=\"192.0.2.7:1\";host=\"a,b\"", ", for=10.0.0.1"),
            ] {
                let mut line = claim.clone();
                line.extend(client_text.bytes());
                line.extend(hop.repeat(hops).bytes());
                let trusted = |ip: IpAddr| ip.to_string().starts_with("10.");
                let found = client(chain, [&line[..]].into_iter(), trusted);
                prop_assert_eq!(found, Some("192.0.2.7".parse().unwrap()));
            }
        }
    }
}
