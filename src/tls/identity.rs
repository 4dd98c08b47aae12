//! Identity of a verified client: the subject of its certificate (RFC 4514) and its alternative
//! names, as text for a header field that cannot be forged by clever names.
//!
//! A name that is too long is left out as a whole: half of it may be another's name.

use std::fmt::Write;
use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::ToDer;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Longest subject. Usual ones have under 200 bytes.
const MAX_SUBJECT_BYTES: usize = 1024;
/// All alternative names together. A client certificate has one or two.
const MAX_SAN_BYTES: usize = 2048;

/// Visible ASCII and spaces, nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Subject in RFC 4514 form, the most specific part first: `CN=device 7,O=Example`. `None`:
    /// there is none, or it has over 1,024 bytes.
    pub subject: Option<String>,
    /// `DNS:a.example,URI:spiffe://example/a,email:a@example.org,IP:192.0.2.1`; other kinds, and
    /// names beyond 2,048 bytes, are left out. `None`: there is none.
    pub alternative_names: Option<String>,
}

impl ClientIdentity {
    /// Identity of a certificate; empty if it cannot be parsed.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> ClientIdentity {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return ClientIdentity::default();
        };
        let subject = subject(parsed.subject());
        let fits = !subject.is_empty() && subject.len() <= MAX_SUBJECT_BYTES;
        let names = match parsed.subject_alternative_name() {
            Ok(Some(found)) => alternative_names(&found.value.general_names),
            _ => String::new(),
        };
        ClientIdentity {
            subject: fits.then_some(subject),
            alternative_names: Some(names).filter(|names| !names.is_empty()),
        }
    }
}

fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter().collect();
    let parts = parts.into_iter().rev().map(|part| {
        let pairs: Vec<String> = part.iter().map(pair).collect();
        pairs.join("+")
    });
    parts.collect::<Vec<_>>().join(",")
}

fn pair(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let mut text = match oid2abbrev(kind, oid_registry()) {
        Ok(short) => short.to_owned(),
        Err(_) => kind.to_id_string(),
    };
    text.push('=');
    match attribute.as_str() {
        Ok(value) => escape_value(value, &mut text),
        Err(_) => {
            text.push('#');
            let bytes = attribute.attr_value().to_der_vec().unwrap_or_default();
            bytes.iter().for_each(|byte| push_hex(*byte, &mut text));
        }
    }
    text
}

fn alternative_names(names: &[GeneralName<'_>]) -> String {
    let mut text = String::new();
    for name in names {
        let Some(name) = alternative_name(name) else {
            continue;
        };
        if text.len() + 1 + name.len() > MAX_SAN_BYTES {
            break;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&name);
    }
    text
}

fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    let (kind, value) = match name {
        GeneralName::DNSName(name) => ("DNS", (*name).to_owned()),
        GeneralName::URI(uri) => ("URI", (*uri).to_owned()),
        GeneralName::RFC822Name(mail) => ("email", (*mail).to_owned()),
        GeneralName::IPAddress(bytes) => ("IP", address(bytes)?.to_string()),
        _ => return None,
    };
    let mut text = format!("{kind}:");
    escape_value(&value, &mut text);
    Some(text)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Escapes separators, and writes all but visible ASCII as bytes in hexadecimal (RFC 4514 section
/// 2.4).
fn escape_value(value: &str, into: &mut String) {
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        let at_an_end = index == 0 || index == last;
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                into.push('\\');
                into.push(char::from(byte));
            }
            b'#' if index == 0 => into.push_str("\\#"),
            b' ' if at_an_end => into.push_str("\\ "),
            b' '..=b'~' => into.push(char::from(byte)),
            other => {
                into.push('\\');
                push_hex(other, into);
            }
        }
    }
}

fn push_hex(byte: u8, into: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(into, "{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    fn identity(subject: &[(DnType, DnValue)], names: Vec<SanType>) -> ClientIdentity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        ClientIdentity::of(params.self_signed(&key).unwrap().der())
    }

    fn named(name: &str) -> ClientIdentity {
        identity(&[(DnType::CommonName, name.into())], Vec::new())
    }

    #[test]
    fn a_subject_is_written_from_its_most_specific_part() {
        let subject = [
            (DnType::CountryName, "DE".into()),
            (DnType::OrganizationName, "Example".into()),
            (DnType::CommonName, "device 7".into()),
        ];
        let san = vec![
            SanType::DnsName("a.example".try_into().unwrap()),
            SanType::URI("spiffe://example/a".try_into().unwrap()),
            SanType::Rfc822Name("a@example.org".try_into().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
        ];
        let identity = identity(&subject, san);
        assert_eq!(
            identity.subject.as_deref(),
            Some("CN=device 7,O=Example,C=DE")
        );
        assert_eq!(
            identity.alternative_names.as_deref(),
            Some(
                "DNS:a.example,URI:spiffe://example/a,email:a@example.org,IP:192.0.2.1,IP:2001:db8::1"
            )
        );
    }

    #[test]
    fn a_name_cannot_look_like_two_parts() {
        let subject = named("x,O=Admin+CN=root\r\nX-Evil: 1").subject.unwrap();
        assert_eq!(subject, r"CN=x\,O\=Admin\+CN\=root\0d\0aX-Evil: 1");
        let uri = SanType::URI("spiffe://a,DNS:evil".try_into().unwrap());
        let names = identity(&[], vec![uri]).alternative_names.unwrap();
        assert_eq!(names, r"URI:spiffe://a\,DNS:evil");
        assert_eq!(named("grün").subject.unwrap(), r"CN=gr\c3\bcn");
        assert_eq!(named(" #x ").subject.unwrap(), r"CN=\ #x\ ");
    }

    #[test]
    fn what_is_too_long_is_left_out_whole() {
        let fits = MAX_SUBJECT_BYTES - "CN=".len();
        assert!(named(&"x".repeat(fits)).subject.is_some());
        assert_eq!(named(&"x".repeat(fits + 1)).subject, None);
        let name = |index: usize| format!("{index:03}.{}", "x".repeat(56));
        let san = (0..100).map(|index| SanType::DnsName(name(index).try_into().unwrap()));
        let names = identity(&[], san.collect()).alternative_names.unwrap();
        assert!(names.len() <= MAX_SAN_BYTES && names.len() > MAX_SAN_BYTES - 70);
        assert!(
            names.split(',').all(|name| name.len() == "DNS:".len() + 60),
            "{names}"
        );
    }

    #[test]
    fn a_value_of_another_type_is_shown_in_hexadecimal() {
        let value = DnValue::BmpString("é".try_into().unwrap());
        let subject = identity(&[(DnType::CommonName, value)], Vec::new())
            .subject
            .unwrap();
        assert_eq!(subject, "CN=#1e0200e9");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(ClientIdentity::of(&bytes.into()), ClientIdentity::default());
        }

        #[test]
        fn every_value_can_stand_in_a_header_and_is_one_value(value in ".{0,60}") {
            let mut text = String::new();
            escape_value(&value, &mut text);
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", text);
            // What is left when the escapes are taken away separates nothing.
            let mut bytes = text.bytes();
            let mut back = Vec::new();
            while let Some(byte) = bytes.next() {
                if byte != b'\\' {
                    prop_assert!(!b",+;=\"<>".contains(&byte), "{}", text);
                    back.push(byte);
                    continue;
                }
                let first = bytes.next().unwrap();
                if first.is_ascii_hexdigit() {
                    let second = bytes.next().unwrap();
                    let pair = [first, second];
                    back.push(u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap());
                } else {
                    back.push(first);
                }
            }
            prop_assert_eq!(back, value.into_bytes());
        }
    }
}
