//! The TLVs of a header in one line for a log: nginx' names (`$proxy_protocol_tlv_*`), with
//! identifiers of cloud balancers, and the type's number for the rest.

use std::fmt::Write as _;

use super::Details;
use super::v2::TYPE_NETNS;

/// Bytes of one value that are shown.
const MAX_VALUE_BYTES: usize = 64;

/// `PP2_TYPE_AWS`; the first byte is the kind of the value.
const AWS: u8 = 0xEA;
const AWS_VPCE_ID: u8 = 0x01;
/// `PP2_TYPE_AZURE`, as `AWS`.
const AZURE: u8 = 0xEE;
const AZURE_PRIVATE_ENDPOINT_LINK_ID: u8 = 0x01;
/// Private Service Connect of Google Cloud: a number of 8 bytes.
const GCP: u8 = 0xE0;

const SUBTYPES_OF_SSL: [(u8, &str); 4] = [
    (0x22, "ssl_cn"),
    (0x23, "ssl_cipher"),
    (0x24, "ssl_sig_alg"),
    (0x25, "ssl_key_alg"),
];

/// `aws_vpce_id=vpce-08d2bf15fac5001c9 unique_id=7`; types of a cloud or a site come first. `None`:
/// there are no TLVs. Only visible ASCII; a value that has anything else is written in hexadecimal
/// digits.
pub fn describe(details: &Details) -> Option<String> {
    let mut line = String::new();
    for (kind, value) in details.others.iter() {
        push_other(&mut line, kind, value);
    }
    if let Some(id) = &details.unique_id {
        push(&mut line, "unique_id", id);
    }
    if let Some(authority) = &details.authority {
        push(&mut line, "authority", authority.as_bytes());
    }
    if let Some(alpn) = &details.alpn {
        push(&mut line, "alpn", alpn);
    }
    if let Some(tls) = &details.tls {
        if let Some(version) = &tls.version {
            push(&mut line, "ssl_version", version.as_bytes());
        }
        for (kind, value) in tls.others.iter() {
            let known = SUBTYPES_OF_SSL.iter().find(|(of, _)| *of == kind);
            if let Some((_, name)) = known {
                push(&mut line, name, value);
            }
        }
    }
    (!line.is_empty()).then_some(line)
}

fn push_other(line: &mut String, kind: u8, value: &[u8]) {
    match (kind, value) {
        (AWS, [AWS_VPCE_ID, id @ ..]) => push(line, "aws_vpce_id", id),
        (AZURE, [AZURE_PRIVATE_ENDPOINT_LINK_ID, a, b, c, d]) => {
            let id = u32::from_le_bytes([*a, *b, *c, *d]).to_string();
            push(line, "azure_pel_id", id.as_bytes());
        }
        (GCP, [a, b, c, d, e, f, g, h]) => {
            let id = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]).to_string();
            push(line, "gcp_conn_id", id.as_bytes());
        }
        (TYPE_NETNS, name) => push(line, "netns", name),
        (kind, value) => push(line, &format!("0x{kind:02X}"), value),
    }
}

fn push(line: &mut String, name: &str, value: &[u8]) {
    if !line.is_empty() {
        line.push(' ');
    }
    line.push_str(name);
    line.push('=');
    let shown = value.get(..MAX_VALUE_BYTES).unwrap_or(value);
    match str::from_utf8(shown) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => line.push_str(text),
        _ => {
            line.push_str("0x");
            for byte in shown {
                // Writing to a String cannot fail.
                let _ = write!(line, "{byte:02x}");
            }
        }
    }
    if shown.len() < value.len() {
        line.push_str("...");
    }
}
