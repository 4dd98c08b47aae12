//! Trust in the admin endpoint's certificate. Where the configuration file names the certificate,
//! exactly that one is expected: it often is self-signed, and names a host instead of the loopback
//! address that is asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::tls;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// The system's roots.
    System,
    /// The certificates of a PEM file, each of them as a root and as the endpoint's own.
    Roots(PathBuf),
    /// The first certificate of a PEM file, and no other.
    Pinned(PathBuf),
}

impl Trust {
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn client_config(&self) -> io::Result<Arc<ClientConfig>> {
        let config = match self {
            Trust::System => tls::client_config(None, true),
            Trust::Roots(file) => tls::known_client_config(file),
            Trust::Pinned(file) => tls::pinned_client_config(file),
        };
        config.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty.pem");
        std::fs::write(&file, "").unwrap();
        assert!(
            Trust::Roots(file.clone())
                .client_config()
                .unwrap_err()
                .to_string()
                .contains("empty.pem")
        );
        assert!(
            Trust::Pinned(file)
                .client_config()
                .unwrap_err()
                .to_string()
                .contains("empty.pem")
        );
    }
}
