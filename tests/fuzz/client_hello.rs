//! The ClientHello reader: the same in any chunking, and where rustls' acceptor reads the same bytes, the same name.

#![no_main]

use std::io::Cursor;

use evenkeel::wire::client_hello::{ClientHello, ClientHelloError, MAX_HELLO_BYTES, HelloProgress, ClientHelloReader};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;

#[derive(Debug, Arbitrary)]
struct Case {
    hello: Hello,
    /// Payload sizes of the records, then one that holds the rest.
    records: Vec<u16>,
    /// Bytes to change: where, and to what.
    changes: Vec<(u16, u8)>,
    behind: Vec<u8>,
    /// Sizes of the pieces it arrives in, over and over.
    pieces: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Hello {
    Raw(Vec<u8>),
    Message(Vec<u8>),
    Built {
        session: u8,
        suites: u8,
        extensions: Vec<Extension>,
        padding: u16,
    },
}

#[derive(Debug, Arbitrary)]
enum Extension {
    Name(Name),
    Names(Vec<(u8, Name)>),
    Protocols(Vec<Vec<u8>>),
    Other(u16, Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Name {
    Good(u8),
    Labels(Vec<u8>),
    Address([u8; 4]),
    Raw(Vec<u8>),
}

fuzz_target!(|case: Case| {
    let bytes = case.bytes();
    let whole = ClientHelloReader::new().feed(&bytes);
    let mut reader = ClientHelloReader::new();
    let mut last = HelloProgress::NeedMore;
    let mut rest = &bytes[..];
    let mut sizes = case.pieces.iter().cycle();
    while !rest.is_empty() {
        let size = usize::from(sizes.next().map_or(1, |&size| size.max(1))).min(rest.len());
        let (piece, behind) = rest.split_at(size);
        let now = reader.feed(piece);
        assert!(last == HelloProgress::NeedMore || last == now);
        last = now;
        rest = behind;
    }
    assert_eq!(whole, last);

    match (by_rustls(&bytes), whole) {
        (Some(theirs), HelloProgress::Hello(ours)) => assert_eq!(ours, theirs),
        // A host name beside other kinds of names, which rustls passes over: nobody has ever defined one.
        (Some(_), HelloProgress::Invalid(ClientHelloError::ServerName)) => {}
        // What else rustls would serve is not to be refused, nor waited for.
        (Some(theirs), other) => assert!(bytes.len() > MAX_HELLO_BYTES, "{theirs:?} is {other:?}"),
        (None, _) => {}
    }
});

/// What rustls' acceptor makes of the bytes: `None` when it wants more or refuses.
fn by_rustls(bytes: &[u8]) -> Option<ClientHello> {
    let mut acceptor = Acceptor::default();
    let mut cursor = Cursor::new(bytes);
    loop {
        if acceptor.read_tls(&mut cursor).ok()? == 0 {
            return None;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            return Some(ClientHello {
                sni: hello
                    .server_name()
                    .map(|name| name.strip_suffix('.').unwrap_or(name).to_owned()),
                malformed_name: None,
                alpn: hello
                    .alpn()
                    .map(|list| list.map(<[u8]>::to_vec).collect())
                    .unwrap_or_default(),
            });
        }
    }
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = match &self.hello {
            Hello::Raw(bytes) => bytes.clone(),
            Hello::Message(message) => records(message, &self.records),
            Hello::Built {
                session,
                suites,
                extensions,
                padding,
            } => {
                let message = build(*session, *suites, extensions, *padding);
                records(&message, &self.records)
            }
        };
        for &(at, to) in &self.changes {
            let length = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(usize::from(at) % length) {
                *byte = to;
            }
        }
        bytes.extend_from_slice(&self.behind);
        bytes
    }
}

fn records(message: &[u8], sizes: &[u16]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sizes = sizes.iter().map(|&size| usize::from(size).max(1));
    let mut rest = message;
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1 << 14).min(1 << 14);
        let (now, behind) = rest.split_at(size.min(rest.len()));
        out.extend([22, 3, 1]);
        out.extend((now.len() as u16).to_be_bytes());
        out.extend(now);
        rest = behind;
    }
    out
}

fn build(session: u8, suites: u8, extensions: &[Extension], padding: u16) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(list(1, &vec![1; usize::from(session % 33)]));
    body.extend(list(2, &[0x13, 0x01].repeat(usize::from(suites).max(1))));
    body.extend(list(1, &[0]));
    // Without signature algorithms rustls takes no hello.
    let mut all = extension(13, &list(2, &[4, 3, 8, 4]));
    for one in extensions {
        all.extend(one.bytes());
    }
    if padding > 0 {
        all.extend(extension(21, &vec![0; usize::from(padding % 20_000)]));
    }
    body.extend(list(2, &all));
    let mut message = vec![1];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    message
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(list(2, data));
    bytes
}

/// A vector behind its length in `width` bytes; what is too long for that is cut.
fn list(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len().min((1 << (8 * width)) - 1);
    let mut out = (length as u32).to_be_bytes()[4 - width..].to_vec();
    out.extend(&bytes[..length]);
    out
}

impl Extension {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Extension::Name(name) => {
                let mut one = vec![0];
                one.extend(list(2, &name.bytes()));
                extension(0, &list(2, &one))
            }
            Extension::Names(names) => {
                let mut all = Vec::new();
                for (kind, name) in names {
                    all.push(kind % 3);
                    all.extend(list(2, &name.bytes()));
                }
                extension(0, &list(2, &all))
            }
            Extension::Protocols(protocols) => {
                let all: Vec<u8> = protocols.iter().flat_map(|one| list(1, one)).collect();
                extension(16, &list(2, &all))
            }
            Extension::Other(kind, data) => extension(*kind, data),
        }
    }
}

impl Name {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Name::Good(number) => format!("Node-{number}.Example.org").into_bytes(),
            Name::Labels(labels) => labels
                .iter()
                .map(|byte| b"abcXYZ019-._*:[]"[usize::from(byte % 16)])
                .collect(),
            Name::Address([a, b, c, d]) => format!("{a}.{b}.{c}.{d}").into_bytes(),
            Name::Raw(bytes) => bytes.clone(),
        }
    }
}
