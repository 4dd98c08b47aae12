//! Metrics of the pools and their backends.

use std::fmt;

use super::page::{Labels, MetricsPage};
use crate::admin::view::{BackendView, DiscoveryView, PoolView};
use crate::discovery::LookupValues;
use crate::observe::{BackendValues, Metric, MetricOf};
use crate::pool::PoolValues;

/// Values of the label `state` of `evenkeel_backend_state`.
const STATES: [&str; 6] = ["up", "down", "drain", "maint", "ejected", "unresolved"];
const BACKEND_STATE: Metric =
    Metric::gauge("backend_state").help("1 for the present effective state");

const DISCOVERY_AGE: Metric = Metric::gauge("discovery_age")
    .seconds()
    .help("Age of the last good answer of discovery");
const DISCOVERY_HELD: Metric = Metric::gauge("discovery_held")
    .help("1 while an answer of discovery is held that takes too much");
const DISCOVERY_ENTRIES: Metric =
    Metric::gauge("discovery_entries").help("Discovered backends by what the source says of them");
const DISCOVERY_ERRORS: Metric =
    Metric::counter("discovery_errors").help("Requests of discovery without an answer, by reason");

const POOL_METRICS: &[MetricOf<PoolView>] = &[
    (
        Metric::gauge("pool_queued_connections").help("Waiting for a backend with room"),
        |pool| pool.queued,
    ),
    (
        Metric::gauge("pool_panic").help("1 while sessions are kept that failover was to end"),
        |pool| pool.panic.is_some() as u64,
    ),
    (
        Metric::counter("pool_failover_ended_connections")
            .help("Ended by failover, of backends that are down and of backups"),
        |pool| pool.ended_by_health,
    ),
    (
        Metric::gauge("pool_failing_names").help("Names whose latest lookup failed"),
        |pool| pool.failing_lookups.len() as u64,
    ),
];

const BACKEND_METRICS: &[MetricOf<BackendView>] = &[
    (
        Metric::gauge("backend_weight").help("Weight in effect"),
        |backend| backend.weight as u64,
    ),
    (
        Metric::gauge("backend_max_connections").help("Limit of live connections; 0: no own limit"),
        |backend| backend.max_connections,
    ),
    (
        Metric::gauge("backend_live_connections").help("Connections now"),
        |backend| backend.live,
    ),
];

pub(super) fn encode(pools: &[PoolView], page: &mut MetricsPage<'_>) -> fmt::Result {
    page.values(POOL_METRICS, &owners(pools, |pool| pool))?;
    page.values(PoolValues::METRICS, &owners(pools, |pool| &pool.counters))?;
    page.values(LookupValues::METRICS, &owners(pools, |pool| &pool.lookups))?;
    encode_discovery(pools, page)?;
    let backends: Vec<_> = pools
        .iter()
        .flat_map(|pool| &pool.backends)
        .map(|one| (labels(one), one))
        .collect();
    let states = backends.iter().flat_map(|(labels, one)| {
        STATES.map(|state| {
            let labels = labels.iter().copied().chain([("state", state)]);
            (labels.collect(), u64::from(one.state == state))
        })
    });
    page.family(BACKEND_STATE, states)?;
    page.values(BACKEND_METRICS, &backends)?;
    let counters: Vec<_> = backends
        .into_iter()
        .map(|(labels, one)| (labels, &one.counters))
        .collect();
    page.values(BackendValues::METRICS, &counters)
}

fn encode_discovery(pools: &[PoolView], page: &mut MetricsPage<'_>) -> fmt::Result {
    let sets: Vec<(Labels<'_>, &DiscoveryView)> = pools
        .iter()
        .filter_map(|pool| Some((vec![("pool", pool.name.as_str())], pool.discovery.as_ref()?)))
        .collect();
    let ages = sets
        .iter()
        .filter_map(|(labels, set)| Some((labels.clone(), set.age_seconds?)));
    page.family(DISCOVERY_AGE, ages)?;
    let held = sets
        .iter()
        .map(|(labels, set)| (labels.clone(), u64::from(set.held.is_some())));
    page.family(DISCOVERY_HELD, held)?;
    let entries = sets.iter().flat_map(|(labels, set)| {
        let states = [
            ("ready", set.ready),
            ("drain", set.drain),
            ("absent", set.absent),
        ];
        states.map(|(state, count)| ([labels.clone(), vec![("state", state)]].concat(), count))
    });
    page.family(DISCOVERY_ENTRIES, entries)?;
    let errors = sets.iter().flat_map(|(labels, set)| {
        set.errors.iter().map(|one| {
            let reason = ("reason", one.reason.as_str());
            ([labels.clone(), vec![reason]].concat(), one.count)
        })
    });
    page.family(DISCOVERY_ERRORS, errors)
}

fn owners<T>(pools: &[PoolView], of: fn(&PoolView) -> &T) -> Vec<(Labels<'_>, &T)> {
    let owners = pools
        .iter()
        .map(|pool| (vec![("pool", pool.name.as_str())], of(pool)));
    owners.collect()
}

fn labels(backend: &BackendView) -> Labels<'_> {
    vec![
        ("pool", backend.pool.as_str()),
        ("backend", backend.name.as_str()),
    ]
}
