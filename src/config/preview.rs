//! Preview of a reload: every listener, route, pool and backend of both configurations, and what
//! becomes of it. Pure; built on [`diff`], which says what differs.

use std::collections::BTreeMap;

use super::declare::Declared;
use super::diff::{Action, Change, Item, diff};
use super::tables::{Config, Listener, Pool, Route};

/// Changes that lead from `old` to `new`, item by item: in the order of `new`, removed ones behind.
/// Routes, pools and backends without a difference are there too.
pub fn preview(old: &Config, new: &Config) -> Vec<Change> {
    let known = KnownChanges::of(diff(old, new));
    let process = [
        Item::Global,
        Item::AccessLog,
        Item::Traces,
        Item::Admin,
        Item::Metrics,
        Item::Upgrade,
        Item::Cluster,
    ];
    let differing = process
        .into_iter()
        .filter(|item| known.0.contains_key(item));
    let mut changes: Vec<Change> = differing.map(|item| known.change(item)).collect();
    for listener in &new.listeners {
        let before = old.listeners.iter().find(|old| old.name == listener.name);
        changes.push(known.change(Item::Listener(listener.name.clone())));
        changes.extend(routes(before, Some(listener)));
    }
    let is_gone = |one: &&Listener| !new.listeners.iter().any(|new| new.name == one.name);
    for listener in old.listeners.iter().filter(is_gone) {
        changes.push(known.change(Item::Listener(listener.name.clone())));
        changes.extend(routes(Some(listener), None));
    }
    for (name, pool) in &new.pools {
        changes.extend(known.pool(old.pools.get(name), Some(pool)));
    }
    let gone = old.pools.iter();
    for (_, pool) in gone.filter(|(name, _)| !new.pools.contains_key(*name)) {
        changes.extend(known.pool(Some(pool), None));
    }
    changes
}

/// The items that differ, one change each.
struct KnownChanges(BTreeMap<Item, Change>);

impl KnownChanges {
    fn of(changes: Vec<Change>) -> KnownChanges {
        let mut known = BTreeMap::new();
        for Change { item, action, keys } in changes {
            let (action, keys) = match action {
                Action::Rebound => (Action::Changed, vec!["bind"]),
                Action::NeedsRestart => (Action::Changed, keys),
                action => (action, keys),
            };
            let entry = known.entry(item.clone());
            let change = entry.or_insert_with(|| item.becomes(action));
            change.action = action;
            change.keys.extend(keys);
        }
        KnownChanges(known)
    }

    fn change(&self, item: Item) -> Change {
        let known = self.0.get(&item).cloned();
        known.unwrap_or_else(|| item.becomes(Action::Kept))
    }

    /// A pool and its backends.
    fn pool(&self, old: Option<&Pool>, new: Option<&Pool>) -> Vec<Change> {
        let Some(pool) = new.or(old) else {
            return Vec::new();
        };
        let mut changes = vec![self.change(Item::Pool(pool.name.clone()))];
        let backends = |pool: Option<&Pool>| -> Vec<String> {
            let backends = pool.into_iter().flat_map(|pool| &pool.backends);
            backends.map(|backend| backend.name.clone()).collect()
        };
        let (before, now) = (backends(old), backends(new));
        let gone = before.iter().filter(|name| !now.contains(name));
        for backend in now.iter().chain(gone) {
            let mut change = self.change(Item::Backend {
                pool: pool.name.clone(),
                backend: backend.clone(),
            });
            // Those of a pool that comes or goes as a whole are no changes of their own.
            match (old, new) {
                (None, _) => change.action = Action::Added,
                (_, None) => change.action = Action::Removed,
                _ => {}
            }
            changes.push(change);
        }
        changes
    }
}

/// Routes are known by their conditions.
fn routes(old: Option<&Listener>, new: Option<&Listener>) -> Vec<Change> {
    let Some(listener) = new.or(old) else {
        return Vec::new();
    };
    let of = |listener: Option<&Listener>| -> Vec<Route> {
        listener.map_or_else(Vec::new, |listener| listener.routes.clone())
    };
    let (before, now) = (of(old), of(new));
    let change = |route: &Route, action, keys| Change {
        item: Item::Route {
            listener: listener.name.clone(),
            route: conditions(route),
        },
        action,
        keys,
    };
    let present = now.iter().map(|route| {
        let mut before = before.iter();
        match before.find(|before| conditions(before) == conditions(route)) {
            None => change(route, Action::Added, Vec::new()),
            Some(before) => match route.differing(before) {
                keys if keys.is_empty() => change(route, Action::Kept, keys),
                keys => change(route, Action::Changed, keys),
            },
        }
    });
    let is_gone = |route: &&Route| !now.iter().any(|one| conditions(one) == conditions(route));
    let gone = before.iter().filter(is_gone);
    let gone = gone.map(|route| change(route, Action::Removed, Vec::new()));
    present.chain(gone).collect()
}

fn conditions(route: &Route) -> String {
    let conditions = route.conditions().into_iter();
    let given = conditions.filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
    given.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::right;

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
        let changes = preview(&right(old), &right(new));
        changes.iter().map(Change::to_string).collect()
    }

    #[test]
    fn every_item_has_its_action() {
        assert_eq!(
            told(OLD, NEW),
            [
                "global: changed workers",
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
        let changes = preview(&right(OLD), &right(OLD));
        assert!(
            changes.iter().all(|change| change.action == Action::Kept),
            "{changes:?}"
        );
        assert_eq!(changes.len(), 10);
    }
}
