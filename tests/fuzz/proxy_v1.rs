//! PROXY headers of version 1: the same in any chunking, what is read is written again the same way, and what the address
//! parser of the standard library takes is read.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use evenkeel::wire::proxy_protocol::{Addresses, ProxyHeader, HeaderProgress, encode_v1, read};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Case {
    line: Line,
    /// Bytes to change: where, and to what.
    changes: Vec<(u8, u8)>,
    behind: Vec<u8>,
    /// Sizes of the pieces it arrives in, over and over.
    pieces: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Line {
    Raw(Vec<u8>),
    Words(Vec<Word>),
    Right(IpAddr, IpAddr, u16, u16),
    Unknown(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Word {
    Tcp4,
    Tcp6,
    Unknown,
    Address(IpAddr),
    Port(u32),
    Raw(Vec<u8>),
}

fuzz_target!(|case: Case| {
    let (bytes, right) = case.bytes();
    let whole = read(&bytes);
    let mut last = HeaderProgress::NeedMore;
    let mut end = 0;
    let mut sizes = case.pieces.iter().cycle();
    while end < bytes.len() {
        end += usize::from(sizes.next().map_or(1, |&size| size.max(1)));
        end = end.min(bytes.len());
        let now = read(&bytes[..end]);
        assert!(last == HeaderProgress::NeedMore || last == now);
        last = now;
    }
    assert_eq!(whole, last);
    assert!(whole != HeaderProgress::NeedMore || bytes.len() < 107);
    if let Some(right) = right {
        let HeaderProgress::Header(ProxyHeader::Proxied(proxied), _) = &whole else {
            panic!("{right:?} is {whole:?}")
        };
        assert_eq!(proxied.addresses, right);
    }
    if let HeaderProgress::Header(header, length) = whole {
        assert!(length <= 107 && bytes[..length].ends_with(b"\r\n"));
        let again = match &header {
            ProxyHeader::Local => encode_v1(None),
            ProxyHeader::Proxied(proxied) => encode_v1(Some(proxied.addresses)),
        };
        assert_eq!(read(&again), HeaderProgress::Header(header, again.len()));
    }
});

impl Case {
    /// And what they are to be read as, where that is known.
    fn bytes(&self) -> (Vec<u8>, Option<Addresses>) {
        let mut right = None;
        let mut bytes = match &self.line {
            Line::Raw(bytes) => bytes.clone(),
            Line::Words(words) => {
                let words = words.iter().flat_map(|word| [b" ".to_vec(), word.bytes()]);
                [b"PROXY".to_vec()]
                    .into_iter()
                    .chain(words)
                    .chain([b"\r\n".to_vec()])
                    .collect::<Vec<_>>()
                    .concat()
            }
            Line::Right(source, destination, from, to) => {
                if source.is_ipv4() == destination.is_ipv4() {
                    right = Some(Addresses::Ip {
                        source: SocketAddr::new(*source, *from),
                        destination: SocketAddr::new(*destination, *to),
                    });
                }
                let family = if source.is_ipv4() { 4 } else { 6 };
                format!("PROXY TCP{family} {source} {destination} {from} {to}\r\n").into_bytes()
            }
            Line::Unknown(rest) => [b"PROXY UNKNOWN", &rest[..], b"\r\n"].concat(),
        };
        for &(at, byte) in &self.changes {
            if let Some(old) = bytes.get_mut(usize::from(at)) {
                *old = byte;
                right = None;
            }
        }
        bytes.extend(&self.behind);
        (bytes, right)
    }
}

impl Word {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Word::Tcp4 => b"TCP4".to_vec(),
            Word::Tcp6 => b"TCP6".to_vec(),
            Word::Unknown => b"UNKNOWN".to_vec(),
            Word::Address(ip) => ip.to_string().into_bytes(),
            Word::Port(port) => port.to_string().into_bytes(),
            Word::Raw(bytes) => bytes.clone(),
        }
    }
}
