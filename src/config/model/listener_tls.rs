//! `listener.tls`.

use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq)]
pub enum ListenerTls {
    /// `tls = { passthrough = true }`, `tcp` only: the ClientHello is peeked for routes by `sni` and `alpn`.
    Passthrough,
    /// `tls = { certificates = [...] }`: terminated here.
    Terminate(Terminate),
}

/// How TLS is terminated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminate {
    /// At least one.
    pub certificates: Vec<Certificate>,
    /// Default 1.2.
    pub min_version: TlsVersion,
    /// `tcp` only: protocols that a client may choose from (RFC 7301), most wanted first. Default none.
    pub alpn: Vec<String>,
    /// File of ticket keys that several balancers share; `None`: keys of this process.
    pub ticket_keys: Option<PathBuf>,
    /// `None`: no client is asked for a certificate.
    pub client_auth: Option<ClientAuth>,
}

impl Terminate {
    /// With these certificates and the default of everything else.
    pub fn with(certificates: Vec<Certificate>) -> Terminate {
        Terminate {
            certificates,
            min_version: TlsVersion::Tls12,
            alpn: Vec::new(),
            ticket_keys: None,
            client_auth: None,
        }
    }
}

/// One certificate chain and its key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Serves clients that name no host or one that no certificate covers. At most one per listener. Default false.
    pub default: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// `listener.tls.client_auth`: clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM file of the authorities that client certificates must come from.
    pub ca: PathBuf,
    /// Default `required`.
    pub mode: ClientAuthMode,
    /// PEM file of revocation lists, one for each authority of a client's chain. `None`: nothing is revoked.
    pub crl: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// A client without a certificate is refused.
    Required,
    /// A client without a certificate is served; one with a wrong certificate is refused.
    Optional,
}
