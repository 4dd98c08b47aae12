//! Rates: what the counters of the server have grown by since the last measurement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::feed::data;
use super::kind::{EventKind, Events};
use crate::admin::view::{
    BackendRates, ListenerRates, PoolRates, RatesEvent, RefusalsEvent, RefusedEntry,
};
use crate::observe::{BackendValues, ListenerValues, Refusal, RefusalCounts};
use crate::pool::{Backend, Pool};
use crate::server::{ListenerStatus, Server};

/// Measurements after which one has every backend: a viewer that lost one is right again by then.
const WHOLE_EVERY: u64 = 10;

/// The counters of the latest measurement.
#[derive(Default)]
pub(super) struct RateMeter {
    measured: Option<Instant>,
    count: u64,
    listeners: BTreeMap<String, (ListenerValues, BTreeMap<&'static str, u64>)>,
    backends: BTreeMap<(Arc<str>, Arc<str>), (BackendValues, BackendRates)>,
}

/// Growth per second over a time.
#[derive(Clone, Copy)]
struct Growth {
    seconds: f64,
}

impl Growth {
    /// Rounds to a tenth, which is all that anybody reads.
    #[expect(clippy::cast_precision_loss, reason = "a rate is far below 2^52")]
    fn of(self, before: u64, now: u64) -> f64 {
        let growth = now.saturating_sub(before) as f64;
        (growth / self.seconds * 10.0).round() / 10.0
    }
}

impl RateMeter {
    /// Measures, and tells the rates since the last time; the first time there are none.
    pub(super) fn measure(
        &mut self,
        server: &Server,
        pools: &[Arc<Pool>],
        now: Instant,
        events: &mut Events,
    ) {
        let seconds = self
            .measured
            .replace(now)
            .map(|at| (now - at).as_secs_f64());
        let growth = Growth {
            // A measurement without time between would have endless rates.
            seconds: seconds.unwrap_or(1.0).max(0.001),
        };
        let (listeners, refusals) = self.listeners(&server.listeners(), growth);
        let rates = RatesEvent {
            seconds: (growth.seconds * 1000.0).round() / 1000.0,
            connections: server.limits().live(),
            relayed_sessions: server.relay().live(),
            listeners,
            pools: self.pools(pools, growth),
        };
        self.count += 1;
        if seconds.is_none() {
            return;
        }
        if !refusals.is_empty() {
            events.push((EventKind::Refusals, data(&RefusalsEvent { refusals })));
        }
        events.push((EventKind::Rates, data(&rates)));
    }

    fn listeners(
        &mut self,
        all: &[ListenerStatus],
        growth: Growth,
    ) -> (Vec<ListenerRates>, Vec<RefusedEntry>) {
        let mut before = std::mem::take(&mut self.listeners);
        let (mut rates, mut refusals) = (Vec::new(), Vec::new());
        for status in all {
            let (values, refused) = (status.counters.values(), counts(&status.counters.refused));
            // Of a new one, all that it has counted is growth.
            let (old, old_refused) = before.remove(&status.name).unwrap_or_default();
            let of = |now: &BTreeMap<_, u64>| now.values().sum();
            rates.push(ListenerRates {
                name: status.name.clone(),
                live: values.live,
                accepted: growth.of(old.accepted, values.accepted),
                refused: growth.of(of(&old_refused), of(&refused)),
                requests: growth.of(old.requests, values.requests),
                bytes_from_client: growth.of(old.bytes_from_client, values.bytes_from_client),
                bytes_from_backend: growth.of(old.bytes_from_backend, values.bytes_from_backend),
            });
            for (reason, total) in &refused {
                let count = total.saturating_sub(old_refused.get(reason).copied().unwrap_or(0));
                if count > 0 {
                    refusals.push(RefusedEntry {
                        listener: status.name.clone(),
                        reason: (*reason).to_owned(),
                        count,
                        total: *total,
                    });
                }
            }
            self.listeners
                .insert(status.name.clone(), (values, refused));
        }
        (rates, refusals)
    }

    fn pools(&mut self, pools: &[Arc<Pool>], growth: Growth) -> Vec<PoolRates> {
        let before = std::mem::take(&mut self.backends);
        let is_whole = self.count.is_multiple_of(WHOLE_EVERY);
        let mut rates = Vec::new();
        for pool in pools {
            let (mut live, mut differing) = (0, Vec::new());
            for backend in pool.backends().into_iter().chain(pool.retired()) {
                let key = (Arc::clone(pool.name()), Arc::clone(backend.name()));
                let known = before.get(&key);
                let old = known.map(|(values, _)| values.clone()).unwrap_or_default();
                let values = backend.counters().values();
                let now = backend_rates(&backend, &old, &values, growth);
                live += now.live;
                if is_whole || known.is_none_or(|(_, rates)| *rates != now) {
                    differing.push(now.clone());
                }
                self.backends.insert(key, (values, now));
            }
            rates.push(PoolRates {
                name: pool.name().to_string(),
                live,
                queued: pool.queued() as u64,
                backends: differing,
            });
        }
        rates
    }
}

fn backend_rates(
    backend: &Backend,
    old: &BackendValues,
    now: &BackendValues,
    growth: Growth,
) -> BackendRates {
    BackendRates {
        name: backend.name().to_string(),
        live: backend.live(),
        connections: growth.of(old.connections, now.connections),
        connect_failures: growth.of(old.connect_failures, now.connect_failures),
        requests: growth.of(old.requests, now.requests),
        bytes_from_client: growth.of(old.bytes_from_client, now.bytes_from_client),
        bytes_from_backend: growth.of(old.bytes_from_backend, now.bytes_from_backend),
    }
}

/// Refusals by reason.
fn counts(refused: &RefusalCounts) -> BTreeMap<&'static str, u64> {
    let count = |reason: &Refusal| (reason.word(), refused.of(*reason));
    Refusal::ALL.iter().map(count).collect()
}
