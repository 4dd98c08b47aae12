//! The files that pools are made of: those that their `tls` names, and the keys of sticky clients.
//! Read at start, at every reload, by `evenkeel check`, and when they change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::pools::Pools;
use crate::config::{self, Action, BackendTls, Change, Config, Item, Sticky};
use crate::pool::Pool;
use crate::tls::BackendTlsConfig;
use crate::wire::sticky::{MAX_FILE_BYTES, StickyKeys};

/// Settings of a pool that name files.
pub(super) trait PoolFile: Clone + PartialEq {
    /// Key of the settings in the pool's table.
    const KEY: &'static str;
    /// Action that a reload reports where the files have another content.
    const RENEWED: Action;
    /// Content of the files, ready for use.
    type Loaded: PartialEq;

    fn of(pool: &config::Pool) -> Option<&Self>;

    fn files(&self) -> Vec<PathBuf>;

    /// # Errors
    /// The file that cannot be used, if it is known, and the reason.
    fn load(&self) -> Result<Self::Loaded, (Option<PathBuf>, String)>;

    fn in_use(pool: &Pool) -> Option<Arc<Self::Loaded>>;

    fn give(pool: &Pool, loaded: Option<Arc<Self::Loaded>>);
}

/// Loaded files of one kind, by pool.
pub(super) type LoadedFiles<F> = BTreeMap<String, Arc<<F as PoolFile>::Loaded>>;

impl PoolFile for BackendTls {
    const KEY: &'static str = "tls";
    const RENEWED: Action = Action::BackendTlsRenewed;
    type Loaded = BackendTlsConfig;

    fn of(pool: &config::Pool) -> Option<&BackendTls> {
        pool.tls.as_ref()
    }

    fn files(&self) -> Vec<PathBuf> {
        BackendTlsConfig::files(self).cloned().collect()
    }

    fn load(&self) -> Result<BackendTlsConfig, (Option<PathBuf>, String)> {
        let loaded = BackendTlsConfig::load(self);
        loaded.map_err(|error| (error.file().map(ToOwned::to_owned), error.to_string()))
    }

    fn in_use(pool: &Pool) -> Option<Arc<BackendTlsConfig>> {
        pool.tls()
    }

    fn give(pool: &Pool, loaded: Option<Arc<BackendTlsConfig>>) {
        pool.set_tls(loaded);
    }
}

impl PoolFile for Sticky {
    const KEY: &'static str = "sticky";
    const RENEWED: Action = Action::StickyKeysRenewed;
    type Loaded = StickyKeys;

    fn of(pool: &config::Pool) -> Option<&Sticky> {
        pool.sticky.as_ref()
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.key_file.clone()]
    }

    fn load(&self) -> Result<StickyKeys, (Option<PathBuf>, String)> {
        let shown = self.key_file.display();
        let failed = |what: String| (Some(self.key_file.clone()), what);
        let mut text = String::new();
        // One byte more than allowed tells a file that is too large.
        File::open(&self.key_file)
            .map(|file| file.take(MAX_FILE_BYTES as u64 + 1))
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(|error| failed(format!("read {shown}: {error}")))?;
        StickyKeys::parse(&text).map_err(|error| failed(format!("{shown}: {error}")))
    }

    fn in_use(pool: &Pool) -> Option<Arc<StickyKeys>> {
        pool.sticky_keys()
    }

    fn give(pool: &Pool, loaded: Option<Arc<StickyKeys>>) {
        pool.set_sticky_keys(loaded);
    }
}

/// Changes of pools whose files have another content under the same settings.
pub(super) fn renewed<F: PoolFile>(
    (old, new): (&Config, &Config),
    loaded: &LoadedFiles<F>,
    known: &Pools,
) -> Vec<Change> {
    let is_renewed = |name: &&String| {
        let settings = |config: &Config| config.pools.get(*name).and_then(F::of).cloned();
        let before = known.get(*name).and_then(|pool| F::in_use(pool));
        settings(old) == settings(new)
            && before.is_some_and(|before| Some(&before) != loaded.get(*name))
    };
    let renewed = loaded.keys().filter(is_renewed).cloned();
    let change = |name| Item::Pool(name).becomes(F::RENEWED);
    renewed.map(change).collect()
}

/// Gives the pools their files.
pub(super) fn give_all<F: PoolFile>(pools: &Pools, loaded: &LoadedFiles<F>) {
    for (name, pool) in pools {
        F::give(pool, loaded.get(name).cloned());
    }
}
