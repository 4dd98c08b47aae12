//! Follows the source of one pool: its answers become the pool's set, by the rules of
//! [`Membership`].

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::entry::Listing;
use super::fault::{Fault, FaultKind};
use super::membership::{AnswerEffect, EntryDefaults, Membership};
use super::set_file::{self, SetWriter};
use super::source::{SourceFollower, SourceState};
use super::status::{LookupStatus, SetReport};
use crate::config::{Discover, DiscoverPolicy};
use crate::pool::Pool;

/// Least time between two changes of a pool's set: a registry that changes all the time must not
/// keep the pool busy with its views.
const PUBLISH_SPACING: Duration = Duration::from_millis(200);

/// The discovered set of a pool. It outlives its source and the task that follows it.
#[derive(Debug)]
pub(super) struct PoolSet {
    pub pool: Arc<Pool>,
    pub status: Arc<LookupStatus>,
    membership: Mutex<Membership>,
    /// Answers without a backend so far.
    empty_answers: AtomicU64,
}

/// State of the task that follows a source.
struct FollowRun<'a> {
    set: &'a PoolSet,
    source: &'a SourceFollower,
    /// Name of the source.
    label: &'a str,
    began: Instant,
    /// Answers and faults that were taken.
    answers: u64,
    faults: u64,
    has_restored: bool,
    revision: String,
    listing: Arc<Listing>,
    writer: SetWriter,
}

impl PoolSet {
    pub(super) fn new(pool: Arc<Pool>, status: Arc<LookupStatus>) -> PoolSet {
        let membership = Membership::handed(pool.found(), Instant::now());
        PoolSet {
            pool,
            status,
            membership: Mutex::new(membership),
            empty_answers: AtomicU64::new(0),
        }
    }

    /// The source is another one now.
    pub(super) fn change_source(&self) {
        self.membership().change_source();
    }

    /// The pool has no source any more.
    pub(super) fn forget(&self) {
        *self.membership() = Membership::default();
        self.status.set_report(None);
    }

    fn membership(&self) -> MutexGuard<'_, Membership> {
        // A panic inside leaves a set without the latest answer at worst; the next one has it.
        self.membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until it is dropped.
pub(super) async fn follow(set: Arc<PoolSet>, source: SourceFollower, label: String) {
    let (pool, mut states) = (&set.pool, source.states.clone());
    let (mut falls, mut changes) = (pool.falls(), pool.changed());
    let mut run = FollowRun {
        set: &set,
        source: &source,
        label: &label,
        began: Instant::now(),
        answers: 0,
        faults: 0,
        has_restored: false,
        revision: String::new(),
        listing: Arc::default(),
        writer: SetWriter::start(pool.name().to_string(), label.clone()),
    };
    loop {
        changes.borrow_and_update();
        falls.borrow_and_update();
        let state = states.borrow_and_update().clone();
        let settings = pool.settings();
        // Without it the task is about to be dropped.
        let Some(discover) = settings.discover.as_ref() else {
            return pending().await;
        };
        let is_new = state.answers != run.answers;
        let effect = run.take(discover, state);
        if effect != AnswerEffect::Taken {
            run.restore(discover).await;
        }
        let wake_at = run.publish(discover);
        // Behind the pool: it must not wait for a disk.
        if effect == AnswerEffect::Taken {
            run.save(discover);
        }
        if is_new {
            sleep(PUBLISH_SPACING).await;
        }
        tokio::select! {
            () = next_state(&mut states) => {}
            change = changes.changed() => if change.is_err() { return },
            fall = falls.changed() => if fall.is_err() { return },
            () = set.status.accepted() => run.accept(),
            () = sleep_until(wake_at.unwrap_or_else(far).into()), if wake_at.is_some() => {}
        }
    }
}

/// A source whose task is gone says nothing more.
async fn next_state(states: &mut watch::Receiver<SourceState>) {
    if states.changed().await.is_err() {
        pending().await
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

impl FollowRun<'_> {
    /// Takes what the source has said since the last call; returns the effect of an answer, as of
    /// an empty one where there is none.
    fn take(&mut self, discover: &Discover, state: SourceState) -> AnswerEffect {
        let is_new = state.answers != self.answers;
        self.answers = state.answers;
        let faults: u64 = state.faults.iter().sum();
        let has_failed = faults != self.faults;
        self.faults = faults;
        let mut taken = AnswerEffect::Empty;
        if let Some(listing) = state.listing.filter(|_| is_new) {
            self.revision = state.revision;
            taken = self.answered(discover, listing);
        }
        match state.fault.filter(|_| is_new || has_failed) {
            Some(fault) => {
                if !is_new {
                    self.set.membership().failed(Instant::now());
                }
                self.failed(&fault);
            }
            None if is_new && taken != AnswerEffect::Empty => self.succeeded(),
            None => {}
        }
        taken
    }

    fn answered(&mut self, discover: &Discover, listing: Arc<Listing>) -> AnswerEffect {
        let (pool, source) = (self.set.pool.name(), self.label);
        if let Some(first) = &listing.first_skipped
            && self.listing.first_skipped != listing.first_skipped
        {
            let skipped = listing.skipped;
            tracing::warn!(%pool, source, skipped, first, "bad entries of discovery are skipped");
        }
        let down = self.down();
        let mut membership = self.set.membership();
        let effect = membership.answered(
            listing.entries.clone(),
            &discover.policy,
            Instant::now(),
            |name| down.contains(name),
        );
        let held = membership.held();
        drop(membership);
        self.listing = listing;
        if let (AnswerEffect::Held, Some((backends, left))) = (effect, held) {
            tracing::warn!(
                %pool, source, backends, left,
                "discovery lists much less than before: held until it is confirmed"
            );
        }
        if effect == AnswerEffect::Empty {
            self.set.empty_answers.fetch_add(1, Ordering::Relaxed);
            self.failed(&Fault::new(
                FaultKind::Empty,
                "no backends that could serve",
            ));
        }
        effect
    }

    fn accept(&self) {
        if self.set.membership().accept(Instant::now()) {
            tracing::info!(pool = %self.set.pool.name(), source = self.label, "operator accepts what discovery lists");
        }
    }

    fn succeeded(&self) {
        let pool = self.set.pool.name();
        if self.set.status.succeeded(self.label) {
            tracing::info!(%pool, name = self.label, "discovery answers again");
        }
    }

    fn failed(&self, fault: &Fault) {
        let (pool, error) = (self.set.pool.name(), &fault.message);
        let kept = self.set.membership().listed().count();
        if self.set.status.failed(self.label, error) {
            tracing::warn!(
                %pool, name = self.label, error, kept,
                "discovery failed, keeping the last good set"
            );
        }
    }

    /// Gives the pool its set, and reports it. Returns when there is something to do next.
    fn publish(&self, discover: &Discover) -> Option<Instant> {
        let (policy, now) = (&discover.policy, Instant::now());
        let defaults = EntryDefaults {
            weight: discover.weight,
            max_connections: discover.max_connections,
        };
        let down = self.down();
        let mut membership = self.set.membership();
        membership.tick(policy, now, |name| down.contains(name));
        let mut reread_at = membership.reread_at();
        if reread_at.is_some_and(|at| at <= now) {
            membership.rereading(now);
            reread_at = membership.reread_at();
            self.source.ask();
        }
        let backends = membership.backends(policy, defaults, now);
        let report = self.report(&membership, policy, now);
        let restore_at = (!self.has_restored && membership.is_empty())
            .then(|| self.began.checked_add(policy.start_timeout))
            .flatten();
        let next_at = membership.next_at(policy, now);
        drop(membership);
        let count = backends.len();
        if self.set.pool.apply_discovered(backends) {
            tracing::info!(pool = %self.set.pool.name(), name = self.label, backends = count, "discovered a new set of backends");
        }
        self.set.status.set_report(Some(report));
        [reread_at, next_at, restore_at].into_iter().flatten().min()
    }

    fn report(&self, membership: &Membership, policy: &DiscoverPolicy, now: Instant) -> SetReport {
        let mut faults = self.source.states.borrow().faults;
        // No fault of the source: pools differ in what they make of it.
        faults[FaultKind::Empty as usize] += self.set.empty_answers.load(Ordering::Relaxed);
        SetReport {
            source: self.label.to_owned(),
            last_good: membership.last_good(),
            revision: self.revision.clone(),
            skipped: self.listing.skipped as u64,
            first_skipped: self.listing.first_skipped.clone(),
            held: membership.held(),
            is_stale: membership.is_stale(policy, now),
            counts: membership.counts(),
            faults,
        }
    }

    /// Names of backends that the pool's own check finds down.
    fn down(&self) -> BTreeSet<Arc<str>> {
        let backends = self.set.pool.backends().into_iter();
        let down = backends.filter(|one| one.is_checked() && !one.check_up());
        down.map(|one| Arc::clone(one.name())).collect()
    }

    /// Has the last good set written to its file.
    fn save(&self, discover: &Discover) {
        if let Some(file) = &discover.policy.snapshot_file {
            let entries = self.set.membership().listed().cloned().collect();
            self.writer.write(file, entries);
        }
    }

    /// Takes the set of an earlier process, once `start_timeout` is over without an answer.
    async fn restore(&mut self, discover: &Discover) {
        let is_due = self.began.elapsed() >= discover.policy.start_timeout;
        if self.has_restored || !is_due || !self.set.membership().is_empty() {
            return;
        }
        self.has_restored = true;
        let Some(file) = discover.policy.snapshot_file.clone() else {
            return;
        };
        let (pool, source) = (self.set.pool.name().to_string(), self.label.to_owned());
        let read = tokio::task::spawn_blocking(move || set_file::read(&file, &pool, &source));
        let pool = self.set.pool.name();
        match read.await {
            Ok(Ok(entries)) => {
                let backends = entries.len();
                self.set.membership().restore(entries);
                tracing::warn!(%pool, source = self.label, backends, "no answer of discovery yet: the set of the last run serves");
            }
            Ok(Err(error)) => {
                tracing::warn!(%pool, source = self.label, error, "no answer of discovery yet, and no set of the last run");
            }
            Err(_) => {}
        }
    }
}
