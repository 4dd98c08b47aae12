//! Seals of what is in the store: HMAC-SHA256 with the cluster's secret, over the place and the
//! content. A copy of a sealed value under another key, or in another cluster, is worth nothing.

use std::fmt;
use std::path::PathBuf;

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use aws_lc_rs::hmac::{self, HMAC_SHA256};

use crate::config::Cluster;
use crate::remote::{RemoteError, read_secret};
use crate::tls::BackendTlsConfig;

/// Fewest characters of a secret: 96 bits in base64.
const MIN_SECRET: usize = 16;

/// Secret of a cluster.
#[derive(Clone)]
pub(super) struct ClusterSecret {
    key: hmac::Key,
    cluster: String,
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSecret").finish_non_exhaustive()
    }
}

impl ClusterSecret {
    pub(super) fn new(secret: &[u8], cluster: &str) -> ClusterSecret {
        ClusterSecret {
            key: hmac::Key::new(HMAC_SHA256, secret),
            cluster: cluster.to_owned(),
        }
    }

    /// Reads the secret of these settings.
    ///
    /// # Errors
    /// Names the file.
    pub(super) fn load(settings: &Cluster) -> Result<ClusterSecret, RemoteError> {
        let file = &settings.secret_file;
        let secret = read_secret(file)?;
        if secret.len() < MIN_SECRET {
            let shown = file.display();
            let what = format!("{shown}: a secret of less than {MIN_SECRET} characters");
            return Err(RemoteError::Denied(what));
        }
        Ok(ClusterSecret::new(secret.as_bytes(), &settings.name))
    }

    /// Name of the cluster.
    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Seals a value for its place in the store.
    pub(super) fn seal(&self, place: &str, value: &[u8]) -> Vec<u8> {
        let mut sealed = self.tag(place, value).as_ref().to_vec();
        sealed.extend_from_slice(value);
        sealed
    }

    /// The value that was sealed for this place. `None`: by somebody else, or for another one.
    pub(super) fn open<'a>(&self, place: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (tag, value) = sealed.split_at_checked(SHA256_OUTPUT_LEN)?;
        let signed = self.signed(place, value);
        hmac::verify(&self.key, &signed, tag).ok().map(|()| value)
    }

    /// Key of a hash that hides names from readers of the store.
    pub(super) fn hash_key(&self, purpose: &str) -> [u8; 16] {
        let mut key = [0; 16];
        let tag = self.tag(purpose, &[]);
        key.iter_mut()
            .zip(tag.as_ref())
            .for_each(|(to, from)| *to = *from);
        key
    }

    fn tag(&self, place: &str, value: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key, &self.signed(place, value))
    }

    /// Neither name has a zero byte, so no two of them are the same bytes.
    fn signed(&self, place: &str, value: &[u8]) -> Vec<u8> {
        [
            self.cluster.as_bytes(),
            b"\0",
            place.as_bytes(),
            b"\0",
            value,
        ]
        .concat()
    }
}

/// Verifies that the files of a cluster can be used: secret, password, and those of its TLS. For
/// use before a configuration is applied.
///
/// # Errors
/// Names the file, and says what is wrong with it.
pub(crate) fn verify(settings: &Cluster) -> Result<(), (Option<PathBuf>, String)> {
    let secret = ClusterSecret::load(settings).map(drop);
    secret.map_err(|error| (Some(settings.secret_file.clone()), error.to_string()))?;
    if let Some(file) = &settings.password_file {
        read_secret(file).map_err(|error| (Some(file.clone()), error.to_string()))?;
    }
    let loaded = settings.tls.as_ref().map(BackendTlsConfig::load);
    loaded.transpose().map(drop).map_err(|error| {
        let file = error.file().map(ToOwned::to_owned);
        (file, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_opens_only_where_it_was_sealed(
            value in prop::collection::vec(any::<u8>(), 0..60),
            flipped in any::<prop::sample::Index>(),
        ) {
            let secret = ClusterSecret::new(b"a secret of them all", "edge");
            let mut sealed = secret.seal("n:lb1", &value);
            prop_assert_eq!(secret.open("n:lb1", &sealed), Some(&value[..]));
            prop_assert_eq!(secret.open("n:lb2", &sealed), None);
            let elsewhere = ClusterSecret::new(b"a secret of them all", "other");
            prop_assert_eq!(elsewhere.open("n:lb1", &sealed), None);
            let stranger = ClusterSecret::new(b"another secret", "edge");
            prop_assert_eq!(stranger.open("n:lb1", &sealed), None);
            let at = flipped.index(sealed.len());
            sealed[at] ^= 1;
            prop_assert_eq!(secret.open("n:lb1", &sealed), None);
        }

        #[test]
        fn any_bytes_open_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            prop_assert_eq!(ClusterSecret::new(b"secret", "edge").open("n:a", &bytes), None);
        }
    }
}
