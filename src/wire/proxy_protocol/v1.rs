//! Version 1: one line of text.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    Addresses, Details, Proxied, ProxyHeader, ProxyHeaderError, Read, expect_signature, one_family,
};

const SIGNATURE: &[u8] = b"PROXY ";
/// The longest line, its end included.
const MAX_LINE_BYTES: usize = 107;

pub(super) fn read(bytes: &[u8]) -> Read {
    expect_signature(bytes, SIGNATURE)?;
    let line = bytes.get(..MAX_LINE_BYTES).unwrap_or(bytes);
    let end = line
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'))
        .unwrap_or(line.len());
    match line.get(end..).unwrap_or_default() {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] if line.len() == MAX_LINE_BYTES => return Err(ProxyHeaderError::LineTooLong),
        [] | [b'\r'] => return Ok(None),
        // A line that ends with one of the two alone is invalid, whatever follows.
        _ => return Err(ProxyHeaderError::Line),
    }
    let text = line.get(..end).and_then(|line| str::from_utf8(line).ok());
    let header = text.and_then(parse).ok_or(ProxyHeaderError::Line)?;
    Ok(Some((header, end + 2)))
}

/// A line without its end.
fn parse(line: &str) -> Option<ProxyHeader> {
    let mut words = line.split(' ').skip(1);
    let header = match words.next()? {
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Some(ProxyHeader::Local),
        "TCP4" => tcp::<Ipv4Addr>(&mut words)?,
        "TCP6" => tcp::<Ipv6Addr>(&mut words)?,
        _ => return None,
    };
    words.next().is_none().then_some(header)
}

fn tcp<'a, I>(words: &mut impl Iterator<Item = &'a str>) -> Option<ProxyHeader>
where
    I: std::str::FromStr + Into<IpAddr>,
{
    let mut ip = || words.next()?.parse::<I>().ok().map(Into::into);
    let (source, destination): (IpAddr, IpAddr) = (ip()?, ip()?);
    let mut port = || read_port(words.next()?);
    let (from, to) = (port()?, port()?);
    Some(ProxyHeader::Proxied(Box::new(Proxied {
        addresses: Addresses::Ip {
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        },
        details: Details::default(),
    })))
}

/// Digits without a leading zero or a sign.
fn read_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

/// Encodes the line of a connection with these addresses; `None` means UNKNOWN, as for a unix
/// client.
pub fn encode(addresses: Option<Addresses>) -> Vec<u8> {
    let Some(Addresses::Ip {
        source,
        destination,
    }) = addresses
    else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let (source, destination) = one_family(source, destination);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let mut line = String::with_capacity(MAX_LINE_BYTES);
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    line.into_bytes()
}
