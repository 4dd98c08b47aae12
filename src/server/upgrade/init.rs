//! The first process of a container: all others end with it.

/// Whether this is one.
pub(in crate::server) fn is_init() -> bool {
    std::process::id() == 1
}
