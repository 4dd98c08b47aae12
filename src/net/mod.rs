//! Sockets, DNS and file descriptors: the only floor that may use `unsafe`.

pub mod dns;
mod endpoint;

pub use endpoint::Endpoint;
