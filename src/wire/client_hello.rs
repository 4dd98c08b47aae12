//! The ClientHello as a router sees it: server name and ALPN list, from bytes peeked off a TLS connection
//! (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC 7301).
//!
//! Records are reassembled whatever their number and however the bytes arrive. What is not a ClientHello to the last
//! byte is `Invalid`: it must be closed, never sent a default way. Nothing is decrypted and nothing is answered here.

use std::ops::Range;

use rustls_pki_types::ServerName;

/// Bytes on the wire up to the end of the ClientHello, record headers included. A browser's hello with a
/// post-quantum key share has about 1.8 KB; the bound is DESIGN's, so that a peer cannot make us hold more.
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

/// What is known after the bytes fed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The message is not complete.
    NeedMore,
    Hello(ClientHello),
    /// Not a ClientHello; the connection is to be closed.
    Invalid(Invalid),
}

/// The facts of one ClientHello.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// Lower case. `None`: no name was sent, or an IP address (which RFC 6066 does not count as a name).
    pub sni: Option<String>,
    /// The client's protocols in its order; empty when it sent none.
    pub alpn: Vec<Vec<u8>>,
}

/// Why the bytes are no ClientHello; always the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
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

/// Reads one ClientHello from a stream in any chunking. The caller keeps the bytes itself (to replay them); this keeps
/// only the reassembled message.
#[derive(Debug, Default)]
pub struct Reader {
    header: Vec<u8>,
    /// Bytes of the present record's payload still to come.
    record_left: usize,
    message: Vec<u8>,
    consumed: usize,
    done: Option<Progress>,
}

impl Reader {
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Takes the next bytes. Once it has answered `Hello` or `Invalid` it keeps answering that, and looks at nothing more.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Progress {
        while self.done.is_none() && !bytes.is_empty() {
            let (now, rest) = self.split(bytes);
            bytes = rest;
            self.done = self.take(now).transpose().map(progress);
        }
        self.done.clone().unwrap_or(Progress::NeedMore)
    }

    /// The part of `bytes` that belongs to the present record header or payload, and the rest.
    fn split<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let wanted = match self.record_left {
            0 => RECORD_HEADER_BYTES - self.header.len(),
            left => left,
        };
        bytes.split_at(wanted.min(bytes.len()))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, Invalid> {
        if self.consumed + bytes.len() > MAX_HELLO_BYTES {
            return Err(Invalid::TooLarge);
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

    /// Checks the record header as far as it is known, so that what is no TLS at all is refused at its first byte.
    fn record_header(&mut self) -> Result<(), Invalid> {
        match self.header[..] {
            [kind, ..] if kind != CONTENT_TYPE_HANDSHAKE => return Err(Invalid::NotHandshake),
            [_, major, ..] if major != 3 => return Err(Invalid::NotHandshake),
            [_, _, _, high, low] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                // An empty handshake record is forbidden (RFC 8446 section 5.1) and would cost a peer nothing to repeat.
                if !(1..=MAX_RECORD_BYTES).contains(&length) {
                    return Err(Invalid::RecordLength);
                }
                self.record_left = length;
                self.header.clear();
            }
            _ => {}
        }
        Ok(())
    }

    fn message_so_far(&self) -> Result<Option<ClientHello>, Invalid> {
        let Some(&kind) = self.message.first() else {
            return Ok(None);
        };
        if kind != MESSAGE_CLIENT_HELLO {
            return Err(Invalid::NotClientHello);
        }
        let Some(&[_, a, b, c]) = self.message.first_chunk::<MESSAGE_HEADER_BYTES>() else {
            return Ok(None);
        };
        let end = MESSAGE_HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
        if end > MAX_HELLO_BYTES {
            return Err(Invalid::TooLarge);
        }
        match self.message.get(MESSAGE_HEADER_BYTES..end) {
            // A second message in the record of the first flight is nothing a client may send.
            Some(_) if self.message.len() > end => Err(Invalid::Malformed),
            Some(_) if self.record_left > 0 => Err(Invalid::Malformed),
            Some(body) => parse(body).map(Some),
            None => Ok(None),
        }
    }
}

fn progress(outcome: Result<ClientHello, Invalid>) -> Progress {
    match outcome {
        Ok(hello) => Progress::Hello(hello),
        Err(invalid) => Progress::Invalid(invalid),
    }
}

/// The body of a ClientHello message.
fn parse(body: &[u8]) -> Result<ClientHello, Invalid> {
    let mut body = Bytes(body);
    body.take(2 + 32)?; // legacy_version, random
    body.list(1, 0..33)?; // legacy_session_id
    body.list(2, 2..65_535)?; // cipher_suites
    body.list(1, 1..256)?; // legacy_compression_methods
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = body.list(2, 0..65_536)?;
    if !body.0.is_empty() {
        return Err(Invalid::Malformed);
    }
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.list(2, 0..65_536)?;
        if seen.contains(&kind) {
            return Err(Invalid::Malformed);
        }
        seen.push(kind);
        match kind {
            EXTENSION_SERVER_NAME => hello.sni = server_name(data)?,
            EXTENSION_ALPN => hello.alpn = protocols(data)?,
            _ => {}
        }
    }
    Ok(hello)
}

/// One host name, as RFC 6066 allows no second and no other kind exists.
fn server_name(mut data: Bytes<'_>) -> Result<Option<String>, Invalid> {
    let mut names = data.list(2, 1..65_536)?;
    if names.u8()? != NAME_TYPE_HOST {
        return Err(Invalid::ServerName);
    }
    let name = names.list(2, 1..65_536)?;
    if !names.0.is_empty() || !data.0.is_empty() {
        return Err(Invalid::ServerName);
    }
    match ServerName::try_from(name.0) {
        Ok(ServerName::DnsName(name)) => Ok(Some(name.as_ref().to_ascii_lowercase())),
        Ok(ServerName::IpAddress(_)) => Ok(None),
        _ => Err(Invalid::ServerName),
    }
}

fn protocols(mut data: Bytes<'_>) -> Result<Vec<Vec<u8>>, Invalid> {
    let mut list = data.list(2, 1..65_536)?;
    let mut found = Vec::new();
    while !list.0.is_empty() {
        found.push(list.list(1, 1..256)?.0.to_vec());
    }
    match data.0.is_empty() {
        true => Ok(found),
        false => Err(Invalid::Malformed),
    }
}

/// What is left of a structure being read from its front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Invalid> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Invalid::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Invalid> {
        Ok(self.take(1)?.iter().copied().sum())
    }

    fn u16(&mut self) -> Result<u16, Invalid> {
        Ok((u16::from(self.u8()?) << 8) | u16::from(self.u8()?))
    }

    /// A vector behind a length of `width` bytes (1 or 2) that must be in `allowed`.
    fn list(&mut self, width: u8, allowed: Range<usize>) -> Result<Bytes<'a>, Invalid> {
        let length = match width {
            1 => usize::from(self.u8()?),
            _ => usize::from(self.u16()?),
        };
        match allowed.contains(&length) {
            true => self.take(length).map(Bytes),
            false => Err(Invalid::Malformed),
        }
    }
}
