//! Cipher suites and protocol versions, and whether the server's or the client's order of suites
//! counts.
//!
//! AES-128 stands first: it is safe, and costs the least where both sides have AES in hardware. A
//! client that puts ChaCha20 first has not, so its order is kept.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig, SupportedProtocolVersion};

use crate::config::TlsVersion;

/// The versions from `least` on.
pub(super) fn protocol_versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static SINCE_12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    static SINCE_13: &[&SupportedProtocolVersion] = &[&TLS13];
    match least {
        TlsVersion::Tls12 => SINCE_12,
        TlsVersion::Tls13 => SINCE_13,
    }
}

/// The cryptography provider of listeners.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| rank(suite.suite()));
    provider
}

/// Rank of a suite. Version and kind of key are negotiated first: only suites of one of each
/// compete.
fn rank(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => 1,
        _ => 2,
    }
}

/// Side whose order of cipher suites decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherOrder {
    Server,
    Client,
}

/// A configuration for each order; certificates, tickets and all else are shared.
pub(super) struct ConfigByOrder {
    server: Arc<ServerConfig>,
    client: Arc<ServerConfig>,
}

impl ConfigByOrder {
    pub(super) fn new(mut config: ServerConfig) -> Arc<ConfigByOrder> {
        config.ignore_client_order = false;
        let client = Arc::new(config.clone());
        config.ignore_client_order = true;
        Arc::new(ConfigByOrder {
            server: Arc::new(config),
            client,
        })
    }

    pub(super) fn get(&self, order: CipherOrder) -> &Arc<ServerConfig> {
        match order {
            CipherOrder::Server => &self.server,
            CipherOrder::Client => &self.client,
        }
    }
}
