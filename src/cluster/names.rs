//! Names of a member's backends, apart from its numbers: they are long, change seldom, and are the
//! same for all members of one configuration. Known by their digest, which a report has.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use minicbor::{Decode, Encode};

/// Most backends of a member: two pools with as many as one answer of discovery has.
pub(super) const MAX_BACKENDS: usize = 20_000;
/// Longest `POOL/BACKEND`; one that is longer is not shared.
pub(super) const MAX_NAME: usize = 1_024;
/// Largest list: with more than 400 characters a name it takes fewer backends.
pub(super) const MAX_LIST: usize = 8 << 20;

/// Digest of a list of names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct NamesDigest(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// Names of backends, `POOL/BACKEND`, in an order of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackendNames {
    digest: NamesDigest,
    names: Vec<String>,
    encoded: Vec<u8>,
}

impl NamesDigest {
    fn of(bytes: &[u8]) -> NamesDigest {
        NamesDigest(short_digest(bytes))
    }

    pub(super) fn to_hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

/// First half of the SHA-256 of these bytes.
pub(super) fn short_digest(bytes: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    let whole = digest(&SHA256, bytes);
    half.iter_mut()
        .zip(whole.as_ref())
        .for_each(|(to, from)| *to = *from);
    half
}

impl BackendNames {
    pub(super) fn new(names: Vec<String>) -> BackendNames {
        // Writing to a vector cannot fail.
        let encoded = minicbor::to_vec(&names).unwrap_or_default();
        BackendNames {
            digest: NamesDigest::of(&encoded),
            names,
            encoded,
        }
    }

    pub(super) fn digest(&self) -> NamesDigest {
        self.digest
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The names of this digest. Who has written them does not matter: the digest is of a sealed
    /// report. `None`: they are others.
    pub(super) fn decode(bytes: &[u8], wanted: NamesDigest) -> Option<BackendNames> {
        if bytes.len() > MAX_LIST || NamesDigest::of(bytes) != wanted {
            return None;
        }
        let names: Vec<String> = minicbor::decode(bytes).ok()?;
        (names.len() <= MAX_BACKENDS).then(|| BackendNames {
            digest: wanted,
            names,
            encoded: bytes.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_are_read_only_by_their_digest(
            names in prop::collection::vec("[a-z/]{0,9}", 0..9),
            other in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let names = BackendNames::new(names);
            let digest = names.digest();
            let encoded = names.encoded().to_vec();
            prop_assert_eq!(BackendNames::decode(&encoded, digest), Some(names));
            prop_assume!(other != encoded);
            prop_assert_eq!(BackendNames::decode(&other, digest), None);
        }
    }
}
