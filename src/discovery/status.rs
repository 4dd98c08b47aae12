//! State of a pool's lookups: counters for the metrics, failures for the admin endpoint and the
//! log, and the report on its discovered set.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::fault::FaultKind;
use super::membership::MemberCounts;
use crate::observe::{Metric, counters};

counters! {
    /// Status of the lookups of one pool; outlives reloads of it.
    pub(crate) struct LookupStatus {
        /// Reasons of names whose latest lookup failed.
        failing: Mutex<BTreeMap<String, String>>,
        /// Report on the discovered set; `None` without `discover`.
        report: Mutex<Option<SetReport>>,
        /// Notified when the operator accepts the answer that is held.
        acceptance: Notify,
    }

    /// Counters of [`LookupStatus`] at one moment. One SRV round may take many queries.
    pub(crate) struct LookupValues {
        /// Rounds that gave an answer
        lookups_ok = Metric::counter("pool_lookups")
            .label("result", "ok")
            .help("Lookups by result"),
        /// Rounds that gave an error or no record: the last good set was kept
        lookups_failed = Metric::counter("pool_lookups").label("result", "failed"),
    }
}

/// Report on the discovered set of a pool.
#[derive(Debug, Clone, Default)]
pub(crate) struct SetReport {
    /// Name of the source, such as `consul web`.
    pub source: String,
    /// Time of the last good answer.
    pub last_good: Option<Instant>,
    /// The source's own mark of the last good answer; empty where it has none.
    pub revision: String,
    /// Bad entries of the last good answer.
    pub skipped: u64,
    pub first_skipped: Option<String>,
    /// Sizes of the last good set and of an answer that is held.
    pub held: Option<(usize, usize)>,
    /// The set gets no new connections: `max_stale` is over.
    pub is_stale: bool,
    pub counts: MemberCounts,
    /// Faults by kind, in the order of [`FaultKind::ALL`].
    pub faults: [u64; FaultKind::ALL.len()],
}

impl Default for LookupStatus {
    fn default() -> LookupStatus {
        LookupStatus::zero(Mutex::default(), Mutex::default(), Notify::new())
    }
}

impl LookupStatus {
    /// Report on the discovered set; `None` without `discover`.
    pub(crate) fn report(&self) -> Option<SetReport> {
        self.reported().clone()
    }

    /// Has the answer that is held taken. `None`: there is none.
    pub(crate) fn accept(&self) -> Option<(usize, usize)> {
        let held = self.reported().as_ref().and_then(|report| report.held);
        if held.is_some() {
            self.acceptance.notify_one();
        }
        held
    }

    /// Returns when the operator accepts the answer that is held.
    ///
    /// # Cancel safety
    /// A notice stays until it is taken.
    pub(super) async fn accepted(&self) {
        self.acceptance.notified().await;
    }

    pub(super) fn set_report(&self, report: Option<SetReport>) {
        *self.reported() = report;
    }

    fn reported(&self) -> MutexGuard<'_, Option<SetReport>> {
        // Swapped as a whole.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names whose last lookup failed, and why. Earlier addresses stay in use.
    pub(crate) fn failing(&self) -> Vec<(String, String)> {
        let failing = self.failures();
        let pairs = failing
            .iter()
            .map(|(name, why)| (name.clone(), why.clone()));
        pairs.collect()
    }

    /// True when the lookup before this one had failed.
    pub(super) fn succeeded(&self, name: &str) -> bool {
        self.lookups_ok.fetch_add(1, Ordering::Relaxed);
        self.failures().remove(name).is_some()
    }

    /// True when the lookup before this one had not failed.
    pub(super) fn failed(&self, name: &str, why: &str) -> bool {
        self.lookups_failed.fetch_add(1, Ordering::Relaxed);
        self.failures()
            .insert(name.to_owned(), why.to_owned())
            .is_none()
    }

    /// The name is not looked up any more.
    pub(super) fn forget(&self, name: &str) {
        self.failures().remove(name);
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // Each change is one call on the map: a panic cannot leave it half done.
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_change_to_failing_and_back_is_told() {
        let status = LookupStatus::default();
        assert!(!status.succeeded("a"));
        assert!(status.failed("a", "no records"));
        assert!(!status.failed("a", "timed out"));
        assert_eq!(status.failing(), [("a".to_owned(), "timed out".to_owned())]);
        assert!(status.succeeded("a"));
        assert_eq!(status.failing(), []);
        assert_eq!(status.lookups_failed.load(Ordering::Relaxed), 2);
        assert_eq!(status.lookups_ok.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_name_that_is_no_longer_asked_for_is_not_failing() {
        let status = LookupStatus::default();
        status.failed("a", "no records");
        status.forget("a");
        assert_eq!(status.failing(), []);
    }
}
