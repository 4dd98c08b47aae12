//! Watches the files that pools are made of. Settled changes are taken whole; files that cannot be
//! used leave the last good ones in use, and are logged once.
//!
//! A reload reads the same files. Where it gave a pool something else than was taken here, the
//! state of the files is forgotten, and the next looks find out whether they hold what the pool
//! has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{BackendTls, Config, Sticky};
use crate::pool::Pool;
use crate::server::lock::lock;
use crate::server::pool_file::PoolFile;
use crate::server::pools::Pools;
use crate::server::state::Server;
use crate::server::status::PoolFileStatus;
use crate::tls::{FileChange, FileWatch};

/// The files of all pools.
#[derive(Default)]
pub(super) struct PoolFiles {
    sticky: PoolFileWatches<Sticky>,
    tls: PoolFileWatches<BackendTls>,
}

/// The files of one kind, by pool.
type PoolFileWatches<F> = BTreeMap<String, PoolFileWatch<F>>;

/// The files of one kind of one pool.
struct PoolFileWatch<F: PoolFile> {
    settings: F,
    look: FileWatch,
    /// In use by the pool after the latest look.
    in_use: Option<Arc<F::Loaded>>,
    error: Option<String>,
}

/// A change of state that is logged once.
enum PoolFileEvent {
    Renewed,
    Good,
    Bad(String),
}

/// Look at all files.
struct FileRound<'a> {
    server: &'a Server,
    config: Arc<Config>,
    pools: Pools,
    status: Vec<PoolFileStatus>,
    /// Events with the pool and the kind of its files.
    events: Vec<(String, &'static str, PoolFileEvent)>,
    now: Instant,
    /// Time until the first look that may find files settled; `None`: none is being written.
    unsettled: Option<Duration>,
}

impl Server {
    /// State of the watched files of pools.
    pub(crate) fn pool_files(&self) -> Vec<PoolFileStatus> {
        lock(&self.pool_files).clone()
    }
}

impl PoolFiles {
    /// Every file that the pools of a configuration are made of.
    pub(super) fn named(config: &Config) -> Vec<PathBuf> {
        let pools = config.pools.values();
        let files = |pool| {
            let tls = BackendTls::of(pool).map(PoolFile::files);
            let sticky = Sticky::of(pool).map(PoolFile::files);
            tls.into_iter().chain(sticky).flatten()
        };
        pools.flat_map(files).collect()
    }

    /// Looks at all files at `now`. Returns the time until the next look where one is being
    /// written. Blocks on file I/O.
    pub(super) fn look(&mut self, server: &Server, now: Instant) -> Option<Duration> {
        let (config, pools) = {
            let live = lock(&server.live);
            (Arc::clone(&live.config), live.known_pools())
        };
        let mut round = FileRound {
            server,
            config,
            pools,
            status: Vec::new(),
            events: Vec::new(),
            now,
            unsettled: None,
        };
        round.look(&mut self.sticky);
        round.look(&mut self.tls);
        round.status.sort_by(|a, b| a.pool.cmp(&b.pool));
        *lock(&server.pool_files) = round.status;
        // The status says it before the log does.
        for (pool, files, event) in round.events {
            event.log(&pool, files);
        }
        round.unsettled
    }
}

impl FileRound<'_> {
    fn look<F: PoolFile>(&mut self, watches: &mut PoolFileWatches<F>) {
        let mut known = std::mem::take(watches);
        for (name, pool) in &self.pools {
            let settings = self.config.pools.get(name).and_then(F::of);
            let Some(settings) = settings.filter(|settings| !settings.files().is_empty()) else {
                continue;
            };
            let mut watch = PoolFileWatch::go_on(known.remove(name), settings, pool);
            match watch.look(self.now) {
                FileChange::Same => {}
                FileChange::Unsettled(rest) => {
                    self.unsettled = Some(self.unsettled.map_or(rest, |other| other.min(rest)));
                }
                FileChange::Changed(_) => {
                    let events = watch.take(self.server, pool).into_iter().flatten();
                    self.events
                        .extend(events.map(|event| (name.clone(), F::KEY, event)));
                }
            }
            self.status.push(PoolFileStatus {
                pool: name.clone(),
                kind: F::KEY,
                error: watch.error.clone(),
            });
            watches.insert(name.clone(), watch);
        }
    }
}

impl<F: PoolFile> PoolFileWatch<F> {
    /// Goes on with the watch `before`, unless settings or the files in use are others.
    fn go_on(before: Option<PoolFileWatch<F>>, settings: &F, pool: &Pool) -> PoolFileWatch<F> {
        let in_use = F::in_use(pool);
        let is_same = |one: &PoolFileWatch<F>| {
            let both = one.in_use.as_ref().zip(in_use.as_ref());
            one.settings == *settings && both.is_some_and(|(one, now)| Arc::ptr_eq(one, now))
        };
        match before {
            Some(one) if is_same(&one) => one,
            before => PoolFileWatch {
                // A reload would have been refused, so the error is of other files or over.
                error: before.and_then(|one| one.error.filter(|_| one.settings == *settings)),
                settings: settings.clone(),
                look: FileWatch::new(),
                in_use,
            },
        }
    }

    fn look(&mut self, now: Instant) -> FileChange {
        let files = self.settings.files();
        self.look.poll(files.iter(), self.error.is_some(), now)
    }

    /// Loads the files and gives them to the pool.
    fn take(&mut self, server: &Server, pool: &Pool) -> [Option<PoolFileEvent>; 2] {
        let before = self.error.take();
        let events = match self.settings.load() {
            Ok(loaded) => {
                let is_new = give(server, &self.settings, loaded, pool);
                [
                    is_new.then_some(PoolFileEvent::Renewed),
                    before.map(|_| PoolFileEvent::Good),
                ]
            }
            Err((_, error)) => {
                let is_new = before.as_ref() != Some(&error);
                self.error = Some(error.clone());
                [is_new.then_some(PoolFileEvent::Bad(error)), None]
            }
        };
        self.in_use = F::in_use(pool);
        events
    }
}

/// Gives loaded files to a pool. False: the pool has the same already, or a reload has given it
/// other settings meanwhile.
fn give<F: PoolFile>(server: &Server, settings: &F, loaded: F::Loaded, pool: &Pool) -> bool {
    // A reload gives under the same lock.
    let live = lock(&server.live);
    let present = live.config.pools.get(&**pool.name()).and_then(F::of);
    let is_new = F::in_use(pool).is_none_or(|one| *one != loaded);
    let gives = is_new && present == Some(settings);
    if gives {
        F::give(pool, Some(Arc::new(loaded)));
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
