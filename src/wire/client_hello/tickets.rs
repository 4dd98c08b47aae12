//! The session tickets in a ClientHello by which it can resume: in a hello of TLS 1.3 the
//! identities of `pre_shared_key` (RFC 8446 section 4.2.11), if it takes them with a key exchange
//! (`psk_dhe_ke`, the only mode that rustls knows), in one of TLS 1.2 the ticket of RFC 5077. Only
//! their key shows whether one is valid.

use super::{Bytes, ClientHelloError, ClientHelloReader};

const EXTENSION_SESSION_TICKET: u16 = 35;
const EXTENSION_PRE_SHARED_KEY: u16 = 41;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
const EXTENSION_PSK_KEY_EXCHANGE_MODES: u16 = 45;
const TLS13: [u8; 2] = [3, 4];
const PSK_DHE_KE: u8 = 1;
/// Clients offer one or two; each more costs a try of the keys.
const MAX_TICKETS: usize = 4;

impl ClientHelloReader {
    /// Tickets of a complete ClientHello, at most four. None if that is malformed: a hint is not a
    /// check.
    pub fn tickets(&self) -> Vec<&[u8]> {
        let body = self.body();
        let tickets = body.and_then(|body| tickets(body.extensions).ok());
        tickets.unwrap_or_default()
    }
}

fn tickets(mut extensions: Bytes<'_>) -> Result<Vec<&[u8]>, ClientHelloError> {
    let (mut is_tls13, mut exchanges_keys) = (false, false);
    let (mut ticket, mut identities) = (Vec::new(), Vec::new());
    while let Some((kind, mut data)) = extensions.next_extension()? {
        match kind {
            EXTENSION_SESSION_TICKET if !data.0.is_empty() => ticket = vec![data.0],
            EXTENSION_PRE_SHARED_KEY => identities = offered(data.list(2, 0..65_536)?)?,
            EXTENSION_SUPPORTED_VERSIONS => {
                let versions = data.list(1, 0..256)?;
                is_tls13 = versions.0.chunks(2).any(|version| version == TLS13);
            }
            EXTENSION_PSK_KEY_EXCHANGE_MODES => {
                exchanges_keys = data.list(1, 0..256)?.0.contains(&PSK_DHE_KE);
            }
            _ => {}
        }
    }
    // Every listener takes TLS 1.3 where it is offered.
    Ok(match (is_tls13, exchanges_keys) {
        (true, true) => identities,
        (true, false) => Vec::new(),
        (false, _) => ticket,
    })
}

fn offered(mut identities: Bytes<'_>) -> Result<Vec<&[u8]>, ClientHelloError> {
    let mut found = Vec::new();
    while !identities.0.is_empty() && found.len() < MAX_TICKETS {
        found.push(identities.list(2, 0..65_536)?.0);
        identities.take(4)?; // obfuscated_ticket_age
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::client_hello::HelloProgress;
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
        let mut reader = ClientHelloReader::new();
        let _ = reader.feed(bytes);
        reader.tickets().into_iter().map(<[u8]>::to_vec).collect()
    }

    const TICKET: &[u8] = &[0, 35, 0, 3, 1, 2, 3];
    const IDENTITIES: &[u8] = &[
        0, 41, 0, 21, 0, 15, 0, 2, 8, 9, 0, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 2, 1, 0,
    ];
    /// 1.3 and 1.2; `psk_dhe_ke`.
    const VERSIONS: &[u8] = &[0, 43, 0, 5, 4, 3, 4, 3, 3];
    const MODES: &[u8] = &[0, 45, 0, 2, 1, 1];

    fn of(extensions: &[&[u8]]) -> Vec<Vec<u8>> {
        let hello = with_extensions(&extensions.concat());
        assert!(matches!(
            ClientHelloReader::new().feed(&hello),
            HelloProgress::Hello(_)
        ));
        read(&hello)
    }

    #[test]
    fn tickets_of_both_versions_are_found() {
        assert_eq!(of(&[TICKET]), [vec![1, 2, 3]]);
        let identities = [vec![8, 9], vec![5]];
        assert_eq!(of(&[VERSIONS, MODES, IDENTITIES]), identities);
        assert_eq!(of(&[TICKET, MODES, VERSIONS, IDENTITIES]), identities);
    }

    // One with a ticket in the other version's place, which resumes nothing, went before all the
    // others.
    #[test]
    fn a_ticket_that_cannot_resume_is_none() {
        const ONLY_TLS12: &[u8] = &[0, 43, 0, 3, 2, 3, 3];
        const WITHOUT_KEY_EXCHANGE: &[u8] = &[0, 45, 0, 2, 1, 0];
        let none: [&[&[u8]]; 7] = [
            &[TICKET, VERSIONS],
            &[TICKET, VERSIONS, MODES],
            &[VERSIONS, IDENTITIES],
            &[VERSIONS, WITHOUT_KEY_EXCHANGE, IDENTITIES],
            &[MODES, IDENTITIES],
            &[ONLY_TLS12, MODES, IDENTITIES],
            // "I take tickets" of TLS 1.2.
            &[&[0, 35, 0, 0]],
        ];
        for extensions in none {
            assert_eq!(of(extensions), Vec::<Vec<u8>>::new(), "{extensions:?}");
        }
        assert_eq!(of(&[TICKET, ONLY_TLS12, IDENTITIES]), [vec![1, 2, 3]]);
        assert_eq!(of(&[]), Vec::<Vec<u8>>::new());
    }

    proptest! {
        #[test]
        fn any_extensions_are_survived(extensions in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read(&with_extensions(&extensions)).len() <= MAX_TICKETS);
        }
    }
}
