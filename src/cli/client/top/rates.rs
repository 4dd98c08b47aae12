//! Rates of counters between two looks.

use std::collections::HashMap;
use std::time::Duration;

use crate::admin::view::{BackendView, ListenerView, PoolView, StatusView};

/// Counters of one object. Bytes and connections come first, then what went wrong.
type Totals = [u64; 5];

/// Growth in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub connections: f64,
    pub bytes_from_client: f64,
    pub bytes_from_backend: f64,
    /// Refused connections of a listener or a pool, failed connects of a backend.
    pub failures: f64,
    /// Requests of a listener or a backend, retries of a pool.
    pub requests: f64,
}

/// The object of counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    Listener(String),
    Pool(String),
    Backend(String, String),
}

/// The latest look and what has changed since the one before it.
#[derive(Debug, Default)]
pub(super) struct RateTable {
    latest: HashMap<Counted, Totals>,
    at: Option<Duration>,
    rates: HashMap<Counted, Rates>,
}

impl RateTable {
    /// Takes another look, at a time since whenever.
    pub(super) fn update(&mut self, status: &StatusView, at: Duration) {
        let now = totals(status);
        let passed = self
            .at
            .map(|before| at.saturating_sub(before).as_secs_f64());
        self.rates.clear();
        if let Some(passed) = passed.filter(|passed| *passed > 0.0) {
            for (counted, totals) in &now {
                if let Some(before) = self.latest.get(counted) {
                    self.rates
                        .insert(counted.clone(), rates(before, totals, passed));
                }
            }
        }
        self.latest = now;
        self.at = Some(at);
    }

    /// The rates of an object; zero where there was one look only.
    pub(super) fn of(&self, counted: &Counted) -> Rates {
        self.rates.get(counted).copied().unwrap_or_default()
    }

    /// The sum over all listeners.
    pub(super) fn of_listeners(&self) -> Rates {
        let listeners = self.rates.iter();
        let listeners = listeners.filter(|(one, _)| matches!(one, Counted::Listener(_)));
        listeners.fold(Rates::default(), |sum, (_, one)| Rates {
            connections: sum.connections + one.connections,
            bytes_from_client: sum.bytes_from_client + one.bytes_from_client,
            bytes_from_backend: sum.bytes_from_backend + one.bytes_from_backend,
            failures: sum.failures + one.failures,
            requests: sum.requests + one.requests,
        })
    }
}

/// A counter that has fallen is another one: its process or its object is new.
fn rates(before: &Totals, now: &Totals, seconds: f64) -> Rates {
    let rate = |index: usize| {
        let of = |totals: &Totals| totals.get(index).copied().unwrap_or_default();
        of(now).saturating_sub(of(before)) as f64 / seconds
    };
    Rates {
        connections: rate(0),
        bytes_from_client: rate(1),
        bytes_from_backend: rate(2),
        failures: rate(3),
        requests: rate(4),
    }
}

fn totals(status: &StatusView) -> HashMap<Counted, Totals> {
    let listeners = status.listeners.iter().map(listener);
    let pools = status.pools.iter().map(pool);
    let backends = status.pools.iter().flat_map(|pool| &pool.backends);
    listeners
        .chain(pools)
        .chain(backends.map(backend))
        .collect()
}

fn listener(listener: &ListenerView) -> (Counted, Totals) {
    let counters = &listener.counters;
    let totals = [
        counters.accepted,
        counters.bytes_from_client,
        counters.bytes_from_backend,
        listener.refused,
        counters.requests,
    ];
    (Counted::Listener(listener.name.clone()), totals)
}

fn pool(pool: &PoolView) -> (Counted, Totals) {
    let sum = |of: fn(&BackendView) -> u64| pool.backends.iter().map(of).sum();
    let totals = [
        sum(|one| one.counters.connections),
        sum(|one| one.counters.bytes_from_client),
        sum(|one| one.counters.bytes_from_backend),
        refused(pool),
        pool.counters.retries,
    ];
    (Counted::Pool(pool.name.clone()), totals)
}

/// Clients that got no backend.
pub(super) fn refused(pool: &PoolView) -> u64 {
    let counters = &pool.counters;
    counters.refused_no_backend
        + counters.refused_full
        + counters.refused_queue_full
        + counters.queue_timeouts
}

fn backend(backend: &BackendView) -> (Counted, Totals) {
    let counters = &backend.counters;
    let totals = [
        counters.connections,
        counters.bytes_from_client,
        counters.bytes_from_backend,
        counters.connect_failures,
        counters.requests,
    ];
    (
        Counted::Backend(backend.pool.clone(), backend.name.clone()),
        totals,
    )
}

/// Writes a number in at most five characters.
pub(super) fn short(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut number, mut unit) = (number, 0);
    // What would be rounded to a thousand has the next unit.
    while number >= 999.5 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    if number >= 9.95 || number == 0.0 || unit.is_empty() && number.fract() == 0.0 {
        format!("{number:.0}{unit}")
    } else {
        format!("{number:.1}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::top::sample;

    #[test]
    fn a_rate_is_the_growth_in_a_second() {
        let mut table = RateTable::default();
        let mut status = sample::status();
        table.update(&status, Duration::from_secs(1));
        let n1 = Counted::Backend("chat".to_owned(), "n1".to_owned());
        assert_eq!(table.of(&n1), Rates::default());
        status.pools[0].backends[0].counters.connections += 30;
        status.listeners[0].counters.bytes_from_client += 4_000;
        table.update(&status, Duration::from_secs(3));
        assert_eq!(table.of(&n1).connections, 15.0);
        assert_eq!(
            table.of(&Counted::Pool("chat".to_owned())).connections,
            15.0
        );
        assert_eq!(table.of_listeners().bytes_from_client, 2_000.0);
    }

    #[test]
    fn a_counter_that_begins_anew_has_no_rate() {
        let mut table = RateTable::default();
        let mut status = sample::status();
        table.update(&status, Duration::from_secs(1));
        status.listeners[0].counters.accepted = 0;
        table.update(&status, Duration::from_secs(2));
        assert_eq!(table.of_listeners().connections, 0.0);
    }

    #[test]
    fn numbers_are_short() {
        let all = [
            0.0, 0.5, 7.0, 12.4, 950.0, 999.6, 1_234.0, 12_345.0, 999_999.0, 2.5e9,
        ];
        let expected = [
            "0", "0.5", "7", "12", "950", "1.0k", "1.2k", "12k", "1.0M", "2.5G",
        ];
        assert_eq!(all.map(short), expected.map(str::to_owned));
    }
}
