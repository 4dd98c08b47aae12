//! Whether a listener lets a client in: its access list, its own limits, and those of the client's
//! source. Decided in one place, [`ListenerAdmission::admit`], as soon as the client's address is
//! known and before anything else is read from it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::access::AccessList;
use super::counts::{ListenerCount, SourceCount};
use super::limits::Limits;
use super::permits::{ConnectionPermit, SetupPermit, SourcePermit};
use super::shared_sources::{SharedSources, SourceGauge, SourceKey, least_told};
use super::sources::SourceTable;
use crate::base::log_throttle::LogThrottle;
use crate::base::source_prefix::SourcePrefix;
use crate::config::{Listener, PerSource, Protocol};
use crate::observe::{ListenerCounters, Refusal};

/// Between two lines of one kind about clients that are turned away.
const WARN_SPACING: Duration = Duration::from_secs(10);

/// Settings of a listener by which its clients are let in.
#[derive(Clone, Copy)]
pub struct AdmissionRules<'a> {
    pub access: &'a AccessList,
    pub listener: &'a Listener,
}

/// Admission of one listener. Its counts outlive every reload of the rules.
pub struct ListenerAdmission {
    count: Arc<ListenerCount>,
    /// Counts clients whose source has no limits.
    anyone: Arc<SourceCount>,
    sources: SourceTable<SourceCount>,
    counters: Arc<ListenerCounters>,
    /// New clients are refused; those that are there go on. It belongs to the listener's name, so
    /// that a reload that binds it elsewhere leaves a drained one drained.
    draining: AtomicBool,
    /// What is known of the sources of the other balancers; `None` outside of a cluster.
    shared: ArcSwapOption<SharedSources>,
    warned: LogThrottle,
    names_logged: LogThrottle,
}

impl ListenerAdmission {
    pub fn new(limits: &Arc<Limits>, counters: &Arc<ListenerCounters>) -> Self {
        let count = ListenerCount::new(limits);
        Self {
            anyone: Arc::new(SourceCount::new(&count, 0)),
            count,
            sources: SourceTable::new(),
            counters: Arc::clone(counters),
            draining: AtomicBool::new(false),
            shared: ArcSwapOption::empty(),
            warned: LogThrottle::new(WARN_SPACING),
            names_logged: LogThrottle::new(WARN_SPACING),
        }
    }

    /// Lets a client in and counts its connection, or refuses it, which is counted too. The process
    /// has counted the connection already, by the permit of its `setup` or by `Limits::reserve`:
    /// the new permit takes that over. A refusal gives back what `Limits::reserve` counted. `None`
    /// is a client without an address. The client is who is served: behind a proxy that announces
    /// it, not the proxy. A peer that `names_clients` is many: its connections are not counted by
    /// source, but their sessions are, by [`ListenerAdmission::admit_session`].
    ///
    /// # Errors
    /// The rule or the limit that keeps it out.
    pub fn admit(
        &self,
        setup: Option<&SetupPermit>,
        rules: AdmissionRules<'_>,
        client: Option<IpAddr>,
        names_clients: bool,
    ) -> Result<ConnectionPermit, Refusal> {
        let admitted = self.try_admit(rules, client, names_clients);
        match (&admitted, setup) {
            (Ok(_), Some(setup)) => setup.hand_over(),
            (Err(_), None) => self.count.limits.release(),
            // The setup permit counts a refused connection until its record is finished.
            (Ok(_), None) | (Err(_), Some(_)) => {}
        }
        admitted.inspect_err(|refusal| self.refused(*refusal))
    }

    /// Counts a connection that another process has let in: by the process, the listener and the
    /// client's source, whatever their limits.
    pub(crate) fn admit_anyway(
        &self,
        rules: AdmissionRules<'_>,
        client: Option<IpAddr>,
    ) -> ConnectionPermit {
        let limits = &self.count.limits;
        let per_source = rules.listener.admission.per_source.as_ref();
        let (source, _) = self.source(per_source, client, limits.now());
        limits.take_over();
        self.count.enter_anyway();
        source.enter_anyway();
        ConnectionPermit::counted(SourcePermit::counted(source))
    }

    /// Counts a session of a client whose connection is not counted by source, or refuses it, which
    /// is counted too. `None`: its source has no limits.
    ///
    /// # Errors
    /// The limit of the source that keeps it out.
    pub fn admit_session(
        &self,
        rules: AdmissionRules<'_>,
        client: Option<IpAddr>,
    ) -> Result<Option<SourcePermit>, Refusal> {
        let now = self.count.limits.now();
        let per_source = rules.listener.admission.per_source.as_ref();
        let (source, limits) = self.source(per_source, client, now);
        if limits.is_none() {
            return Ok(None);
        }
        if let Err(refusal) = source.enter(limits, now) {
            self.refused(refusal);
            return Err(refusal);
        }
        Ok(Some(SourcePermit::counted(source)))
    }

    /// Refuses, and counts, a client that has yet to say who it is while memory is short.
    ///
    /// # Errors
    /// The limit that keeps it out.
    pub fn admit_unknown(&self) -> Result<(), Refusal> {
        self.has_memory()
            .inspect_err(|refusal| self.refused(*refusal))
    }

    /// Counts a client that is kept out, by whatever step. A limit is logged once in a while;
    /// access lists and drains are the business of the access log.
    pub fn refused(&self, refusal: Refusal) {
        self.counters.refused.count(refusal);
        // The bound of memory is the process's, and logs by itself.
        if !refusal.is_limit() || refusal == Refusal::MaxMemory {
            return;
        }
        if self.warned.is_due(Instant::now()) {
            self.warn_of(refusal);
        }
    }

    fn warn_of(&self, refusal: Refusal) {
        let (listener, live) = (&*self.counters.name, self.count.live());
        let refused = self.counters.refused.total();
        if refusal == Refusal::Silent {
            let limit = self.count.limits.evicted_for();
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

    /// Logs, once in a while, a server name that no client can be served by. The access log has
    /// all.
    pub fn log_refused_name(&self, sni: &str, reason: &'static str) {
        if self.names_logged.is_due(Instant::now()) {
            tracing::info!(listener = %self.counters.name, sni, reason, "clients are refused by their server name");
        }
    }

    fn has_memory(&self) -> Result<(), Refusal> {
        if self.count.limits.is_short_of_memory() {
            return Err(Refusal::MaxMemory);
        }
        Ok(())
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Sources with so many connections here that the other balancers should know, where each may
    /// have `limit` at the `members` of the cluster.
    pub(crate) fn source_gauges(
        &self,
        key: SourceKey,
        limit: u64,
        members: u32,
    ) -> Vec<SourceGauge> {
        let (least, mut gauges) = (least_told(limit, members), Vec::new());
        self.sources.each(|source, count| {
            let live = count.live();
            if live >= least {
                gauges.push(SourceGauge {
                    hash: key.hash(&self.counters.name, source),
                    live: u32::try_from(live).unwrap_or(u32::MAX),
                });
            }
        });
        gauges
    }

    /// Takes over what is known of the sources of the other balancers. Costs by the count of
    /// sources; a client waits for 256 of them at most. `None`: the listener is in no cluster.
    pub(crate) fn set_shared_sources(&self, shared: Option<Arc<SharedSources>>) {
        let divisor = shared.as_ref().map_or(1, |shared| shared.divisor());
        self.shared.store(shared);
        self.count.set_divisor(divisor);
        let sources = &self.sources;
        sources.each(|source, count| count.set_others(self.others_of(source)));
    }

    /// Connections of a source at the other balancers.
    fn others_of(&self, source: SourcePrefix) -> u32 {
        let shared = self.shared.load();
        let shared = shared.as_ref();
        shared.map_or(0, |shared| shared.others(&self.counters.name, source))
    }

    /// Asks the source first: one that is over its limits must not use up what all others share.
    fn try_admit(
        &self,
        rules: AdmissionRules<'_>,
        client: Option<IpAddr>,
        names_clients: bool,
    ) -> Result<ConnectionPermit, Refusal> {
        if !rules.access.admits(client) {
            return Err(Refusal::Denied);
        }
        self.has_memory()?;
        // A `websocket` listener tells each request when to come again.
        if self.is_draining() && rules.listener.protocol == Protocol::Tcp {
            return Err(Refusal::Draining);
        }
        let admission = &rules.listener.admission;
        let now = self.count.limits.now();
        let per_source = admission.per_source.as_ref().filter(|_| !names_clients);
        let (source, limits) = self.source(per_source, client, now);
        source.enter(limits, now)?;
        let source = SourcePermit::counted(source);
        self.count.enter(admission, now)?;
        Ok(ConnectionPermit::counted(source))
    }

    /// The count of a client's source, and its limits there.
    fn source<'a>(
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
        let new = || SourceCount::new(&self.count, self.others_of(source));
        if let Some(source) = self.sources.entry(source, now, new) {
            return (source, Some(limits));
        }
        self.counters.untracked.fetch_add(1, Ordering::Relaxed);
        anyone()
    }
}
