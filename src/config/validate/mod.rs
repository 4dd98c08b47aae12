//! Rules that need the whole file.

mod binds;
mod references;
mod uses;
mod warnings;

use super::reader::TableReader;
use super::tables::{Global, Listener, ReadPool};

/// A file whose tables were read. Parts that are wrong are `None`; that was noted.
pub(super) struct WholeFile<'a> {
    pub(super) root: &'a TableReader<'a>,
    pub(super) global: Option<&'a Global>,
    pub(super) listeners: Option<&'a [Listener]>,
    pub(super) pools: &'a [ReadPool<'a>],
}

/// Notes everything that the tables do not show each for itself.
pub(super) fn whole_file(file: &WholeFile<'_>) {
    binds::refuse_overlaps(file.root);
    references::refuse_same_listeners(file.root);
    references::refuse_unknown(file.root, file.pools);
    if let Some(listeners) = file.listeners {
        uses::refuse_useless(file.pools, listeners);
        uses::refuse_handshake_keys(file.root, file.global, listeners);
        warnings::warn_of_pools(file.pools, listeners);
    }
}
