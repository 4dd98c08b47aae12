//! Follows the files that pools are made of, as `renewal` follows those of listeners: what their `tls` names, and the keys of
//! sticky clients. What has changed and settled is taken whole; what cannot be used leaves the last good one, and is told once.
//!
//! A reload reads the same files. Where it gave a pool something else than was taken here, what is known of the files is
//! forgotten, and the next looks find out whether they hold what the pool has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Server, lock, sticky};
use crate::config::{self, BackendTls, Config, Sticky};
use crate::pool::Pool;
use crate::tls::{BackendTlsConfig, FileChange, FileWatch};
use crate::wire::sticky::StickyKeys;

/// By pool and what they are for.
pub(super) type PoolFiles = BTreeMap<(String, &'static str), PoolFileWatch>;

/// Some files of a pool as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolFileStatus {
    pub pool: String,
    /// What they are for: `tls` or `sticky`.
    pub kind: &'static str,
    /// Why they cannot be used.
    pub error: Option<String>,
}

/// The files of one kind of one pool.
pub(super) struct PoolFileWatch {
    settings: Settings,
    look: FileWatch,
    /// What the pool had after the latest look.
    serving: Option<Made>,
    error: Option<String>,
}

/// What names the files.
#[derive(Clone, PartialEq)]
enum Settings {
    Sticky(Sticky),
    Tls(BackendTls),
}

/// What is made of them.
#[derive(Clone)]
enum Made {
    Sticky(Arc<StickyKeys>),
    Tls(Arc<BackendTlsConfig>),
}

/// What a look at one kind of files found.
enum PoolFileLook {
    Same,
    /// One is being written.
    Unsettled,
    Taken([Option<PoolFileEvent>; 2]),
}

/// A change of state that the log tells once.
enum PoolFileEvent {
    Renewed,
    Good,
    Bad(String),
}

impl Server {
    /// The followed files of pools.
    pub fn pool_files(&self) -> Vec<PoolFileStatus> {
        lock(&self.pool_files).clone()
    }

    /// Looks at all of them; true where one is being written. Blocks on file I/O.
    pub(super) fn look_at_pool_files(&self, files: &mut PoolFiles) -> bool {
        let (config, pools) = {
            let live = lock(&self.live);
            (Arc::clone(&live.config), live.known_pools())
        };
        let mut known = std::mem::take(files);
        let mut is_unsettled = false;
        let mut news = Vec::new();
        for (name, pool) in pools {
            let settings = config.pools.get(&name).map(Settings::of);
            for settings in settings.into_iter().flatten() {
                let key = (name.clone(), settings.kind());
                let before = known.remove(&key);
                let mut followed = PoolFileWatch::go_on(before, settings, &pool);
                match self.look_at(&mut followed, &pool) {
                    PoolFileLook::Same => {}
                    PoolFileLook::Unsettled => is_unsettled = true,
                    PoolFileLook::Taken(told) => {
                        news.extend(told.into_iter().flatten().map(|event| (key.clone(), event)))
                    }
                }
                files.insert(key, followed);
            }
        }
        let status = files.iter().map(|((pool, kind), followed)| PoolFileStatus {
            pool: pool.clone(),
            kind,
            error: followed.error.clone(),
        });
        *lock(&self.pool_files) = status.collect();
        // The status says it before the log does.
        for ((pool, files), event) in news {
            event.tell(&pool, files);
        }
        is_unsettled
    }

    fn look_at(&self, followed: &mut PoolFileWatch, pool: &Pool) -> PoolFileLook {
        let files = followed.settings.files();
        match followed.look.poll(files.iter(), followed.error.is_some()) {
            FileChange::Same => PoolFileLook::Same,
            FileChange::Unsettled => PoolFileLook::Unsettled,
            FileChange::Changed(_) => PoolFileLook::Taken(self.take(followed, pool)),
        }
    }

    fn take(&self, followed: &mut PoolFileWatch, pool: &Pool) -> [Option<PoolFileEvent>; 2] {
        let before = followed.error.take();
        let events = match followed.settings.make() {
            Ok(made) => {
                let is_new = self.give(&followed.settings, &made, pool);
                [
                    is_new.then_some(PoolFileEvent::Renewed),
                    before.map(|_| PoolFileEvent::Good),
                ]
            }
            Err(error) => {
                let is_new = before.as_ref() != Some(&error);
                followed.error = Some(error.clone());
                [is_new.then_some(PoolFileEvent::Bad(error)), None]
            }
        };
        followed.serving = followed.settings.serving(pool);
        events
    }

    /// False: the pool does so already, or a reload has given it other settings meanwhile.
    fn give(&self, settings: &Settings, made: &Made, pool: &Pool) -> bool {
        // A reload gives under the same lock.
        let live = lock(&self.live);
        let is_asked_for = |config: &Config| {
            let present = config.pools.get(&**pool.name());
            present.is_some_and(|present| Settings::of(present).any(|one| one == *settings))
        };
        let is_new = settings.serving(pool).is_none_or(|one| !one.does_as(made));
        let gives = is_new && is_asked_for(&live.config);
        if gives {
            made.give_to(pool);
        }
        gives
    }
}

impl PoolFileEvent {
    fn tell(self, pool: &str, files: &str) {
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

impl PoolFileWatch {
    fn go_on(before: Option<PoolFileWatch>, settings: Settings, pool: &Pool) -> PoolFileWatch {
        let serving = settings.serving(pool);
        let is_same = |one: &PoolFileWatch| {
            let given = one.serving.as_ref().zip(serving.as_ref());
            one.settings == settings && given.is_some_and(|(one, now)| one.is(now))
        };
        match before {
            Some(one) if is_same(&one) => one,
            before => PoolFileWatch {
                // A reload would have been refused, so this is of other files or over.
                error: before.and_then(|one| one.error.filter(|_| one.settings == settings)),
                settings,
                look: FileWatch::new(),
                serving,
            },
        }
    }
}

impl Settings {
    /// Those of a pool whose files there are to follow.
    fn of(pool: &config::Pool) -> impl Iterator<Item = Settings> {
        let tls = pool.tls.clone().map(Settings::Tls);
        let sticky = pool.sticky.clone().map(Settings::Sticky);
        let all = [tls, sticky].into_iter().flatten();
        all.filter(|one| !one.files().is_empty())
    }

    fn kind(&self) -> &'static str {
        match self {
            Settings::Sticky(_) => "sticky",
            Settings::Tls(_) => "tls",
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Settings::Sticky(sticky) => vec![sticky.key_file.clone()],
            Settings::Tls(tls) => BackendTlsConfig::files(tls).cloned().collect(),
        }
    }

    fn make(&self) -> Result<Made, String> {
        match self {
            Settings::Sticky(sticky) => {
                let keys = sticky::read(&sticky.key_file)?;
                Ok(Made::Sticky(Arc::new(keys)))
            }
            Settings::Tls(tls) => {
                let tls = BackendTlsConfig::load(tls).map_err(|error| error.to_string())?;
                Ok(Made::Tls(Arc::new(tls)))
            }
        }
    }

    fn serving(&self, pool: &Pool) -> Option<Made> {
        match self {
            Settings::Sticky(_) => pool.sticky_keys().map(Made::Sticky),
            Settings::Tls(_) => pool.tls().map(Made::Tls),
        }
    }
}

impl Made {
    /// The very one.
    fn is(&self, other: &Made) -> bool {
        match (self, other) {
            (Made::Sticky(one), Made::Sticky(other)) => Arc::ptr_eq(one, other),
            (Made::Tls(one), Made::Tls(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// No different in what it does.
    fn does_as(&self, other: &Made) -> bool {
        match (self, other) {
            (Made::Sticky(one), Made::Sticky(other)) => one == other,
            (Made::Tls(one), Made::Tls(other)) => one == other,
            _ => false,
        }
    }

    fn give_to(&self, pool: &Pool) {
        match self.clone() {
            Made::Sticky(keys) => pool.set_sticky_keys(Some(keys)),
            Made::Tls(tls) => pool.set_tls(Some(tls)),
        }
    }
}
