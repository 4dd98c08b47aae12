//! Passive outlier detection of one backend: connect failures within a window eject it for a while.
//!
//! Then one connection probes it: a success ends the ejection, a failure makes the next one twice
//! as long. Whether the pool can spare the backend is the pool's decision.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config;

#[derive(Debug, Default)]
pub(super) struct OutlierDetector {
    /// The last failures since the last success; at most the configured `connect_failures`.
    failures: VecDeque<Instant>,
    phase: EjectionPhase,
    /// Ejections without a success or a long quiet time between them.
    ejections: u32,
    /// The end of the last ejection.
    returned: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum EjectionPhase {
    #[default]
    InService,
    /// Ejected until then.
    Ejected(Instant),
    /// Still ejected, and one connection may probe.
    Probing,
    /// Back in service early, as no other backend could be used, and without a success since.
    LastResort,
}

/// State of a detector for another process. Instants are times before now, or from now on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct OutlierState {
    failures: Vec<Duration>,
    ejected_for: Option<Duration>,
    is_probing: bool,
    is_last_resort: bool,
    ejections: u32,
    returned: Option<Duration>,
}

/// Failures that are read; more are of no configuration.
const MAX_FAILURES: usize = 10_000;

impl OutlierState {
    /// Whether a success has failures to clear.
    pub(super) fn has_failures(&self) -> bool {
        let ejected = self.ejected_for.is_some() || self.is_probing || self.is_last_resort;
        ejected || !self.failures.is_empty()
    }
}

impl OutlierDetector {
    pub(super) fn hand_over(&self, now: Instant) -> OutlierState {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        OutlierState {
            failures: self.failures.iter().map(age).collect(),
            ejected_for: self
                .ends_at()
                .map(|until| until.saturating_duration_since(now)),
            is_probing: self.is_probed(),
            is_last_resort: self.is_last_resort(),
            ejections: self.ejections,
            returned: self.returned.as_ref().map(age),
        }
    }

    pub(super) fn take_over(state: &OutlierState, now: Instant) -> OutlierDetector {
        let ejected = state.ejected_for.and_then(|left| now.checked_add(left));
        let phase = match ejected {
            Some(until) => EjectionPhase::Ejected(until),
            None if state.is_probing => EjectionPhase::Probing,
            None if state.is_last_resort => EjectionPhase::LastResort,
            None => EjectionPhase::InService,
        };
        let failures = state.failures.iter().take(MAX_FAILURES);
        OutlierDetector {
            failures: failures.filter_map(|age| now.checked_sub(*age)).collect(),
            phase,
            ejections: state.ejections,
            returned: state.returned.and_then(|age| now.checked_sub(age)),
        }
    }

    /// Notes a failed connect; true when it is a reason to eject. The failure of a probe is one.
    pub(super) fn failed(&mut self, now: Instant, settings: &config::Outlier) -> bool {
        let enough = settings.connect_failures as usize;
        if enough == 0 || self.is_ejected() {
            return enough > 0 && self.is_probed();
        }
        self.failures.push_back(now);
        let outside = |at: &Instant| now.saturating_duration_since(*at) > settings.window;
        while self.failures.len() > enough || self.failures.front().is_some_and(outside) {
            self.failures.pop_front();
        }
        self.failures.len() >= enough
    }

    /// Notes a successful connect: earlier failures do not count any more, and the next ejection
    /// is short again. A backend that fails one connect in a thousand is not an outlier, however
    /// many connects there are in a window.
    ///
    /// False while it is ejected: the connect began before the ejection, and proves nothing.
    pub(super) fn succeeded(&mut self) -> bool {
        let counts = !matches!(self.phase, EjectionPhase::Ejected(_));
        if counts {
            self.failures.clear();
            self.ejections = 0;
        }
        counts
    }

    /// Ejects the backend and returns for how long.
    pub(super) fn eject(&mut self, now: Instant, settings: &config::Outlier) -> Duration {
        let quiet = |at: Instant| now.saturating_duration_since(at) >= settings.max_ejection_time;
        if self.returned.is_some_and(quiet) {
            self.ejections = 0;
        }
        let factor = 1u32 << self.ejections.min(31);
        let time = settings.base_ejection_time.saturating_mul(factor);
        let time = time.min(settings.max_ejection_time);
        self.ejections = self.ejections.saturating_add(1);
        self.failures.clear();
        let until = now.checked_add(time);
        self.phase = until.map_or(EjectionPhase::InService, EjectionPhase::Ejected);
        time
    }

    /// Lets one connection probe once the ejection's time is over; true when that is since now.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let is_over = self.ends_at().is_some_and(|until| until <= now);
        if is_over {
            self.phase = EjectionPhase::Probing;
        }
        is_over
    }

    /// Ends the ejection.
    pub(super) fn readmit(&mut self, now: Instant) {
        self.phase = EjectionPhase::InService;
        self.returned = Some(now);
    }

    /// Ends the ejection early, as no other backend can be used.
    pub(super) fn readmit_early(&mut self, now: Instant) {
        self.readmit(now);
        self.phase = EjectionPhase::LastResort;
    }

    pub(super) fn is_ejected(&self) -> bool {
        let phase = self.phase;
        matches!(phase, EjectionPhase::Ejected(_) | EjectionPhase::Probing)
    }

    /// Whether it is ejected and one connection may probe it.
    pub(super) fn is_probed(&self) -> bool {
        self.phase == EjectionPhase::Probing
    }

    /// Whether it was readmitted early, and nothing shows yet that it works.
    pub(super) fn is_last_resort(&self) -> bool {
        self.phase == EjectionPhase::LastResort
    }

    /// When one connection may probe it, unless it may already.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        match self.phase {
            EjectionPhase::Ejected(until) => Some(until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> config::Outlier {
        config::Outlier {
            connect_failures: 3,
            window: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(60),
        }
    }

    fn second(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn failures_outside_the_window_do_not_count() {
        let (mut outlier, start) = (OutlierDetector::default(), Instant::now());
        assert!(!outlier.failed(start, &settings()));
        assert!(!outlier.failed(second(start, 6), &settings()));
        assert!(!outlier.failed(second(start, 11), &settings()));
        assert!(outlier.failed(second(start, 12), &settings()));
    }

    #[test]
    fn a_detector_goes_on_in_another_process() {
        let (mut outlier, start) = (OutlierDetector::default(), Instant::now());
        outlier.failed(start, &settings());
        outlier.failed(second(start, 1), &settings());
        let mut other =
            OutlierDetector::take_over(&outlier.hand_over(second(start, 2)), second(start, 2));
        assert!(other.failed(second(start, 3), &settings()), "the third one");
        other.eject(second(start, 3), &settings());
        let state = other.hand_over(second(start, 4));
        assert!(state.has_failures());
        let text = serde_json::to_string(&state).unwrap();
        let state = serde_json::from_str(&text).unwrap();
        let mut last = OutlierDetector::take_over(&state, second(start, 4));
        assert!(last.is_ejected() && !last.settle(second(start, 12)));
        assert!(last.settle(second(start, 13)) && last.is_probed());
        assert_eq!(last.eject(second(start, 13), &settings()).as_secs(), 20);
    }

    #[test]
    fn a_success_between_failures_clears_them() {
        let (mut outlier, start) = (OutlierDetector::default(), Instant::now());
        outlier.failed(start, &settings());
        outlier.failed(start, &settings());
        assert!(outlier.succeeded());
        assert!(!outlier.failed(start, &settings()));
    }

    #[test]
    fn zero_failures_means_never() {
        let never = config::Outlier {
            connect_failures: 0,
            ..settings()
        };
        let mut outlier = OutlierDetector::default();
        let now = Instant::now();
        assert!((0..100).all(|_| !outlier.failed(now, &never)));
    }

    #[test]
    fn ejections_grow_to_the_ceiling_and_shrink_after_a_quiet_time() {
        let (mut outlier, mut now) = (OutlierDetector::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..5 {
            let time = outlier.eject(now, &settings());
            times.push(time.as_secs());
            assert!(!outlier.settle(now + time - Duration::from_nanos(1)));
            assert!(!outlier.is_probed());
            now += time;
            assert!(outlier.settle(now) && outlier.is_probed());
            assert!(outlier.failed(now, &settings()), "one failed probe ejects");
        }
        assert_eq!(times, [10, 20, 40, 60, 60]);
        outlier.readmit(now);
        assert_eq!(outlier.eject(second(now, 60), &settings()).as_secs(), 10);
    }

    #[test]
    fn a_probe_that_succeeds_ends_the_doubling_and_an_older_success_does_not() {
        let (mut outlier, start) = (OutlierDetector::default(), Instant::now());
        outlier.eject(start, &settings());
        outlier.settle(second(start, 10));
        outlier.eject(second(start, 10), &settings());
        assert!(!outlier.succeeded() && outlier.is_ejected());
        outlier.settle(second(start, 30));
        assert!(outlier.succeeded());
        outlier.readmit(second(start, 30));
        assert!(!outlier.is_ejected() && !outlier.is_probed());
        assert_eq!(outlier.eject(second(start, 31), &settings()).as_secs(), 10);
    }
}
