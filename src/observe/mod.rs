//! Records of connections, the access log and counters.
