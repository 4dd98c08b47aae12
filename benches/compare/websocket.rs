//! As much WebSocket (RFC 6455) as an echo of binary frames needs, for both ends of the load.

use std::io;

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

/// The most bytes of a frame's header: two, a 64-bit length, the mask.
pub const MAX_HEADER_BYTES: usize = 14;

const BINARY_FINAL: u8 = 0x82;
const CLOSE_FINAL: u8 = 0x88;
const MASKED: u8 = 0x80;
/// The status of a Close after which nothing is wrong, 1000.
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The client's side of the handshake; the key is the example of the RFC.
pub const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// The accept value that the key asks for.
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Tells whether a head is the 101 that is due for `UPGRADE`.
pub fn is_accepted(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.1 101 ") && head.windows(ACCEPT.len()).any(|part| part == ACCEPT)
}

/// The server's answer to a head, with the accept value that its key asks for.
pub fn answer(head: &[u8]) -> io::Result<Vec<u8>> {
    let text = std::str::from_utf8(head).map_err(io::Error::other)?;
    let key = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map(|(_, value)| value.trim())
        .ok_or_else(|| io::Error::other("an upgrade without a key"))?;
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = BASE64.encode(&digest);
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes())
}

/// A client's message, masked.
pub fn client_frame(payload: &[u8]) -> Vec<u8> {
    masked(BINARY_FINAL, payload)
}

/// A client's Close.
pub fn client_close() -> Vec<u8> {
    masked(CLOSE_FINAL, &NORMAL)
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64, MASKED);
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// A server's message.
pub fn server_frame(payload: &[u8]) -> Vec<u8> {
    unmasked(BINARY_FINAL, payload)
}

/// A server's answer to the client's Close.
pub fn server_close() -> Vec<u8> {
    unmasked(CLOSE_FINAL, &NORMAL)
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64, 0);
    frame.extend_from_slice(payload);
    frame
}

fn header(first: u8, length_bytes: u64, masked: u8) -> Vec<u8> {
    match (u8::try_from(length_bytes), u16::try_from(length_bytes)) {
        (Ok(short @ 0..=125), _) => vec![first, masked | short],
        (_, Ok(medium)) => [&[first, masked | 126][..], &medium.to_be_bytes()].concat(),
        _ => [&[first, masked | 127][..], &length_bytes.to_be_bytes()].concat(),
    }
}

/// Turns a stream of masked client frames into server frames of the same kind and payload.
#[derive(Debug, Default)]
pub struct Echo {
    header: [u8; MAX_HEADER_BYTES],
    seen: usize,
    payload_left: u64,
    mask: [u8; 4],
    mask_at: usize,
    has_close: bool,
}

impl Echo {
    /// Takes bytes of the client and appends what the server answers.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((&first, after)) = rest.split_first() {
            if self.payload_left == 0 {
                rest = after;
                self.header_byte(first, out);
                continue;
            }
            let take = usize::try_from(self.payload_left)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (payload, after) = rest.split_at(take);
            out.extend(
                payload
                    .iter()
                    .enumerate()
                    .map(|(at, byte)| byte ^ self.mask[(self.mask_at + at) % 4]),
            );
            self.mask_at = (self.mask_at + take) % 4;
            self.payload_left -= take as u64;
            rest = after;
        }
    }

    fn header_byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.header[self.seen] = byte;
        self.seen += 1;
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.seen < 2 || self.seen < 2 + extended + 4 {
            return;
        }
        let length = &self.header[2..2 + extended];
        self.payload_left = match extended {
            0 => u64::from(self.header[1] & 0x7f),
            _ => length
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        self.mask
            .copy_from_slice(&self.header[2 + extended..2 + extended + 4]);
        (self.seen, self.mask_at) = (0, 0);
        self.has_close |= self.header[0] == CLOSE_FINAL;
        out.extend(header(self.header[0], self.payload_left, 0));
    }

    /// Tells whether a Close was answered, behind which nothing follows.
    pub fn is_over(&self) -> bool {
        self.has_close && self.payload_left == 0
    }
}
