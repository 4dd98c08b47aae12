//! All that decides whether a backend takes connections: its settings, its three writers kept apart (operator, active
//! check, outlier detection), its address, and the effective state that follows. Pure: `now` is an argument.

use std::time::{Duration, Instant, SystemTime};

use crate::base::units::format_duration;
use crate::config::{self, Address, InitState};
use crate::net::Endpoint;
use crate::pool::outlier::OutlierDetector;
use crate::pool::transitions::TransitionLogLimit;
use crate::pool::{BackendState, OperatorState};

/// Under the backend's lock. What is public to the room is one writer's alone; `settle` puts them together.
#[derive(Debug)]
pub(super) struct BackendStatus {
    settings: config::Backend,
    pub(super) operator: OperatorState,
    /// The operator's; `None` = the configured one.
    pub(super) weight: Option<u16>,
    check: CheckState,
    pub(super) outlier: OutlierDetector,
    /// Why it was ejected, or why it is no more.
    ejection: String,
    /// The latest failed connect, and when.
    pub(super) last_error: Option<(SystemTime, String)>,
    endpoint: Option<Endpoint>,
    /// Why the last lookup of its name gave nothing.
    lookup_error: Option<String>,
    pub(super) retired: bool,
    /// Its connections are being moved away: it gets new ones only where no other backend can take them.
    pub(super) avoided: bool,
    /// The operator ends its connections, or has ended them.
    pub(super) emptying: bool,
    published: PublishedStatus,
    /// The latest change was the first check's.
    was_unchecked: bool,
    pub(super) log_limit: TransitionLogLimit,
    /// Its weight grows from then on.
    ramp: Option<Instant>,
    /// Whether the next change to `Up` begins a ramp: not the first one at the start of the process, when every backend
    /// is as new as the others.
    ramps: bool,
}

#[derive(Debug)]
struct CheckState {
    up: bool,
    /// `up` is what a check said of this address, since it was last in maintenance.
    checked: bool,
    /// A check has succeeded since then.
    proven: bool,
    /// Counts the first checks: one that began in an earlier epoch says nothing.
    epoch: u64,
    reason: String,
}

impl CheckState {
    /// The next answer is the first one.
    fn begin_anew(&mut self) {
        self.checked = false;
        self.proven = false;
        self.epoch += 1;
    }
}

#[derive(Debug)]
struct PublishedStatus {
    state: BackendState,
    /// No check has said anything yet, and one will.
    unchecked: bool,
    reason: String,
    since: SystemTime,
}

impl BackendStatus {
    /// `checked`: the pool has an active check. `ramps`: slow start applies from the beginning.
    pub(super) fn new(settings: config::Backend, checked: bool, ramps: bool, now: Instant) -> Self {
        let up = !checked || settings.init_state == InitState::Up;
        let mut status = BackendStatus {
            endpoint: direct(&settings.address),
            settings,
            operator: OperatorState::Ready,
            weight: None,
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
            emptying: false,
            published: PublishedStatus {
                state: BackendState::Up,
                unchecked: checked,
                reason: "in service since it was configured".to_owned(),
                since: SystemTime::now(),
            },
            was_unchecked: false,
            log_limit: TransitionLogLimit::default(),
            ramp: ramps.then_some(now),
            ramps,
        };
        let (state, reason) = status.effective();
        status.published.state = state;
        if let Some(reason) = reason {
            status.published.reason = reason;
        }
        status.ramps |= state == BackendState::Up;
        status
    }

    /// A reload's or discovery's settings. Another address begins with a clean record of failures.
    pub(super) fn configure(&mut self, settings: config::Backend, checked: bool) {
        if settings.address != self.settings.address {
            self.endpoint = direct(&settings.address)
                .or_else(|| moved(&self.settings.address, &settings.address, &self.endpoint));
            self.outlier = OutlierDetector::default();
            self.check.begin_anew();
        }
        if !checked {
            self.check.up = true;
            self.check.begin_anew();
        }
        self.settings = settings;
        self.retired = false;
    }

    pub(super) fn settings(&self) -> &config::Backend {
        &self.settings
    }

    pub(super) fn weight(&self) -> u16 {
        self.weight.unwrap_or(self.settings.weight)
    }

    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// A lookup's answer; true if the address changed.
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
                    self.check.begin_anew();
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

    /// A check has said whether it is up. Not before the first one, nor after maintenance: the next one decides alone.
    pub(super) fn is_checked(&self) -> bool {
        self.check.checked
    }

    /// A check has succeeded since the first one.
    pub(super) fn is_proven(&self) -> bool {
        self.check.proven
    }

    pub(super) fn check_epoch(&self) -> u64 {
        self.check.epoch
    }

    /// Whether it leaves maintenance, in which nobody asked how it does.
    pub(super) fn set_operator(&mut self, operator: OperatorState) -> bool {
        let left = self.operator == OperatorState::Maint && operator != OperatorState::Maint;
        self.operator = operator;
        if left {
            self.check.begin_anew();
        }
        left
    }

    pub(super) fn set_check(&mut self, up: bool, reason: &str) {
        self.check.up = up;
        self.check.checked = true;
        self.check.proven |= up;
        self.check.reason = reason.to_owned();
    }

    /// A check could not be made. Until one has, that is why nothing is known.
    pub(super) fn check_hindered(&mut self, why: &str) {
        if self.check.checked {
            return;
        }
        self.check.reason = format!("not checked: {why}");
        if self.published.state == BackendState::Down {
            self.published.reason.clone_from(&self.check.reason);
        }
    }

    /// The same verdict as before brings at most a newer reason; false if it is another one.
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
        let cause = match self.outlier.is_probed() {
            true => "its probe failed".to_owned(),
            false => format!("{failures} connect failures in {}", format_duration(window)),
        };
        let time = self.outlier.eject(now, settings);
        let time = format_duration(time);
        self.ejection = format!("{cause}, out for {time}: {why}");
    }

    /// Ends its ejection: a connect to it has succeeded.
    pub(super) fn readmit(&mut self, now: Instant) {
        self.outlier.readmit(now);
        self.ejection = "its probe succeeded".to_owned();
    }

    /// Ends its ejection early: the pool has nobody else.
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

    /// Takes connections, as far as its own state goes.
    pub(super) fn is_usable(&self) -> bool {
        self.published.state == BackendState::Up && self.weight() > 0 && !self.retired
    }

    /// Ejected, but its time is over: it takes one connection, to see whether it works again.
    pub(super) fn is_probed(&self) -> bool {
        let probed = self.published.state == BackendState::Ejected && self.outlier.is_probed();
        probed && self.weight() > 0 && !self.retired
    }

    /// Its check alone keeps it away: where nobody else is left it may be tried.
    pub(super) fn is_tried(&self) -> bool {
        self.published.state == BackendState::Down && self.weight() > 0 && !self.retired
    }

    /// Only the operator keeps new connections away, by a drain or a weight of 0: who was here before can be served.
    pub(super) fn is_kept(&self) -> bool {
        let works = self.endpoint.is_some() && self.check.up && !self.outlier.is_ejected();
        works && self.operator != OperatorState::Maint && !self.retired && !self.emptying
    }

    /// When its weight began to grow, unless it has grown for `slow_start` already.
    pub(super) fn ramp(&self, now: Instant, slow_start: Duration) -> Option<Instant> {
        let growing = |from: &Instant| now.saturating_duration_since(*from) < slow_start;
        self.ramp.filter(growing)
    }

    /// Computes the effective state anew; the one before, if it changed.
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
        self.was_unchecked = self.published.unchecked && !unchecked && is_guess;
        self.published = PublishedStatus {
            state,
            unchecked,
            reason: reason.unwrap_or_else(|| self.why_up_after(from)),
            since: SystemTime::now(),
        };
        if state == BackendState::Up {
            // A drained backend kept its connections and its warm caches: it needs no slow start.
            self.ramp = (self.ramps && from != BackendState::Drain).then_some(now);
            self.ramps = true;
        }
        Some(from)
    }

    /// The word for the state before the latest change.
    pub(super) fn from_word(&self, from: BackendState) -> &'static str {
        match self.was_unchecked {
            true => "unchecked",
            false => from.as_str(),
        }
    }

    /// The state that the writers make together, with its reason unless it is `Up`.
    fn effective(&self) -> (BackendState, Option<String>) {
        match self.operator {
            OperatorState::Maint => {
                return (BackendState::Maint, Some("set by the operator".to_owned()));
            }
            OperatorState::Drain => {
                return (BackendState::Drain, Some("set by the operator".to_owned()));
            }
            OperatorState::Ready => {}
        }
        if self.endpoint.is_none() {
            let why = self.lookup_error.as_deref();
            return (
                BackendState::Unresolved,
                Some(why.unwrap_or("not resolved yet").to_owned()),
            );
        }
        if !self.check.up {
            return (BackendState::Down, Some(self.check.reason.clone()));
        }
        if self.outlier.is_ejected() {
            return (BackendState::Ejected, Some(self.ejection.clone()));
        }
        (BackendState::Up, None)
    }

    fn why_up_after(&self, from: BackendState) -> String {
        match from {
            BackendState::Down => self.check.reason.clone(),
            BackendState::Ejected => self.ejection.clone(),
            BackendState::Unresolved => match &self.endpoint {
                Some(endpoint) => format!("resolved to {endpoint}"),
                None => String::new(),
            },
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

/// The endpoint of a name of which only the port changed: it needs no new lookup either.
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
        status.operator = OperatorState::Drain;
        status.settle(now);
        status.operator = OperatorState::Ready;
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
        /// Whatever the order of events, one writer never undoes another's word.
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
                    0..=2 => status.operator = operator,
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
