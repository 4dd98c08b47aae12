//! Whether a listener lets a client in: its access list, its own limits, and those of the client's source. Decided in one
//! place, [`Admissions::admit`], as soon as the client's address is known and before anything else is read from it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::sources::{SourceTable, Tracked};
use super::{AccessList, Limits};
use crate::base::log_throttle::LogThrottle;
use crate::base::rate::Bucket;
use crate::base::source_prefix::SourcePrefix;
use crate::config::{Listener, PerSource, Protocol};
use crate::observe::{ListenerCounters, Refusal};

/// Between two lines of one kind about clients that are turned away.
const WARN_SPACING: Duration = Duration::from_secs(10);

/// The settings of a listener by which its clients are let in.
#[derive(Clone, Copy)]
pub struct AdmissionRules<'a> {
    pub access: &'a AccessList,
    pub listener: &'a Listener,
}

/// The door-keeper of one listener. What it counts outlives every reload of the rules.
pub struct ListenerAdmission {
    entrance: Arc<ListenerCount>,
    /// Where no source is counted.
    anyone: Arc<SourceCount>,
    sources: SourceTable<SourceCount>,
    counters: Arc<ListenerCounters>,
    /// Clients that come are turned away; those that are there go on. It belongs to the listener's
    /// name, so that a reload that binds it elsewhere leaves a drained one drained.
    draining: AtomicBool,
    warned: LogThrottle,
    names_told: LogThrottle,
}

/// What all connections of one listener share.
#[derive(Debug)]
struct ListenerCount {
    limits: Arc<Limits>,
    live: AtomicU64,
    accepted: Bucket,
}

/// What the connections of one source share.
#[derive(Debug)]
struct SourceCount {
    entrance: Arc<ListenerCount>,
    live: AtomicU64,
    accepted: Bucket,
}

impl Tracked for SourceCount {
    fn forgotten_at(&self) -> Duration {
        self.accepted.full_at()
    }
}

/// One connection that was let in, counted at its listener and its source; dropping it uncounts. One pointer: it lasts as
/// long as the connection.
#[derive(Debug)]
pub struct ListenerPermit(SourcePermit);

/// One count at a source; dropping it uncounts.
#[derive(Debug)]
pub struct SourcePermit(Arc<SourceCount>);

impl ListenerAdmission {
    pub fn new(limits: &Arc<Limits>, counters: &Arc<ListenerCounters>) -> Self {
        let entrance = ListenerCount::new(limits);
        Self {
            anyone: Arc::new(SourceCount::new(&entrance)),
            entrance,
            sources: SourceTable::new(),
            counters: Arc::clone(counters),
            draining: AtomicBool::new(false),
            warned: LogThrottle::new(WARN_SPACING),
            names_told: LogThrottle::new(WARN_SPACING),
        }
    }

    /// Lets a client in and counts it, or says why not, which is counted too. `None` is a client without an address. The
    /// client is who is served: behind a proxy that announces it, not the proxy. One that `names_clients` is many: not its
    /// connections are counted by source but their sessions, by [`Admissions::admit_session`].
    ///
    /// # Errors
    /// The rule or the limit that keeps it out.
    pub fn admit(
        &self,
        rules: AdmissionRules<'_>,
        client: Option<IpAddr>,
        names_clients: bool,
    ) -> Result<ListenerPermit, Refusal> {
        let admitted = self.try_admit(rules, client, names_clients);
        if let Err(refusal) = admitted {
            self.refused(refusal);
        }
        admitted
    }

    /// Counts a session of a client whose connection no source has, or says why not, which is counted too. `None`: it has no
    /// limits.
    ///
    /// # Errors
    /// The limit of the source that keeps it out.
    pub fn admit_session(
        &self,
        rules: AdmissionRules<'_>,
        client: Option<IpAddr>,
    ) -> Result<Option<SourcePermit>, Refusal> {
        let now = self.entrance.limits.now();
        let per_source = rules.listener.admission.per_source.as_ref();
        let (origin, limits) = self.origin(per_source, client, now);
        let permit = limits.map(|limits| origin.enter(limits, now)).transpose();
        if let Err(refusal) = permit {
            self.refused(refusal);
        }
        permit
    }

    /// Counts a client that is kept out, by whatever step. A limit is told of once in a while; whom an access list or a drain
    /// keeps out is the business of the access log.
    pub fn refused(&self, refusal: Refusal) {
        self.counters.refused.count(refusal);
        // The bound of memory is of the process, and tells of itself.
        if !refusal.is_limit() || refusal == Refusal::MaxMemory {
            return;
        }
        if self.warned.is_due(Instant::now()) {
            self.warn_of(refusal);
        }
    }

    fn warn_of(&self, refusal: Refusal) {
        let (listener, live) = (&*self.counters.name, self.live());
        let refused = self.counters.refused.total();
        if refusal == Refusal::Silent {
            let limit = self.entrance.limits.left_for();
            tracing::warn!(
                listener,
                limit,
                live,
                refused,
                "silent connections leave their places to others: a limit is reached"
            );
        } else {
            let limit = refusal.word();
            tracing::warn!(
                listener,
                limit,
                live,
                refused,
                "clients are turned away by a limit"
            );
        }
    }

    /// Tells, once in a while, of a server name that no client can be served by. The access log has all of them.
    pub fn tell_of_name(&self, sni: &str, reason: &'static str) {
        if self.names_told.is_due(Instant::now()) {
            tracing::info!(listener = %self.counters.name, sni, reason, "clients are refused by their server name");
        }
    }

    /// Lets in a client that will say who it is, or says why not, which is counted too.
    ///
    /// # Errors
    /// The limit that keeps it out.
    pub fn admit_unknown(&self) -> Result<(), Refusal> {
        self.has_memory()
            .inspect_err(|refusal| self.refused(*refusal))
    }

    fn has_memory(&self) -> Result<(), Refusal> {
        match self.entrance.limits.is_short_of_memory() {
            true => Err(Refusal::MaxMemory),
            false => Ok(()),
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Connections of this listener that were let in and are not over.
    pub fn live(&self) -> u64 {
        self.entrance.live.load(Ordering::Relaxed)
    }

    /// The source first: one that is over its limits must not use up what all others share.
    fn try_admit(
        &self,
        rules: AdmissionRules<'_>,
        client: Option<IpAddr>,
        names_clients: bool,
    ) -> Result<ListenerPermit, Refusal> {
        if !rules.access.admits(client) {
            return Err(Refusal::Denied);
        }
        self.has_memory()?;
        // A `websocket` listener tells each request when to come again.
        if self.is_draining() && rules.listener.protocol == Protocol::Tcp {
            return Err(Refusal::Draining);
        }
        let admission = &rules.listener.admission;
        let now = self.entrance.limits.now();
        let per_source = admission.per_source.as_ref().filter(|_| !names_clients);
        let (origin, limits) = self.origin(per_source, client, now);
        let permit = match limits {
            Some(limits) => origin.enter(limits, now)?,
            None => origin.counted(),
        };
        self.entrance.enter(admission, now)?;
        Ok(ListenerPermit(permit))
    }

    /// Where a client is counted, and its limits there.
    fn origin<'a>(
        &self,
        limits: Option<&'a PerSource>,
        client: Option<IpAddr>,
        now: Duration,
    ) -> (Arc<SourceCount>, Option<&'a PerSource>) {
        let anyone = || (Arc::clone(&self.anyone), None);
        let Some((limits, client)) = limits.zip(client) else {
            return anyone();
        };
        let source = SourcePrefix::of(Some(client), limits.prefixes.v4, limits.prefixes.v6);
        let new = || SourceCount::new(&self.entrance);
        match self.sources.entry(source, now, new) {
            Some(origin) => (origin, Some(limits)),
            None => {
                self.counters.untracked.fetch_add(1, Ordering::Relaxed);
                anyone()
            }
        }
    }
}

impl ListenerCount {
    fn new(limits: &Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            limits: Arc::clone(limits),
            live: AtomicU64::new(0),
            accepted: Bucket::default(),
        })
    }

    fn enter(&self, admission: &crate::config::Admission, now: Duration) -> Result<(), Refusal> {
        if !raise(&self.live, admission.max_connections) {
            return Err(Refusal::MaxConnections);
        }
        let rate = admission.max_connection_rate;
        if rate.is_some_and(|rate| !self.accepted.take(rate, now)) {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::MaxConnectionRate);
        }
        Ok(())
    }
}

impl SourceCount {
    fn new(entrance: &Arc<ListenerCount>) -> Self {
        Self {
            entrance: Arc::clone(entrance),
            live: AtomicU64::new(0),
            accepted: Bucket::default(),
        }
    }

    fn enter(self: Arc<Self>, limits: &PerSource, now: Duration) -> Result<SourcePermit, Refusal> {
        if !raise(&self.live, limits.max_connections) {
            return Err(Refusal::SourceMaxConnections);
        }
        let rate = limits.max_connection_rate;
        if rate.is_some_and(|rate| !self.accepted.take(rate, now)) {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::SourceMaxConnectionRate);
        }
        Ok(SourcePermit(self))
    }

    fn counted(self: Arc<Self>) -> SourcePermit {
        self.live.fetch_add(1, Ordering::Relaxed);
        SourcePermit(self)
    }
}

impl ListenerPermit {
    /// A connection that no listener counts.
    pub fn unlimited(limits: &Arc<Limits>) -> Self {
        let entrance = ListenerCount::new(limits);
        Self::of(Arc::new(SourceCount::new(&entrance)).counted())
    }

    /// Counts at the listener what is counted at its source.
    pub(super) fn of(source: SourcePermit) -> Self {
        source.0.entrance.live.fetch_add(1, Ordering::Relaxed);
        Self(source)
    }

    /// Counts once more, for what takes the connection over.
    pub fn again(&self) -> Self {
        Self::of(Arc::clone(&self.0.0).counted())
    }

    pub fn limits(&self) -> &Limits {
        &self.0.0.entrance.limits
    }
}

impl Drop for ListenerPermit {
    fn drop(&mut self) {
        self.0.0.entrance.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds one unless `max` is reached; 0 is no limit.
fn raise(count: &AtomicU64, max: u64) -> bool {
    let next = |now| (max == 0 || now < max).then_some(now + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .is_ok()
}
