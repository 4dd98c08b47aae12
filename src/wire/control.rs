//! WebSocket control frames of our own (RFC 6455 section 5.5): Close, and pings whose pongs can be
//! distinguished from all others.

use crate::base::close_code::MAX_REASON_BYTES;

/// Payload of our pings.
pub const PING_BYTES: usize = 8;

const FIN_CLOSE: u8 = 0x88;
const FIN_PING: u8 = 0x89;
const FIN_PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;

/// Reader of the frame. Frames for a backend come from its client, which masks (section 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlReader {
    Client,
    /// With this masking key.
    Backend([u8; 4]),
}

/// A Close frame; `reason` is cut at `MAX_REASON_BYTES`, at the end of a character.
pub fn close(code: u16, reason: &str, reader: ControlReader) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    let end = reason.floor_char_boundary(MAX_REASON_BYTES);
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    frame(FIN_CLOSE, payload, reader)
}

/// A ping with this payload.
pub fn ping(payload: [u8; PING_BYTES], reader: ControlReader) -> Vec<u8> {
    frame(FIN_PING, payload.to_vec(), reader)
}

/// The answer to a ping with this payload, of at most 125 bytes (RFC 6455 section 5.5.3).
pub fn pong(payload: Vec<u8>, reader: ControlReader) -> Vec<u8> {
    frame(FIN_PONG, payload, reader)
}

/// The payload of a control frame that came whole, unmasked. `None`: it is not whole, or no control
/// frame.
pub fn payload(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, rest) = frame.split_at_checked(2)?;
    let length = usize::from(head[1] & !MASKED);
    let is_masked = head[1] & MASKED != 0;
    let (mask, payload) = rest.split_at_checked(if is_masked { 4 } else { 0 })?;
    if payload.len() != length || head[0] & 0x08 == 0 {
        return None;
    }
    let mask = mask.iter().chain(std::iter::repeat(&0)).copied();
    let mask: Vec<u8> = mask.take(4).collect();
    let unmasked = payload.iter().zip(mask.iter().cycle());
    Some(unmasked.map(|(byte, mask)| byte ^ mask).collect())
}

fn frame(first: u8, payload: Vec<u8>, reader: ControlReader) -> Vec<u8> {
    // At most 125 bytes, as all of its callers see to.
    let length = payload.len() as u8;
    match reader {
        ControlReader::Client => [vec![first, length], payload].concat(),
        ControlReader::Backend(key) => {
            let masked = payload.iter().zip(key.iter().cycle());
            let masked = masked.map(|(byte, key)| byte ^ key).collect();
            [vec![first, length | MASKED], key.to_vec(), masked].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::frames::{Opcode, Walker};

    fn readers() -> impl Strategy<Value = ControlReader> {
        prop_oneof![
            Just(ControlReader::Client),
            any::<[u8; 4]>().prop_map(ControlReader::Backend)
        ]
    }

    fn walker(reader: ControlReader) -> Walker {
        match reader {
            ControlReader::Client => Walker::from_server(),
            ControlReader::Backend(_) => Walker::from_client(),
        }
    }

    proptest! {
        #[test]
        fn a_close_is_one_whole_frame_with_its_code(code in 1000u16..5000, reason in ".{0,60}", reader in readers()) {
            let bytes = close(code, &reason, reader);
            let (mut walker, mut rest) = (walker(reader), &bytes[..]);
            let found = walker.next_frame(&mut rest).unwrap().unwrap();
            prop_assert_eq!(found.opcode, Opcode::Close);
            prop_assert_eq!(found.payload_bytes as usize, rest.len());
            let said = payload(&bytes).unwrap();
            prop_assert_eq!(&said[..2], &code.to_be_bytes());
            prop_assert!(reason.starts_with(std::str::from_utf8(&said[2..]).unwrap()));
        }

        #[test]
        fn the_payload_of_a_ping_comes_back(token: [u8; 8], reader in readers()) {
            prop_assert_eq!(payload(&ping(token, reader)), Some(token.to_vec()));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = payload(&bytes);
        }
    }
}
