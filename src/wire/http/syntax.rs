//! Bytes that tokens and field values are made of (RFC 9110 section 5).

/// A byte of a token (RFC 9110 section 5.6.2): methods, field names, list items.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A byte of a field value (RFC 9110 section 5.5): visible, space, tab, or above ASCII.
pub(crate) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
