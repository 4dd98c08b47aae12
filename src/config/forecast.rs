//! What a change of configuration means for each part of it: every listener, route, pool and backend of both, and what
//! becomes of it. Pure; built on [`diff`], which says what differs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::diff::{Change, diff};
use super::model::{Config, Listener, Pool, Route};

/// A part of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Part {
    Global,
    AccessLog,
    Admin,
    Metrics,
    Listener {
        listener: String,
    },
    /// Known by its listener and its conditions, such as `host=a.example path=/chat`.
    Route {
        listener: String,
        route: String,
    },
    Pool {
        pool: String,
    },
    Backend {
        pool: String,
        backend: String,
    },
}

/// What becomes of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Kept,
    Changed,
    Added,
    Removed,
}

/// One part and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub part: Part,
    pub fate: Fate,
    /// Of a changed one: the keys that differ.
    pub keys: Vec<&'static str>,
}

/// What leads from `old` to `new`, part by part: in the order of `new`, removed ones behind. Routes, pools and backends
/// without a difference are there too.
pub fn forecast(old: &Config, new: &Config) -> Vec<Step> {
    let fates = Fates::of(diff(old, new));
    let process = [Part::Global, Part::AccessLog, Part::Admin, Part::Metrics];
    let differs = |part: &Part| fates.known.contains_key(part);
    let mut steps: Vec<Step> = process
        .into_iter()
        .filter(differs)
        .map(|part| fates.step(part))
        .collect();
    for listener in &new.listeners {
        let before = old.listeners.iter().find(|old| old.name == listener.name);
        steps.push(fates.step(part_of(listener)));
        steps.extend(routes(before, Some(listener)));
    }
    let is_gone = |one: &&Listener| !new.listeners.iter().any(|new| new.name == one.name);
    for listener in old.listeners.iter().filter(is_gone) {
        steps.push(fates.step(part_of(listener)));
        steps.extend(routes(Some(listener), None));
    }
    for (name, pool) in &new.pools {
        steps.extend(fates.pool(old.pools.get(name), Some(pool)));
    }
    let gone = old.pools.iter();
    for (_, pool) in gone.filter(|(name, _)| !new.pools.contains_key(*name)) {
        steps.extend(fates.pool(Some(pool), None));
    }
    steps
}

fn part_of(listener: &Listener) -> Part {
    Part::Listener {
        listener: listener.name.clone(),
    }
}

/// The parts that differ.
struct Fates {
    known: BTreeMap<Part, (Fate, Vec<&'static str>)>,
}

impl Fates {
    fn of(changes: Vec<Change>) -> Fates {
        let mut fates = Fates {
            known: BTreeMap::new(),
        };
        for change in changes {
            fates.note(change);
        }
        fates
    }

    fn note(&mut self, change: Change) {
        let none = Vec::new();
        let (part, fate, keys) = match change {
            Change::ListenerAdded { listener } => (Part::Listener { listener }, Fate::Added, none),
            Change::ListenerRemoved { listener } => {
                (Part::Listener { listener }, Fate::Removed, none)
            }
            Change::ListenerRebound { listener } => {
                (Part::Listener { listener }, Fate::Changed, vec!["bind"])
            }
            Change::ListenerChanged { listener, keys } => {
                (Part::Listener { listener }, Fate::Changed, keys)
            }
            Change::PoolAdded { pool } => (Part::Pool { pool }, Fate::Added, none),
            Change::PoolRemoved { pool } => (Part::Pool { pool }, Fate::Removed, none),
            Change::PoolChanged { pool, keys } => (Part::Pool { pool }, Fate::Changed, keys),
            Change::BackendAdded { pool, backend } => {
                (Part::Backend { pool, backend }, Fate::Added, none)
            }
            Change::BackendRemoved { pool, backend } => {
                (Part::Backend { pool, backend }, Fate::Removed, none)
            }
            Change::BackendChanged {
                pool,
                backend,
                keys,
            } => (Part::Backend { pool, backend }, Fate::Changed, keys),
            Change::AccessLogChanged { keys } => (Part::AccessLog, Fate::Changed, keys),
            Change::AdminChanged { keys } => (Part::Admin, Fate::Changed, keys),
            Change::MetricsChanged { keys } => (Part::Metrics, Fate::Changed, keys),
            Change::GlobalChanged { keys } => (Part::Global, Fate::Changed, keys),
            Change::NeedsRestart { key } => {
                let key = key.strip_prefix("global.").unwrap_or(key);
                (Part::Global, Fate::Changed, vec![key])
            }
            // Of files, which `diff` does not read.
            Change::CertificatesChanged { .. } | Change::StickyKeysChanged { .. } => return,
        };
        let (known, all) = self.known.entry(part).or_insert((fate, Vec::new()));
        *known = fate;
        all.extend(keys);
    }

    fn step(&self, part: Part) -> Step {
        let (fate, keys) = match self.known.get(&part) {
            Some((fate, keys)) => (*fate, keys.clone()),
            None => (Fate::Kept, Vec::new()),
        };
        Step { part, fate, keys }
    }

    /// A pool and its backends.
    fn pool(&self, old: Option<&Pool>, new: Option<&Pool>) -> Vec<Step> {
        let Some(pool) = new.or(old) else {
            return Vec::new();
        };
        let name = &pool.name;
        let mut steps = vec![self.step(Part::Pool { pool: name.clone() })];
        let backends = |pool: Option<&Pool>| -> Vec<String> {
            let backends = pool.into_iter().flat_map(|pool| &pool.backends);
            backends.map(|backend| backend.name.clone()).collect()
        };
        let (before, now) = (backends(old), backends(new));
        let gone = before.iter().filter(|name| !now.contains(name));
        for backend in now.iter().chain(gone) {
            let part = Part::Backend {
                pool: name.clone(),
                backend: backend.clone(),
            };
            let mut step = self.step(part);
            // Those of a pool that comes or goes as a whole are no changes of their own.
            match (old, new) {
                (None, _) => step.fate = Fate::Added,
                (_, None) => step.fate = Fate::Removed,
                _ => {}
            }
            steps.push(step);
        }
        steps
    }
}

fn routes(old: Option<&Listener>, new: Option<&Listener>) -> Vec<Step> {
    let Some(listener) = new.or(old) else {
        return Vec::new();
    };
    let of = |listener: Option<&'_ Listener>| -> Vec<Route> {
        listener.map_or_else(Vec::new, |listener| listener.routes.clone())
    };
    let (before, now) = (of(old), of(new));
    let same = |routes: &[Route], one: &Route| {
        let mut routes = routes.iter();
        routes
            .find(|other| conditions(other) == conditions(one))
            .cloned()
    };
    let step = |route: &Route, fate, keys| Step {
        part: Part::Route {
            listener: listener.name.clone(),
            route: conditions(route),
        },
        fate,
        keys,
    };
    let present = now.iter().map(|route| match same(&before, route) {
        None => step(route, Fate::Added, Vec::new()),
        Some(before) if before.pool != route.pool => step(route, Fate::Changed, vec!["pool"]),
        Some(_) => step(route, Fate::Kept, Vec::new()),
    });
    let gone = before
        .iter()
        .filter(|route| same(&now, route).is_none())
        .map(|route| step(route, Fate::Removed, Vec::new()));
    present.chain(gone).collect()
}

/// What a route asks for.
fn conditions(route: &Route) -> String {
    let Route {
        sni,
        alpn,
        host,
        path,
        pool: _,
    } = route;
    let all = [("sni", sni), ("alpn", alpn), ("host", host), ("path", path)];
    let given = all
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
    given.collect::<Vec<_>>().join(" ")
}

impl Part {
    /// Its kind in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Part::Global => "global",
            Part::AccessLog => "access_log",
            Part::Admin => "admin",
            Part::Metrics => "metrics",
            Part::Listener { .. } => "listener",
            Part::Route { .. } => "route",
            Part::Pool { .. } => "pool",
            Part::Backend { .. } => "backend",
        }
    }

    /// Its name among those of its kind.
    pub fn name(&self) -> String {
        match self {
            Part::Global | Part::AccessLog | Part::Admin | Part::Metrics => String::new(),
            Part::Listener { listener } => listener.clone(),
            Part::Route { listener, route } => format!("{listener}: {route}"),
            Part::Pool { pool } => pool.clone(),
            Part::Backend { pool, backend } => format!("{pool}/{backend}"),
        }
    }
}

impl Fate {
    pub fn word(self) -> &'static str {
        match self {
            Fate::Kept => "kept",
            Fate::Changed => "changed",
            Fate::Added => "added",
            Fate::Removed => "removed",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name, fate) = (self.part.kind(), self.part.name(), self.fate.word());
        write!(f, "{kind} {name}: {fate} {}", self.keys.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::right;
    use super::*;

    const OLD: &str = r#"
[[listener]]
name = "l"
bind = "127.0.0.1:80"
protocol = "websocket"
pool = "p"
route = [{ path = "/a", pool = "p" }, { host = "x.example", pool = "q" }]
[[listener]]
name = "gone"
bind = "127.0.0.1:81"
protocol = "websocket"
route = [{ path = "/", pool = "q" }]
[pool.p]
backend = [{ name = "a", address = "10.0.0.1:80" }, { name = "b", address = "10.0.0.2:80" }]
[pool.q]
backend = [{ name = "c", address = "10.0.0.3:80" }]
"#;

    const NEW: &str = r#"
[global]
workers = 3
[[listener]]
name = "l"
bind = "127.0.0.1:82"
protocol = "websocket"
pool = "p"
route = [{ path = "/a", pool = "r" }, { path = "/b", pool = "p" }]
[pool.p]
retries = 1
backend = [{ name = "a", address = "10.0.0.9:80" }, { name = "d", address = "10.0.0.4:80" }]
[pool.r]
backend = [{ name = "e", address = "10.0.0.5:80" }]
"#;

    fn told(old: &str, new: &str) -> Vec<String> {
        let steps = forecast(&right(old), &right(new));
        steps
            .iter()
            .map(|step| step.to_string().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn every_part_has_its_fate() {
        assert_eq!(
            told(OLD, NEW),
            [
                "global : changed workers",
                "listener l: changed bind, route",
                "route l: path=/a: changed pool",
                "route l: path=/b: added",
                "route l: host=x.example: removed",
                "listener gone: removed",
                "route gone: path=/: removed",
                "pool p: changed retries",
                "backend p/a: changed address",
                "backend p/d: added",
                "backend p/b: removed",
                "pool r: added",
                "backend r/e: added",
                "pool q: removed",
                "backend q/c: removed",
            ]
        );
    }

    #[test]
    fn without_a_difference_everything_is_kept() {
        let steps = forecast(&right(OLD), &right(OLD));
        assert!(
            steps.iter().all(|step| step.fate == Fate::Kept),
            "{steps:?}"
        );
        assert_eq!(steps.len(), 10);
    }
}
