//! The strict HTTP/1 gate (RFC 9110, RFC 9112).

/// A byte of a token (RFC 9110 section 5.6.2): methods, field names, list items.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
