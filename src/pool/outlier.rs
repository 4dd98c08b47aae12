//! Passive outlier detection of one backend: connect failures within a window put it out for a while. Then one
//! connection probes it: a success ends the ejection, a failure makes the next one twice as long. Whether the pool can
//! spare it is the pool's decision.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config;

#[derive(Debug, Default)]
pub(super) struct OutlierDetector {
    /// The last failures since the last success; at most the configured `connect_failures`.
    failures: VecDeque<Instant>,
    /// Ejected until then, and as long after it as no probe has succeeded.
    until: Option<Instant>,
    /// That time is over: one connection may probe it.
    probed: bool,
    /// Let in early, for want of others, and without a success since.
    last_resort: bool,
    /// Ejections without a success or a long quiet time between them.
    ejections: u32,
    /// When the last one was over.
    returned: Option<Instant>,
}

impl OutlierDetector {
    /// Notes a failed connect; true when there are enough of them to eject: the failure of a probe is.
    pub(super) fn failed(&mut self, now: Instant, settings: &config::Outlier) -> bool {
        let enough = settings.connect_failures as usize;
        if enough == 0 || self.until.is_some() {
            return enough > 0 && self.probed;
        }
        self.failures.push_back(now);
        let outside = |at: &Instant| now.saturating_duration_since(*at) > settings.window;
        while self.failures.len() > enough || self.failures.front().is_some_and(outside) {
            self.failures.pop_front();
        }
        self.failures.len() >= enough
    }

    /// A connect succeeded: what failed before it does not count any more, and the next ejection is short again. A
    /// backend that fails one connect in a thousand is not an outlier, however many connects there are in a window.
    ///
    /// False while it is out: the connect began before that, and says nothing.
    pub(super) fn succeeded(&mut self) -> bool {
        let counts = self.until.is_none() || self.probed;
        if counts {
            self.failures.clear();
            self.ejections = 0;
        }
        counts
    }

    /// Puts it out; for how long.
    pub(super) fn eject(&mut self, now: Instant, settings: &config::Outlier) -> Duration {
        let quiet = self
            .returned
            .map(|at| now.saturating_duration_since(at) >= settings.max_ejection_time);
        if quiet == Some(true) {
            self.ejections = 0;
        }
        let factor = 1u32 << self.ejections.min(31);
        let time = settings.base_ejection_time.saturating_mul(factor);
        let time = time.min(settings.max_ejection_time);
        self.ejections = self.ejections.saturating_add(1);
        self.failures.clear();
        self.until = now.checked_add(time);
        self.probed = false;
        self.last_resort = false;
        time
    }

    /// Lets one connection probe it when its time is over; whether it is over since now.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let over = self.ends_at().is_some_and(|until| until <= now);
        self.probed |= over;
        over
    }

    /// Lets it back in at once.
    pub(super) fn readmit(&mut self, now: Instant) {
        self.until = None;
        self.probed = false;
        self.last_resort = false;
        self.returned = Some(now);
    }

    /// The same for want of others.
    pub(super) fn readmit_early(&mut self, now: Instant) {
        self.readmit(now);
        self.last_resort = true;
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.until.is_some()
    }

    /// Ejected, and one connection may probe it.
    pub(super) fn is_probed(&self) -> bool {
        self.probed
    }

    /// Let in early, and nothing shows yet that it was right.
    pub(super) fn is_last_resort(&self) -> bool {
        self.last_resort
    }

    /// When one connection may probe it, unless it may already.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.until.filter(|_| !self.probed)
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
