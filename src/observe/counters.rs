//! Counters of a listener and of a backend. They belong to the object that they describe and
//! survive every reload. All are totals since the object was made, but for `live`, which is a
//! gauge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::early_lines::EarlyLines;
use super::journal::Journal;
use super::metric::{Metric, counters};
use super::refusal::RefusalCounts;
use super::termination::{Cause, Phase, Side, Termination};
use super::times::{ListenerTimes, PoolTimes};

counters! {
    /// Counters of one listener. The accept loop adds to `accepted`, the proxy to `refused` and
    /// `untracked`, and `ConnectionRecord` to the others.
    pub struct ListenerCounters {
        pub name: Arc<str>,
        /// Journal of its access-log lines.
        pub journal: Arc<Journal>,
        /// Refused connections and requests, by reason.
        pub refused: RefusalCounts,
        /// Connections by termination.
        pub ends: TerminationCounts,
        pub(crate) times: ListenerTimes,
        /// Limit of the lines of connections that end before they are routed.
        pub(super) early_lines: EarlyLines,
    }

    /// Values of [`ListenerCounters`] at one moment.
    pub struct ListenerValues {
        /// Connections and requests in progress
        live = Metric::gauge("listener_live_connections"),
        /// Connections accepted
        accepted = Metric::counter("listener_accepted_connections"),
        /// Connections let in without limits of their source, whose table was full
        untracked = Metric::counter("listener_untracked_connections"),
        /// TLS handshakes that failed
        handshake_failures = Metric::counter("listener_handshake_failures"),
        /// TLS handshakes that began a session
        full_handshakes = Metric::counter("listener_handshakes")
            .label("kind", "full")
            .help("TLS handshakes that succeeded: full ones, and those resumed by a ticket"),
        /// TLS handshakes that resumed a session by a ticket
        resumed_handshakes = Metric::counter("listener_handshakes").label("kind", "resumed"),
        /// HTTP requests answered
        requests = Metric::counter("listener_requests"),
        /// WebSocket upgrades
        upgrades = Metric::counter("listener_upgrades"),
        /// HTTP responses of status 1xx
        responses_1xx = Metric::counter("listener_responses").label("class", "1xx")
            .help("HTTP responses by class of their status, those of Evenkeel among them"),
        /// HTTP responses of status 2xx
        responses_2xx = Metric::counter("listener_responses").label("class", "2xx"),
        /// HTTP responses of status 3xx
        responses_3xx = Metric::counter("listener_responses").label("class", "3xx"),
        /// HTTP responses of status 4xx
        responses_4xx = Metric::counter("listener_responses").label("class", "4xx"),
        /// HTTP responses of status 5xx
        responses_5xx = Metric::counter("listener_responses").label("class", "5xx"),
        /// WebSockets whose frames broke the protocol and are not followed any more
        lost_frames = Metric::counter("listener_lost_frames"),
        /// WebSockets ended here without a Close frame, as none of their frames ended in time
        without_close = Metric::counter("listener_without_close"),
        /// From clients
        bytes_from_client = Metric::counter("listener_from_client").bytes(),
        /// From backends
        bytes_from_backend = Metric::counter("listener_from_backend").bytes(),
    }
}

impl ListenerCounters {
    pub fn new(name: &str, journal: &Arc<Journal>) -> Arc<ListenerCounters> {
        Arc::new(ListenerCounters::zero(
            name.into(),
            Arc::clone(journal),
            RefusalCounts::default(),
            TerminationCounts::default(),
            ListenerTimes::default(),
            EarlyLines::default(),
        ))
    }

    /// Counts a response by the class of its status.
    pub(super) fn responded(&self, status: u16) {
        let classes = [
            &self.responses_1xx,
            &self.responses_2xx,
            &self.responses_3xx,
            &self.responses_4xx,
            &self.responses_5xx,
        ];
        count_class(status, classes);
    }
}

counters! {
    /// Counters of one backend, by pool and name; the live count is the backend's own. The pool
    /// adds to connections, failures, state changes and ejections, health to the checks, and
    /// `ConnectionRecord` to the others.
    pub(crate) struct BackendCounters {
        pub pool: Arc<str>,
        pub name: Arc<str>,
        /// Those of the pool.
        pub times: Arc<PoolTimes>,
    }

    /// Values of [`BackendCounters`] at one moment.
    pub(crate) struct BackendValues {
        /// Connections established
        connections = Metric::counter("backend_connections"),
        /// Connects that failed
        connect_failures = Metric::counter("backend_connect_failures"),
        /// HTTP requests answered
        requests = Metric::counter("backend_requests"),
        /// HTTP responses of status 1xx
        responses_1xx = Metric::counter("backend_responses").label("class", "1xx")
            .help("HTTP responses of the backend by class of their status"),
        /// HTTP responses of status 2xx
        responses_2xx = Metric::counter("backend_responses").label("class", "2xx"),
        /// HTTP responses of status 3xx
        responses_3xx = Metric::counter("backend_responses").label("class", "3xx"),
        /// HTTP responses of status 4xx
        responses_4xx = Metric::counter("backend_responses").label("class", "4xx"),
        /// HTTP responses of status 5xx
        responses_5xx = Metric::counter("backend_responses").label("class", "5xx"),
        /// HTTP requests that went on a connection that had served before
        reused = Metric::counter("backend_reused_connections"),
        /// From clients
        bytes_from_client = Metric::counter("backend_from_client").bytes(),
        /// From the backend
        bytes_from_backend = Metric::counter("backend_from_backend").bytes(),
        /// Active checks passed
        checks_ok = Metric::counter("backend_checks")
            .label("result", "ok")
            .help("Active checks by result"),
        /// Active checks failed
        checks_failed = Metric::counter("backend_checks").label("result", "failed"),
        /// Changes of the effective state
        state_changes = Metric::counter("backend_state_changes"),
        /// Ejections by outlier detection
        ejections = Metric::counter("backend_ejections"),
        /// Sessions taken over from another backend
        resumed = Metric::counter("backend_resumes")
            .label("result", "resumed")
            .help("Sessions taken over from another backend, and sessions that were to outlive this one and ended with it"),
        /// Sessions that could not move to another backend and ended with this one
        not_resumed = Metric::counter("backend_resumes").label("result", "ended"),
    }
}

impl BackendCounters {
    pub(crate) fn new(
        pool: Arc<str>,
        name: Arc<str>,
        times: Arc<PoolTimes>,
    ) -> Arc<BackendCounters> {
        Arc::new(BackendCounters::zero(pool, name, times))
    }

    /// Counts a response by the class of its status.
    pub(super) fn responded(&self, status: u16) {
        let classes = [
            &self.responses_1xx,
            &self.responses_2xx,
            &self.responses_3xx,
            &self.responses_4xx,
            &self.responses_5xx,
        ];
        count_class(status, classes);
    }
}

/// Counts one status in its class. The readers let no other status pass than 100 to 999, of which
/// clients take those above 599 for errors.
fn count_class(status: u16, classes: [&AtomicU64; 5]) {
    let class = usize::from(status / 100).clamp(1, classes.len());
    if let Some(count) = classes.get(class - 1) {
        count.fetch_add(1, Relaxed);
    }
}

/// Count of every possible [`Termination`].
#[derive(Debug)]
pub struct TerminationCounts {
    counts: Box<[AtomicU64]>,
}

impl Default for TerminationCounts {
    fn default() -> TerminationCounts {
        let size = Side::ALL.len() * Phase::ALL.len() * Cause::ALL.len();
        TerminationCounts {
            counts: (0..size).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl TerminationCounts {
    pub fn count(&self, end: Termination) {
        if let Some(count) = self.counts.get(position(end)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts terminations of another process.
    pub(super) fn add(&self, end: Termination, more: u64) {
        if let Some(count) = self.counts.get(position(end)) {
            count.fetch_add(more, Relaxed);
        }
    }

    pub fn of(&self, end: Termination) -> u64 {
        self.counts
            .get(position(end))
            .map_or(0, |count| count.load(Relaxed))
    }

    /// Terminations that happened at least once.
    pub fn seen(&self) -> Vec<(Termination, u64)> {
        let ends = Side::ALL.iter().flat_map(|&side| {
            Phase::ALL.iter().flat_map(move |&phase| {
                Cause::ALL
                    .iter()
                    .map(move |&how| Termination { side, phase, how })
            })
        });
        ends.map(|end| (end, self.of(end)))
            .filter(|&(_, count)| count > 0)
            .collect()
    }
}

fn position(end: Termination) -> usize {
    (end.side as usize * Phase::ALL.len() + end.phase as usize) * Cause::ALL.len()
        + end.how as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_count_of_its_own() {
        let counts = TerminationCounts::default();
        let mut all = 0;
        for &side in Side::ALL {
            for &phase in Phase::ALL {
                for &how in Cause::ALL {
                    counts.count(Termination { side, phase, how });
                    all += 1;
                }
            }
        }
        let seen = counts.seen();
        assert_eq!(seen.len(), all);
        assert!(seen.iter().all(|&(_, count)| count == 1));
    }

    #[test]
    fn ends_that_never_happened_are_not_listed() {
        let counts = TerminationCounts::default();
        let end = Termination::new(Side::Client, Phase::Relay, Cause::Fin);
        counts.count(end);
        counts.count(end);
        assert_eq!(counts.seen(), vec![(end, 2)]);
    }
}
