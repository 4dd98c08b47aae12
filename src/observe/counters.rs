//! Counters of a listener and of a backend. They belong to the object they describe, survive every reload, and are
//! read by the admin endpoint. All are totals since the object came to be, but for `live`, which is a gauge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::early_lines::EarlyLines;
use super::journal::Journal;
use super::refusal::RefusalCounts;
use super::termination::{Cause, Phase, Side, Termination};

/// Of one listener, by name. Every field says who writes it.
#[derive(Debug)]
pub struct ListenerCounters {
    pub name: Arc<str>,
    /// Where the lines of its records go.
    pub journal: Arc<Journal>,
    /// Connections taken from the kernel. Written by the accept loop.
    pub accepted: AtomicU64,
    /// Connections and HTTP requests in progress. Written by [`super::Record`].
    pub live: AtomicU64,
    /// Who was turned away, by reason. Written by `proxy`, and by [`super::Record`] where the end says why.
    pub refused: RefusalCounts,
    /// Connections of sources that the table of sources had no room for. Written by `proxy`.
    pub untracked: AtomicU64,
    /// Ends in the phase [`Phase::Tls`]. Written by [`super::Record`].
    pub handshake_failures: AtomicU64,
    /// TLS handshakes that began a session. Written by [`super::Record::shaken`].
    pub full_handshakes: AtomicU64,
    /// TLS handshakes that went on with an earlier session. Written by [`super::Record::shaken`].
    pub resumed_handshakes: AtomicU64,
    /// Bytes, of live sessions up to the relay's latest sweep. Written by [`super::Record::tally`].
    pub bytes_from_client: AtomicU64,
    /// As `bytes_from_client`.
    pub bytes_from_backend: AtomicU64,
    /// HTTP requests answered, upgrades and own error answers among them. Written by [`super::Record::answered`].
    pub requests: AtomicU64,
    /// WebSocket upgrades with a verified 101. Written by [`super::Record::answered`].
    pub upgrades: AtomicU64,
    /// WebSockets whose frames broke the protocol, so that they are not followed any more. Written by [`super::Record`].
    pub lost_frames: AtomicU64,
    /// WebSockets that were ended here and could not be told by a Close frame. Written by [`super::Record`].
    pub without_close: AtomicU64,
    /// Connections by end. Written by [`super::Record`].
    pub ends: TerminationCounts,
    /// Paces the lines of those that end before they are routed.
    pub(super) early_lines: EarlyLines,
}

impl ListenerCounters {
    pub fn new(name: &str, journal: &Arc<Journal>) -> Arc<ListenerCounters> {
        Arc::new(ListenerCounters {
            name: name.into(),
            journal: Arc::clone(journal),
            accepted: AtomicU64::new(0),
            live: AtomicU64::new(0),
            refused: RefusalCounts::default(),
            untracked: AtomicU64::new(0),
            handshake_failures: AtomicU64::new(0),
            full_handshakes: AtomicU64::new(0),
            resumed_handshakes: AtomicU64::new(0),
            bytes_from_client: AtomicU64::new(0),
            bytes_from_backend: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            upgrades: AtomicU64::new(0),
            lost_frames: AtomicU64::new(0),
            without_close: AtomicU64::new(0),
            ends: TerminationCounts::default(),
            early_lines: EarlyLines::default(),
        })
    }
}

/// Of one backend, by pool and name. Every field says who writes it; the live count is the backend's own.
#[derive(Debug)]
pub struct BackendCounters {
    pub pool: Arc<str>,
    pub name: Arc<str>,
    /// Connections established. Written by `pool`.
    pub connections: AtomicU64,
    /// Connects that failed by the backend's fault. Written by `pool`.
    pub connect_failures: AtomicU64,
    /// HTTP requests that the backend was picked for and that were answered. Written by [`super::Record::answered`].
    pub requests: AtomicU64,
    /// Bytes, of live sessions up to the relay's latest sweep. Written by [`super::Record::tally`].
    pub bytes_from_client: AtomicU64,
    /// As `bytes_from_client`.
    pub bytes_from_backend: AtomicU64,
    /// Active checks passed. Written by `health`.
    pub checks_ok: AtomicU64,
    /// Active checks failed. Written by `health`.
    pub checks_failed: AtomicU64,
    /// Changes of the effective state. Written by `pool`.
    pub state_changes: AtomicU64,
    /// Ejections by outlier detection. Written by `pool`.
    pub ejections: AtomicU64,
    /// Sessions that it has taken over from another backend. Written by [`super::Record::resumed`].
    pub resumed: AtomicU64,
    /// Sessions that were to outlive it and did not. Written by [`super::Record::not_resumed`].
    pub not_resumed: AtomicU64,
}

impl BackendCounters {
    pub fn new(pool: Arc<str>, name: Arc<str>) -> Arc<BackendCounters> {
        Arc::new(BackendCounters {
            pool,
            name,
            connections: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            bytes_from_client: AtomicU64::new(0),
            bytes_from_backend: AtomicU64::new(0),
            checks_ok: AtomicU64::new(0),
            checks_failed: AtomicU64::new(0),
            state_changes: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            not_resumed: AtomicU64::new(0),
        })
    }
}

/// One count for every possible [`End`].
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

    pub fn of(&self, end: Termination) -> u64 {
        self.counts
            .get(position(end))
            .map_or(0, |count| count.load(Relaxed))
    }

    /// Those that happened at least once.
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
