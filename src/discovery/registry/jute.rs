//! Jute, the encoding of ZooKeeper, as far as five calls need it: packets out, replies in.

use crate::discovery::bounded::MAX_BODY;
use crate::discovery::entry::MAX_ENTRIES;

/// Kinds of requests.
pub(super) const GET_DATA: i32 = 4;
pub(super) const GET_CHILDREN: i32 = 8;
const PING: i32 = 11;
const AUTH: i32 = 100;

/// Numbers of requests that the protocol reserves.
pub(super) const EVENT_XID: i32 = -1;
pub(super) const PING_XID: i32 = -2;
pub(super) const AUTH_XID: i32 = -4;

/// Errors of replies.
pub(super) const NO_NODE: i32 = -101;
pub(super) const NO_AUTH: i32 = -102;
pub(super) const AUTH_FAILED: i32 = -115;

/// Bytes of a session's password; a new session has none yet.
const PASSWORD: usize = 16;

/// Head of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplyHead {
    pub xid: i32,
    pub zxid: i64,
    pub error: i32,
}

/// Begins a session that times out after so many milliseconds.
pub(super) fn connect(timeout_milliseconds: i32, last_zxid: i64) -> Vec<u8> {
    let mut body = Vec::new();
    put_int(&mut body, 0);
    body.extend(last_zxid.to_be_bytes());
    put_int(&mut body, timeout_milliseconds);
    body.extend(0_i64.to_be_bytes());
    put_bytes(&mut body, &[0; PASSWORD]);
    // Not read-only.
    body.push(0);
    packet(&body)
}

/// Shows who we are, `user:password`.
pub(super) fn auth(user_and_password: &[u8]) -> Vec<u8> {
    let mut body = head(AUTH_XID, AUTH);
    put_int(&mut body, 0);
    put_bytes(&mut body, b"digest");
    put_bytes(&mut body, user_and_password);
    packet(&body)
}

/// Asks for the data or the children of a node, and for an event when they change.
pub(super) fn watched(xid: i32, kind: i32, path: &str) -> Vec<u8> {
    let mut body = head(xid, kind);
    put_bytes(&mut body, path.as_bytes());
    body.push(1);
    packet(&body)
}

pub(super) fn ping() -> Vec<u8> {
    packet(&head(PING_XID, PING))
}

fn head(xid: i32, kind: i32) -> Vec<u8> {
    let mut body = Vec::new();
    put_int(&mut body, xid);
    put_int(&mut body, kind);
    body
}

fn put_int(body: &mut Vec<u8>, number: i32) {
    body.extend(number.to_be_bytes());
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    put_int(body, i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    body.extend_from_slice(bytes);
}

fn packet(body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(body.len() + 4);
    put_bytes(&mut packet, body);
    packet
}

/// Takes the first whole packet out of what was read. `None`: more must come.
///
/// # Errors
/// It is longer than any answer, or no packet.
pub(super) fn take_packet(buffered: &mut Vec<u8>) -> Result<Option<Vec<u8>>, &'static str> {
    let Some(length) = buffered.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| "a negative length")?;
    if length > MAX_BODY {
        return Err("a packet that is too long");
    }
    if buffered.len() < length + 4 {
        return Ok(None);
    }
    let packet = buffered.drain(..length + 4).skip(4).collect();
    Ok(Some(packet))
}

/// Reader of a packet; `None` at its end.
pub(super) struct JuteReader<'a>(pub &'a [u8]);

impl<'a> JuteReader<'a> {
    pub(super) fn head(&mut self) -> Option<ReplyHead> {
        Some(ReplyHead {
            xid: self.int()?,
            zxid: self.long()?,
            error: self.int()?,
        })
    }

    pub(super) fn int(&mut self) -> Option<i32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*bytes))
    }

    pub(super) fn long(&mut self) -> Option<i64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(i64::from_be_bytes(*bytes))
    }

    /// Bytes behind their length; -1 is none.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.int()?;
        if length == -1 {
            return Some(&[]);
        }
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A list of names.
    pub(super) fn names(&mut self) -> Option<Vec<String>> {
        let count = usize::try_from(self.int()?).ok()?;
        if count > MAX_ENTRIES {
            return None;
        }
        let names = (0..count).map(|_| {
            let name = self.bytes()?;
            std::str::from_utf8(name).ok().map(str::to_owned)
        });
        names.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_watched_request_has_its_length_number_kind_path_and_flag() {
        let bytes = watched(7, GET_CHILDREN, "/a");
        let wanted = [
            0, 0, 0, 15, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 2, b'/', b'a', 1,
        ];
        assert_eq!(bytes, wanted);
        let mut reader = JuteReader(&bytes[12..]);
        assert_eq!(reader.bytes(), Some(b"/a".as_slice()));
    }

    #[test]
    fn packets_are_taken_whole() {
        let mut bytes = [ping(), ping()].concat();
        bytes.truncate(20);
        assert_eq!(
            take_packet(&mut bytes).unwrap().map(|one| one.len()),
            Some(8)
        );
        assert_eq!(take_packet(&mut bytes), Ok(None));
        assert!(take_packet(&mut vec![255; 4]).is_err());
        assert!(take_packet(&mut vec![127; 4]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut reader = JuteReader(&bytes);
            let _ = reader.head();
            let _ = reader.names();
            let _ = reader.bytes();
            let _ = take_packet(&mut bytes.clone());
        }
    }
}
