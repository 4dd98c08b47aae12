//! The key files of sticky pools: read at start, at every reload and by `evenkeel check`. A file
//! that cannot be used refuses the whole reload, so that the last good keys stay in use.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::load_error::LoadError;
use crate::config::{Change, Config};
use crate::server::pools::Pools;
use crate::wire::sticky::{MAX_FILE_BYTES, StickyKeys};

/// Keys of each sticky pool.
pub(in crate::server) type Keys = BTreeMap<String, Arc<StickyKeys>>;

/// Reads the key files of `config`; adds those that cannot be used to `errors`.
pub(super) fn load(config: &Config, errors: &mut Vec<LoadError>) -> Keys {
    let mut keys = Keys::new();
    for (name, pool) in &config.pools {
        let Some(sticky) = &pool.sticky else {
            continue;
        };
        match read(&sticky.key_file) {
            Ok(read) => drop(keys.insert(name.clone(), Arc::new(read))),
            Err(error) => {
                let file = Some(sticky.key_file.as_path());
                errors.push(LoadError::of_pool(pool, "sticky", file, &error));
            }
        }
    }
    keys
}

/// Reads and parses one key file.
pub(in crate::server) fn read(file: &Path) -> Result<StickyKeys, String> {
    let shown = file.display();
    let mut text = String::new();
    // One byte more than allowed tells a file that is too large.
    let bounded = File::open(file).map(|file| file.take(MAX_FILE_BYTES as u64 + 1));
    bounded
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|error| format!("read {shown}: {error}"))?;
    StickyKeys::parse(&text).map_err(|error| format!("{shown}: {error}"))
}

/// Changes of pools whose file has other keys under the same settings.
pub(super) fn renewed(old: &Config, new: &Config, keys: &Keys, known: &Pools) -> Vec<Change> {
    let is_renewed = |name: &&String| {
        let sticky = |config: &Config| Some(config.pools.get(*name)?.sticky.clone());
        let before = known.get(*name).and_then(|pool| pool.sticky_keys());
        sticky(old) == sticky(new) && before.as_ref() != keys.get(*name)
    };
    let renewed = keys.keys().filter(is_renewed);
    renewed
        .map(|pool| Change::StickyKeysChanged { pool: pool.clone() })
        .collect()
}

/// Gives the pools their keys.
pub(super) fn apply(pools: &Pools, keys: &Keys) {
    for (name, pool) in pools {
        pool.set_sticky_keys(keys.get(name).cloned());
    }
}
