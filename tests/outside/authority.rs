//! An authority made for a test: certificates for servers and clients, of either kind of key, and revocation lists.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::client::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, SupportedProtocolVersion};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub der: CertificateDer<'static>,
    pub serial: u64,
}

pub const ECDSA: &SignatureAlgorithm = &PKCS_ECDSA_P256_SHA256;
pub const RSA: &SignatureAlgorithm = &PKCS_RSA_SHA256;

impl Authority {
    /// Writes `stem.pem` into `folder`.
    pub fn new(folder: &Path, stem: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, stem);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        std::fs::write(folder.join(format!("{stem}.pem")), issuer.pem()).expect("write");
        Authority {
            issuer,
            folder: folder.to_owned(),
        }
    }

    /// Of a server; writes `stem.pem` and `stem.key`.
    pub fn server(&self, stem: &str, names: &[&str], kind: &'static SignatureAlgorithm) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.issue(stem, CertificateParams::new(names).expect("names"), kind, 1)
    }

    /// Of a server, from a month ago until this many seconds from now.
    pub fn ending(&self, stem: &str, name: &str, seconds: u64) -> Issued {
        let mut params = CertificateParams::new([name.to_owned()]).expect("names");
        let now = date_time_ymd(1970, 1, 1) + UNIX_EPOCH.elapsed().expect("a clock");
        params.not_before = now - Duration::from_secs(30 * 86_400);
        params.not_after = now + Duration::from_secs(seconds);
        self.issue(stem, params, ECDSA, 1)
    }

    /// Of a client, with this serial number, `CN=common,O=Example` and a URI of its own.
    pub fn client(&self, stem: &str, common: &str, serial: u64) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, common);
        let uri = format!("spiffe://example/{stem}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        self.issue(stem, params, ECDSA, serial)
    }

    fn issue(
        &self,
        stem: &str,
        mut params: CertificateParams,
        kind: &'static SignatureAlgorithm,
        serial: u64,
    ) -> Issued {
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate_for(kind).expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |extension: &str| self.folder.join(format!("{stem}.{extension}"));
        std::fs::write(file("pem"), made.pem()).expect("write");
        std::fs::write(file("key"), key.serialize_pem()).expect("write");
        Issued {
            cert: file("pem"),
            key: file("key"),
            der: made.der().clone(),
            serial,
        }
    }

    /// A list that revokes these, as PEM.
    pub fn revocations(&self, revoked: &[&Issued]) -> String {
        let revoked = revoked.iter().map(|one| RevokedCertParams {
            serial_number: SerialNumber::from(one.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2060, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("a list");
        list.pem().expect("PEM")
    }

    /// A client that trusts this authority and shows `identity`.
    pub fn trusting(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Issued>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
                builder
                    .with_client_auth_cert(vec![identity.der.clone()], key)
                    .expect("an identity")
            }
        }
    }
}

impl Issued {
    /// As the configuration names it.
    pub fn toml(&self) -> String {
        let (cert, key) = (self.cert.display(), self.key.display());
        format!("{{ cert = \"{cert}\", key = \"{key}\" }}")
    }

    /// Its files become those of `other`.
    pub fn copy_to(&self, other: &Issued) {
        std::fs::copy(&self.cert, &other.cert).expect("copy");
        std::fs::copy(&self.key, &other.key).expect("copy");
    }
}
