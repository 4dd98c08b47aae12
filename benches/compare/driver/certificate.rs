//! The certificate that every balancer shows: P-256, self-signed, made for the run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Name in the certificate, which the load asks for.
const NAME: &str = "localhost";

/// Its files, PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Both in one, as HAProxy wants it.
    pub both: PathBuf,
}

impl Certificate {
    pub fn make(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let files = Self {
            certificate: folder.join("certificate.pem"),
            key: folder.join("key.pem"),
            both: folder.join("both.pem"),
        };
        fs::write(&files.certificate, &certificate)?;
        fs::write(&files.key, &key)?;
        fs::write(&files.both, certificate + &key)?;
        Ok(files)
    }
}
