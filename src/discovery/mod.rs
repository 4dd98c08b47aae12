//! Backends from DNS.
