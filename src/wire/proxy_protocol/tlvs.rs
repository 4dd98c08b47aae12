//! TLVs of version 2 as they are in a header: a byte of type, two of length, the value.

use std::sync::Arc;

use super::ProxyHeaderError;

/// TLVs kept as they came, to be passed on in their order; shared by all records of the same
/// client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tlvs(Option<Arc<[u8]>>);

impl Tlvs {
    /// `bytes` are whole TLVs. None of them takes no allocation.
    pub(super) fn of(bytes: &[u8]) -> Tlvs {
        Tlvs((!bytes.is_empty()).then(|| bytes.into()))
    }

    /// All of them, as they stand in a header.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Type and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = self.bytes();
        std::iter::from_fn(move || next(&mut rest).ok().flatten())
    }
}

/// Takes the next TLV off `rest`.
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, ProxyHeaderError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let ([kind, high, low], behind) = rest.split_first_chunk().ok_or(ProxyHeaderError::Tlv)?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, behind) = behind
        .split_at_checked(length)
        .ok_or(ProxyHeaderError::Tlv)?;
    *rest = behind;
    Ok(Some((*kind, value)))
}

/// Appends one; a value that does not fit is left out.
pub(super) fn push(body: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else {
        return;
    };
    body.push(kind);
    body.extend(length.to_be_bytes());
    body.extend(value);
}
