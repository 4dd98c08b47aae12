//! Sockets, DNS and file descriptors: the only floor that may use `unsafe`.

mod endpoint;

pub use endpoint::Endpoint;
