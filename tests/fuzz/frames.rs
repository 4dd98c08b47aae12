//! The WebSocket frame walker against a reader that takes one byte at a time and keeps whole
//! headers.

#![no_main]

use evenkeel::wire::frames::{Frame, Opcode, Violation, Walker};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Case {
    from_client: bool,
    deeds: Vec<Deed>,
    /// Sizes of the pieces that the second walker gets, over and over.
    pieces: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Deed {
    Bytes(Vec<u8>),
    /// A frame that is encoded as it should be, whether or not it may stand there.
    Frame {
        first: u8,
        length: u16,
    },
    /// A header alone; its payload is not sent.
    Header {
        first: u8,
        length: u64,
    },
    /// So many bytes of payload that are not seen, at most what is left.
    Skip(u64),
    /// All but so few of what is left.
    SkipAllBut(u8),
}

fuzz_target!(|case: Case| {
    let new = match case.from_client {
        true => Walker::from_client,
        false => Walker::from_server,
    };
    let (mut whole, mut pieced) = (new(), new());
    let mut naive = Naive::new(case.from_client);
    let mut sizes = case.pieces.iter().cycle();
    for deed in &case.deeds {
        let bytes = match *deed {
            Deed::Bytes(ref bytes) => bytes.clone(),
            Deed::Frame { first, length } => {
                // Both short encodings, and not too much for a reader of bytes.
                let length = usize::from(length % 512);
                let mut bytes = header(first, length as u64, case.from_client);
                bytes.resize(bytes.len() + length, 0x81);
                bytes
            }
            Deed::Header { first, length } => header(first, length, case.from_client),
            Deed::Skip(count) => {
                skip(&mut naive, [&mut whole, &mut pieced], count);
                vec![]
            }
            Deed::SkipAllBut(count) => {
                let count = naive.left.saturating_sub(u64::from(count));
                skip(&mut naive, [&mut whole, &mut pieced], count);
                vec![]
            }
        };
        assert_eq!(whole.boundary_in(&bytes), naive.boundary_in(&bytes));
        let expected = naive.walk(&bytes);
        assert_eq!(walk(&mut whole, &[&bytes]), expected);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let size = usize::from(sizes.next().map_or(1, |&size| size.max(1))).min(rest.len());
            let (piece, behind) = rest.split_at(size);
            pieces.push(piece);
            rest = behind;
        }
        assert_eq!(walk(&mut pieced, &pieces), expected);
        assert_eq!(whole, pieced);
        assert_eq!(whole.lost(), naive.lost);
        assert_eq!(whole.payload_left(), naive.left);
        assert_eq!(whole.at_boundary(), naive.is_between());
        assert_eq!(
            whole.at_message_boundary(),
            naive.is_between() && !naive.is_open
        );
    }
});

fn header(first: u8, length: u64, is_masked: bool) -> Vec<u8> {
    let mask = u8::from(is_masked) << 7;
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(mask | length as u8),
        126..0x1_0000 => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    if is_masked {
        bytes.extend([1, 2, 3, 4]);
    }
    bytes
}

fn skip(naive: &mut Naive, walkers: [&mut Walker; 2], count: u64) {
    let count = count.min(naive.left);
    naive.left -= count;
    for walker in walkers {
        walker.skip(count);
    }
}

/// Frames with the offset behind each header, and the violation.
type Walked = (Vec<(usize, Frame)>, Option<Violation>);

fn walk(walker: &mut Walker, pieces: &[&[u8]]) -> Walked {
    let mut found = Vec::new();
    let mut before = 0;
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match walker.next_frame(&mut rest) {
                Ok(Some(frame)) => found.push((before + piece.len() - rest.len(), frame)),
                Ok(None) => break,
                Err(violation) => return (found, Some(violation)),
            }
        }
        before += piece.len();
    }
    (found, walker.lost())
}

struct Naive {
    is_masked: bool,
    header: Vec<u8>,
    left: u64,
    is_open: bool,
    lost: Option<Violation>,
}

impl Naive {
    fn new(is_masked: bool) -> Naive {
        Naive {
            is_masked,
            header: Vec::new(),
            left: 0,
            is_open: false,
            lost: None,
        }
    }

    fn is_between(&self) -> bool {
        self.header.is_empty() && self.left == 0 && self.lost.is_none()
    }

    fn walk(&mut self, bytes: &[u8]) -> Walked {
        let found = bytes.iter().enumerate().filter_map(|(at, &byte)| {
            let frame = self.take(byte)?;
            Some((at + 1, frame))
        });
        (found.collect(), self.lost)
    }

    fn boundary_in(&self, bytes: &[u8]) -> Option<usize> {
        let mut ahead = Naive {
            header: self.header.clone(),
            ..*self
        };
        let mut bytes = bytes.iter();
        let before = bytes.len();
        while !ahead.is_between() {
            ahead.take(*bytes.next()?);
        }
        Some(before - bytes.len())
    }

    fn take(&mut self, byte: u8) -> Option<Frame> {
        if self.lost.is_some() {
            return None;
        }
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        self.header.push(byte);
        match self.judge() {
            Ok(None) => None,
            Ok(Some(frame)) => {
                if self.header[0] & 8 == 0 {
                    self.is_open = self.header[0] < 0x80;
                }
                self.left = frame.payload_bytes;
                self.header.clear();
                Some(frame)
            }
            Err(violation) => {
                self.lost = Some(violation);
                None
            }
        }
    }

    fn judge(&self) -> Result<Option<Frame>, Violation> {
        let header = &self.header;
        let is_final = header[0] >= 0x80;
        let opcode = match (header[0] % 16, is_final, self.is_open) {
            (3..=7 | 11..=15, _, _) => return Err(Violation::ReservedOpcode),
            (8..=10, false, _) => return Err(Violation::FragmentedControl),
            (0, _, false) => return Err(Violation::NothingToContinue),
            (1 | 2, _, true) => return Err(Violation::MessageOpen),
            (0, ..) => Opcode::Continuation,
            (1, ..) => Opcode::Text,
            (2, ..) => Opcode::Binary,
            (8, ..) => Opcode::Close,
            (9, ..) => Opcode::Ping,
            _ => Opcode::Pong,
        };
        if header.len() < 2 {
            return Ok(None);
        }
        match (header[1] >= 0x80, self.is_masked) {
            (false, true) => return Err(Violation::NotMasked),
            (true, false) => return Err(Violation::Masked),
            _ => {}
        }
        let short = header[1] % 128;
        if short > 125 && header[0] % 16 >= 8 {
            return Err(Violation::LongControl);
        }
        let width = [0, 2, 8][usize::from(short.saturating_sub(125))];
        if width == 8 && header.len() > 2 && header[2] >= 0x80 {
            return Err(Violation::LengthTooLarge);
        }
        if header.len() < 2 + width {
            return Ok(None);
        }
        let digits = header[2..2 + width].iter();
        let long = digits.fold(0, |sum: u64, &digit| sum * 256 + u64::from(digit));
        if (width == 2 && long < 126) || (width == 8 && long <= 0xffff) {
            return Err(Violation::LengthNotMinimal);
        }
        let header_bytes = 2 + width + if self.is_masked { 4 } else { 0 };
        Ok((header.len() == header_bytes).then_some(Frame {
            opcode,
            is_final,
            header_bytes: header_bytes as u8,
            payload_bytes: if width == 0 { u64::from(short) } else { long },
        }))
    }
}
