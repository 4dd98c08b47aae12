//! Certificates and TLS configurations.
