//! Reads the configuration from a parsed file.

use super::declare::{FromValue, InParts};
use super::reader::TableReader;
use super::tables::{Admin, Config, Metrics, pools};
use super::validate::{self, WholeFile};

/// Reads `[admin]` alone.
pub(super) fn admin(root: &TableReader<'_>) -> Option<Admin> {
    root.required("admin", FromValue::read)
}

/// Reads `[metrics]` alone.
pub(super) fn metrics(root: &TableReader<'_>) -> Option<Metrics> {
    root.required("metrics", FromValue::read)
}

/// Reads the whole file. `None` when something needed was wrong, which was noted.
pub(super) fn config(root: &TableReader<'_>) -> Option<Config> {
    let mut config = Config::parts(root);
    let pools = pools(root);
    validate::whole_file(&WholeFile {
        root,
        global: config.global.as_ref(),
        listeners: config.listeners.as_deref(),
        pools: &pools,
    });
    let pools = pools.into_iter().map(|read| Some((read.name, read.pool?)));
    config.pools = pools.collect();
    Config::whole(config)
}
