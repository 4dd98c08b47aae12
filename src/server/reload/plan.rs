//! Preview of a reload, with the live connections that each part has now. Nothing is loaded or
//! changed, and no file that the text names is opened: it may come from far away. Addresses are
//! tried: bound and let go, without a listen.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::error::{ReloadError, lines};
use crate::config::{self, Action, Change, Config, Item};
use crate::server::listeners;
use crate::server::lock::lock;
use crate::server::pools::Pools;
use crate::server::state::Server;
use crate::server::status::ListenerStatus;

/// Preview of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReloadPreview {
    pub parts: Vec<PreviewPart>,
    /// Keys that differ and are read at start only.
    pub needs_restart: Vec<String>,
    /// Addresses that cannot be bound now, each with its reason: such a reload would be refused.
    pub refusals: Vec<String>,
    pub totals: PlanTotals,
}

/// A part of the configuration and the effect of the reload on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreviewPart {
    pub step: Change,
    /// Connections on it now; those of a route are not counted.
    pub live: Option<u64>,
    /// Connections that the reload ends: none, so far.
    pub closes: u64,
    /// Connections that stay on something that the new configuration does not have: a removed
    /// listener, pool or backend, or the address that one had before.
    pub left_behind: u64,
}

/// Sums over the parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PlanTotals {
    /// Parts that differ in any way.
    pub changes: u64,
    pub adds: u64,
    pub removes: u64,
    pub kept: u64,
    pub closes: u64,
    /// Over listeners and backends; a connection that both leave behind counts twice.
    pub left_behind: u64,
}

impl ReloadPreview {
    /// Leaves out which keys differ.
    pub(crate) fn hide_keys(&mut self) {
        for part in &mut self.parts {
            part.step.keys = Vec::new();
        }
    }
}

impl Server {
    /// Previews a reload of `text`, or of the present text of the source. `tries_binds`: addresses
    /// are tried.
    ///
    /// # Errors
    /// Every error of the text.
    pub(crate) async fn plan(
        self: &Arc<Self>,
        text: Option<String>,
        tries_binds: bool,
    ) -> Result<ReloadPreview, ReloadError> {
        let server = Arc::clone(self);
        let plan = move || {
            let text = text.map_or_else(|| server.source.read(), Ok);
            let text = text.map_err(|error| vec![error.to_string()])?;
            let parsed = config::parse(&text, server.source.file());
            let new = parsed.map_err(|errors| ReloadError {
                messages: lines(&errors),
                drawn: Some(errors.to_string()),
            })?;
            let mut preview = server.preview(&new);
            if tries_binds {
                preview.refusals = server.bind_errors(&new);
            }
            Ok(preview)
        };
        let done = self.control_runtime().spawn_blocking(plan).await;
        done.unwrap_or_else(|error| Err(vec![format!("plan: {error}")].into()))
    }

    pub(super) fn preview(&self, new: &Config) -> ReloadPreview {
        let old = self.config();
        let mut steps = config::preview(&old, new);
        let (listeners, pools) = (self.listeners(), lock(&self.live).known_pools());
        steps.extend(discovered(&old, new, &pools));
        let part = |step| part(step, &listeners, &pools);
        let parts: Vec<PreviewPart> = steps.into_iter().map(part).collect();
        let restart = config::diff(&old, new).into_iter();
        ReloadPreview {
            totals: PlanTotals::of(&parts),
            parts,
            refusals: Vec::new(),
            needs_restart: restart
                .flat_map(|change| change.needs_restart().collect::<Vec<_>>())
                .collect(),
        }
    }

    /// Errors of addresses that a reload could not bind.
    fn bind_errors(&self, new: &Config) -> Vec<String> {
        // A reload shares ports for a moment, as this does.
        let _one_at_a_time = lock(&self.reloading);
        let present = lock(&self.live).listeners.clone();
        let mut errors = listeners::bind_errors(&present, &new.listeners);
        for participant in lock(&self.participants).clone() {
            errors.extend(participant.preview(new));
        }
        errors
    }
}

/// Backends that DNS names, and no file: they stay as long as their pool has `discover`.
fn discovered(old: &Config, new: &Config, pools: &Pools) -> Vec<Change> {
    let mut steps = Vec::new();
    for (name, settings) in &old.pools {
        let Some(pool) = pools.get(name) else {
            continue;
        };
        let goes_on = new.pools.get(name);
        let configured = goes_on.into_iter().chain([settings]);
        let named: Vec<&str> = configured
            .flat_map(|pool| &pool.backends)
            .map(|backend| backend.name.as_str())
            .collect();
        let stays = goes_on.is_some_and(|pool| pool.discover.is_some());
        let mut backends = pool.backends();
        backends.retain(|one| !named.contains(&&**one.name()));
        let action = if stays { Action::Kept } else { Action::Removed };
        steps.extend(backends.iter().map(|backend| {
            let item = Item::Backend {
                pool: name.clone(),
                backend: backend.name().to_string(),
            };
            item.becomes(action)
        }));
    }
    steps
}

fn part(step: Change, listeners: &[ListenerStatus], pools: &Pools) -> PreviewPart {
    let live = match &step.item {
        Item::Listener(listener) => {
            let known = listeners.iter().find(|one| one.name == *listener);
            Some(known.map_or(0, |one| one.counters.live.load(Ordering::Relaxed)))
        }
        Item::Pool(pool) => Some(pools.get(pool).map_or(0, |pool| {
            let all = pool.backends().into_iter().chain(pool.retired());
            all.map(|backend| backend.live()).sum()
        })),
        Item::Backend { pool, backend } => {
            let backend = pools.get(pool).and_then(|pool| pool.backend(backend));
            Some(backend.map_or(0, |backend| backend.live()))
        }
        Item::Route { .. }
        | Item::Global
        | Item::AccessLog
        | Item::Traces
        | Item::Admin
        | Item::Metrics
        | Item::Upgrade
        | Item::Cluster => None,
    };
    let mut keys = step.keys.iter();
    let moves = keys.any(|key| ["bind", "address"].contains(key));
    let left = step.action == Action::Removed || step.action == Action::Changed && moves;
    PreviewPart {
        live,
        closes: 0,
        left_behind: live.filter(|_| left).unwrap_or_default(),
        step,
    }
}

impl PlanTotals {
    fn of(parts: &[PreviewPart]) -> PlanTotals {
        let mut totals = PlanTotals::default();
        for part in parts {
            let count = match part.step.action {
                Action::Kept => &mut totals.kept,
                Action::Added => &mut totals.adds,
                Action::Removed => &mut totals.removes,
                _ => &mut totals.changes,
            };
            *count += 1;
            totals.closes += part.closes;
            // Those of a pool are counted with its backends.
            if !matches!(part.step.item, Item::Pool(_)) {
                totals.left_behind += part.left_behind;
            }
        }
        totals.changes += totals.adds + totals.removes;
        totals
    }
}
