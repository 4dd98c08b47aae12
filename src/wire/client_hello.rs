//! The ClientHello as a router sees it: server name and ALPN list, from bytes peeked off a TLS
//! connection (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC 7301).
//!
//! Records are reassembled whatever their number and however the bytes arrive. Bytes that are not a
//! ClientHello to the last one are `Invalid`: the connection must be closed, never routed by
//! default. Nothing is decrypted and nothing is answered here.

mod suites;
mod tickets;

use std::ops::Range;

use rustls_pki_types::ServerName;

/// Bytes on the wire up to the end of the ClientHello, record headers included. A browser's hello
/// with a post-quantum key share has about 1.8 KB; the bound limits the memory that a peer can
/// take.
pub const MAX_HELLO_BYTES: usize = 16 * 1024;

const RECORD_HEADER_BYTES: usize = 5;
/// Largest plaintext of one record, RFC 8446 section 5.1.
const MAX_RECORD_BYTES: usize = 1 << 14;
const CONTENT_TYPE_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER_BYTES: usize = 4;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;
/// Longest name of DNS, RFC 1035 section 2.3.4.
const MAX_NAME_BYTES: usize = 255;

/// Result after the bytes fed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloProgress {
    /// The message is not complete.
    NeedMore,
    Hello(ClientHello),
    /// Not a ClientHello; the connection is to be closed.
    Invalid(ClientHelloError),
}

/// The facts of one ClientHello.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// Lower case, without a trailing dot. `None`: no name was sent, or an IP address (which RFC
    /// 6066 does not count as a name).
    pub sni: Option<String>,
    /// Text sent in place of a name that is not one, such as `host:8443`; no route has it.
    pub malformed_name: Option<String>,
    /// The client's protocols in its order; empty when it sent none.
    pub alpn: Vec<Vec<u8>>,
}

/// Why the bytes are no ClientHello; always the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientHelloError {
    #[error("not a tls handshake record")]
    NotHandshake,
    #[error("record length out of range")]
    RecordLength,
    #[error("first handshake message is not a client hello")]
    NotClientHello,
    #[error("client hello exceeds {MAX_HELLO_BYTES} bytes")]
    TooLarge,
    #[error("malformed client hello")]
    Malformed,
    #[error("invalid server name")]
    ServerName,
}

/// Reads one ClientHello from a stream in any chunking. The caller keeps the bytes itself (to
/// replay them); this keeps only the reassembled message.
#[derive(Debug, Default)]
pub struct ClientHelloReader {
    header: Vec<u8>,
    /// Bytes of the present record's payload still to come.
    record_left: usize,
    message: Vec<u8>,
    consumed: usize,
    done: Option<HelloProgress>,
}

impl ClientHelloReader {
    pub fn new() -> ClientHelloReader {
        ClientHelloReader::default()
    }

    /// Takes the next bytes. After `Hello` or `Invalid` it returns the same again, and ignores
    /// further bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) -> HelloProgress {
        while self.done.is_none() && !bytes.is_empty() {
            let (now, rest) = self.split(bytes);
            bytes = rest;
            self.done = self.take(now).transpose().map(progress);
        }
        self.done.clone().unwrap_or(HelloProgress::NeedMore)
    }

    /// The part of `bytes` that belongs to the present record header or payload and is within the
    /// bound, and the rest.
    fn split<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let wanted = match self.record_left {
            0 => RECORD_HEADER_BYTES - self.header.len(),
            left => left,
        };
        let room = MAX_HELLO_BYTES.saturating_sub(self.consumed);
        bytes.split_at(wanted.min(room).min(bytes.len()))
    }

    /// Checks all bytes within the bound before it refuses the rest, so that the result is the same
    /// in any chunking.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, ClientHelloError> {
        if self.consumed >= MAX_HELLO_BYTES {
            return Err(ClientHelloError::TooLarge);
        }
        self.consumed += bytes.len();
        if self.record_left > 0 {
            self.record_left -= bytes.len();
            self.message.extend_from_slice(bytes);
            return self.message_so_far();
        }
        self.header.extend_from_slice(bytes);
        self.record_header().map(|()| None)
    }

    /// Checks the record header as far as it is known, so that anything but TLS is refused at its
    /// first byte.
    fn record_header(&mut self) -> Result<(), ClientHelloError> {
        match self.header[..] {
            [kind, ..] if kind != CONTENT_TYPE_HANDSHAKE => {
                return Err(ClientHelloError::NotHandshake);
            }
            [_, major, ..] if major != 3 => return Err(ClientHelloError::NotHandshake),
            [_, _, _, high, low] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                // An empty handshake record is forbidden (RFC 8446 section 5.1) and would cost a
                // peer nothing to repeat.
                if !(1..=MAX_RECORD_BYTES).contains(&length) {
                    return Err(ClientHelloError::RecordLength);
                }
                self.record_left = length;
                self.header.clear();
            }
            _ => {}
        }
        Ok(())
    }

    /// The body of a complete ClientHello; `None` if it is malformed.
    fn body(&self) -> Option<HelloBody<'_>> {
        let body = self.message.get(MESSAGE_HEADER_BYTES..)?;
        HelloBody::read(body).ok()
    }

    fn message_so_far(&self) -> Result<Option<ClientHello>, ClientHelloError> {
        let Some(&kind) = self.message.first() else {
            return Ok(None);
        };
        if kind != MESSAGE_CLIENT_HELLO {
            return Err(ClientHelloError::NotClientHello);
        }
        let Some(&[_, a, b, c]) = self.message.first_chunk::<MESSAGE_HEADER_BYTES>() else {
            return Ok(None);
        };
        let end = MESSAGE_HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
        if end > MAX_HELLO_BYTES {
            return Err(ClientHelloError::TooLarge);
        }
        match self.message.get(MESSAGE_HEADER_BYTES..end) {
            // A client may not send a second message in the record of the first flight.
            Some(_) if self.message.len() > end => Err(ClientHelloError::Malformed),
            Some(_) if self.record_left > 0 => Err(ClientHelloError::Malformed),
            Some(body) => parse(body).map(Some),
            None => Ok(None),
        }
    }
}

fn progress(outcome: Result<ClientHello, ClientHelloError>) -> HelloProgress {
    match outcome {
        Ok(hello) => HelloProgress::Hello(hello),
        Err(invalid) => HelloProgress::Invalid(invalid),
    }
}

/// The body of a ClientHello message.
fn parse(body: &[u8]) -> Result<ClientHello, ClientHelloError> {
    let mut extensions = HelloBody::read(body)?.extensions;
    let mut hello = ClientHello::default();
    let mut seen = Vec::new();
    while let Some((kind, data)) = extensions.next_extension()? {
        seen.push(kind);
        match kind {
            EXTENSION_SERVER_NAME => (hello.sni, hello.malformed_name) = server_name(data)?,
            EXTENSION_ALPN => hello.alpn = protocols(data)?,
            _ => {}
        }
    }
    // Thousands fit the bound: each against all before it would cost a peer nothing and us half a
    // millisecond.
    seen.sort_unstable();
    if seen.array_windows().any(|[one, next]| one == next) {
        return Err(ClientHelloError::Malformed);
    }
    Ok(hello)
}

/// Reads one host name, as RFC 6066 allows no second and no other kind exists; or the text that
/// stands in its place.
fn server_name(mut data: Bytes<'_>) -> Result<(Option<String>, Option<String>), ClientHelloError> {
    let mut names = data.list(2, 1..65_536)?;
    if names.u8()? != NAME_TYPE_HOST {
        return Err(ClientHelloError::ServerName);
    }
    let name = names.list(2, 1..65_536)?;
    if !names.0.is_empty() || !data.0.is_empty() {
        return Err(ClientHelloError::ServerName);
    }
    match ServerName::try_from(name.0) {
        Ok(ServerName::DnsName(name)) => {
            let name = name.as_ref().to_ascii_lowercase();
            let bare = name.strip_suffix('.').map(str::to_owned);
            Ok((Some(bare.unwrap_or(name)), None))
        }
        Ok(ServerName::IpAddress(_)) => Ok((None, None)),
        _ => Ok((None, Some(odd_name(name.0)?))),
    }
}

/// Text that a log may show.
fn odd_name(bytes: &[u8]) -> Result<String, ClientHelloError> {
    let is_text = bytes.len() <= MAX_NAME_BYTES && bytes.iter().all(u8::is_ascii_graphic);
    let text = str::from_utf8(bytes).ok().filter(|_| is_text);
    text.map(str::to_ascii_lowercase)
        .ok_or(ClientHelloError::ServerName)
}

fn protocols(mut data: Bytes<'_>) -> Result<Vec<Vec<u8>>, ClientHelloError> {
    let mut list = data.list(2, 1..65_536)?;
    let mut found = Vec::new();
    while !list.0.is_empty() {
        found.push(list.list(1, 1..256)?.0.to_vec());
    }
    data.is_over().map(|()| found)
}

/// Variable parts of a ClientHello's body.
struct HelloBody<'a> {
    suites: Bytes<'a>,
    /// Empty where the body ends before them.
    extensions: Bytes<'a>,
}

impl<'a> HelloBody<'a> {
    fn read(body: &'a [u8]) -> Result<HelloBody<'a>, ClientHelloError> {
        let mut body = Bytes(body);
        body.take(2 + 32)?; // legacy_version, random
        body.list(1, 0..33)?; // legacy_session_id
        let suites = body.list(2, 2..65_535)?;
        body.list(1, 1..256)?; // legacy_compression_methods
        let mut extensions = Bytes(&[]);
        if !body.0.is_empty() {
            extensions = body.list(2, 0..65_536)?;
            body.is_over()?;
        }
        Ok(HelloBody { suites, extensions })
    }
}

/// The rest of a structure that is read from its front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ClientHelloError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(ClientHelloError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, ClientHelloError> {
        Ok(self.take(1)?.iter().copied().sum())
    }

    fn u16(&mut self) -> Result<u16, ClientHelloError> {
        Ok((u16::from(self.u8()?) << 8) | u16::from(self.u8()?))
    }

    /// A vector behind a length of `width` bytes (1 or 2) that must be in `allowed`.
    fn list(&mut self, width: u8, allowed: Range<usize>) -> Result<Bytes<'a>, ClientHelloError> {
        let length = match width {
            1 => usize::from(self.u8()?),
            _ => usize::from(self.u16()?),
        };
        if !allowed.contains(&length) {
            return Err(ClientHelloError::Malformed);
        }
        self.take(length).map(Bytes)
    }

    /// Type and data of the next extension of a list.
    fn next_extension(&mut self) -> Result<Option<(u16, Bytes<'a>)>, ClientHelloError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.u16()?, self.list(2, 0..65_536)?)))
    }

    fn is_over(&self) -> Result<(), ClientHelloError> {
        let is_over = self.0.is_empty();
        is_over.then_some(()).ok_or(ClientHelloError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::crypto::aws_lc_rs;
    use rustls::server::Acceptor;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// A ClientHello as a rustls client sends it, in one record.
    fn hello(name: &str, alpn: &[&[u8]], only_tls12: bool) -> Vec<u8> {
        let versions: &[_] = if only_tls12 {
            &[&rustls::version::TLS12]
        } else {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap();
        let mut config = builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// A message in records of the given payload sizes.
    fn split_records(bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut rest = bytes;
        while let [kind, major, minor, high, low, behind @ ..] = rest {
            assert_eq!((*kind, *major, *minor), (22, 3, 1));
            let (record, behind) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            payload.extend_from_slice(record);
            rest = behind;
        }
        let mut out = Vec::new();
        let mut sizes = sizes
            .iter()
            .copied()
            .chain(std::iter::repeat(MAX_RECORD_BYTES));
        let mut rest = &payload[..];
        while !rest.is_empty() {
            let (now, behind) = rest.split_at(sizes.next().unwrap().clamp(1, rest.len()));
            out.extend_from_slice(&[22, 3, 1]);
            out.extend_from_slice(&(now.len() as u16).to_be_bytes());
            out.extend_from_slice(now);
            rest = behind;
        }
        out
    }

    fn read(bytes: &[u8], pieces: &[usize]) -> HelloProgress {
        let mut reader = ClientHelloReader::new();
        let mut rest = bytes;
        let mut last = HelloProgress::NeedMore;
        let mut pieces = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        while !rest.is_empty() {
            let (now, behind) = rest.split_at(pieces.next().unwrap().clamp(1, rest.len()));
            last = reader.feed(now);
            rest = behind;
        }
        last
    }

    /// Result of rustls' own acceptor: `None` when it wants more or refuses.
    fn by_rustls(bytes: &[u8]) -> Option<ClientHello> {
        let mut acceptor = Acceptor::default();
        let mut cursor = Cursor::new(bytes);
        loop {
            if acceptor.read_tls(&mut cursor).ok()? == 0 {
                return None;
            }
            if let Some(accepted) = acceptor.accept().ok()? {
                let hello = accepted.client_hello();
                let name = hello.server_name();
                let sni = name.map(|name| name.strip_suffix('.').unwrap_or(name).to_owned());
                let alpn = hello
                    .alpn()
                    .map(|list| list.map(<[u8]>::to_vec).collect())
                    .unwrap_or_default();
                return Some(ClientHello {
                    sni,
                    alpn,
                    malformed_name: None,
                });
            }
        }
    }

    #[test]
    fn reads_name_and_protocols() {
        let bytes = hello("Chat.Example.org", &[b"mqtt", b"http/1.1"], false);
        assert!(
            bytes.len() > 1_200,
            "a post-quantum key share does not fit one segment"
        );
        let expected = ClientHello {
            sni: Some("chat.example.org".to_owned()),
            alpn: vec![b"mqtt".to_vec(), b"http/1.1".to_vec()],
            malformed_name: None,
        };
        assert_eq!(read(&bytes, &[]), HelloProgress::Hello(expected));
    }

    /// The hello of `placeholder`, with these bytes in its place.
    fn naming(placeholder: &str, name: &[u8]) -> HelloProgress {
        let mut bytes = hello(placeholder, &[], true);
        let length = placeholder.len();
        let mut windows = bytes.windows(length);
        let at = windows.position(|window| window == placeholder.as_bytes());
        bytes[at.unwrap()..][..length].copy_from_slice(name);
        read(&bytes, &[])
    }

    #[test]
    fn a_name_is_known_in_any_form_and_what_is_none_is_kept_apart() {
        let with = |sni: Option<&str>, odd_name: Option<&str>| {
            HelloProgress::Hello(ClientHello {
                sni: sni.map(str::to_owned),
                malformed_name: odd_name.map(str::to_owned),
                alpn: Vec::new(),
            })
        };
        assert_eq!(
            naming("a.example", b"A.EXAMPL."),
            with(Some("a.exampl"), None)
        );
        assert_eq!(
            naming("a.example", b"a_b.examp"),
            with(Some("a_b.examp"), None)
        );
        for odd in [
            "a.exam:80",
            "-A.exampl",
            "a-.exampl",
            "a..exampl",
            "*.example",
        ] {
            let lower = odd.to_ascii_lowercase();
            assert_eq!(
                naming("a.example", odd.as_bytes()),
                with(None, Some(&lower))
            );
        }
        for nonsense in [b"a.ex\0mple", b"a.ex mple", b"a.ex\xffmple", b"a.ex\nmple"] {
            assert_eq!(
                naming("a.example", nonsense),
                HelloProgress::Invalid(ClientHelloError::ServerName)
            );
        }
    }

    #[test]
    fn an_extension_that_comes_twice_is_malformed_wherever_it_stands() {
        let body = |kinds: &[u16]| {
            let mut body = vec![3, 3];
            body.extend([7; 32]);
            body.extend([0, 0, 2, 0x13, 1, 1, 0]);
            body.extend((4 * kinds.len() as u16).to_be_bytes());
            for kind in kinds {
                body.extend(kind.to_be_bytes());
                body.extend([0, 0]);
            }
            body
        };
        let many: Vec<u16> = (1000..4900).rev().collect();
        assert!(parse(&body(&many)).is_ok());
        for at in [0, 1, 2000, 3899] {
            let twice = [&many[..], &[many[at]]].concat();
            assert_eq!(parse(&body(&twice)), Err(ClientHelloError::Malformed));
        }
    }

    #[test]
    fn an_address_is_no_name() {
        let bytes = hello("10.0.0.1", &[], true);
        assert_eq!(
            read(&bytes, &[]),
            HelloProgress::Hello(ClientHello::default())
        );
    }

    #[test]
    fn what_is_no_tls_is_refused_at_its_first_byte() {
        for first in (0..=255u8).filter(|&byte| byte != CONTENT_TYPE_HANDSHAKE) {
            assert_eq!(
                read(&[first], &[]),
                HelloProgress::Invalid(ClientHelloError::NotHandshake)
            );
        }
        assert_eq!(
            read(&[22, 3, 1, 0, 0], &[]),
            HelloProgress::Invalid(ClientHelloError::RecordLength)
        );
        assert_eq!(
            read(&[22, 3, 1, 0, 1, 2], &[]),
            HelloProgress::Invalid(ClientHelloError::NotClientHello)
        );
    }

    #[test]
    fn bounds_the_message_and_its_records() {
        assert_eq!(
            read(&[22, 3, 1, 0x40, 0x01], &[]),
            HelloProgress::Invalid(ClientHelloError::RecordLength)
        );
        assert_eq!(
            read(&[22, 3, 1, 0, 4, 1, 0, 0x40, 0], &[]),
            HelloProgress::Invalid(ClientHelloError::TooLarge)
        );
        let mut message = vec![1, 0, 0x20, 0];
        message.resize(0x2000, 0);
        let one_by_one: Vec<u8> = message
            .iter()
            .flat_map(|&byte| [22, 3, 1, 0, 1, byte])
            .collect();
        assert_eq!(
            read(&one_by_one, &[]),
            HelloProgress::Invalid(ClientHelloError::TooLarge)
        );
    }

    /// A record that went beyond the bound was `TooLarge` when it came at once and `Malformed` when
    /// it came in pieces.
    #[test]
    fn what_is_wrong_within_the_bound_is_told_in_any_chunking() {
        let mut bytes = vec![22, 3, 1, 0x40, 0];
        bytes.extend([1, 0, 0, 40]);
        bytes.resize(RECORD_HEADER_BYTES + MAX_RECORD_BYTES, 0);
        let malformed = HelloProgress::Invalid(ClientHelloError::Malformed);
        assert_eq!(read(&bytes, &[]), malformed);
        assert_eq!(read(&bytes, &[1; 100]), malformed);
    }

    #[test]
    fn a_second_message_in_the_last_record_is_refused() {
        let mut bytes = hello("a.example", &[], true);
        bytes.push(0);
        let length = u16::from_be_bytes([bytes[3], bytes[4]]) + 1;
        bytes[3..5].copy_from_slice(&length.to_be_bytes());
        assert_eq!(
            read(&bytes, &[]),
            HelloProgress::Invalid(ClientHelloError::Malformed)
        );
    }

    #[test]
    fn every_prefix_needs_more() {
        let bytes = hello("a.example", &[b"x"], true);
        let mut reader = ClientHelloReader::new();
        for byte in &bytes[..bytes.len() - 1] {
            assert_eq!(reader.feed(&[*byte]), HelloProgress::NeedMore);
        }
        assert!(matches!(
            reader.feed(&bytes[bytes.len() - 1..]),
            HelloProgress::Hello(_)
        ));
        assert!(matches!(
            reader.feed(b"early data"),
            HelloProgress::Hello(_)
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_records_and_any_chunking_read_the_same_as_rustls(
            name in "[a-z]{1,10}\\.[a-z]{2,5}", tls12: bool,
            records in prop::collection::vec(1usize..700, 0..12), pieces in prop::collection::vec(1usize..900, 0..12),
        ) {
            let bytes = split_records(&hello(&name, &[b"h2", b"http/1.1"], tls12), &records);
            let progress = read(&bytes, &pieces);
            prop_assert_eq!(&progress, &read(&bytes, &[]));
            prop_assert_eq!(progress, HelloProgress::Hello(by_rustls(&bytes).unwrap()));
        }

        #[test]
        fn mutated_bytes_never_give_a_name_that_rustls_would_not(
            tls12: bool, records in prop::collection::vec(1usize..300, 0..4),
            mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            pieces in prop::collection::vec(1usize..300, 0..8),
        ) {
            let mut bytes = split_records(&hello("chat.example.org", &[b"mqtt", b"x"], tls12), &records);
            for (index, byte) in mutations {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            let progress = read(&bytes, &pieces);
            prop_assert_eq!(&progress, &read(&bytes, &[]));
            if let (HelloProgress::Hello(ours), Some(theirs)) = (progress, by_rustls(&bytes)) {
                prop_assert_eq!(ours, theirs);
            }
        }

        #[test]
        fn random_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&body);
            read(&body, &[]);
        }
    }
}
