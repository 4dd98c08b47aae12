//! Metrics of the pools and their backends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::page::{Labels, MetricsPage};
use super::scrape::Scrape;
use crate::admin::view::{DiscoveryView, PoolView};
use crate::discovery::LookupValues;
use crate::observe::{BackendValues, Metric, MetricOf, PoolTimes};
use crate::pool::{Backend, PoolValues};

/// Values of the label `state`.
const STATES: [&str; 6] = ["up", "down", "drain", "maint", "ejected", "unresolved"];
/// State of a backend that a reload or discovery has removed and that has connections left,
/// whatever its effective state is: it takes no client.
const REMOVED: &str = "removed";
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

const POOL_BACKENDS: Metric =
    Metric::gauge("pool_backends").help("Backends by effective state, and those that are removed");
const POOL_LIVE: Metric =
    Metric::gauge("pool_live_connections").help("Connections of all backends now");

const BACKEND_METRICS: &[MetricOf<Backend>] = &[
    (
        Metric::gauge("backend_weight").help("Weight in effect"),
        |backend| backend.weight() as u64,
    ),
    (
        Metric::gauge("backend_max_connections").help("Limit of live connections; 0: no own limit"),
        |backend| backend.max_connections(),
    ),
    (
        Metric::gauge("backend_live_connections").help("Connections now"),
        |backend| backend.live(),
    ),
];

/// Sums over the backends of a pool.
#[derive(Default)]
struct PoolSums {
    live: u64,
    /// False: a reload has removed the pool, which has connections left.
    is_present: bool,
    /// Backends, by the place of their state in `STATES`.
    states: [u64; STATES.len()],
    removed: u64,
}

impl PoolSums {
    fn add(&mut self, backend: &Backend) {
        self.live += backend.live();
        if backend.is_retired() {
            self.removed += 1;
            return;
        }
        let pairs = self.states.iter_mut().zip(states(backend));
        pairs.for_each(|(count, (_, is_in))| *count += is_in);
    }

    fn states(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STATES
            .into_iter()
            .zip(self.states)
            .chain([(REMOVED, self.removed)])
    }
}

pub(super) fn encode(scrape: &Scrape, page: &mut MetricsPage<'_>) -> fmt::Result {
    let pools = &scrape.status.pools;
    page.values(POOL_METRICS, &owners(pools, |pool| pool))?;
    page.values(PoolValues::METRICS, &owners(pools, |pool| &pool.counters))?;
    page.values(LookupValues::METRICS, &owners(pools, |pool| &pool.lookups))?;
    let times = scrape.pools.iter();
    let times: Vec<_> = times
        .map(|pool| (vec![("pool", &**pool.name())], &**pool.times()))
        .collect();
    page.histograms(PoolTimes::METRICS, &times)?;
    encode_discovery(pools, page)?;
    encode_sums(scrape, page)?;
    if scrape.per_backend {
        encode_backends(&scrape.backends, page)?;
    }
    Ok(())
}

fn encode_sums(scrape: &Scrape, page: &mut MetricsPage<'_>) -> fmt::Result {
    let mut sums: BTreeMap<&str, PoolSums> = BTreeMap::new();
    // A pool without any backend has a row, too.
    for pool in &scrape.status.pools {
        sums.entry(&pool.name).or_default().is_present |= !pool.removed;
    }
    for backend in &scrape.backends {
        sums.entry(backend.pool()).or_default().add(backend);
    }
    let present = sums.iter().filter(|(_, sum)| sum.is_present);
    let states = present.flat_map(|(pool, sum)| {
        let states = sum.states();
        states.map(|(state, count)| (vec![("pool", *pool), ("state", state)], count))
    });
    page.family(POOL_BACKENDS, states)?;
    let live = sums
        .iter()
        .map(|(pool, sum)| (vec![("pool", *pool)], sum.live));
    page.family(POOL_LIVE, live)
}

fn encode_backends(backends: &[Arc<Backend>], page: &mut MetricsPage<'_>) -> fmt::Result {
    let states = backends.iter().flat_map(|one| {
        let row = |(state, is_in)| ([labels(one), vec![("state", state)]].concat(), is_in);
        states(one).map(row)
    });
    page.family(BACKEND_STATE, states)?;
    for (metric, read) in BACKEND_METRICS {
        let rows = backends.iter().map(|one| (labels(one), read(one)));
        page.family(*metric, rows)?;
    }
    for family in BackendValues::METRICS.chunk_by(|(one, _), (next, _)| one.name == next.name) {
        let rows = backends.iter().flat_map(|one| {
            let values = one.counters().values();
            family.iter().map(move |(metric, read)| {
                let labels = labels(one).into_iter().chain(metric.label);
                (labels.collect(), read(&values))
            })
        });
        if let Some((metric, _)) = family.first() {
            page.family(*metric, rows)?;
        }
    }
    Ok(())
}

/// 1 for the effective state of a backend, 0 for the others.
fn states(backend: &Backend) -> [(&'static str, u64); STATES.len()] {
    let present = backend.state(Instant::now()).as_str();
    STATES.map(|state| (state, u64::from(state == present)))
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

fn labels(backend: &Backend) -> Labels<'_> {
    vec![("pool", &**backend.pool()), ("backend", &**backend.name())]
}
