//! What changed from one configuration to the next: a pure list that the reload applies and shows.
//!
//! Every structure is taken apart whole (`let Pool { a, b } = pool`), so that a new field does not build until it was
//! decided here what its change means.

mod pools;

use std::fmt;

use serde::Serialize;

use super::model::*;
use pools::pools_changes;

/// One change. `keys` are the names of the file's keys that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    ListenerAdded {
        listener: String,
    },
    ListenerRemoved {
        listener: String,
    },
    /// Its `bind` differs; other keys that differ come as a `ListenerChanged` beside it.
    ListenerRebound {
        listener: String,
    },
    ListenerChanged {
        listener: String,
        keys: Vec<&'static str>,
    },
    /// The content of its certificate files differs; [`diff`] does not read files and never yields it.
    CertificatesChanged {
        listener: String,
    },
    /// The keys in its sticky key file differ; never of [`diff`] either.
    StickyKeysChanged {
        pool: String,
    },
    PoolAdded {
        pool: String,
    },
    PoolRemoved {
        pool: String,
    },
    /// Keys of the pool itself; its backends have changes of their own.
    PoolChanged {
        pool: String,
        keys: Vec<&'static str>,
    },
    /// The content of the files of its `tls` differs; [`diff`] does not read files and never yields it.
    BackendTlsRenewed {
        pool: String,
    },
    BackendAdded {
        pool: String,
        backend: String,
    },
    BackendRemoved {
        pool: String,
        backend: String,
    },
    BackendChanged {
        pool: String,
        backend: String,
        keys: Vec<&'static str>,
    },
    AccessLogChanged {
        keys: Vec<&'static str>,
    },
    AdminChanged {
        keys: Vec<&'static str>,
    },
    MetricsChanged {
        keys: Vec<&'static str>,
    },
    GlobalChanged {
        keys: Vec<&'static str>,
    },
    /// This key is read at start only; the running process keeps the old value.
    NeedsRestart {
        key: &'static str,
    },
}

/// The changes that lead from `old` to `new`; empty when both do the same. The order of listeners says nothing.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let Config {
        global,
        access_log,
        listeners,
        pools,
        admin,
        metrics,
    } = new;
    let mut changes = global_changes(&old.global, global);
    let access_log_keys = access_log_keys(&old.access_log, access_log);
    push(&mut changes, access_log_keys, |keys| {
        Change::AccessLogChanged { keys }
    });
    changes.extend(listeners_changes(&old.listeners, listeners));
    changes.extend(pools_changes(&old.pools, pools));
    push(
        &mut changes,
        admin_keys(old.admin.as_ref(), admin.as_ref()),
        |keys| Change::AdminChanged { keys },
    );
    push(
        &mut changes,
        metrics_keys(old.metrics.as_ref(), metrics.as_ref()),
        |keys| Change::MetricsChanged { keys },
    );
    changes
}

type Keys = Vec<&'static str>;

/// The names of the pairs that differ.
fn differing<const N: usize>(pairs: [(&'static str, bool); N]) -> Keys {
    pairs
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key)
        .collect()
}

fn push(changes: &mut Vec<Change>, keys: Keys, change: impl FnOnce(Keys) -> Change) {
    if !keys.is_empty() {
        changes.push(change(keys));
    }
}

fn global_changes(old: &Global, new: &Global) -> Vec<Change> {
    let Global {
        workers,
        max_connections,
        max_connection_rate,
        max_setup_connections,
        max_handshakes,
        max_handshake_rate,
        max_buffered,
        max_memory,
        hard_stop_after,
        watch,
        log_level,
        log_format,
    } = new;
    let keys = differing([
        ("max_connections", *max_connections != old.max_connections),
        (
            "max_connection_rate",
            *max_connection_rate != old.max_connection_rate,
        ),
        (
            "max_setup_connections",
            *max_setup_connections != old.max_setup_connections,
        ),
        ("max_handshakes", *max_handshakes != old.max_handshakes),
        (
            "max_handshake_rate",
            *max_handshake_rate != old.max_handshake_rate,
        ),
        ("max_buffered", *max_buffered != old.max_buffered),
        ("max_memory", *max_memory != old.max_memory),
        ("hard_stop_after", *hard_stop_after != old.hard_stop_after),
        ("watch", *watch != old.watch),
        ("log_level", *log_level != old.log_level),
        ("log_format", *log_format != old.log_format),
    ]);
    let mut changes = Vec::new();
    push(&mut changes, keys, |keys| Change::GlobalChanged { keys });
    if *workers != old.workers {
        changes.push(Change::NeedsRestart {
            key: "global.workers",
        });
    }
    changes
}

fn access_log_keys(old: &AccessLog, new: &AccessLog) -> Keys {
    let AccessLog {
        output,
        format,
        log_at,
        interval,
        max_queue,
        log_null,
    } = new;
    differing([
        ("output", *output != old.output),
        ("format", *format != old.format),
        ("log_at", *log_at != old.log_at),
        ("interval", *interval != old.interval),
        ("max_queue", *max_queue != old.max_queue),
        ("log_null", *log_null != old.log_null),
    ])
}

fn listeners_changes(old: &[Listener], new: &[Listener]) -> Vec<Change> {
    let mut changes = Vec::new();
    for listener in new {
        match old.iter().find(|before| before.name == listener.name) {
            Some(before) => changes.extend(listener_changes(before, listener)),
            None => changes.push(Change::ListenerAdded {
                listener: listener.name.clone(),
            }),
        }
    }
    let gone = old
        .iter()
        .filter(|before| !new.iter().any(|listener| listener.name == before.name));
    changes.extend(gone.map(|before| Change::ListenerRemoved {
        listener: before.name.clone(),
    }));
    changes
}

fn listener_changes(old: &Listener, new: &Listener) -> Vec<Change> {
    let Listener {
        name,
        bind,
        protocol,
        tls,
        pool,
        routes,
        admission,
        trusted,
        accept_proxy,
        forwarded,
        client_ip_from,
        request_id,
        encoded_slash,
        tag,
        handshake_timeout,
        upgrade_timeout,
        keep_alive_timeout,
        follow_frames,
        frames,
        backlog,
        tcp,
        tcp_defer_accept,
        file,
    } = new;
    let keys = differing([
        ("protocol", *protocol != old.protocol),
        ("tls", *tls != old.tls),
        ("pool", *pool != old.pool),
        ("route", *routes != old.routes),
        (
            "allow",
            admission.access.allow != old.admission.access.allow,
        ),
        ("deny", admission.access.deny != old.admission.access.deny),
        (
            "max_connections",
            admission.max_connections != old.admission.max_connections,
        ),
        (
            "max_connection_rate",
            admission.max_connection_rate != old.admission.max_connection_rate,
        ),
        (
            "per_source",
            admission.per_source != old.admission.per_source,
        ),
        ("trusted", *trusted != old.trusted),
        ("accept_proxy", *accept_proxy != old.accept_proxy),
        ("forwarded", *forwarded != old.forwarded),
        ("client_ip_from", *client_ip_from != old.client_ip_from),
        ("request_id", *request_id != old.request_id),
        ("encoded_slash", *encoded_slash != old.encoded_slash),
        ("tag", tag_key(tag) != tag_key(&old.tag)),
        ("tag_hash", is_hashed(tag) != is_hashed(&old.tag)),
        (
            "handshake_timeout",
            *handshake_timeout != old.handshake_timeout,
        ),
        ("upgrade_timeout", *upgrade_timeout != old.upgrade_timeout),
        (
            "keep_alive_timeout",
            *keep_alive_timeout != old.keep_alive_timeout,
        ),
        ("follow_frames", *follow_frames != old.follow_frames),
        ("frames", *frames != old.frames),
        ("backlog", *backlog != old.backlog),
        (
            "tcp_defer_accept",
            *tcp_defer_accept != old.tcp_defer_accept,
        ),
    ]);
    let file_keys = rights_keys(&old.file, file);
    let keys = [keys, socket_keys(&old.tcp, tcp), file_keys].concat();
    let mut changes = Vec::new();
    if *bind != old.bind {
        changes.push(Change::ListenerRebound {
            listener: name.clone(),
        });
    }
    push(&mut changes, keys, |keys| Change::ListenerChanged {
        listener: name.clone(),
        keys,
    });
    changes
}

fn socket_keys(old: &TcpOptions, new: &TcpOptions) -> Keys {
    let TcpOptions {
        keepalive,
        user_timeout,
        congestion,
    } = new;
    differing([
        ("tcp_keepalive", *keepalive != old.keepalive),
        ("tcp_user_timeout", *user_timeout != old.user_timeout),
        ("tcp_congestion", *congestion != old.congestion),
    ])
}

fn tag_key(tag: &Option<Tag>) -> Option<&HashKey> {
    tag.as_ref().map(|tag| &tag.key)
}

fn is_hashed(tag: &Option<Tag>) -> bool {
    tag.as_ref().is_some_and(|tag| tag.is_hashed)
}

fn rights_keys(old: &FileRights, new: &FileRights) -> Keys {
    let FileRights { mode, owner, group } = new;
    differing([
        ("mode", *mode != old.mode),
        ("owner", *owner != old.owner),
        ("group", *group != old.group),
    ])
}

/// An endpoint that appears or goes has another `bind`.
fn admin_keys(old: Option<&Admin>, new: Option<&Admin>) -> Keys {
    let (Some(old), Some(new)) = (old, new) else {
        return differing([("bind", old.is_some() != new.is_some())]);
    };
    let Admin {
        bind,
        token_file,
        tokens,
        tls,
        allowed_hosts,
        access: Access { allow, deny },
        file,
    } = new;
    let keys = differing([
        ("bind", *bind != old.bind),
        ("token_file", *token_file != old.token_file),
        ("token", *tokens != old.tokens),
        ("tls", *tls != old.tls),
        ("allowed_hosts", *allowed_hosts != old.allowed_hosts),
        ("allow", *allow != old.access.allow),
        ("deny", *deny != old.access.deny),
    ]);
    [keys, rights_keys(&old.file, file)].concat()
}

fn metrics_keys(old: Option<&Metrics>, new: Option<&Metrics>) -> Keys {
    let (Some(old), Some(new)) = (old, new) else {
        return differing([("bind", old.is_some() != new.is_some())]);
    };
    let Metrics {
        bind,
        access: Access { allow, deny },
        file,
    } = new;
    let keys = differing([
        ("bind", *bind != old.bind),
        ("allow", *allow != old.access.allow),
        ("deny", *deny != old.access.deny),
    ]);
    [keys, rights_keys(&old.file, file)].concat()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::ListenerAdded { listener } => write!(f, "listener {listener}: added"),
            Change::ListenerRemoved { listener } => write!(f, "listener {listener}: removed"),
            Change::ListenerRebound { listener } => {
                write!(f, "listener {listener}: bound elsewhere")
            }
            Change::ListenerChanged { listener, keys } => {
                write!(f, "listener {listener}: changed {}", keys.join(", "))
            }
            Change::CertificatesChanged { listener } => {
                write!(f, "listener {listener}: certificates renewed")
            }
            Change::StickyKeysChanged { pool } => write!(f, "pool {pool}: sticky keys renewed"),
            Change::PoolAdded { pool } => write!(f, "pool {pool}: added"),
            Change::PoolRemoved { pool } => write!(f, "pool {pool}: removed"),
            Change::PoolChanged { pool, keys } => {
                write!(f, "pool {pool}: changed {}", keys.join(", "))
            }
            Change::BackendTlsRenewed { pool } => {
                write!(f, "pool {pool}: files of tls renewed")
            }
            Change::BackendAdded { pool, backend } => write!(f, "backend {pool}/{backend}: added"),
            Change::BackendRemoved { pool, backend } => {
                write!(f, "backend {pool}/{backend}: removed")
            }
            Change::BackendChanged {
                pool,
                backend,
                keys,
            } => {
                write!(f, "backend {pool}/{backend}: changed {}", keys.join(", "))
            }
            Change::AccessLogChanged { keys } => {
                write!(f, "access_log: changed {}", keys.join(", "))
            }
            Change::AdminChanged { keys } => write!(f, "admin: changed {}", keys.join(", ")),
            Change::MetricsChanged { keys } => write!(f, "metrics: changed {}", keys.join(", ")),
            Change::GlobalChanged { keys } => write!(f, "global: changed {}", keys.join(", ")),
            Change::NeedsRestart { key } => {
                write!(f, "{key}: changed, takes effect at the next start")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::right;
    use super::*;
    use proptest::prelude::*;

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

    /// What `from` replaced by `to` in the base changes, as text.
    fn changed(from: &str, to: &str) -> Vec<String> {
        assert!(BASE.contains(from), "{from}");
        let (old, new) = (right(BASE), right(&BASE.replacen(from, to, 1)));
        diff(&old, &new).iter().map(Change::to_string).collect()
    }

    /// One edit of the file for every kind of change and every key.
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
            [Change::PoolRemoved {
                pool: "q".to_owned()
            }]
        );
        let checked = BASE.replace("[pool.p]", "[pool.p]\ncheck = { type = \"tcp\" }");
        let down = checked.replace("\"10.0.0.2:80\"", "\"10.0.0.2:80\", init_state = \"down\"");
        let keys = vec!["init_state"];
        let change = Change::BackendChanged {
            pool: "p".to_owned(),
            backend: "b".to_owned(),
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
            [Change::PoolChanged {
                pool: "p".to_owned(),
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
        let change = Change::PoolChanged {
            pool: "p".to_owned(),
            keys: vec!["retries", "check"],
        };
        let data = serde_json::json!({ "change": "pool_changed", "pool": "p", "keys": ["retries", "check"] });
        assert_eq!(serde_json::to_value(&change).unwrap(), data);
        assert_eq!(change.to_string(), "pool p: changed retries, check");
    }

    proptest! {
        #[test]
        fn only_what_differs_is_a_change(edits in proptest::sample::subsequence((0..EDITS.len()).collect::<Vec<_>>(), 0..3)) {
            let text = edits.iter().fold(BASE.to_owned(), |text, edit| text.replacen(EDITS[*edit].0, EDITS[*edit].1, 1));
            let Ok(new) = super::super::testing::read(&text) else { return Ok(()) };
            let old = right(BASE);
            prop_assert_eq!(diff(&new, &new), []);
            prop_assert_eq!(diff(&old, &new).is_empty(), old == new);
            prop_assert_eq!(diff(&new, &old).is_empty(), old == new);
        }
    }
}
