//! Where WebSocket frames begin and end (RFC 6455 section 5.2): walks the headers of one direction
//! and skips payload by arithmetic. Payload is never unmasked, copied or looked at, so that a walk
//! costs by the frame, not by the byte.
//!
//! It is there to count frames, to bound them, and to know where a frame of our own may be put in.
//! It is no judge: a tunnel is not cut for a violation, it is only no longer understood. Not looked
//! at, being an extension's or the ends' business: RSV bits (permessage-deflate uses one), UTF-8,
//! close codes, and what follows a close frame.

mod moved;

/// Longest header: 2 bytes, 8 of length, 4 of mask.
pub const MAX_HEADER_BYTES: usize = 14;

/// Bytes that are kept of a header while it is not complete; those of the mask are only counted.
const KEPT_BYTES: usize = 10;
const MASK_BYTES: u8 = 4;
/// Longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL_BYTES: u8 = 125;
/// Values of the 7-bit length that put the true one behind it, in 2 or in 8 bytes.
const LENGTH_IN_2: u8 = 126;
const LENGTH_IN_8: u8 = 127;

const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const MASK: u8 = 0x80;
/// In the first byte of a length of 8.
const TOP_BIT: u8 = 0x80;

/// Follows one direction of a WebSocket from its first byte, in any chunking.
///
/// After a violation it is *lost*: where the frames that follow begin is not known and never will
/// be. It answers every further walk with that violation, at no cost, and is at no boundary. The
/// bytes may be relayed all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walker {
    position: Position,
    /// RFC 6455 section 5.1: every frame of a client is masked, and none of a server.
    is_masked: bool,
    /// A message has begun, and the header of its last frame has not come. Control frames may stand
    /// in between.
    is_message_open: bool,
}

/// A session has two, for hours.
const _: () = assert!(size_of::<Walker>() <= 14);

/// The integer is kept as bytes, so that its alignment does not add to the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Between,
    /// 1 to 13 bytes of a header have come.
    Header {
        count: u8,
        kept: [u8; KEPT_BYTES],
    },
    /// So many bytes of a payload are still to come, never 0.
    Payload {
        left: [u8; 8],
    },
    Lost(Violation),
}

/// A frame, as its header describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub opcode: Opcode,
    /// FIN: the last frame of its message.
    pub is_final: bool,
    /// Bytes of the header, 2 to [`MAX_HEADER_BYTES`].
    pub header_bytes: u8,
    /// Bytes of the payload, at most 2^63 - 1.
    pub payload_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// Why bytes are no frame that may stand where they do; the sender's fault. One byte, as a result
/// with more of them goes through memory in every step of a walk, which made it take three times as
/// long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("reserved opcode")]
    ReservedOpcode,
    #[error("fragmented control frame")]
    FragmentedControl,
    #[error("control frame with more than {MAX_CONTROL_BYTES} bytes of payload")]
    LongControl,
    #[error("continuation frame without a message to continue")]
    NothingToContinue,
    #[error("new message before the end of a fragmented one")]
    MessageOpen,
    #[error("frame of a client is not masked")]
    NotMasked,
    #[error("frame of a server is masked")]
    Masked,
    /// "The minimal number of bytes MUST be used to encode the length": a second encoding of the
    /// same frame is what two readers can disagree on.
    #[error("payload length is not in the fewest bytes")]
    LengthNotMinimal,
    #[error("payload length exceeds 63 bits")]
    LengthTooLarge,
    /// Not the sender's fault: [`Walker::skip`] was given more bytes than the payload had left.
    #[error("skipped beyond the end of a frame")]
    Skipped,
}

impl Walker {
    /// For what a client sends: every frame masked.
    pub const fn from_client() -> Walker {
        Walker::new(true)
    }

    /// For what a server sends: no frame masked.
    pub const fn from_server() -> Walker {
        Walker::new(false)
    }

    const fn new(is_masked: bool) -> Walker {
        Walker {
            position: Position::Between,
            is_masked,
            is_message_open: false,
        }
    }

    /// Walks over all of `bytes`, which are the next of the stream.
    ///
    /// # Errors
    /// The first violation there was; the walker is lost.
    pub fn walk(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while self.next_frame(&mut bytes)?.is_some() {}
        Ok(())
    }

    /// Takes bytes from the front of `bytes`, the next of the stream, to the end of the next
    /// frame's header, and returns that frame. `None`: all are taken, and the next header is still
    /// not complete.
    ///
    /// The header ends where the rest of `bytes` begins; it may have begun in earlier bytes.
    ///
    /// # Errors
    /// The first violation there was; the walker is lost, and what is left of `bytes` tells
    /// nothing.
    #[inline]
    pub fn next_frame(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        let found = match self.position {
            Position::Between => self.begin(bytes),
            Position::Payload { left } => self.walk_payload(u64::from_ne_bytes(left), bytes),
            Position::Header { count, kept } => self.walk_piecewise(count, kept, bytes),
            Position::Lost(violation) => Err(violation),
        };
        if let Err(violation) = found {
            self.position = Position::Lost(violation);
        }
        found
    }

    /// Where in `bytes`, the next of the stream, a control frame can be put first: the first
    /// boundary between two frames, 0 to `bytes.len()`. `None`: there is none, or the walker is
    /// lost before it. The walker stays where it is.
    pub fn boundary_in(&self, bytes: &[u8]) -> Option<usize> {
        if self.at_boundary() {
            return Some(0);
        }
        let (mut ahead, mut rest) = (*self, bytes);
        if ahead.payload_left() == 0 {
            ahead.next_frame(&mut rest).ok()??;
        }
        let left = usize::try_from(ahead.payload_left()).ok()?;
        let behind = rest.get(left..)?;
        Some(bytes.len() - behind.len())
    }

    /// Takes note of `count` bytes of payload that went by unseen, as `splice` moves them: at most
    /// [`Walker::payload_left`]. With more the walker is lost, as the headers among them were not
    /// seen.
    pub fn skip(&mut self, count: u64) {
        self.position = match (self.position, self.payload_left().checked_sub(count)) {
            (lost @ Position::Lost(_), _) => lost,
            (position, _) if count == 0 => position,
            (_, Some(left)) => in_payload(left),
            (_, None) => Position::Lost(Violation::Skipped),
        };
    }

    /// Between two frames: a control frame may be put in here.
    pub fn at_boundary(&self) -> bool {
        self.position == Position::Between
    }

    /// Between two messages: any frame may be put in here.
    pub fn at_message_boundary(&self) -> bool {
        self.at_boundary() && !self.is_message_open
    }

    /// A message has begun, and the header of its last frame has not come.
    pub fn is_message_open(&self) -> bool {
        self.is_message_open
    }

    /// Bytes of a header that have come before its rest; 0 elsewhere.
    #[inline]
    pub fn header_come(&self) -> usize {
        match self.position {
            Position::Header { count, .. } => count.into(),
            _ => 0,
        }
    }

    /// A walker for another stream of the same kind of sender.
    pub const fn renewed(&self) -> Walker {
        Walker::new(self.is_masked)
    }

    /// Bytes of the present frame's payload that are still to come; 0 between frames, in a header,
    /// and when lost.
    pub fn payload_left(&self) -> u64 {
        match self.position {
            Position::Payload { left } => u64::from_ne_bytes(left),
            _ => 0,
        }
    }

    /// The violation after which nothing is known any more.
    pub fn lost(&self) -> Option<Violation> {
        match self.position {
            Position::Lost(violation) => Some(violation),
            _ => None,
        }
    }

    /// Between frames, with all that is behind in view.
    #[inline]
    fn begin(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        if let Some(frame) = self.decode(bytes)?
            && let Some(behind) = bytes.get(usize::from(frame.header_bytes)..)
        {
            *bytes = behind;
            self.enter(frame);
            return Ok(Some(frame));
        }
        self.walk_piecewise(0, [0; KEPT_BYTES], bytes)
    }

    #[inline]
    fn walk_payload(&mut self, left: u64, bytes: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        let come = bytes.len() as u64;
        match usize::try_from(left)
            .ok()
            .and_then(|left| bytes.get(left..))
        {
            Some(behind) => {
                *bytes = behind;
                self.position = Position::Between;
                self.begin(bytes)
            }
            None => {
                *bytes = &[];
                self.position = in_payload(left.saturating_sub(come));
                Ok(None)
            }
        }
    }

    /// A header that comes in pieces, byte by byte.
    #[cold]
    fn walk_piecewise(
        &mut self,
        mut count: u8,
        mut kept: [u8; KEPT_BYTES],
        bytes: &mut &[u8],
    ) -> Result<Option<Frame>, Violation> {
        while let Some((&byte, behind)) = bytes.split_first() {
            if let Some(kept) = kept.get_mut(usize::from(count)) {
                *kept = byte;
            }
            count += 1;
            *bytes = behind;
            let known = kept.get(..usize::from(count)).unwrap_or(&kept);
            if let Some(frame) = self.decode(known)?
                && frame.header_bytes == count
            {
                self.enter(frame);
                return Ok(Some(frame));
            }
        }
        self.position = match count {
            0 => Position::Between,
            _ => Position::Header { count, kept },
        };
        Ok(None)
    }

    /// Decodes a header from the bytes of it that have come, and finds its violation as early as
    /// they show it. `None`: the length is not known yet.
    #[inline]
    fn decode(&self, header: &[u8]) -> Result<Option<Frame>, Violation> {
        let Some((&first, rest)) = header.split_first() else {
            return Ok(None);
        };
        let is_final = first & FIN != 0;
        let opcode = Opcode::new(first & OPCODE)?;
        self.check_order(opcode, is_final)?;
        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        match (second & MASK != 0, self.is_masked) {
            (true, false) => return Err(Violation::Masked),
            (false, true) => return Err(Violation::NotMasked),
            _ => {}
        }
        let short = second & !MASK;
        if opcode.is_control() && short > MAX_CONTROL_BYTES {
            return Err(Violation::LongControl);
        }
        let Some((length_bytes, payload_bytes)) = length(short, rest)? else {
            return Ok(None);
        };
        let mask_bytes = if self.is_masked { MASK_BYTES } else { 0 };
        Ok(Some(Frame {
            opcode,
            is_final,
            header_bytes: 2 + length_bytes + mask_bytes,
            payload_bytes,
        }))
    }

    /// RFC 6455 section 5.4: which frame may follow which.
    #[inline]
    fn check_order(&self, opcode: Opcode, is_final: bool) -> Result<(), Violation> {
        match (opcode, self.is_message_open) {
            (Opcode::Continuation, false) => Err(Violation::NothingToContinue),
            (Opcode::Text | Opcode::Binary, true) => Err(Violation::MessageOpen),
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) if !is_final => {
                Err(Violation::FragmentedControl)
            }
            _ => Ok(()),
        }
    }

    /// Goes on behind a header.
    #[inline]
    fn enter(&mut self, frame: Frame) {
        if !frame.opcode.is_control() {
            self.is_message_open = !frame.is_final;
        }
        self.position = in_payload(frame.payload_bytes);
    }
}

impl Opcode {
    #[inline]
    fn new(code: u8) -> Result<Opcode, Violation> {
        Ok(match code {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Violation::ReservedOpcode),
        })
    }

    /// Close, ping and pong: never fragmented, and allowed between the frames of a message.
    #[inline]
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

#[inline]
fn in_payload(left: u64) -> Position {
    match left {
        0 => Position::Between,
        _ => Position::Payload {
            left: left.to_ne_bytes(),
        },
    }
}

/// How many bytes behind the 7-bit length hold the true one, and the true one. `None`: not all have
/// come.
#[inline]
fn length(short: u8, behind: &[u8]) -> Result<Option<(u8, u64)>, Violation> {
    let (bytes, length, least) = match short {
        LENGTH_IN_2 => {
            let Some(&length) = behind.first_chunk() else {
                return Ok(None);
            };
            (2, u64::from(u16::from_be_bytes(length)), LENGTH_IN_2.into())
        }
        LENGTH_IN_8 => {
            if behind.first().is_some_and(|&top| top & TOP_BIT != 0) {
                return Err(Violation::LengthTooLarge);
            }
            let Some(&length) = behind.first_chunk() else {
                return Ok(None);
            };
            (8, u64::from_be_bytes(length), 1 << 16)
        }
        short => (0, u64::from(short), 0),
    };
    if length < least {
        Err(Violation::LengthNotMinimal)
    } else {
        Ok(Some((bytes, length)))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

    use super::*;

    const MASK_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A frame in an independent encoder's words.
    #[derive(Debug, Clone, Copy)]
    struct Sent {
        code: u8,
        is_final: bool,
        reserved: u8,
        length: u64,
    }

    impl Sent {
        fn header(&self, is_masked: bool) -> Vec<u8> {
            let header = FrameHeader {
                is_final: self.is_final,
                rsv1: self.reserved & 1 != 0,
                rsv2: self.reserved & 2 != 0,
                rsv3: self.reserved & 4 != 0,
                opcode: OpCode::from(self.code),
                mask: is_masked.then_some(MASK_KEY),
            };
            let mut bytes = Vec::new();
            header.format(self.length, &mut bytes).unwrap();
            bytes
        }

        /// The frame that the walker should find.
        fn frame(&self, is_masked: bool) -> Frame {
            Frame {
                opcode: Opcode::new(self.code).unwrap(),
                is_final: self.is_final,
                header_bytes: self.header(is_masked).len() as u8,
                payload_bytes: self.length,
            }
        }
    }

    /// The frames' bytes, and where each lies.
    fn encode(frames: &[Sent], is_masked: bool) -> (Vec<u8>, Vec<Range<usize>>) {
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        for frame in frames {
            let start = bytes.len();
            bytes.extend(frame.header(is_masked));
            // Payload that reads like headers, so that a walk which strays is seen.
            bytes.extend((0..frame.length).map(|i| [0x82, 0x01, 0x89, 0x80, 0xff][i as usize % 5]));
            ranges.push(start..bytes.len());
        }
        (bytes, ranges)
    }

    /// Each frame with the offset where its header ended, and the first violation, from bytes in
    /// chunks.
    fn walked<'a>(
        walker: &mut Walker,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<(usize, Frame)>, Result<(), Violation>) {
        let mut found = Vec::new();
        let mut before = 0;
        for chunk in chunks {
            let mut rest = chunk;
            loop {
                match walker.next_frame(&mut rest) {
                    Ok(Some(frame)) => found.push((before + chunk.len() - rest.len(), frame)),
                    Ok(None) => break,
                    Err(violation) => return (found, Err(violation)),
                }
            }
            assert!(rest.is_empty());
            before += chunk.len();
        }
        (found, Ok(()))
    }

    /// Cuts `bytes` at what `cuts` point at.
    fn chunks<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    fn client(bytes: &[u8]) -> Result<(), Violation> {
        Walker::from_client().walk(bytes)
    }

    fn server(bytes: &[u8]) -> Result<(), Violation> {
        Walker::from_server().walk(bytes)
    }

    #[test]
    fn walks_the_examples_of_the_rfc() {
        // Section 5.7.
        let masked = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let mut walker = Walker::from_client();
        assert_eq!(walker.walk(&masked), Ok(()));
        assert!(walker.at_message_boundary());

        let mut walker = Walker::from_server();
        assert_eq!(walker.walk(&[0x01, 0x03, 0x48, 0x65, 0x6c]), Ok(()));
        assert!(walker.at_boundary() && !walker.at_message_boundary());
        assert_eq!(
            walker.walk(&[0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]),
            Ok(())
        );
        assert!(walker.at_boundary() && !walker.at_message_boundary());
        assert_eq!(walker.walk(&[0x80, 0x02, 0x6c, 0x6f]), Ok(()));
        assert!(walker.at_message_boundary());
        assert_eq!(walker.walk(&[0x82, 0x7e, 0x01, 0x00]), Ok(()));
        assert_eq!(walker.payload_left(), 256);
        assert_eq!(walker.walk(&[0; 256]), Ok(()));
        assert_eq!(walker.walk(&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]), Ok(()));
        assert_eq!(walker.payload_left(), 65_536);
    }

    #[test]
    fn each_violation_is_named() {
        let table: &[(&[u8], Violation)] = &[
            (&[0x83], Violation::ReservedOpcode),
            (&[0x07], Violation::ReservedOpcode),
            (&[0x8b], Violation::ReservedOpcode),
            (&[0x8f], Violation::ReservedOpcode),
            (&[0x08], Violation::FragmentedControl),
            (&[0x09], Violation::FragmentedControl),
            (&[0x0a], Violation::FragmentedControl),
            (&[0x88, 0x7e], Violation::LongControl),
            (&[0x89, 0x7f], Violation::LongControl),
            (&[0x80], Violation::NothingToContinue),
            (&[0x00], Violation::NothingToContinue),
            (&[0x81, 0x00, 0x80], Violation::NothingToContinue),
            (&[0x01, 0x00, 0x81], Violation::MessageOpen),
            (&[0x01, 0x00, 0x89, 0x00, 0x02], Violation::MessageOpen),
            (&[0x01, 0x00, 0x00, 0x00, 0x01], Violation::MessageOpen),
            (&[0x82, 0x80], Violation::Masked),
            (&[0x82, 0x7e, 0, 0], Violation::LengthNotMinimal),
            (&[0x82, 0x7e, 0, 125], Violation::LengthNotMinimal),
            (
                &[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                Violation::LengthNotMinimal,
            ),
            (&[0x82, 0x7f, 0x80], Violation::LengthTooLarge),
        ];
        for (bytes, violation) in table {
            assert_eq!(server(bytes), Err(*violation), "{bytes:x?}");
            // As soon as it is known, and not before.
            assert_eq!(server(&bytes[..bytes.len() - 1]), Ok(()), "{bytes:x?}");
        }
        assert_eq!(client(&[0x82, 0x00]), Err(Violation::NotMasked));
        assert_eq!(client(&[0x89, 0xfe]), Err(Violation::LongControl));
    }

    #[test]
    fn bits_of_extensions_are_let_through() {
        assert_eq!(server(&[0xc1, 0x01, 0, 0xf9, 0x00, 0x62, 0x00]), Ok(()));
    }

    #[test]
    fn lengths_at_the_edges_of_their_encodings_are_told() {
        for length in [0, 1, 125, 126, 65_535, 65_536, (1 << 63) - 1] {
            for is_masked in [false, true] {
                let sent = Sent {
                    code: 2,
                    is_final: true,
                    reserved: 0,
                    length,
                };
                let header = sent.header(is_masked);
                let mut walker = Walker::new(is_masked);
                let frame = walker.next_frame(&mut &header[..]);
                assert_eq!(frame, Ok(Some(sent.frame(is_masked))));
                assert_eq!(walker.payload_left(), length);
                assert_eq!(walker.at_boundary(), length == 0);
            }
        }
    }

    #[test]
    fn a_lost_walker_keeps_its_violation_and_is_at_no_boundary() {
        let mut walker = Walker::from_server();
        assert_eq!(walker.lost(), None);
        let lost = Err(Violation::ReservedOpcode);
        assert_eq!(walker.walk(&[0x81, 0x00, 0x83, 0x00]), lost);
        assert_eq!(walker.walk(&[0x81, 0x00]), lost);
        assert_eq!(walker.walk(&[]), lost);
        walker.skip(1);
        assert_eq!(walker.lost(), Some(Violation::ReservedOpcode));
        assert!(!walker.at_boundary() && !walker.at_message_boundary());
        assert_eq!(walker.payload_left(), 0);
        assert_eq!(walker.boundary_in(&[0x81, 0x00]), None);
    }

    #[test]
    fn what_is_spliced_is_skipped() {
        let mut walker = Walker::from_server();
        walker.walk(&[0x82, 0x7e, 0x03, 0xe8, 1, 2, 3]).unwrap();
        assert_eq!(walker.payload_left(), 997);
        walker.skip(0);
        walker.skip(900);
        assert_eq!(walker.payload_left(), 97);
        walker.skip(97);
        assert!(walker.at_message_boundary());
        walker.skip(0);
        assert_eq!(walker.walk(&[0x89]), Ok(()));
        walker.skip(0);
        assert_eq!(walker.walk(&[0x01, 0xff]), Ok(()));
        assert!(walker.at_message_boundary());
    }

    #[test]
    fn skipping_what_was_never_seen_loses_the_walker() {
        for head in [&[0x82, 0x02][..], &[0x82], &[]] {
            let mut walker = Walker::from_server();
            walker.walk(head).unwrap();
            walker.skip(3);
            assert_eq!(walker.lost(), Some(Violation::Skipped), "{head:x?}");
        }
    }

    #[test]
    fn the_first_boundary_ahead_is_found() {
        let mut walker = Walker::from_server();
        assert_eq!(walker.boundary_in(&[]), Some(0));
        assert_eq!(walker.boundary_in(&[0x83]), Some(0));
        walker.walk(&[0x82]).unwrap();
        assert_eq!(walker.boundary_in(&[]), None);
        assert_eq!(walker.boundary_in(&[0x02]), None);
        assert_eq!(walker.boundary_in(&[0x02, 1]), None);
        assert_eq!(walker.boundary_in(&[0x02, 1, 2]), Some(3));
        assert_eq!(walker.boundary_in(&[0x02, 1, 2, 0x83]), Some(3));
        assert_eq!(walker.boundary_in(&[0x00, 0x83]), Some(1));
        assert_eq!(walker.boundary_in(&[0x80]), None);
        walker.walk(&[0x03, 1]).unwrap();
        assert_eq!(walker.boundary_in(&[2]), None);
        assert_eq!(walker.boundary_in(&[2, 3]), Some(2));
        assert_eq!(walker.boundary_in(&[2, 3, 4]), Some(2));
    }

    /// Frames in an order that RFC 6455 allows.
    fn valid_frames() -> impl Strategy<Value = Vec<Sent>> {
        let length = prop_oneof![
            6 => 0u64..300,
            1 => prop::sample::select(vec![0u64, 1, 125, 126, 127, 65_535, 65_536]),
            1 => 300u64..70_000,
        ];
        let one = (any::<(bool, bool, bool)>(), 0u8..8, length);
        prop::collection::vec(one, 0..20).prop_map(|draws| {
            let mut is_open = false;
            let sent = |(flags, reserved, length): ((bool, bool, bool), u8, u64)| {
                let (is_control, is_final, is_text) = flags;
                let code = match (is_control, is_open) {
                    (true, _) => 8 + reserved % 3,
                    (false, true) => 0,
                    (false, false) => 1 + u8::from(is_text),
                };
                if !is_control {
                    is_open = !is_final;
                }
                Sent {
                    code,
                    is_final: is_control || is_final,
                    reserved,
                    length: if is_control { length % 126 } else { length },
                }
            };
            draws.into_iter().map(sent).collect()
        })
    }

    proptest! {
        #[test]
        fn finds_the_frames_of_an_independent_encoder_in_any_chunking(
            frames in valid_frames(),
            is_masked: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let (bytes, ranges) = encode(&frames, is_masked);
            let expected: Vec<(usize, Frame)> = frames
                .iter()
                .zip(&ranges)
                .map(|(sent, range)| {
                    let frame = sent.frame(is_masked);
                    (range.start + usize::from(frame.header_bytes), frame)
                })
                .collect();
            for cut in [chunks(&bytes, &cuts), vec![&bytes], bytes.chunks(1).collect()] {
                let mut walker = Walker::new(is_masked);
                prop_assert_eq!(walked(&mut walker, cut), (expected.clone(), Ok(())));
                let open = frames.iter().rfind(|sent| sent.code < 8).is_some_and(|sent| !sent.is_final);
                prop_assert!(walker.at_boundary());
                prop_assert_eq!(walker.at_message_boundary(), !open);
            }
        }

        #[test]
        fn tells_at_every_cut_how_far_the_frame_reaches(
            frames in valid_frames(),
            is_masked: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let (bytes, ranges) = encode(&frames, is_masked);
            for cut in cuts {
                let cut = cut.index(bytes.len() + 1);
                let mut walker = Walker::new(is_masked);
                prop_assert_eq!(walker.walk(&bytes[..cut]), Ok(()));
                let mut boundaries = std::iter::once(0).chain(ranges.iter().map(|range| range.end));
                let end = boundaries.find(|&boundary| boundary >= cut).unwrap();
                prop_assert_eq!(walker.at_boundary(), end == cut);
                prop_assert_eq!(walker.boundary_in(&bytes[cut..]), Some(end - cut));
                if walker.payload_left() > 0 {
                    prop_assert_eq!(walker.payload_left(), (end - cut) as u64);
                    walker.skip((end - cut) as u64);
                    prop_assert_eq!(walker.walk(&bytes[end..]), Ok(()));
                }
            }
        }

        #[test]
        fn any_bytes_are_walked_the_same_in_any_chunking(
            bytes in prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(vec![0u8, 1, 0x81, 0x82, 0x89, 0x7e, 0xfe, 0x7f])],
                0..200,
            ),
            is_masked: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let mut whole = Walker::new(is_masked);
            let expected = walked(&mut whole, [&bytes[..]]);
            for cut in [chunks(&bytes, &cuts), bytes.chunks(1).collect()] {
                let mut walker = Walker::new(is_masked);
                prop_assert_eq!(&walked(&mut walker, cut), &expected);
                prop_assert_eq!(walker, whole);
            }
            let mut walker = Walker::new(is_masked);
            prop_assert_eq!(walker.walk(&bytes), expected.1);
            prop_assert_eq!(walker, whole);
        }
    }
}
