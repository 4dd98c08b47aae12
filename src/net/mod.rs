//! Sockets, DNS and file descriptors: the only floor that may use `unsafe`.
