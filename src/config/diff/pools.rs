//! What changed in the pools and their backends.

use std::collections::{BTreeMap, BTreeSet};

use super::super::model::{Backend, Balance, Dial, HashKey, Pool};
use super::{Change, Keys, differing, push, socket_keys};

pub(super) fn pools_changes(
    old: &BTreeMap<String, Pool>,
    new: &BTreeMap<String, Pool>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, pool) in new {
        match old.get(name) {
            Some(before) => changes.extend(pool_changes(before, pool)),
            None => changes.push(Change::PoolAdded { pool: name.clone() }),
        }
    }
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    changes.extend(gone.map(|name| Change::PoolRemoved { pool: name.clone() }));
    changes
}

fn pool_changes(old: &Pool, new: &Pool) -> Vec<Change> {
    let Pool {
        name,
        balance,
        backends,
        discover,
        connect_timeout,
        idle_timeout,
        fin_timeout,
        max_lifetime,
        activity,
        ping,
        drain,
        rebalance,
        resume,
        name_header,
        response_timeout,
        body_timeout,
        retries,
        retry_on,
        max_queue,
        queue_timeout,
        slow_start,
        when_all_down,
        outlier,
        failover,
        tls,
        sticky,
        retry_after,
        check,
        send_proxy,
        dial: Dial { tcp, source },
    } = new;
    let keys = differing([
        ("balance", balance.word() != old.balance.word()),
        ("hash_key", hash_key(balance) != hash_key(&old.balance)),
        ("backend", order_changed(&old.backends, backends)),
        ("discover", *discover != old.discover),
        ("connect_timeout", *connect_timeout != old.connect_timeout),
        ("idle_timeout", *idle_timeout != old.idle_timeout),
        ("fin_timeout", *fin_timeout != old.fin_timeout),
        ("max_lifetime", *max_lifetime != old.max_lifetime),
        ("activity", *activity != old.activity),
        ("ping", *ping != old.ping),
        ("drain", *drain != old.drain),
        ("rebalance", *rebalance != old.rebalance),
        ("resume", *resume != old.resume),
        ("name_header", *name_header != old.name_header),
        (
            "response_timeout",
            *response_timeout != old.response_timeout,
        ),
        ("body_timeout", *body_timeout != old.body_timeout),
        ("retries", *retries != old.retries),
        ("retry_on", *retry_on != old.retry_on),
        ("max_queue", *max_queue != old.max_queue),
        ("queue_timeout", *queue_timeout != old.queue_timeout),
        ("slow_start", *slow_start != old.slow_start),
        ("when_all_down", *when_all_down != old.when_all_down),
        ("outlier", *outlier != old.outlier),
        ("failover", *failover != old.failover),
        ("tls", *tls != old.tls),
        ("sticky", *sticky != old.sticky),
        ("retry_after", *retry_after != old.retry_after),
        ("check", *check != old.check),
        ("send_proxy", *send_proxy != old.send_proxy),
        ("source", *source != old.dial.source),
    ]);
    let keys = [keys, socket_keys(&old.dial.tcp, tcp)].concat();
    let mut changes = Vec::new();
    push(&mut changes, keys, |keys| Change::PoolChanged {
        pool: name.clone(),
        keys,
    });
    changes.extend(backends_changes(name, &old.backends, backends));
    changes
}

fn hash_key(balance: &Balance) -> Option<&HashKey> {
    match balance {
        Balance::Hash(key) => Some(key),
        Balance::RoundRobin | Balance::LeastConn | Balance::IpHash | Balance::Random => None,
    }
}

/// Whether backends that stay now stand in another order, which round robin follows.
fn order_changed(old: &[Backend], new: &[Backend]) -> bool {
    let stays_in = |other: &[Backend]| -> BTreeSet<String> {
        other.iter().map(|backend| backend.name.clone()).collect()
    };
    let (in_old, in_new) = (stays_in(old), stays_in(new));
    let stay_before = old
        .iter()
        .map(|backend| &backend.name)
        .filter(|name| in_new.contains(*name));
    let stay_now = new
        .iter()
        .map(|backend| &backend.name)
        .filter(|name| in_old.contains(*name));
    !stay_before.eq(stay_now)
}

fn backends_changes(pool: &str, old: &[Backend], new: &[Backend]) -> Vec<Change> {
    let before: BTreeMap<&str, &Backend> = old
        .iter()
        .map(|backend| (backend.name.as_str(), backend))
        .collect();
    let now: BTreeSet<&str> = new.iter().map(|backend| backend.name.as_str()).collect();
    let mut changes = Vec::new();
    for backend in new {
        let (pool, name) = (pool.to_owned(), backend.name.clone());
        match before.get(backend.name.as_str()) {
            Some(before) => {
                let keys = backend_keys(before, backend);
                push(&mut changes, keys, |keys| Change::BackendChanged {
                    pool,
                    backend: name,
                    keys,
                });
            }
            None => changes.push(Change::BackendAdded {
                pool,
                backend: name,
            }),
        }
    }
    let gone = old
        .iter()
        .filter(|backend| !now.contains(backend.name.as_str()));
    let removed = |backend: &Backend| Change::BackendRemoved {
        pool: pool.to_owned(),
        backend: backend.name.clone(),
    };
    changes.extend(gone.map(removed));
    changes
}

fn backend_keys(old: &Backend, new: &Backend) -> Keys {
    let Backend {
        name: _,
        address,
        weight,
        max_connections,
        backup,
        init_state,
        host: _,
    } = new;
    differing([
        ("address", *address != old.address),
        ("weight", *weight != old.weight),
        ("max_connections", *max_connections != old.max_connections),
        ("backup", *backup != old.backup),
        ("init_state", *init_state != old.init_state),
    ])
}
