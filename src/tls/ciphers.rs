//! The cipher suites of a listener, and whose order of them counts.
//!
//! AES-128 stands first: nobody breaks it either, and it costs the least where both ends have AES in hardware. A client that
//! puts ChaCha20 first has not, so that its order is kept.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, ServerConfig};

/// The provider of listeners.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| rank(suite.suite()));
    provider
}

/// Versions and kinds of keys are chosen before: only suites of one of each compete.
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

/// Whose order of cipher suites decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherOrder {
    Server,
    Client,
}

/// One configuration for each order; all else, certificates and tickets too, is shared.
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
