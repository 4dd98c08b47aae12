//! An outer end of a session: what it says, and what it has seen.

use std::collections::VecDeque;

use fastrand::Rng;

use super::super::*;

/// Bytes to and from the relay, plain or in TLS.
pub enum Wire {
    Raw(TcpStream),
    Tls(Box<TlsClient>),
    Gone,
}

impl Wire {
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Raw(socket) => socket.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
            Wire::Gone => Ok(0),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Raw(socket) => socket.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
            Wire::Gone => Ok(bytes.len()),
        }
    }

    /// True when nothing is left to be sent.
    pub fn flush(&mut self) -> bool {
        match self {
            Wire::Tls(stream) => match stream.flush() {
                Err(error) => error.kind() != ErrorKind::WouldBlock,
                Ok(()) => !stream.conn.wants_write(),
            },
            _ => true,
        }
    }

    pub fn finish(&mut self) {
        match self {
            Wire::Raw(socket) => drop(socket.shutdown(Shutdown::Write)),
            Wire::Tls(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                let _ = stream.sock.shutdown(Shutdown::Write);
            }
            Wire::Gone => {}
        }
    }

    pub fn reset(&mut self) {
        match std::mem::replace(self, Wire::Gone) {
            Wire::Raw(socket) => reset(socket),
            Wire::Tls(stream) => reset(stream.sock),
            Wire::Gone => {}
        }
    }
}

/// A frame that a peer writes, and where its message stands behind it.
pub struct Framed {
    pub bytes: Vec<u8>,
    pub leaves_open: bool,
    /// The number of the message that it begins.
    pub begins: Option<u32>,
    /// The number of the message that it ends.
    pub ends: Option<u32>,
}

pub fn frame(first: u8, payload: &[u8], is_masked: bool) -> Vec<u8> {
    let mask_bit = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(length as u8 | mask_bit),
        length @ 126..0x1_0000 => {
            bytes.push(126 | mask_bit);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127 | mask_bit);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    if is_masked {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

/// The frames of one numbered message, with pings among them.
pub fn message(rng: &mut Rng, number: u32, length: usize, is_masked: bool) -> Vec<Framed> {
    let mut payload = vec![number as u8; length.max(4)];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    let mut frames = Vec::new();
    let parts = 1 + rng.usize(..3) * rng.usize(..2);
    let size = payload.len().div_ceil(parts);
    let pieces: Vec<&[u8]> = payload.chunks(size).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let is_last = at + 1 == pieces.len();
        let opcode = if at == 0 { 0x02 } else { 0 };
        let fin = if is_last { 0x80 } else { 0 };
        frames.push(Framed {
            bytes: frame(opcode | fin, piece, is_masked),
            leaves_open: !is_last,
            begins: (at == 0).then_some(number),
            ends: is_last.then_some(number),
        });
        if rng.u8(..4) == 0 {
            let payload = number.to_be_bytes();
            frames.push(Framed {
                bytes: frame(0x89, &payload[..rng.usize(..5)], is_masked),
                leaves_open: !is_last,
                begins: None,
                ends: None,
            });
        }
    }
    frames
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Fin,
    Reset,
}

/// An outer end.
pub struct Peer {
    pub wire: Wire,
    pub is_client: bool,
    pub frames: VecDeque<Framed>,
    /// State of the frame under way.
    pub out: Vec<u8>,
    pub out_open: bool,
    pub out_ends: Option<u32>,
    /// Whether a message is open behind the bytes that were written.
    pub is_open: bool,
    /// Messages begun, and ended, up to here.
    pub begun: Option<u32>,
    pub ended: Option<u32>,
    pub said_close: bool,
    /// Whether it closes its side behind its Close.
    pub finished: bool,
    pub input: Vec<u8>,
    pub partial: Option<Vec<u8>>,
    /// Numbers of whole messages.
    pub messages: Vec<u32>,
    pub close: Option<u16>,
    pub seen: Option<Seen>,
    /// A write has failed: it took the socket's error with it, and the next read gives 0.
    pub failed: bool,
}

impl Peer {
    pub fn new(wire: Wire, is_client: bool) -> Peer {
        match &wire {
            Wire::Raw(socket) => socket.set_nonblocking(true).unwrap(),
            Wire::Tls(stream) => stream.sock.set_nonblocking(true).unwrap(),
            Wire::Gone => {}
        }
        Peer {
            wire,
            is_client,
            frames: VecDeque::new(),
            out: Vec::new(),
            out_open: false,
            out_ends: None,
            is_open: false,
            begun: None,
            ended: None,
            said_close: false,
            finished: false,
            input: Vec::new(),
            partial: None,
            messages: Vec::new(),
            close: None,
            seen: None,
            failed: false,
        }
    }

    pub fn is_gone(&self) -> bool {
        matches!(self.wire, Wire::Gone)
    }

    /// Whether it has written whole messages.
    pub fn is_whole(&self) -> bool {
        self.out.is_empty() && !self.is_open
    }

    /// Takes the next frame to be written, if none is under way.
    pub fn advance(&mut self) {
        if !self.out.is_empty() {
            return;
        }
        if let Some(next) = self.frames.pop_front() {
            self.out = next.bytes;
            self.out_open = next.leaves_open;
            self.out_ends = next.ends;
            self.begun = next.begins.or(self.begun);
        }
    }

    pub fn took(&mut self, count: usize) {
        self.out.drain(..count);
        if self.out.is_empty() {
            self.is_open = self.out_open;
            self.ended = self.out_ends.or(self.ended);
        }
    }

    pub fn write(&mut self, mut limit: usize) {
        while limit > 0 && !self.finished && self.wire.flush() {
            self.advance();
            if self.out.is_empty() {
                if self.said_close && !self.is_client {
                    self.finished = true;
                    self.wire.finish();
                }
                return;
            }
            let length = self.out.len().min(limit);
            match self.wire.write(&self.out[..length]) {
                Ok(count) => {
                    limit -= count;
                    self.took(count);
                }
                Err(error) => {
                    self.failed |= error.kind() != ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        self.wire.flush();
    }

    /// Says Close, between two frames.
    pub fn close(&mut self, code: u16) {
        if self.said_close {
            return;
        }
        self.said_close = true;
        self.frames.clear();
        self.frames.push_back(Framed {
            bytes: frame(0x88, &code.to_be_bytes(), self.is_client),
            leaves_open: self.out_open,
            begins: None,
            ends: None,
        });
    }

    pub fn read(&mut self, limit: usize) -> bool {
        if self.seen.is_some() || self.is_gone() {
            return false;
        }
        let mut buffer = vec![0; limit.max(1)];
        match self.wire.read(&mut buffer) {
            Ok(0) if self.failed => self.seen = Some(Seen::Reset),
            Ok(0) => self.seen = Some(Seen::Fin),
            Ok(count) => self.input.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.seen = Some(Seen::Reset),
        }
        while self.decode() {}
        true
    }

    /// Reads a frame. A violation of the protocol fails the test.
    pub fn decode(&mut self) -> bool {
        let Some((&[first, second], rest)) = self.input.split_first_chunk() else {
            return false;
        };
        assert_eq!(second & 0x80 != 0, !self.is_client, "a wrong mask");
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return false,
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return false,
            },
            short => (u64::from(short), rest),
        };
        let mask_bytes = if self.is_client { 0 } else { 4 };
        let length = usize::try_from(length).unwrap();
        assert!(length < 10_000_000, "no length: {first:x} {length}");
        if rest.len() < mask_bytes + length {
            return false;
        }
        let (mask, rest) = rest.split_at(mask_bytes);
        let masks = mask.iter().cycle().take(length);
        let mut payload = rest[..length].to_vec();
        for (byte, mask) in payload.iter_mut().zip(masks) {
            *byte ^= mask;
        }
        let behind = self.input.len() - (rest.len() - length);
        self.input.drain(..behind);
        self.judge(first, payload);
        true
    }

    pub fn judge(&mut self, first: u8, payload: Vec<u8>) {
        assert_eq!(self.close, None, "a frame behind a close");
        match first & 0x0f {
            0x8 => {
                let code = payload
                    .first_chunk()
                    .map_or(1005, |code| u16::from_be_bytes(*code));
                self.close = Some(code);
                self.close(code);
            }
            0x9 => {
                if !self.said_close {
                    self.frames.push_front(Framed {
                        bytes: frame(0x8a, &payload, self.is_client),
                        leaves_open: self.out_open,
                        begins: None,
                        ends: None,
                    });
                }
            }
            0xa => assert!(payload.len() <= 4),
            opcode => {
                assert_eq!(opcode == 0, self.partial.is_some(), "a part of a message");
                let mut whole = self.partial.take().unwrap_or_default();
                whole.extend(payload);
                match first & 0x80 {
                    0 => self.partial = Some(whole),
                    _ => self.take(&whole),
                }
            }
        }
    }

    pub fn take(&mut self, whole: &[u8]) {
        let (number, rest) = whole.split_first_chunk().expect("a number");
        let number = u32::from_be_bytes(*number);
        assert!(
            rest.iter().all(|byte| *byte == number as u8),
            "torn: {number}"
        );
        self.messages.push(number);
    }
}
