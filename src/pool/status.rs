//! Everything that decides whether a backend takes connections: its settings, its address, its four
//! writers kept apart (operator, discovery, active check, outlier detection), and the effective
//! state that follows. Pure: `now` is an argument.

mod handover;

use std::time::{Duration, Instant, SystemTime};

use super::discovered::DiscoveryState;
use super::outlier::OutlierDetector;
use super::states::{BackendState, OperatorState};
use super::transitions::TransitionLogLimit;
use crate::base::units::format_duration;
use crate::config::{self, Address, InitState};
use crate::net::Endpoint;

/// The state of one backend, under its lock. Each writer sets fields of its own; `settle` combines
/// them.
#[derive(Debug)]
pub(super) struct BackendStatus {
    settings: config::Backend,
    pub(super) operator: OperatorSettings,
    pub(super) discovery: DiscoveryState,
    check: CheckState,
    pub(super) outlier: OutlierDetector,
    /// Why it was ejected, or why the ejection ended.
    ejection: String,
    /// The latest failed connect, and when.
    pub(super) last_error: Option<(SystemTime, String)>,
    endpoint: Option<Endpoint>,
    /// Why the last lookup of its name gave nothing.
    lookup_error: Option<String>,
    pub(super) retired: bool,
    /// New connections go to other backends where possible: its own are being moved away.
    pub(super) avoided: bool,
    published: PublishedStatus,
    pub(super) log_limit: TransitionLogLimit,
    slow_start: SlowStart,
}

/// The operator's word on a backend; kept while DNS leaves the backend out.
#[derive(Debug, Clone, Copy)]
pub(super) struct OperatorSettings {
    pub(super) state: OperatorState,
    /// `None` = the configured weight.
    pub(super) weight: Option<u16>,
    /// The operator ends its connections, or has ended them.
    pub(super) emptying: bool,
}

#[derive(Debug)]
struct SlowStart {
    /// The weight grows from then on.
    from: Option<Instant>,
    /// Whether the next change to `Up` begins a ramp: not the first one at the start of the
    /// process, when every backend is as new as the others.
    is_armed: bool,
}

#[derive(Debug)]
struct CheckState {
    up: bool,
    /// A check has decided `up` for this address, since the last maintenance.
    checked: bool,
    /// A check has succeeded since then.
    proven: bool,
    /// Counts first checks: the result of a check that began in an earlier epoch is ignored.
    epoch: u64,
    reason: String,
}

impl CheckState {
    /// Makes the next result count as the first one.
    fn restart(&mut self) {
        self.checked = false;
        self.proven = false;
        self.epoch += 1;
    }
}

#[derive(Debug)]
struct PublishedStatus {
    state: BackendState,
    /// No check has been made yet, and one will be.
    unchecked: bool,
    /// The latest change was the first check's.
    was_unchecked: bool,
    reason: String,
    since: SystemTime,
}

impl BackendStatus {
    /// `has_check`: the pool has an active check. `slow_start`: it applies from the beginning.
    pub(super) fn new(
        settings: config::Backend,
        has_check: bool,
        slow_start: bool,
        now: Instant,
    ) -> Self {
        let up = !has_check || settings.init_state == InitState::Up;
        let mut status = BackendStatus {
            endpoint: direct(&settings.address),
            settings,
            operator: OperatorSettings {
                state: OperatorState::Ready,
                weight: None,
                emptying: false,
            },
            discovery: DiscoveryState::Ready,
            check: CheckState {
                up,
                checked: false,
                proven: false,
                epoch: 0,
                reason: "not checked yet".to_owned(),
            },
            outlier: OutlierDetector::default(),
            ejection: String::new(),
            last_error: None,
            lookup_error: None,
            retired: false,
            avoided: false,
            published: PublishedStatus {
                state: BackendState::Up,
                unchecked: has_check,
                was_unchecked: false,
                reason: "in service since it was configured".to_owned(),
                since: SystemTime::now(),
            },
            log_limit: TransitionLogLimit::default(),
            slow_start: SlowStart {
                from: slow_start.then_some(now),
                is_armed: slow_start,
            },
        };
        let (state, reason) = status.effective();
        status.published.state = state;
        if let Some(reason) = reason {
            status.published.reason = reason;
        }
        status.slow_start.is_armed |= state == BackendState::Up;
        status
    }

    /// Applies settings of a reload or of discovery. Another address begins without failures.
    pub(super) fn configure(&mut self, settings: config::Backend, has_check: bool) {
        if settings.address != self.settings.address {
            self.endpoint = direct(&settings.address)
                .or_else(|| moved(&self.settings.address, &settings.address, &self.endpoint));
            self.outlier = OutlierDetector::default();
            self.check.restart();
        }
        if !has_check {
            self.check.up = true;
            self.check.restart();
        }
        self.settings = settings;
        self.retired = false;
    }

    /// Sets all that an operator can set.
    pub(super) fn set_operator_settings(
        &mut self,
        state: OperatorState,
        weight: Option<u16>,
        emptying: bool,
    ) {
        self.operator = OperatorSettings {
            state,
            weight,
            emptying,
        };
    }

    pub(super) fn settings(&self) -> &config::Backend {
        &self.settings
    }

    pub(super) fn weight(&self) -> u16 {
        self.operator.weight.unwrap_or(self.settings.weight)
    }

    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// Takes a lookup's answer; true if the address changed.
    pub(super) fn resolved(&mut self, answer: Result<Endpoint, String>) -> bool {
        if !matches!(self.settings.address, Address::Name(..)) {
            return false;
        }
        match answer {
            Ok(endpoint) => {
                self.lookup_error = None;
                let changed = self.endpoint.as_ref() != Some(&endpoint);
                self.endpoint = Some(endpoint);
                if changed {
                    self.check.restart();
                }
                changed
            }
            Err(why) => {
                self.lookup_error = Some(why);
                false
            }
        }
    }

    pub(super) fn check_up(&self) -> bool {
        self.check.up
    }

    /// Why the check's verdict is what it is.
    pub(super) fn check_reason(&self) -> &str {
        &self.check.reason
    }

    /// Whether a check has decided. False before the first one and after maintenance: the next one
    /// decides alone then.
    pub(super) fn is_checked(&self) -> bool {
        self.check.checked
    }

    /// Whether a check has succeeded since the first one.
    pub(super) fn is_proven(&self) -> bool {
        self.check.proven
    }

    pub(super) fn check_epoch(&self) -> u64 {
        self.check.epoch
    }

    /// Sets the operator's state; true if that ends a maintenance, during which no check is made.
    pub(super) fn set_operator(&mut self, state: OperatorState) -> bool {
        let was_maint = self.operator.state == OperatorState::Maint;
        let left = was_maint && state != OperatorState::Maint;
        self.operator.state = state;
        if left {
            self.check.restart();
        }
        left
    }

    pub(super) fn set_check(&mut self, up: bool, reason: &str) {
        self.check.up = up;
        self.check.checked = true;
        self.check.proven |= up;
        self.check.reason = reason.to_owned();
    }

    /// Notes why a check could not be made: until one has been, that is the reason shown.
    pub(super) fn check_hindered(&mut self, why: &str) {
        if self.check.checked {
            return;
        }
        self.check.reason = format!("not checked: {why}");
        if self.published.state == BackendState::Down {
            self.published.reason.clone_from(&self.check.reason);
        }
    }

    /// Takes a result that repeats the last verdict, whose reason may be newer; false if it
    /// differs.
    pub(super) fn repeat_check(&mut self, up: bool, reason: &str) -> bool {
        if self.check.up != up {
            return false;
        }
        self.set_check(up, reason);
        if self.published.state == BackendState::Down {
            self.published.reason = reason.to_owned();
        }
        true
    }

    pub(super) fn eject(&mut self, now: Instant, settings: &config::Outlier, why: &str) {
        let (failures, window) = (settings.connect_failures, settings.window);
        let cause = if self.outlier.is_probed() {
            "its probe failed".to_owned()
        } else {
            format!("{failures} connect failures in {}", format_duration(window))
        };
        let time = self.outlier.eject(now, settings);
        let time = format_duration(time);
        self.ejection = format!("{cause}, out for {time}: {why}");
    }

    /// Ends the ejection: a connect has succeeded.
    pub(super) fn readmit(&mut self, now: Instant) {
        self.outlier.readmit(now);
        self.ejection = "its probe succeeded".to_owned();
    }

    /// Ends the ejection early: the pool has no other backend.
    pub(super) fn readmit_early(&mut self, now: Instant) {
        self.outlier.readmit_early(now);
        self.ejection = "taken back early, no other backend can be used".to_owned();
    }

    pub(super) fn state(&self) -> BackendState {
        self.published.state
    }

    pub(super) fn reason(&self) -> &str {
        &self.published.reason
    }

    pub(super) fn since(&self) -> SystemTime {
        self.published.since
    }

    /// Whether it takes connections, as far as its own state goes.
    pub(super) fn is_usable(&self) -> bool {
        self.published.state == BackendState::Up && self.weight() > 0 && !self.retired
    }

    /// Whether one connection may probe it: the time of its ejection is over.
    pub(super) fn is_probed(&self) -> bool {
        let probed = self.published.state == BackendState::Ejected && self.outlier.is_probed();
        probed && self.weight() > 0 && !self.retired
    }

    /// Whether it may be tried when no other backend is left: only its check failed.
    pub(super) fn is_last_resort(&self) -> bool {
        self.published.state == BackendState::Down && self.weight() > 0 && !self.retired
    }

    /// Whether returning clients can be served: only a drain of the operator or of discovery, or a
    /// weight of 0, keeps new connections away.
    pub(super) fn serves_returning(&self) -> bool {
        let works = self.endpoint.is_some() && self.check.up && !self.outlier.is_ejected();
        let operator = &self.operator;
        let is_listed = self.discovery != DiscoveryState::Absent;
        let may_serve = operator.state != OperatorState::Maint && !operator.emptying;
        works && may_serve && is_listed && !self.retired
    }

    /// When the weight began to grow, unless it has grown for `slow_start` already.
    pub(super) fn ramp(&self, now: Instant, slow_start: Duration) -> Option<Instant> {
        let growing = |from: &Instant| now.saturating_duration_since(*from) < slow_start;
        self.slow_start.from.filter(growing)
    }

    /// Recomputes the effective state and returns the one before, if it changed.
    pub(super) fn settle(&mut self, now: Instant) -> Option<BackendState> {
        if self.outlier.settle(now) {
            self.ejection = "its ejection is over, one connection probes it".to_owned();
        }
        let (state, reason) = self.effective();
        let from = self.published.state;
        let unchecked = self.published.unchecked && !self.check.checked;
        if state == from {
            self.published.unchecked = unchecked;
            if let Some(reason) = reason {
                self.published.reason = reason;
            }
            return None;
        }
        let is_guess = matches!(from, BackendState::Up | BackendState::Down);
        self.published = PublishedStatus {
            state,
            unchecked,
            was_unchecked: self.published.unchecked && !unchecked && is_guess,
            reason: reason.unwrap_or_else(|| self.why_up_after(from)),
            since: SystemTime::now(),
        };
        if state == BackendState::Up {
            // A drained backend kept its connections and its warm caches: it needs no slow start.
            let ramps = self.slow_start.is_armed && from != BackendState::Drain;
            self.slow_start = SlowStart {
                from: ramps.then_some(now),
                is_armed: true,
            };
        }
        Some(from)
    }

    /// The word for the state before the latest change, `from`.
    pub(super) fn word_before(&self, from: BackendState) -> &'static str {
        if self.published.was_unchecked {
            "unchecked"
        } else {
            from.as_str()
        }
    }

    /// The state that follows from all writers, with its reason unless it is `Up`.
    fn effective(&self) -> (BackendState, Option<String>) {
        let lookup_error = self.lookup_error.as_deref();
        let (state, reason) = match self.operator.state {
            OperatorState::Maint => (BackendState::Maint, "set by the operator"),
            OperatorState::Drain => (BackendState::Drain, "set by the operator"),
            OperatorState::Ready if self.discovery != DiscoveryState::Ready => {
                (BackendState::Drain, self.discovery.reason())
            }
            OperatorState::Ready if self.endpoint.is_none() => (
                BackendState::Unresolved,
                lookup_error.unwrap_or("not resolved yet"),
            ),
            OperatorState::Ready if !self.check.up => (BackendState::Down, &*self.check.reason),
            OperatorState::Ready if self.outlier.is_ejected() => {
                (BackendState::Ejected, &*self.ejection)
            }
            OperatorState::Ready => return (BackendState::Up, None),
        };
        (state, Some(reason.to_owned()))
    }

    /// Whether the published state is a drain by discovery.
    fn was_drained_by_discovery(&self) -> bool {
        let by_discovery = [DiscoveryState::Drain, DiscoveryState::Absent];
        by_discovery
            .map(DiscoveryState::reason)
            .contains(&&*self.published.reason)
    }

    fn why_up_after(&self, from: BackendState) -> String {
        match from {
            BackendState::Down => self.check.reason.clone(),
            BackendState::Ejected => self.ejection.clone(),
            BackendState::Unresolved => match &self.endpoint {
                Some(endpoint) => format!("resolved to {endpoint}"),
                None => String::new(),
            },
            BackendState::Drain if self.was_drained_by_discovery() => {
                "ready again by discovery".to_owned()
            }
            BackendState::Up | BackendState::Drain | BackendState::Maint => {
                "set ready by the operator".to_owned()
            }
        }
    }
}

/// The endpoint of an address that needs no lookup.
fn direct(address: &Address) -> Option<Endpoint> {
    match address {
        Address::Tcp(address) => Some(Endpoint::Tcp(*address)),
        Address::Unix(path) => Some(Endpoint::Unix(path.clone())),
        Address::Name(..) => None,
    }
}

/// The endpoint of a name whose port alone changed: it needs no new lookup either.
fn moved(old: &Address, new: &Address, endpoint: &Option<Endpoint>) -> Option<Endpoint> {
    match (old, new, endpoint) {
        (Address::Name(old, _), Address::Name(new, port), Some(Endpoint::Tcp(at)))
            if old == new =>
        {
            Some(Endpoint::Tcp((at.ip(), *port).into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(address: Address) -> config::Backend {
        config::Backend {
            name: "n1".to_owned(),
            address,
            weight: 1,
            max_connections: 0,
            backup: false,
            init_state: InitState::Up,
            host: None,
        }
    }

    fn outlier() -> config::Outlier {
        config::Outlier {
            connect_failures: 3,
            window: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(60),
        }
    }

    fn tcp() -> Address {
        Address::Tcp("10.0.0.1:9501".parse().unwrap())
    }

    fn endpoint(address: &str) -> Endpoint {
        Endpoint::Tcp(address.parse().unwrap())
    }

    #[test]
    fn a_name_is_unusable_until_it_is_resolved_and_keeps_its_last_answer() {
        let now = Instant::now();
        let named = settings(Address::Name("chat.internal".to_owned(), 9501));
        let mut status = BackendStatus::new(named, false, false, now);
        assert_eq!(
            (status.state(), status.reason()),
            (BackendState::Unresolved, "not resolved yet")
        );
        assert!(!status.resolved(Err("no such name".to_owned())));
        status.settle(now);
        assert_eq!(status.reason(), "no such name");
        assert!(status.resolved(Ok(endpoint("10.0.0.7:9501"))));
        assert_eq!(status.settle(now), Some(BackendState::Unresolved));
        assert!(status.is_usable());
        assert_eq!(status.ramp(now, Duration::from_secs(60)), None);
        assert!(!status.resolved(Err("timed out".to_owned())));
        assert_eq!(status.settle(now), None);
        assert_eq!(status.endpoint(), Some(&endpoint("10.0.0.7:9501")));
    }

    #[test]
    fn a_new_port_of_a_resolved_name_needs_no_lookup() {
        let now = Instant::now();
        let named = |port| settings(Address::Name("chat.internal".to_owned(), port));
        let mut status = BackendStatus::new(named(1), false, false, now);
        status.resolved(Ok(endpoint("10.0.0.7:1")));
        status.configure(named(2), false);
        assert_eq!(status.endpoint(), Some(&endpoint("10.0.0.7:2")));
        status.configure(settings(Address::Name("other".to_owned(), 2)), false);
        assert_eq!(status.endpoint(), None);
    }

    #[test]
    fn a_recovered_backend_ramps_and_a_drained_one_does_not() {
        let (now, slow) = (Instant::now(), Duration::from_secs(60));
        let mut status = BackendStatus::new(settings(tcp()), true, false, now);
        assert_eq!(status.ramp(now, slow), None);
        status.set_check(false, "refused");
        status.settle(now);
        status.set_check(true, "passed");
        assert_eq!(status.settle(now), Some(BackendState::Down));
        assert_eq!(status.ramp(now, slow), Some(now));
        assert_eq!(status.ramp(now + slow, slow), None);
        status.operator.state = OperatorState::Drain;
        status.settle(now);
        status.operator.state = OperatorState::Ready;
        assert_eq!(status.settle(now), Some(BackendState::Drain));
        assert_eq!(status.ramp(now, slow), None);
    }

    #[test]
    fn a_pool_that_loses_its_check_forgets_the_verdict() {
        let now = Instant::now();
        let mut status = BackendStatus::new(settings(tcp()), true, false, now);
        status.set_check(false, "refused");
        assert_eq!(status.settle(now), Some(BackendState::Up));
        status.configure(settings(tcp()), false);
        assert_eq!(status.settle(now), Some(BackendState::Down));
    }

    proptest! {
        /// In any order of events, one writer never undoes the decision of another.
        #[test]
        fn writers_are_kept_apart(events in prop::collection::vec(0u8..7, 0..60)) {
            let now = Instant::now();
            let mut status = BackendStatus::new(settings(tcp()), true, false, now);
            let (mut operator, mut up, mut ejected) = (OperatorState::Ready, true, false);
            for event in events {
                match event {
                    0 => operator = OperatorState::Ready,
                    1 => operator = OperatorState::Drain,
                    2 => operator = OperatorState::Maint,
                    3 => up = false,
                    4 => up = true,
                    5 => ejected = true,
                    _ => ejected = false,
                }
                match event {
                    0..=2 => status.operator.state = operator,
                    3 | 4 => status.set_check(up, "said so"),
                    5 => status.eject(now, &outlier(), "refused"),
                    _ => status.readmit(now),
                }
                status.settle(now);
                let expected = match (operator, up, ejected) {
                    (OperatorState::Maint, ..) => BackendState::Maint,
                    (OperatorState::Drain, ..) => BackendState::Drain,
                    (_, false, _) => BackendState::Down,
                    (_, _, true) => BackendState::Ejected,
                    _ => BackendState::Up,
                };
                prop_assert_eq!(status.state(), expected);
                prop_assert_eq!(status.is_usable(), expected == BackendState::Up);
            }
        }
    }
}
