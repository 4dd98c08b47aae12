//! The tables of the file: one module each, with its keys and the decoder that reads them.
//!
//! A decoder may refuse what its own table shows to be wrong; what needs the whole file is checked here.

mod access_log;
mod admin;
mod admin_token;
mod admission;
mod backend;
mod backend_tls;
mod binds;
mod check;
mod check_expect;
mod check_headers;
mod check_kind;
mod discover;
mod failover;
mod global;
mod listener;
mod listener_tls;
mod long_life;
mod outlier;
mod pool;
mod rebalance;
mod resume;
mod retry_after;
mod route;
mod socket;
mod socket_file;
mod sticky;
mod tag;
mod uses;
mod warnings;

use std::collections::BTreeMap;

use super::error::Fault;
use super::keys::{Absent, Kind, Section, key};
use super::model::{Admin, Config, Listener};
use super::table::Table;

pub static ROOT: Section = Section {
    doc: "Configuration of Evenkeel, a load balancer for connections that last.",
    keys: &[
        key(
            "global",
            Kind::Table(&global::GLOBAL),
            Absent::None,
            "The process.",
        ),
        key(
            "access_log",
            Kind::Table(&access_log::ACCESS_LOG),
            Absent::None,
            "One line per connection.",
        ),
        key(
            "listener",
            Kind::Tables(&listener::LISTENER),
            Absent::Required,
            "Bound addresses, each with its protocol, TLS and rules.",
        ),
        key(
            "pool",
            Kind::Named(&pool::POOL),
            Absent::None,
            "Named sets of backends.",
        ),
        key(
            "admin",
            Kind::Table(&admin::ADMIN),
            Absent::None,
            "The endpoint of the operator: state, drain, reload, metrics. Without it there is none.",
        ),
        key(
            "metrics",
            Kind::Table(&admin::METRICS),
            Absent::None,
            "`/metrics`, `/healthz` and `/readyz` on an address of their own, read-only. Without it: on the admin endpoint only.",
        ),
    ],
};

/// Reads `[admin]` alone.
pub fn decode_admin(root: &Table<'_>) -> Option<Admin> {
    root.maybe_table("admin")
        .as_ref()
        .and_then(|table| admin::decode(table, None))
}

/// Reads the whole file. `None` when something needed was wrong, which was noted.
pub fn decode(root: &Table<'_>) -> Option<Config> {
    let named_pools = root.named("pool");
    let pool_names: Vec<&str> = named_pools.iter().map(|(name, _)| name.as_str()).collect();
    let pools = named_pools
        .iter()
        .map(|(name, table)| Some((name.clone(), pool::decode(name, table)?)));
    let pools: Vec<_> = pools.collect();

    let listener_tables = root.tables("listener");
    let listeners: Vec<_> = listener_tables
        .iter()
        .map(|table| listener::decode(table, &pool_names))
        .collect();
    if root
        .entry("listener")
        .is_some_and(|entry| entry.is_empty_list())
    {
        root.missing(
            "listener",
            "there is no listener",
            "at least one [[listener]]",
        );
    }
    refuse_same_names(&listener_tables, &listeners);
    if let Some(listeners) = listeners.iter().cloned().collect::<Option<Vec<_>>>() {
        let tables = named_pools.iter().zip(&pools);
        let known = tables.filter_map(|((_, table), pool)| Some((table, &pool.as_ref()?.1)));
        uses::refuse_useless(known.clone(), &listeners);
        warnings::warn_of_pools(known, &listeners);
        uses::refuse_handshake_keys(&root.table("global"), &listeners);
    }

    let admin_table = root.maybe_table("admin");
    let metrics_table = root.maybe_table("metrics");
    binds::refuse_overlaps(
        listener_tables
            .iter()
            .chain(&admin_table)
            .chain(&metrics_table),
    );

    let known = admin_token::Pools {
        names: &pool_names,
        right: pools.iter().flatten().map(|(_, pool)| pool).collect(),
    };
    Some(Config {
        global: global::decode(&root.table("global")),
        access_log: access_log::decode(&root.table("access_log"))?,
        admin: decoded(
            admin_table
                .as_ref()
                .map(|table| admin::decode(table, Some(&known))),
        )?,
        metrics: decoded(metrics_table.as_ref().map(admin::decode_metrics))?,
        listeners: listeners.into_iter().collect::<Option<_>>()?,
        pools: pools.into_iter().collect::<Option<BTreeMap<_, _>>>()?,
    })
}

/// Absent stays absent; there but wrong makes the whole wrong.
fn decoded<T>(table: Option<Option<T>>) -> Option<Option<T>> {
    match table {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

fn refuse_same_names(tables: &[Table<'_>], listeners: &[Option<Listener>]) {
    let names: Vec<_> = listeners
        .iter()
        .map(|listener| listener.as_ref().map(|listener| &listener.name))
        .collect();
    for (index, (table, name)) in tables.iter().zip(&names).enumerate() {
        if let Some(name) = name
            && names[..index].contains(&Some(name))
            && let Some(entry) = table.entry("name")
        {
            entry.refuse(
                Fault::Conflict,
                &format!("another listener has the name \"{name}\""),
            );
        }
    }
}
