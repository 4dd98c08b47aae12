//! The case of header names that we write. Names are case-insensitive (RFC 9110 section 5.1), but
//! some servers, in PHP above all, compare them byte by byte.

/// Fields that describe the client to a backend, or that every hop rewrites.
#[cfg(test)]
pub(crate) const HOP_HEADERS: &[&str] = &[
    "Connection",
    "Forwarded",
    "Transfer-Encoding",
    "Upgrade",
    "X-Client-Cert-San",
    "X-Client-Cert-Subject",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "X-Request-Id",
];

/// Fields of a handshake whose usual case is not each word's first letter.
pub(crate) const HANDSHAKE_HEADERS: &[&str] = &[
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
];

/// Writes each of `names` in the message `head` in the given case; other names, values and bytes
/// behind the head stay as they are.
pub(crate) fn restore_case<Name: AsRef<str>>(head: &mut [u8], names: &[Name]) {
    let mut rest = head;
    // The request line has no name.
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        rest = rest.split_at_mut(end + 2).1;
        if rest.starts_with(b"\r\n") {
            return;
        }
        let colon = rest.iter().position(|&byte| byte == b':' || byte == b'\r');
        let name = colon.and_then(|colon| rest.get_mut(..colon));
        if let Some(name) = name {
            respell_name(name, names);
        }
    }
}

fn respell_name<Name: AsRef<str>>(name: &mut [u8], names: &[Name]) {
    let mut names = names.iter().map(|name| name.as_ref().as_bytes());
    if let Some(wanted) = names.find(|wanted| name.eq_ignore_ascii_case(wanted)) {
        name.copy_from_slice(wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn respelled(head: &str) -> String {
        let mut bytes = head.as_bytes().to_vec();
        restore_case(&mut bytes, HOP_HEADERS);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn known_names_of_the_head_are_spelled_and_nothing_else() {
        assert_eq!(
            respelled(
                "GET /x-real-ip HTTP/1.1\r\nx-REAL-ip: x-real-ip\r\nx-other: 1\r\nX-Forwarded-for: a\r\n\r\n\
                 x-real-ip: body\r\n"
            ),
            "GET /x-real-ip HTTP/1.1\r\nX-Real-IP: x-real-ip\r\nx-other: 1\r\nX-Forwarded-For: a\r\n\r\n\
             x-real-ip: body\r\n"
        );
    }

    proptest! {
        #[test]
        fn only_the_case_of_letters_changes(head in "[xX:\r\n a-]{0,40}|(x-real-ip|X-Real-Ip|:|\r\n|a){0,12}") {
            prop_assert!(respelled(&head).eq_ignore_ascii_case(&head));
        }
    }
}
