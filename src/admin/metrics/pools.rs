//! Metrics of the pools and their backends.

use std::fmt;

use prometheus_client::registry::Unit;

use super::page::{Labels, MetricsPage};
use crate::admin::view::{BackendView, PoolView};

/// Values of the label `state` of `evenkeel_backend_state`.
const STATES: [&str; 6] = ["up", "down", "drain", "maint", "ejected", "unresolved"];

pub(super) fn encode(pools: &[PoolView], page: &mut MetricsPage<'_>) -> fmt::Result {
    encode_pools(pools, page)?;
    encode_backends(pools, page)
}

fn encode_pools(all: &[PoolView], page: &mut MetricsPage<'_>) -> fmt::Result {
    let rows = |value: fn(&PoolView) -> u64| {
        all.iter()
            .map(move |one| (vec![("pool", one.name.as_str())], value(one)))
    };
    page.gauge(
        "pool_queued_connections",
        "Waiting for a backend with room",
        None,
        rows(|p| p.queued),
    )?;
    let refused = all.iter().flat_map(|pool| {
        let reasons = [
            ("no_backend", pool.refused_no_backend),
            ("full", pool.refused_full),
            ("queue_full", pool.refused_queue_full),
            ("queue_timeout", pool.queue_timeouts),
        ];
        reasons.map(|(reason, count)| {
            (
                vec![("pool", pool.name.as_str()), ("reason", reason)],
                count,
            )
        })
    });
    page.counter(
        "pool_refused_connections",
        "Given no backend, by reason",
        None,
        refused,
    )?;
    page.gauge(
        "pool_panic",
        "1 while sessions are kept that failover was to end",
        None,
        rows(|p| p.panic.is_some().into()),
    )?;
    page.counter(
        "pool_failover_ended_connections",
        "Ended by failover, of backends that are down and of backups",
        None,
        rows(|p| p.ended_by_health),
    )?;
    page.counter(
        "pool_retries",
        "Further tries after a failed connect",
        None,
        rows(|p| p.retries),
    )?;
    page.counter(
        "pool_redispatches",
        "Retries on another backend",
        None,
        rows(|p| p.redispatches),
    )?;
    let lookups = all.iter().flat_map(|pool| {
        let results = [("ok", pool.lookups_ok), ("failed", pool.lookups_failed)];
        results.map(|(result, count)| {
            (
                vec![("pool", pool.name.as_str()), ("result", result)],
                count,
            )
        })
    });
    page.counter("pool_lookups", "DNS lookups by result", None, lookups)?;
    let failing = rows(|p| p.failing_lookups.len() as u64);
    page.gauge(
        "pool_failing_names",
        "Names whose latest DNS lookup failed",
        None,
        failing,
    )
}

fn encode_backends(pools: &[PoolView], page: &mut MetricsPage<'_>) -> fmt::Result {
    let all = || pools.iter().flat_map(|pool| &pool.backends);
    let rows =
        |value: fn(&BackendView) -> u64| all().map(move |one| (backend_labels(one), value(one)));
    let states = all().flat_map(|one| {
        STATES.map(|state| {
            let labels = [backend_labels(one), vec![("state", state)]].concat();
            (labels, u64::from(one.state == state))
        })
    });
    page.gauge(
        "backend_state",
        "1 for the present effective state",
        None,
        states,
    )?;
    page.gauge(
        "backend_weight",
        "Weight in effect",
        None,
        rows(|b| b.weight.into()),
    )?;
    let help = "Limit of live connections; 0: no own limit";
    page.gauge(
        "backend_max_connections",
        help,
        None,
        rows(|b| b.max_connections),
    )?;
    page.gauge(
        "backend_live_connections",
        "Connections now",
        None,
        rows(|b| b.live),
    )?;
    page.counter(
        "backend_connections",
        "Connections established",
        None,
        rows(|b| b.connections),
    )?;
    page.counter(
        "backend_connect_failures",
        "Connects that failed",
        None,
        rows(|b| b.connect_failures),
    )?;
    page.counter(
        "backend_requests",
        "HTTP requests answered",
        None,
        rows(|b| b.requests),
    )?;
    let bytes = || Some(Unit::Bytes);
    page.counter(
        "backend_from_client",
        "From clients",
        bytes(),
        rows(|b| b.bytes_from_client),
    )?;
    page.counter(
        "backend_from_backend",
        "From the backend",
        bytes(),
        rows(|b| b.bytes_from_backend),
    )?;
    let checks = all().flat_map(|one| {
        let results = [("ok", one.checks_ok), ("failed", one.checks_failed)];
        results.map(|(result, count)| {
            (
                [backend_labels(one), vec![("result", result)]].concat(),
                count,
            )
        })
    });
    page.counter("backend_checks", "Active checks by result", None, checks)?;
    let resumes = all().flat_map(|one| {
        let results = [("resumed", one.resumed), ("ended", one.not_resumed)];
        results.map(|(result, count)| {
            let labels = [backend_labels(one), vec![("result", result)]].concat();
            (labels, count)
        })
    });
    page.counter(
        "backend_resumes",
        "Sessions taken over from another backend, and sessions that were to outlive this one and ended with it",
        None,
        resumes,
    )?;
    let help = "Changes of the effective state";
    page.counter(
        "backend_state_changes",
        help,
        None,
        rows(|b| b.state_changes),
    )?;
    page.counter(
        "backend_ejections",
        "Ejections by outlier detection",
        None,
        rows(|b| b.ejections),
    )
}

fn backend_labels(backend: &BackendView) -> Labels<'_> {
    vec![
        ("pool", backend.pool.as_str()),
        ("backend", backend.name.as_str()),
    ]
}
