//! Difference between two configurations: a pure list that a reload applies and shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::declare::Declared;
use super::tables::{Backend, Config, Global, Listener, Pool};

/// An item of a configuration that can change by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    Global,
    AccessLog,
    Traces,
    Admin,
    Metrics,
    Upgrade,
    Cluster,
    Listener(String),
    /// Known by its listener and its conditions, such as `host=a.example path=/chat`.
    Route {
        listener: String,
        route: String,
    },
    Pool(String),
    Backend {
        pool: String,
        backend: String,
    },
}

/// Effect of a change on an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing differs; in a preview only.
    Kept,
    Added,
    Removed,
    /// The keys of the change differ.
    Changed,
    /// A listener's `bind` differs; other keys that differ come as a `Changed` beside it.
    Rebound,
    /// The content of a listener's certificate files differs; [`diff`] reads no files and never
    /// yields it.
    CertificatesRenewed,
    /// The keys in a pool's sticky key file differ; never of [`diff`] either.
    StickyKeysRenewed,
    /// The content of the files of a pool's `tls` differs; never of [`diff`] either.
    BackendTlsRenewed,
    /// The keys are read at start only; the running process keeps the old values.
    NeedsRestart,
}

/// A change of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub item: Item,
    pub action: Action,
    /// Names of the file's keys that differ.
    pub keys: Vec<&'static str>,
}

/// The changes that lead from `old` to `new`; empty when both do the same. The order of listeners
/// says nothing.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    let keys = new.global.differing(&old.global);
    let is_at_start = |key: &&str| Global::SPEC.key(key).is_some_and(|key| key.at_start);
    let (at_start, live): (Vec<_>, Vec<_>) = keys.into_iter().partition(is_at_start);
    changes.extend(Change::of(Item::Global, live));
    let restarts = at_start.into_iter().map(|key| Change {
        item: Item::Global,
        action: Action::NeedsRestart,
        keys: vec![key],
    });
    changes.extend(restarts);
    let keys = new.access_log.differing(&old.access_log);
    changes.extend(Change::of(Item::AccessLog, keys));
    let keys = table_keys(old.traces.as_ref(), new.traces.as_ref(), "endpoint");
    changes.extend(Change::of(Item::Traces, keys));
    let keys = new.upgrade.differing(&old.upgrade);
    changes.extend(Change::of(Item::Upgrade, keys));
    changes.extend(cluster_change(old, new));
    changes.extend(listeners_changes(&old.listeners, &new.listeners));
    changes.extend(pools_changes(&old.pools, &new.pools));
    let keys = table_keys(old.admin.as_ref(), new.admin.as_ref(), "bind");
    changes.extend(Change::of(Item::Admin, keys));
    let keys = table_keys(old.metrics.as_ref(), new.metrics.as_ref(), "bind");
    changes.extend(Change::of(Item::Metrics, keys));
    changes
}

fn cluster_change(old: &Config, new: &Config) -> Option<Change> {
    match (&old.cluster, &new.cluster) {
        (Some(old), Some(new)) => Change::of(Item::Cluster, new.differing(old)),
        (None, None) => None,
        (None, Some(_)) => Some(Item::Cluster.becomes(Action::Added)),
        (Some(_), None) => Some(Item::Cluster.becomes(Action::Removed)),
    }
}

/// The keys of a table that may be absent. One that appears or goes has another `first`.
fn table_keys<T: Declared>(
    old: Option<&T>,
    new: Option<&T>,
    first: &'static str,
) -> Vec<&'static str> {
    match (old, new) {
        (Some(old), Some(new)) => new.differing(old),
        (None, None) => Vec::new(),
        _ => vec![first],
    }
}

fn listeners_changes(old: &[Listener], new: &[Listener]) -> Vec<Change> {
    let mut changes = Vec::new();
    for listener in new {
        let item = Item::Listener(listener.name.clone());
        match old.iter().find(|before| before.name == listener.name) {
            Some(before) => changes.extend(listener_changes(item, before, listener)),
            None => changes.push(item.becomes(Action::Added)),
        }
    }
    let stays = |before: &&Listener| new.iter().any(|listener| listener.name == before.name);
    let gone = old.iter().filter(|before| !stays(before));
    let removed = |before: &Listener| Item::Listener(before.name.clone()).becomes(Action::Removed);
    changes.extend(gone.map(removed));
    changes
}

fn listener_changes(item: Item, old: &Listener, new: &Listener) -> Vec<Change> {
    let mut keys = new.differing(old);
    keys.retain(|key| *key != "bind");
    let rebound = (new.bind != old.bind).then(|| item.clone().becomes(Action::Rebound));
    rebound.into_iter().chain(Change::of(item, keys)).collect()
}

fn pools_changes(old: &BTreeMap<String, Pool>, new: &BTreeMap<String, Pool>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, pool) in new {
        match old.get(name) {
            Some(before) => changes.extend(pool_changes(before, pool)),
            None => changes.push(Item::Pool(name.clone()).becomes(Action::Added)),
        }
    }
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    changes.extend(gone.map(|name| Item::Pool(name.clone()).becomes(Action::Removed)));
    changes
}

/// Backends have changes of their own; `backend` of a pool is their order.
fn pool_changes(old: &Pool, new: &Pool) -> Vec<Change> {
    let mut keys = new.differing(old);
    keys.retain(|key| *key != "backend" || order_changed(&old.backends, &new.backends));
    let mut changes: Vec<_> = Change::of(Item::Pool(new.name.clone()), keys)
        .into_iter()
        .collect();
    changes.extend(backends_changes(&new.name, &old.backends, &new.backends));
    changes
}

/// Whether backends that stay now stand in another order, which round robin follows.
fn order_changed(old: &[Backend], new: &[Backend]) -> bool {
    let (in_old, in_new) = (names(old), names(new));
    let stay = |backends: &[Backend], other: &BTreeSet<&str>| -> Vec<String> {
        let backends = backends.iter().map(|backend| backend.name.clone());
        backends
            .filter(|name| other.contains(name.as_str()))
            .collect()
    };
    stay(old, &in_new) != stay(new, &in_old)
}

fn names(backends: &[Backend]) -> BTreeSet<&str> {
    backends
        .iter()
        .map(|backend| backend.name.as_str())
        .collect()
}

fn backends_changes(pool: &str, old: &[Backend], new: &[Backend]) -> Vec<Change> {
    let item = |backend: &Backend| Item::Backend {
        pool: pool.to_owned(),
        backend: backend.name.clone(),
    };
    let before: BTreeMap<&str, &Backend> = old
        .iter()
        .map(|backend| (backend.name.as_str(), backend))
        .collect();
    let mut changes = Vec::new();
    for backend in new {
        match before.get(backend.name.as_str()) {
            Some(before) => changes.extend(Change::of(item(backend), backend.differing(before))),
            None => changes.push(item(backend).becomes(Action::Added)),
        }
    }
    let now = names(new);
    let gone = old
        .iter()
        .filter(|backend| !now.contains(backend.name.as_str()));
    changes.extend(gone.map(|backend| item(backend).becomes(Action::Removed)));
    changes
}

impl Change {
    /// `None`: nothing differs.
    fn of(item: Item, keys: Vec<&'static str>) -> Option<Change> {
        (!keys.is_empty()).then_some(Change {
            item,
            action: Action::Changed,
            keys,
        })
    }

    /// Paths of the keys that take effect at the next start.
    pub fn needs_restart(&self) -> impl Iterator<Item = String> {
        let keys = self
            .keys
            .iter()
            .filter(|_| self.action == Action::NeedsRestart);
        keys.map(|key| format!("{}.{key}", self.item.kind()))
    }
}

impl Item {
    /// A change of the item as a whole.
    pub fn becomes(self, action: Action) -> Change {
        Change {
            item: self,
            action,
            keys: Vec::new(),
        }
    }

    /// Kind of the item, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Item::Global => "global",
            Item::AccessLog => "access_log",
            Item::Traces => "traces",
            Item::Admin => "admin",
            Item::Metrics => "metrics",
            Item::Upgrade => "upgrade",
            Item::Cluster => "cluster",
            Item::Listener(_) => "listener",
            Item::Route { .. } => "route",
            Item::Pool(_) => "pool",
            Item::Backend { .. } => "backend",
        }
    }

    /// Name among those of its kind.
    pub fn name(&self) -> String {
        match self {
            Item::Global
            | Item::AccessLog
            | Item::Traces
            | Item::Admin
            | Item::Metrics
            | Item::Upgrade
            | Item::Cluster => String::new(),
            Item::Listener(name) | Item::Pool(name) => name.clone(),
            Item::Route { listener, route } => format!("{listener}: {route}"),
            Item::Backend { pool, backend } => format!("{pool}/{backend}"),
        }
    }
}

impl Action {
    pub fn word(self) -> &'static str {
        match self {
            Action::Kept => "kept",
            Action::Added => "added",
            Action::Removed => "removed",
            Action::Changed => "changed",
            Action::Rebound => "rebound",
            Action::CertificatesRenewed => "certificates_changed",
            Action::StickyKeysRenewed => "sticky_keys_changed",
            Action::BackendTlsRenewed => "backend_tls_renewed",
            Action::NeedsRestart => "needs_restart",
        }
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let word = self.action.word();
        let change = match self.action {
            Action::Kept | Action::Added | Action::Removed | Action::Changed | Action::Rebound => {
                format!("{}_{word}", self.item.kind())
            }
            _ => word.to_owned(),
        };
        map.serialize_entry("change", &change)?;
        match &self.item {
            Item::Global
            | Item::AccessLog
            | Item::Traces
            | Item::Admin
            | Item::Metrics
            | Item::Upgrade
            | Item::Cluster => {}
            Item::Listener(listener) => map.serialize_entry("listener", listener)?,
            Item::Route { listener, route } => {
                map.serialize_entry("listener", listener)?;
                map.serialize_entry("route", route)?;
            }
            Item::Pool(pool) => map.serialize_entry("pool", pool)?,
            Item::Backend { pool, backend } => {
                map.serialize_entry("pool", pool)?;
                map.serialize_entry("backend", backend)?;
            }
        }
        if self.action == Action::Changed {
            map.serialize_entry("keys", &self.keys)?;
        }
        for key in self.needs_restart() {
            map.serialize_entry("key", &key)?;
        }
        map.end()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = self.needs_restart().next() {
            return write!(f, "{key}: changed, takes effect at the next start");
        }
        let item = format!("{} {}", self.item.kind(), self.item.name());
        let item = item.trim_end();
        match self.action {
            Action::Changed => write!(f, "{item}: changed {}", self.keys.join(", ")),
            Action::Rebound => write!(f, "{item}: bound elsewhere"),
            Action::CertificatesRenewed => write!(f, "{item}: certificates renewed"),
            Action::StickyKeysRenewed => write!(f, "{item}: sticky keys renewed"),
            Action::BackendTlsRenewed => write!(f, "{item}: files of tls renewed"),
            action => write!(f, "{item}: {}", action.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::right;
    use proptest::prelude::*;
    use serde_json::json;

    const BASE: &str = r#"
[global]
workers = 2
[[listener]]
name = "l"
bind = "127.0.0.1:80"
protocol = "tcp"
pool = "p"
[pool.p]
backend = [
  { name = "a", address = "10.0.0.1:80" },
  { name = "b", address = "10.0.0.2:80" },
]
[admin]
bind = "127.0.0.1:9900"
"#;

    /// Changes by `from` replaced by `to` in the base, as text.
    fn changed(from: &str, to: &str) -> Vec<String> {
        assert!(BASE.contains(from), "{from}");
        let (old, new) = (right(BASE), right(&BASE.replacen(from, to, 1)));
        diff(&old, &new).iter().map(Change::to_string).collect()
    }

    /// Edits of the file, one for every kind of change and every key.
    const EDITS: &[(&str, &str, &[&str])] = &[
        (
            "workers = 2",
            "workers = 3",
            &["global.workers: changed, takes effect at the next start"],
        ),
        (
            "workers = 2",
            "workers = 2\nmax_connections = 9",
            &["global: changed max_connections"],
        ),
        (
            "workers = 2",
            "workers = 2\nmax_connection_rate = \"9/s\"",
            &["global: changed max_connection_rate"],
        ),
        (
            "pool = \"p\"",
            "pool = \"p\"\nallow = [\"::1\"]\ndeny = [\"::2\"]\nmax_connections = 9",
            &["listener l: changed allow, deny, max_connections"],
        ),
        (
            "pool = \"p\"",
            "pool = \"p\"\nmax_connection_rate = \"9/s\"\nper_source = { max_connections = 9 }",
            &["listener l: changed max_connection_rate, per_source"],
        ),
        (
            "workers = 2",
            "workers = 2\nmax_setup_connections = 9",
            &["global: changed max_setup_connections"],
        ),
        (
            "workers = 2",
            "workers = 2\nmax_buffered = \"9MiB\"",
            &["global: changed max_buffered"],
        ),
        (
            "workers = 2",
            "workers = 2\nmax_memory = \"9GiB\"",
            &["global: changed max_memory"],
        ),
        (
            "workers = 2",
            "workers = 2\nhard_stop_after = \"9s\"",
            &["global: changed hard_stop_after"],
        ),
        (
            "workers = 2",
            "workers = 2\nwatch = false",
            &["global: changed watch"],
        ),
        (
            "workers = 2",
            "workers = 2\nlog_level = \"debug\"\nlog_format = \"json\"",
            &["global: changed log_level, log_format"],
        ),
        (
            "[[listener]]",
            "[access_log]\noutput = \"stdout\"\n[[listener]]",
            &["access_log: changed output"],
        ),
        (
            "[[listener]]",
            "[access_log]\noutput = \"stdout\"\nformat = \"text\"\n[[listener]]",
            &["access_log: changed output, format"],
        ),
        (
            "[[listener]]",
            "[access_log]\noutput = \"stdout\"\nlog_at = [\"open\"]\n[[listener]]",
            &["access_log: changed output, log_at"],
        ),
        (
            "[[listener]]",
            "[access_log]\noutput = \"stdout\"\nlog_at = [\"interval\"]\ninterval = \"9s\"\n[[listener]]",
            &["access_log: changed output, log_at, interval"],
        ),
        (
            "[[listener]]",
            "[access_log]\noutput = \"stdout\"\nmax_queue = 9\n[[listener]]",
            &["access_log: changed output, max_queue"],
        ),
        (
            "name = \"l\"",
            "name = \"m\"",
            &["listener m: added", "listener l: removed"],
        ),
        (
            "127.0.0.1:80",
            "127.0.0.1:81",
            &["listener l: bound elsewhere"],
        ),
        (
            "\"tcp\"",
            "\"websocket\"",
            &["listener l: changed protocol"],
        ),
        (
            "pool = \"p\"",
            "pool = \"p\"\ntls = { passthrough = true }",
            &["listener l: changed tls"],
        ),
        (
            "\"tcp\"\npool = \"p\"",
            "\"websocket\"\nroute = [{ path = \"/\", pool = \"p\" }]",
            &["listener l: changed protocol, pool, route"],
        ),
        (
            "\"tcp\"",
            "\"websocket\"\ntrusted = [\"::1\"]\nupgrade_timeout = \"9s\"\nkeep_alive_timeout = \"9s\"",
            &["listener l: changed protocol, trusted, upgrade_timeout, keep_alive_timeout"],
        ),
        (
            "\"tcp\"",
            "\"websocket\"\nhandshake_timeout = \"9s\"\nfollow_frames = false",
            &["listener l: changed protocol, handshake_timeout, follow_frames"],
        ),
        (
            "pool = \"p\"",
            "pool = \"p\"\nbacklog = 9",
            &["listener l: changed backlog"],
        ),
        (
            "[admin]",
            "[pool.q]\nbackend = [{ address = \"[::1]:1\" }]\n[admin]",
            &["pool q: added"],
        ),
        (
            "[pool.p]",
            "[pool.p]\nbalance = \"random\"",
            &["pool p: changed balance"],
        ),
        (
            "\"tcp\"\npool = \"p\"\n[pool.p]",
            "\"websocket\"\npool = \"p\"\n[pool.p]\nbalance = \"hash\"\nhash_key = \"path\"",
            &[
                "listener l: changed protocol",
                "pool p: changed balance, hash_key",
            ],
        ),
        (
            "[pool.p]",
            "[pool.p]\ndiscover = { dns = \"a:1\" }",
            &["pool p: changed discover"],
        ),
        (
            "[pool.p]",
            "[pool.p]\nconnect_timeout = \"9s\"\nidle_timeout = \"9s\"\nfin_timeout = \"9s\"\nmax_lifetime = \"9s\"\nretries = 9",
            &["pool p: changed connect_timeout, idle_timeout, fin_timeout, max_lifetime, retries"],
        ),
        (
            "\"tcp\"\npool = \"p\"\n[pool.p]",
            "\"websocket\"\npool = \"p\"\n[pool.p]\nresponse_timeout = \"9s\"\nbody_timeout = \"9s\"",
            &[
                "listener l: changed protocol",
                "pool p: changed response_timeout, body_timeout",
            ],
        ),
        (
            "\"tcp\"\npool = \"p\"\n[pool.p]",
            "\"websocket\"\nmax_header_size = \"9KiB\"\nmax_headers = 9\npool = \"p\"\n[pool.p]\nhttp_reuse_timeout = \"9s\"\nmax_idle_connections = 9\nsend_timeout = \"9s\"\nmin_body_rate = 9\nmax_header_size = \"9KiB\"\nmax_headers = 9",
            &[
                "listener l: changed protocol, max_header_size, max_headers",
                "pool p: changed http_reuse_timeout, max_idle_connections, send_timeout, min_body_rate, max_header_size, max_headers",
            ],
        ),
        (
            "\"tcp\"\npool = \"p\"\n[pool.p]",
            "\"websocket\"\npool = \"p\"\n[pool.p]\nhttp_reuse = \"never\"",
            &["listener l: changed protocol", "pool p: changed http_reuse"],
        ),
        (
            "\"tcp\"\npool = \"p\"\n[pool.p]",
            "\"websocket\"\npool = \"p\"\n[pool.p]\nsticky = { key_file = \"k\" }\nretry_after = { max = \"9s\" }",
            &[
                "listener l: changed protocol",
                "pool p: changed sticky, retry_after",
            ],
        ),
        (
            "[pool.p]",
            "[pool.p]\nmax_queue = 9\nqueue_timeout = \"9s\"\ndiscover = { dns = \"a:1\", max_connections = 9 }",
            &["pool p: changed discover, max_queue, queue_timeout"],
        ),
        (
            "[pool.p]",
            "[pool.p]\nslow_start = \"9s\"",
            &["pool p: changed slow_start"],
        ),
        (
            "[pool.p]",
            "[pool.p]\nwhen_all_down = \"try\"",
            &["pool p: changed when_all_down"],
        ),
        (
            "[pool.p]",
            "[pool.p]\noutlier = { connect_failures = 9 }",
            &["pool p: changed outlier"],
        ),
        (
            "{ name = \"b\", address = \"10.0.0.2:80\" },\n]",
            "{ name = \"b\", address = \"10.0.0.2:80\" },\n  { address = \"10.0.0.9:80\", backup = true },\n]\nfailover = { on_up = \"return\" }",
            &["pool p: changed failover", "backend p/10.0.0.9:80: added"],
        ),
        (
            "[pool.p]",
            "[pool.p]\ncheck = { type = \"tcp\" }",
            &["pool p: changed check"],
        ),
        (
            "name = \"b\"",
            "name = \"c\"",
            &["backend p/c: added", "backend p/b: removed"],
        ),
        (
            "10.0.0.2:80",
            "10.0.0.3:80",
            &["backend p/b: changed address"],
        ),
        (
            "\"10.0.0.2:80\"",
            "\"10.0.0.2:80\", weight = 9, max_connections = 9, backup = true",
            &["backend p/b: changed weight, max_connections, backup"],
        ),
        ("127.0.0.1:9900", "127.0.0.1:9901", &["admin: changed bind"]),
        (
            "[admin]\nbind = \"127.0.0.1:9900\"",
            "",
            &["admin: changed bind"],
        ),
        (
            "9900\"",
            "9900\"\ntoken_file = \"t\"",
            &["admin: changed token_file"],
        ),
        (
            "9900\"",
            "9900\"\ntls = { cert = \"c\", key = \"k\" }",
            &["admin: changed tls"],
        ),
        (
            "9900\"",
            "9900\"\nallowed_hosts = [\"a\"]",
            &["admin: changed allowed_hosts"],
        ),
        (
            "9900\"",
            "9900\"\nallow = [\"::1\"]\ndeny = [\"10.0.0.1\"]",
            &["admin: changed allow, deny"],
        ),
        (
            "9900\"",
            "9900\"\n[metrics]\nbind = \"127.0.0.1:1\"",
            &["metrics: changed bind"],
        ),
        (
            "[[listener]]",
            "[traces]\nendpoint = \"http://127.0.0.1:4318\"\n[[listener]]",
            &["traces: changed endpoint"],
        ),
    ];

    #[test]
    fn every_edit_is_one_change() {
        for (from, to, expected) in EDITS {
            assert_eq!(changed(from, to), *expected, "{to}");
        }
    }

    #[test]
    fn a_removed_pool_and_a_first_state_are_seen() {
        let with = BASE.replace(
            "[admin]",
            "[pool.q]\nbackend = [{ address = \"[::1]:1\" }]\n[admin]",
        );
        assert_eq!(
            diff(&right(&with), &right(BASE)),
            [Item::Pool("q".to_owned()).becomes(Action::Removed)]
        );
        let checked = BASE.replace("[pool.p]", "[pool.p]\ncheck = { type = \"tcp\" }");
        let down = checked.replace("\"10.0.0.2:80\"", "\"10.0.0.2:80\", init_state = \"down\"");
        let keys = vec!["init_state"];
        let change = Change {
            item: Item::Backend {
                pool: "p".to_owned(),
                backend: "b".to_owned(),
            },
            action: Action::Changed,
            keys,
        };
        assert_eq!(diff(&right(&checked), &right(&down)), [change]);
    }

    #[test]
    fn the_order_of_backends_is_a_change_and_that_of_listeners_is_none() {
        let mut turned = right(BASE);
        turned.pools.get_mut("p").unwrap().backends.reverse();
        let keys = vec!["backend"];
        assert_eq!(
            diff(&right(BASE), &turned),
            [Change {
                item: Item::Pool("p".to_owned()),
                action: Action::Changed,
                keys
            }]
        );

        let mut two = right(BASE);
        two.listeners.push(Listener {
            name: "m".to_owned(),
            ..two.listeners[0].clone()
        });
        let mut turned = two.clone();
        turned.listeners.reverse();
        assert_eq!(diff(&two, &turned), []);
    }

    #[test]
    fn a_change_is_data_and_a_sentence() {
        let change = Change {
            item: Item::Pool("p".to_owned()),
            action: Action::Changed,
            keys: vec!["retries", "check"],
        };
        let data = json!({ "change": "pool_changed", "pool": "p", "keys": ["retries", "check"] });
        assert_eq!(serde_json::to_value(&change).unwrap(), data);
        assert_eq!(change.to_string(), "pool p: changed retries, check");
        let listener = || Item::Listener("l".to_owned());
        for (change, data, text) in [
            (
                listener().becomes(Action::Rebound),
                json!({ "change": "listener_rebound", "listener": "l" }),
                "listener l: bound elsewhere",
            ),
            (
                listener().becomes(Action::CertificatesRenewed),
                json!({ "change": "certificates_changed", "listener": "l" }),
                "listener l: certificates renewed",
            ),
            (
                Item::Pool("p".to_owned()).becomes(Action::BackendTlsRenewed),
                json!({ "change": "backend_tls_renewed", "pool": "p" }),
                "pool p: files of tls renewed",
            ),
            (
                Item::Pool("p".to_owned()).becomes(Action::StickyKeysRenewed),
                json!({ "change": "sticky_keys_changed", "pool": "p" }),
                "pool p: sticky keys renewed",
            ),
            (
                Change {
                    action: Action::NeedsRestart,
                    keys: vec!["workers"],
                    item: Item::Global,
                },
                json!({ "change": "needs_restart", "key": "global.workers" }),
                "global.workers: changed, takes effect at the next start",
            ),
        ] {
            assert_eq!(serde_json::to_value(&change).unwrap(), data);
            assert_eq!(change.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn only_what_differs_is_a_change(edits in proptest::sample::subsequence((0..EDITS.len()).collect::<Vec<_>>(), 0..3)) {
            let text = edits.iter().fold(BASE.to_owned(), |text, edit| text.replacen(EDITS[*edit].0, EDITS[*edit].1, 1));
            let Ok(new) = crate::config::testing::read(&text) else { return Ok(()) };
            let old = right(BASE);
            prop_assert_eq!(diff(&new, &new), []);
            prop_assert_eq!(diff(&old, &new).is_empty(), old == new);
            prop_assert_eq!(diff(&new, &old).is_empty(), old == new);
        }
    }
}
