//! The session tickets in a ClientHello: the identities of `pre_shared_key` (RFC 8446 section 4.2.11) and the ticket of
//! TLS 1.2 (RFC 5077). Whether one is good only their key can tell.

use super::{Bytes, Invalid, MESSAGE_HEADER_BYTES, Reader};

const EXTENSION_SESSION_TICKET: u16 = 35;
const EXTENSION_PRE_SHARED_KEY: u16 = 41;
/// Clients offer one or two; each more costs a try of the keys.
const MAX_TICKETS: usize = 4;

impl Reader {
    /// The tickets of a hello that was read to its end, at most four. What is malformed has none: a hint is no verdict.
    pub fn tickets(&self) -> Vec<&[u8]> {
        let body = self.message.get(MESSAGE_HEADER_BYTES..);
        body.and_then(|body| tickets(body).ok()).unwrap_or_default()
    }
}

fn tickets(body: &[u8]) -> Result<Vec<&[u8]>, Invalid> {
    let mut body = Bytes(body);
    body.take(2 + 32)?;
    body.list(1, 0..33)?;
    body.list(2, 0..65_536)?;
    body.list(1, 0..256)?;
    let mut found = Vec::new();
    if body.0.is_empty() {
        return Ok(found);
    }
    let mut extensions = body.list(2, 0..65_536)?;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut data = extensions.list(2, 0..65_536)?;
        match kind {
            EXTENSION_SESSION_TICKET if !data.0.is_empty() => found.push(data.0),
            EXTENSION_PRE_SHARED_KEY => {
                let mut identities = data.list(2, 0..65_536)?;
                while !identities.0.is_empty() && found.len() < MAX_TICKETS {
                    found.push(identities.list(2, 0..65_536)?.0);
                    identities.take(4)?; // obfuscated_ticket_age
                }
            }
            _ => {}
        }
    }
    found.truncate(MAX_TICKETS);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::Progress;
    use super::*;
    use proptest::prelude::*;

    fn with_extensions(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        let mut record = vec![22, 3, 1];
        record.extend((message.len() as u16).to_be_bytes());
        record.extend(message);
        record
    }

    fn read(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = Reader::new();
        let _ = reader.feed(bytes);
        reader.tickets().into_iter().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn tickets_of_both_versions_are_found() {
        let old = with_extensions(&[0, 35, 0, 3, 1, 2, 3]);
        assert_eq!(read(&old), [vec![1, 2, 3]]);
        let new = [
            0, 41, 0, 21, 0, 15, 0, 2, 8, 9, 0, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 2, 1, 0,
        ];
        let hello = with_extensions(&new[..]);
        let mut reader = Reader::new();
        assert!(matches!(reader.feed(&hello), Progress::Hello(_)));
        assert_eq!(reader.tickets(), [&[8, 9][..], &[5][..]]);
    }

    #[test]
    fn a_hello_without_one_has_none() {
        assert_eq!(read(&with_extensions(&[])), Vec::<Vec<u8>>::new());
        // "I take tickets" of TLS 1.2.
        assert_eq!(
            read(&with_extensions(&[0, 35, 0, 0])),
            Vec::<Vec<u8>>::new()
        );
    }

    proptest! {
        #[test]
        fn any_extensions_are_survived(extensions in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read(&with_extensions(&extensions)).len() <= MAX_TICKETS);
        }
    }
}
