//! Counters and live counts of the whole process at one moment. The old process sends them when it
//! hands over and each second after that; the new one adds what they have grown by to its own. So
//! no total begins anew, and limits and picks see the connections of both.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::document::Totals;
use crate::discovery::LookupValues;
use crate::observe::{ListenerTotals, add_dropped_log_lines, dropped_log_lines};
use crate::server::lock::lock;
use crate::server::state::Server;

/// Ids that the old process may still give after it has handed over: to connections that it accepts
/// until it hears of it, and to requests on connections that it keeps.
const RESERVED_IDS: u64 = 1 << 16;

impl Totals {
    /// The numbers of `server` now.
    pub(in crate::server) fn of(server: &Server) -> Totals {
        let listeners = server.listeners().into_iter();
        let pools = server.pools();
        let lookups = pools.iter().filter_map(|pool| {
            let lookups = server.lookups(pool.name())?;
            Some((pool.name().to_string(), lookups.values()))
        });
        let failover = pools.iter().filter_map(|pool| {
            let guard = server.guard(pool)?;
            Some((pool.name().to_string(), guard.ended()))
        });
        let reloads = server.reloads();
        Totals {
            latest_id: server.journal().latest_id(),
            latest_job: server.jobs().latest_id(),
            live: server.limits().live(),
            listeners: listeners
                .map(|one| (one.name, ListenerTotals::of(&one.counters)))
                .collect(),
            lookups: lookups.collect(),
            failover: failover.collect(),
            pools: pools
                .iter()
                .map(|pool| (pool.name().to_string(), pool.totals()))
                .collect(),
            reloads: (reloads.ok, reloads.failed),
            access_log_dropped: server.journal().dropped(),
            log_dropped: dropped_log_lines(),
            traces: server.journal().tracer().counters.values(),
            upgrades: server.upgrade.totals(),
            longest_freeze: server.upgrade.longest_freeze(),
            participants: server
                .participants()
                .iter()
                .map(|one| one.totals())
                .collect(),
            jobs: Vec::new(),
        }
    }

    /// The same, with the running jobs.
    pub(in crate::server) fn with_jobs(server: &Server) -> Totals {
        let jobs = server.jobs().list();
        Totals {
            jobs: jobs.iter().filter_map(|job| job.hand_over()).collect(),
            ..Totals::of(server)
        }
    }

    /// Adds to `server` what has grown since `before`.
    pub(in crate::server) fn add_growth(&self, before: &Totals, server: &Server) {
        server
            .journal()
            .skip_ids_to(self.latest_id.saturating_add(RESERVED_IDS));
        server.jobs().skip_ids_to(self.latest_job);
        server.limits().set_elsewhere(before.live, self.live);
        let none = ListenerTotals::default();
        for listener in server.listeners() {
            let totals = |of: &Totals| of.listeners.get(&listener.name).cloned();
            if let Some(now) = totals(self) {
                let before = totals(before).unwrap_or_else(|| none.clone());
                now.add_growth(&before, &listener.counters);
            }
        }
        for pool in server.pools() {
            let name = &**pool.name();
            if let Some(now) = self.pools.get(name) {
                pool.add_growth(before.pools.get(name), now);
            }
            if let (Some(lookups), Some(now)) = (server.lookups(name), self.lookups.get(name)) {
                let none = LookupValues::default();
                lookups.grow(before.lookups.get(name).unwrap_or(&none), now);
            }
            let ended = |of: &Totals| of.failover.get(name).copied().unwrap_or(0);
            let more = ended(self).saturating_sub(ended(before));
            if more > 0 {
                server.failover.begin(&pool).add_ended(more);
            }
        }
        self.add_process_growth(before, server);
    }

    fn add_process_growth(&self, before: &Totals, server: &Server) {
        let more = |read: fn(&Totals) -> u64| read(self).saturating_sub(read(before));
        {
            let mut reloads = lock(&server.reloads);
            reloads.ok += more(|totals| totals.reloads.0);
            reloads.failed += more(|totals| totals.reloads.1);
        }
        server
            .journal()
            .add_dropped(more(|totals| totals.access_log_dropped));
        add_dropped_log_lines(more(|totals| totals.log_dropped));
        let tracer = server.journal().tracer();
        tracer.counters.grow(&before.traces, &self.traces);
        server.upgrade.froze_for(self.longest_freeze);
        server.upgrade.add_growth(&before.upgrades, &self.upgrades);
        let participants = server.participants();
        for (index, now) in self.participants.iter().enumerate() {
            let before = before.participants.get(index).unwrap_or(&Value::Null);
            if let Some(one) = participants.get(index) {
                one.add_growth(before, now);
            }
        }
    }

    /// Takes a connection that has moved out of what the other process has live.
    fn forget_one(&mut self, [listener, pool, backend]: &[String; 3]) {
        self.live = self.live.saturating_sub(1);
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.forget_one();
        }
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.forget_one(backend);
        }
    }

    /// The same without what lives: its process is gone.
    pub(in crate::server) fn without_live(&self) -> Totals {
        let listeners = self.listeners.iter();
        let pools = self.pools.iter();
        Totals {
            live: 0,
            listeners: listeners
                .map(|(name, one)| (name.clone(), one.totals()))
                .collect(),
            pools: pools
                .map(|(name, one)| (name.clone(), one.without_live()))
                .collect(),
            ..self.clone()
        }
    }
}

impl Server {
    /// A session of the other process has moved here, where it counts by itself.
    pub(super) fn moved_here(&self, names: &[String; 3]) {
        let [listener, pool, backend] = names;
        let (before, now) = self
            .upgrade
            .change_totals(|totals| totals.forget_one(names));
        self.limits().set_elsewhere(before, now);
        let live = lock(&self.live);
        let mut listeners = live.listeners.iter().map(|one| one.counters());
        if let Some(counters) = listeners.find(|one| *one.name == **listener) {
            counters.live.fetch_sub(1, Ordering::Relaxed);
        }
        let pool = live
            .pools
            .get(pool)
            .map(|running| Arc::clone(&running.pool));
        drop(live);
        if let Some(pool) = pool {
            pool.moved_here(backend);
        }
    }

    fn participants(&self) -> Vec<Arc<dyn crate::server::ReloadParticipant>> {
        lock(&self.participants).clone()
    }
}
