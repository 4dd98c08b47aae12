//! The form of a session ticket (RFC 8446 section 4.6.1), for sessions that use none.

/// Whether `body` is a NewSessionTicket.
pub(super) fn is_well_formed(body: &[u8]) -> bool {
    ticket(body).is_some_and(<[u8]>::is_empty)
}

/// The bytes behind a NewSessionTicket; `None`: it is cut short, or has no ticket.
fn ticket(body: &[u8]) -> Option<&[u8]> {
    // Lifetime and age.
    let rest = body.get(8..)?;
    let (&nonce, rest) = rest.split_first()?;
    let rest = rest.get(usize::from(nonce)..)?;
    let (ticket, rest) = split_vector(rest)?;
    let (mut extensions, rest) = split_vector(rest)?;
    while !extensions.is_empty() {
        let (_, behind) = split_vector(extensions.get(2..)?)?;
        extensions = behind;
    }
    (!ticket.is_empty()).then_some(rest)
}

/// A vector with two bytes of length, and the bytes behind it.
fn split_vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}
