//! What a reload of a text would do, with the live connections that each part has now. Nothing is
//! loaded or changed, and no file that the text names is opened: it may come from far away.
//! Addresses are tried: bound and let go, without a listen.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reload::lines;
use super::{Condition, Server, listeners, lock};
use crate::config::{self, Action, Change, Config, Item};
use crate::pool::Pool;

/// What a reload would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadPreview {
    pub parts: Vec<PreviewPart>,
    /// Keys that differ and are read at start only.
    pub needs_restart: Vec<String>,
    /// Addresses that cannot be bound now, each with its reason: such a reload would be refused.
    pub refusals: Vec<String>,
    pub totals: Totals,
}

/// One part of the configuration and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewPart {
    pub step: Change,
    /// Connections on it now; of a route nobody counts them.
    pub live: Option<u64>,
    /// Connections that the reload ends: none, so far.
    pub closes: u64,
    /// Connections that go on at what the new configuration has no more: a removed listener, pool or backend, or the
    /// address that one had before.
    pub left_behind: u64,
}

/// Sums over the parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Parts that differ in any way.
    pub changes: u64,
    pub adds: u64,
    pub removes: u64,
    pub kept: u64,
    pub closes: u64,
    /// Over listeners and backends; a connection that both leave behind counts twice.
    pub left_behind: u64,
}

impl Server {
    /// What a reload of `text` would do now.
    ///
    /// # Errors
    /// All that is wrong with the text, one line each.
    pub async fn forecast(self: &Arc<Self>, text: String) -> Result<ReloadPreview, Vec<String>> {
        let server = Arc::clone(self);
        let forecast = move || {
            let parsed = config::parse(&text, server.source.file());
            let new = parsed.map_err(|errors| lines(&errors))?;
            let mut forecast = server.preview(&new);
            forecast.refusals = server.foresee_binds(&new);
            Ok(forecast)
        };
        let done = self.watch().spawn_blocking(forecast).await;
        done.unwrap_or_else(|error| Err(vec![format!("plan: {error}")]))
    }

    /// Why a reload to `new` is not to be done.
    pub(super) fn objections(&self, conditions: &[Condition], new: &Config) -> Vec<String> {
        if conditions.is_empty() {
            return Vec::new();
        }
        let totals = self.preview(new).totals;
        let broken = conditions.iter().filter(|one| !one.holds(&totals));
        broken
            .map(|one| format!("{one} does not hold: it would be {}", one.value(&totals)))
            .collect()
    }

    fn preview(&self, new: &Config) -> ReloadPreview {
        let old = self.config();
        let mut steps = config::preview(&old, new);
        steps.extend(self.discovered(&old, new));
        let live = self.live_counts();
        let parts: Vec<PreviewPart> = steps.into_iter().map(|step| live.part(step)).collect();
        let restart = config::diff(&old, new).into_iter();
        ReloadPreview {
            totals: Totals::of(&parts),
            parts,
            refusals: Vec::new(),
            needs_restart: restart
                .flat_map(|change| change.needs_restart().collect::<Vec<_>>())
                .collect(),
        }
    }

    /// What a reload could not bind.
    fn foresee_binds(&self, new: &Config) -> Vec<String> {
        // A reload shares ports for a moment, as this does.
        let _one_at_a_time = lock(&self.reloading);
        let present = lock(&self.live).listeners.clone();
        let mut refusals = listeners::preview(&present, &new.listeners);
        for follower in lock(&self.followers).clone() {
            refusals.extend(follower.preview(new));
        }
        refusals
    }

    /// Backends that no file names, but DNS: they stay as long as their pool discovers.
    fn discovered(&self, old: &Config, new: &Config) -> Vec<Change> {
        let mut steps = Vec::new();
        for (name, settings) in &old.pools {
            let Some(pool) = self.pool(name) else {
                continue;
            };
            let goes_on = new.pools.get(name);
            let configured = goes_on.into_iter().chain([settings]);
            let named: Vec<&str> = configured
                .flat_map(|pool| &pool.backends)
                .map(|backend| backend.name.as_str())
                .collect();
            let stays = goes_on.is_some_and(|pool| pool.discover.is_some());
            let backends = pool.backends();
            let found = backends
                .iter()
                .filter(|one| !named.contains(&&**one.name()));
            let action = if stays { Action::Kept } else { Action::Removed };
            steps.extend(found.map(|backend| {
                let item = Item::Backend {
                    pool: name.clone(),
                    backend: backend.name().to_string(),
                };
                item.becomes(action)
            }));
        }
        steps
    }

    fn live_counts(&self) -> LiveCounts {
        let listeners = self.listeners().into_iter();
        let read =
            |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        LiveCounts {
            listeners: listeners
                .map(|listener| (listener.name.clone(), read(&listener.counters.live)))
                .collect(),
            pools: self
                .pools()
                .into_iter()
                .map(|pool| (pool.name().to_string(), pool))
                .collect(),
        }
    }
}

struct LiveCounts {
    listeners: BTreeMap<String, u64>,
    pools: BTreeMap<String, Arc<Pool>>,
}

impl LiveCounts {
    fn part(&self, step: Change) -> PreviewPart {
        let live = match &step.item {
            Item::Listener(listener) => self.listeners.get(listener).copied().or(Some(0)),
            Item::Pool(pool) => Some(self.of_pool(pool)),
            Item::Backend { pool, backend } => Some(self.of_backend(pool, backend)),
            Item::Route { .. } | Item::Global | Item::AccessLog | Item::Admin | Item::Metrics => {
                None
            }
        };
        let moves = step
            .keys
            .iter()
            .any(|key| ["bind", "address"].contains(key));
        let left = step.action == Action::Removed || step.action == Action::Changed && moves;
        PreviewPart {
            live,
            closes: 0,
            left_behind: live.filter(|_| left).unwrap_or_default(),
            step,
        }
    }

    fn of_pool(&self, pool: &str) -> u64 {
        let Some(pool) = self.pools.get(pool) else {
            return 0;
        };
        let all = pool.backends().into_iter().chain(pool.retired());
        all.map(|backend| backend.live()).sum()
    }

    fn of_backend(&self, pool: &str, backend: &str) -> u64 {
        let backend = self.pools.get(pool).and_then(|pool| pool.backend(backend));
        backend.map_or(0, |backend| backend.live())
    }
}

impl Totals {
    fn of(parts: &[PreviewPart]) -> Totals {
        let mut totals = Totals::default();
        for part in parts {
            let count = match part.step.action {
                Action::Kept => &mut totals.kept,
                Action::Added => &mut totals.adds,
                Action::Removed => &mut totals.removes,
                _ => &mut totals.changes,
            };
            *count += 1;
            totals.closes += part.closes;
            // A pool's are those of its backends.
            if !matches!(part.step.item, Item::Pool(_)) {
                totals.left_behind += part.left_behind;
            }
        }
        totals.changes += totals.adds + totals.removes;
        totals
    }
}
