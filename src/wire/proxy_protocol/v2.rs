//! Version 2: binary, with TLVs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::checksum::crc32c;
use super::tlvs::{self, Tlvs, push};
use super::{
    Addresses, Details, MAX_HEADER_BYTES, Proxied, ProxyHeader, ProxyHeaderError, Read, SslDetails,
    expect_signature, one_family,
};

pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length of the rest.
const FIXED_BYTES: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

const DGRAM: u8 = 0x02;
const INET_STREAM: u8 = 0x11;
const INET6_STREAM: u8 = 0x21;

const TYPE_ALPN: u8 = 0x01;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_NOOP: u8 = 0x04;
const TYPE_UNIQUE_ID: u8 = 0x05;
const TYPE_SSL: u8 = 0x20;
const TYPE_SSL_VERSION: u8 = 0x21;
pub(super) const TYPE_NETNS: u8 = 0x30;

const MAX_AUTHORITY_BYTES: usize = 255;
const MAX_UNIQUE_ID_BYTES: usize = 128;

const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;

/// Reads a header. Each field is checked as soon as it is there, in the order of the bytes, so that
/// more bytes never change the result.
pub(super) fn read(bytes: &[u8]) -> Read {
    expect_signature(bytes, SIGNATURE)?;
    let is_local = match bytes.get(12) {
        None => return Ok(None),
        Some(&LOCAL) => true,
        Some(&PROXY) => false,
        Some(_) => return Err(ProxyHeaderError::Command),
    };
    let family = match bytes.get(13) {
        None => return Ok(None),
        Some(&family) if is_local || is_known(family) => family,
        // Of a listener for UDP that forwards here by mistake.
        Some(&family) if is_known(family & 0xf0) && family & 0x0f == DGRAM => {
            return Err(ProxyHeaderError::Datagram);
        }
        Some(_) => return Err(ProxyHeaderError::Family),
    };
    let Some(length) = bytes.get(14..FIXED_BYTES).and_then(|two| two.first_chunk()) else {
        return Ok(None);
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes(*length));
    if length > MAX_HEADER_BYTES {
        return Err(ProxyHeaderError::TooLong);
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(None);
    };
    // LOCAL and UNSPEC: the rest is to be skipped.
    let header = if is_local || family >> 4 == 0 {
        ProxyHeader::Local
    } else {
        ProxyHeader::Proxied(Box::new(proxied(header, family >> 4)?))
    };
    Ok(Some((header, length)))
}

/// UNSPEC, INET, INET6 or UNIX; UNSPEC or STREAM.
fn is_known(family: u8) -> bool {
    family >> 4 <= 3 && family & 0x0f <= 1
}

fn proxied(header: &[u8], family: u8) -> Result<Proxied, ProxyHeaderError> {
    let mut rest = header.get(FIXED_BYTES..).unwrap_or_default();
    let addresses = match family {
        1 => ip::<4>(&mut rest, |ip| Ipv4Addr::from(ip).into())?,
        2 => ip::<16>(&mut rest, |ip| Ipv6Addr::from(ip).into())?,
        _ => {
            take::<216>(&mut rest).ok_or(ProxyHeaderError::Addresses)?;
            Addresses::Unix
        }
    };
    Ok(Proxied {
        addresses,
        details: details(header, rest)?,
    })
}

fn ip<const N: usize>(
    rest: &mut &[u8],
    of: impl Fn([u8; N]) -> IpAddr,
) -> Result<Addresses, ProxyHeaderError> {
    let mut ip = || take(rest).map(&of).ok_or(ProxyHeaderError::Addresses);
    let (source, destination) = (ip()?, ip()?);
    let mut port = || {
        take(rest)
            .map(u16::from_be_bytes)
            .ok_or(ProxyHeaderError::Addresses)
    };
    Ok(Addresses::Ip {
        source: SocketAddr::new(source, port()?),
        destination: SocketAddr::new(destination, port()?),
    })
}

/// The first `N` bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*first)
}

fn details(header: &[u8], mut rest: &[u8]) -> Result<Details, ProxyHeaderError> {
    let mut details = Details::default();
    let mut others = Vec::new();
    while let Some((kind, value)) = tlvs::next(&mut rest)? {
        match kind {
            TYPE_ALPN => details.alpn = Some(value.to_vec()),
            TYPE_AUTHORITY => details.authority = Some(text(value, MAX_AUTHORITY_BYTES)?),
            TYPE_UNIQUE_ID if value.len() > MAX_UNIQUE_ID_BYTES => {
                return Err(ProxyHeaderError::Tlv);
            }
            TYPE_UNIQUE_ID => details.unique_id = Some(value.to_vec()),
            TYPE_SSL => details.tls = Some(client_tls(value)?),
            TYPE_CRC32C => verify(header, value, header.len() - rest.len())?,
            TYPE_NOOP => {}
            // A network namespace, or an unknown type.
            _ => push(&mut others, kind, value),
        }
    }
    details.others = Tlvs::of(&others);
    Ok(details)
}

fn text(value: &[u8], limit: usize) -> Result<String, ProxyHeaderError> {
    let text = str::from_utf8(value).ok();
    let text = text.filter(|text| text.len() <= limit);
    text.map(str::to_owned).ok_or(ProxyHeaderError::Tlv)
}

fn client_tls(mut value: &[u8]) -> Result<SslDetails, ProxyHeaderError> {
    let [client, verify @ ..] = take::<5>(&mut value).ok_or(ProxyHeaderError::Tlv)?;
    let mut tls = SslDetails {
        over_tls: client & CLIENT_SSL != 0,
        certificate: client & CLIENT_CERT_CONN != 0,
        certificate_in_session: client & CLIENT_CERT_SESS != 0,
        verify: u32::from_be_bytes(verify),
        version: None,
        others: Tlvs::default(),
    };
    let mut others = Vec::new();
    while let Some((kind, value)) = tlvs::next(&mut value)? {
        match kind {
            TYPE_SSL_VERSION => tls.version = Some(text(value, MAX_AUTHORITY_BYTES)?),
            _ => push(&mut others, kind, value),
        }
    }
    tls.others = Tlvs::of(&others);
    Ok(tls)
}

/// Compares the checksum, which ends at `end`, with that of the header with zeros in its place.
fn verify(header: &[u8], value: &[u8], end: usize) -> Result<(), ProxyHeaderError> {
    let received = value.try_into().map(u32::from_be_bytes);
    let received = received.map_err(|_| ProxyHeaderError::Tlv)?;
    let field = end - 4..end;
    let zeroed = header.iter().enumerate();
    let zeroed = zeroed.map(|(at, byte)| if field.contains(&at) { 0 } else { *byte });
    let is_right = crc32c(zeroed) == received;
    is_right.then_some(()).ok_or(ProxyHeaderError::Checksum)
}

/// Encodes the header of the sender's own connection, such as a check.
pub fn encode_local() -> Vec<u8> {
    finished(LOCAL, 0, Vec::new())
}

/// Encodes the header, with a checksum. Without IP addresses, as for a unix client, the family is
/// UNSPEC: few receivers know another.
pub fn encode(addresses: Option<Addresses>, details: &Details) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    let family = match addresses {
        Some(Addresses::Ip {
            source,
            destination,
        }) => push_addresses(&mut body, source, destination),
        Some(Addresses::Unix) | None => 0,
    };
    if let Some(alpn) = &details.alpn {
        push(&mut body, TYPE_ALPN, alpn);
    }
    if let Some(authority) = &details.authority {
        push(&mut body, TYPE_AUTHORITY, authority.as_bytes());
    }
    if let Some(id) = &details.unique_id {
        push(&mut body, TYPE_UNIQUE_ID, id);
    }
    if let Some(tls) = &details.tls {
        push(&mut body, TYPE_SSL, &encoded_tls(tls));
    }
    body.extend(details.others.bytes());
    finished(PROXY, family, body)
}

/// Appends the addresses and returns family and transport.
fn push_addresses(body: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) -> u8 {
    let (source, destination) = one_family(source, destination);
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => body.extend(ip.octets()),
            IpAddr::V6(ip) => body.extend(ip.octets()),
        }
    }
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    if source.is_ipv4() {
        INET_STREAM
    } else {
        INET6_STREAM
    }
}

fn encoded_tls(tls: &SslDetails) -> Vec<u8> {
    let flags = [
        (tls.over_tls, CLIENT_SSL),
        (tls.certificate, CLIENT_CERT_CONN),
        (tls.certificate_in_session, CLIENT_CERT_SESS),
    ];
    let client = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| flag);
    let mut value = vec![client.sum()];
    value.extend(tls.verify.to_be_bytes());
    if let Some(version) = &tls.version {
        push(&mut value, TYPE_SSL_VERSION, version.as_bytes());
    }
    value.extend(tls.others.bytes());
    value
}

/// Adds the fixed part before `body` and the checksum behind it.
fn finished(command: u8, family: u8, mut body: Vec<u8>) -> Vec<u8> {
    push(&mut body, TYPE_CRC32C, &[0; 4]);
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend(length.to_be_bytes());
    header.extend(body);
    let checksum = crc32c(header.iter().copied()).to_be_bytes();
    header.truncate(header.len() - checksum.len());
    header.extend(checksum);
    header
}
