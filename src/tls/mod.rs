//! Certificates and TLS configurations of listeners, and of connections to backends and checks.
//!
//! Files are read, parsed and checked here, when a configuration is built; a handshake finds
//! everything in memory. The only cryptography provider is aws-lc-rs. Nothing here opens a socket.

mod acceptor;
mod backend_config;
mod certificate;
mod ciphers;
mod client;
mod client_verifier;
mod error;
mod file_watch;
mod files;
mod handshake;
mod identity;
mod material;
pub mod record;
mod server_verifier;
mod sni_resolver;
mod stream;
#[cfg(test)]
mod testing;
mod tickets;

pub(crate) use acceptor::{RefreshOutcome, TlsAcceptor};
pub(crate) use backend_config::BackendTlsConfig;
pub(crate) use certificate::{CertificateFacts, certificate_facts};
pub(crate) use ciphers::CipherOrder;
pub(crate) use client::{client_config, known_client_config, pinned_client_config};
pub(crate) use error::{TlsError, describe, describe_handshake_error};
pub(crate) use file_watch::{FileChange, FileWatch};
pub(crate) use identity::ClientIdentity;
#[cfg(any(test, fuzzing))]
pub(crate) use stream::accept;
pub(crate) use stream::{TlsStream, accept_with_prefix};
pub(crate) use tickets::TicketKeyState;

/// Makes aws-lc-rs the process's provider. May be called repeatedly.
pub(crate) fn install_provider() {
    // An error means that a provider is installed already: ours, since no other is in the tree.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
