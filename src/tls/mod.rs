//! Certificates and TLS configurations: what a listener serves with and what a check connects with.
//!
//! Files are read, parsed and checked here, when a configuration is built; a handshake finds everything in memory.
//! The only cryptography provider is aws-lc-rs. Nothing here opens a socket.

mod certificate;
mod client;
mod error;
mod handshake;
mod names;
pub mod record;
mod server;
mod stream;
mod verifier;

pub use client::{client_config, known_client_config, pinned_client_config};
pub use error::TlsError;
pub use server::{LoadedTls, fingerprint, server_config};
#[cfg(test)]
pub use stream::accept;
pub use stream::{Parts, Stream, accept_after};

/// Makes aws-lc-rs the process's provider. May be called any number of times.
pub fn install_provider() {
    // An error means that a provider is there already: ours, since no other is in the tree.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
