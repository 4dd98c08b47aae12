//! Sockets, DNS and file descriptors: the only floor that may use `unsafe`.

pub mod dns;
mod endpoint;
mod peer;

pub use endpoint::Endpoint;
pub use peer::Peer;
