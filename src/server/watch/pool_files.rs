//! Watches the files that pools are made of: those that their `tls` names, and the keys of sticky
//! clients. Settled changes are taken whole; files that cannot be used leave the last good ones in
//! use, and are logged once.
//!
//! A reload reads the same files. Where it gave a pool something else than was taken here, the state
//! of the files is forgotten, and the next looks find out whether they hold what the pool has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{self, BackendTls, Sticky};
use crate::pool::Pool;
use crate::server::lock::lock;
use crate::server::reload::sticky_keys;
use crate::server::state::Server;
use crate::server::status::PoolFileStatus;
use crate::tls::{BackendTlsConfig, FileChange, FileWatch};
use crate::wire::sticky::StickyKeys;

/// Name of a pool, and use of its files.
type PoolFileKey = (String, &'static str);

/// The files of all pools.
#[derive(Default)]
pub(super) struct PoolFiles(BTreeMap<PoolFileKey, PoolFileWatch>);

/// The files of one kind of one pool.
struct PoolFileWatch {
    settings: PoolFileSettings,
    look: FileWatch,
    /// In use by the pool after the latest look.
    in_use: Option<LoadedFiles>,
    error: Option<String>,
}

/// Settings that name the files.
#[derive(Clone, PartialEq)]
enum PoolFileSettings {
    Sticky(Sticky),
    Tls(BackendTls),
}

/// Contents of the files, ready for use.
#[derive(Clone, PartialEq)]
enum LoadedFiles {
    Sticky(Arc<StickyKeys>),
    Tls(Arc<BackendTlsConfig>),
}

/// A change of state that is logged once.
enum PoolFileEvent {
    Renewed,
    Good,
    Bad(String),
}

impl Server {
    /// State of the watched files of pools.
    pub fn pool_files(&self) -> Vec<PoolFileStatus> {
        lock(&self.pool_files).clone()
    }
}

impl PoolFiles {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks at all files; true where one is being written. Blocks on file I/O.
    pub fn look(&mut self, server: &Server) -> bool {
        let (config, pools) = {
            let live = lock(&server.live);
            (Arc::clone(&live.config), live.known_pools())
        };
        let mut known = std::mem::take(&mut self.0);
        let mut is_unsettled = false;
        let mut events = Vec::new();
        for (name, pool) in pools {
            let settings = config.pools.get(&name).map(PoolFileSettings::of);
            for settings in settings.into_iter().flatten() {
                let key = (name.clone(), settings.kind());
                let mut watch = PoolFileWatch::go_on(known.remove(&key), settings, &pool);
                match watch.look() {
                    FileChange::Same => {}
                    FileChange::Unsettled => is_unsettled = true,
                    FileChange::Changed(_) => {
                        let taken = watch.take(server, &pool).into_iter().flatten();
                        events.extend(taken.map(|event| (key.clone(), event)));
                    }
                }
                self.0.insert(key, watch);
            }
        }
        let status = self.0.iter().map(|((pool, kind), watch)| PoolFileStatus {
            pool: pool.clone(),
            kind,
            error: watch.error.clone(),
        });
        *lock(&server.pool_files) = status.collect();
        // The status says it before the log does.
        for ((pool, files), event) in events {
            event.log(&pool, files);
        }
        is_unsettled
    }
}

impl PoolFileWatch {
    /// Goes on with the watch `before`, unless settings or the files in use are others.
    fn go_on(
        before: Option<PoolFileWatch>,
        settings: PoolFileSettings,
        pool: &Pool,
    ) -> PoolFileWatch {
        let in_use = settings.in_use(pool);
        let is_same = |one: &PoolFileWatch| {
            let both = one.in_use.as_ref().zip(in_use.as_ref());
            one.settings == settings && both.is_some_and(|(one, now)| one.is(now))
        };
        match before {
            Some(one) if is_same(&one) => one,
            before => PoolFileWatch {
                // A reload would have been refused, so the error is of other files or over.
                error: before.and_then(|one| one.error.filter(|_| one.settings == settings)),
                settings,
                look: FileWatch::unseen(),
                in_use,
            },
        }
    }

    fn look(&mut self) -> FileChange {
        let files = self.settings.files();
        self.look.again(files.iter(), self.error.is_some())
    }

    /// Loads the files and gives them to the pool.
    fn take(&mut self, server: &Server, pool: &Pool) -> [Option<PoolFileEvent>; 2] {
        let before = self.error.take();
        let events = match self.settings.load() {
            Ok(loaded) => {
                let is_new = give(server, &self.settings, &loaded, pool);
                [
                    is_new.then_some(PoolFileEvent::Renewed),
                    before.map(|_| PoolFileEvent::Good),
                ]
            }
            Err(error) => {
                let is_new = before.as_ref() != Some(&error);
                self.error = Some(error.clone());
                [is_new.then_some(PoolFileEvent::Bad(error)), None]
            }
        };
        self.in_use = self.settings.in_use(pool);
        events
    }
}

/// Gives loaded files to a pool. False: the pool has the same already, or a reload has given it other
/// settings meanwhile.
fn give(server: &Server, settings: &PoolFileSettings, loaded: &LoadedFiles, pool: &Pool) -> bool {
    // A reload gives under the same lock.
    let live = lock(&server.live);
    let present = live.config.pools.get(&**pool.name());
    let is_asked_for =
        present.is_some_and(|present| PoolFileSettings::of(present).any(|one| one == *settings));
    let is_new = settings.in_use(pool).is_none_or(|one| one != *loaded);
    let gives = is_new && is_asked_for;
    if gives {
        loaded.give_to(pool);
    }
    gives
}

impl PoolFileEvent {
    fn log(self, pool: &str, files: &str) {
        match self {
            PoolFileEvent::Renewed => tracing::info!(pool, files, "pool files renewed"),
            PoolFileEvent::Good => tracing::info!(pool, files, "every pool file can be used again"),
            PoolFileEvent::Bad(error) => tracing::error!(
                pool, files, %error,
                "pool file cannot be used, the last good one goes on"
            ),
        }
    }
}

impl PoolFileSettings {
    /// Settings of a pool that name files.
    fn of(pool: &config::Pool) -> impl Iterator<Item = PoolFileSettings> {
        let tls = pool.tls.clone().map(PoolFileSettings::Tls);
        let sticky = pool.sticky.clone().map(PoolFileSettings::Sticky);
        let all = [tls, sticky].into_iter().flatten();
        all.filter(|one| !one.files().is_empty())
    }

    fn kind(&self) -> &'static str {
        match self {
            PoolFileSettings::Sticky(_) => "sticky",
            PoolFileSettings::Tls(_) => "tls",
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            PoolFileSettings::Sticky(sticky) => vec![sticky.key_file.clone()],
            PoolFileSettings::Tls(tls) => BackendTlsConfig::files(tls).cloned().collect(),
        }
    }

    fn load(&self) -> Result<LoadedFiles, String> {
        match self {
            PoolFileSettings::Sticky(sticky) => {
                let keys = sticky_keys::read(&sticky.key_file)?;
                Ok(LoadedFiles::Sticky(Arc::new(keys)))
            }
            PoolFileSettings::Tls(tls) => {
                let tls = BackendTlsConfig::load(tls).map_err(|error| error.to_string())?;
                Ok(LoadedFiles::Tls(Arc::new(tls)))
            }
        }
    }

    fn in_use(&self, pool: &Pool) -> Option<LoadedFiles> {
        match self {
            PoolFileSettings::Sticky(_) => pool.sticky_keys().map(LoadedFiles::Sticky),
            PoolFileSettings::Tls(_) => pool.tls().map(LoadedFiles::Tls),
        }
    }
}

impl LoadedFiles {
    /// Whether both are the same object.
    fn is(&self, other: &LoadedFiles) -> bool {
        match (self, other) {
            (LoadedFiles::Sticky(one), LoadedFiles::Sticky(other)) => Arc::ptr_eq(one, other),
            (LoadedFiles::Tls(one), LoadedFiles::Tls(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    fn give_to(&self, pool: &Pool) {
        match self.clone() {
            LoadedFiles::Sticky(keys) => pool.set_sticky_keys(Some(keys)),
            LoadedFiles::Tls(tls) => pool.set_tls(Some(tls)),
        }
    }
}
