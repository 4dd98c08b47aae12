//! PROXY headers of version 2: the same in any chunking, and what is read is written again so that it reads the same.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use evenkeel::wire::proxy_protocol::{
    Addresses, SslDetails, Details, ProxyHeader, MAX_HEADER_BYTES, HeaderProgress, encode_v2, read,
};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[derive(Debug, Arbitrary)]
struct Case {
    header: Built,
    /// Bytes to change: where, and to what.
    changes: Vec<(u16, u8)>,
    behind: Vec<u8>,
    /// Sizes of the pieces it arrives in, over and over.
    pieces: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Built {
    Raw(Vec<u8>),
    Parts {
        command: u8,
        family: u8,
        /// In place of the right one.
        length: Option<u16>,
        addresses: Vec<u8>,
        tlvs: Vec<(u8, Vec<u8>)>,
        padding: u16,
    },
    Ours {
        source: IpAddr,
        destination: IpAddr,
        ports: (u16, u16),
        authority: Option<String>,
        alpn: Option<Vec<u8>>,
        unique_id: Option<Vec<u8>>,
        tls: Option<(bool, bool, bool, u32, Option<String>)>,
    },
}

fuzz_target!(|case: Case| {
    let bytes = case.bytes();
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
    assert!(whole != HeaderProgress::NeedMore || bytes.len() < MAX_HEADER_BYTES);
    if let HeaderProgress::Header(ProxyHeader::Proxied(proxied), length) = whole {
        assert!(length <= MAX_HEADER_BYTES && bytes.starts_with(SIGNATURE));
        if proxied.addresses != Addresses::Unix {
            let again = encode_v2(Some(proxied.addresses), &proxied.details);
            let expected = HeaderProgress::Header(ProxyHeader::Proxied(proxied), again.len());
            // With a checksum the largest do not fit any more.
            assert!(again.len() > MAX_HEADER_BYTES || read(&again) == expected);
        }
    }
});

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.bytes();
        for &(at, byte) in &self.changes {
            if let Some(old) = bytes.get_mut(usize::from(at)) {
                *old = byte;
            }
        }
        bytes.extend(&self.behind);
        bytes
    }
}

impl Built {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Built::Raw(bytes) => [SIGNATURE, bytes].concat(),
            Built::Parts {
                command,
                family,
                length,
                addresses,
                tlvs,
                padding,
            } => {
                let mut body = addresses.clone();
                for (kind, value) in tlvs {
                    body.push(*kind);
                    body.extend((value.len() as u16).to_be_bytes());
                    body.extend(value);
                }
                body.extend(vec![0; usize::from(padding % 16_600)]);
                let length = length.unwrap_or(body.len() as u16).to_be_bytes();
                [SIGNATURE, &[*command, *family], &length, &body].concat()
            }
            Built::Ours {
                source,
                destination,
                ports,
                authority,
                alpn,
                unique_id,
                tls,
            } => {
                let addresses = Addresses::Ip {
                    source: SocketAddr::new(*source, ports.0),
                    destination: SocketAddr::new(*destination, ports.1),
                };
                let details = Details {
                    authority: authority.clone(),
                    alpn: alpn.clone(),
                    unique_id: unique_id.clone(),
                    tls: tls.clone().map(
                        |(over_tls, certificate, certificate_in_session, verify, version)| {
                            SslDetails {
                                over_tls,
                                certificate,
                                certificate_in_session,
                                verify,
                                version,
                                ..SslDetails::default()
                            }
                        },
                    ),
                    ..Details::default()
                };
                encode_v2(Some(addresses), &details)
            }
        }
    }
}
