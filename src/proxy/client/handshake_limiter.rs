//! A limiter before the costly part of TLS handshakes. When all clients come back at once,
//! `global.max_handshakes` of them are worked on and the others wait here, with their ClientHello
//! and little more: a few are served soon, in place of all being served late. A session that one of
//! our tickets resumes goes first, because it costs a fraction; beyond that sources take turns
//! (`base::fair_queue`), so that one of them cannot make the others wait for all of its own.
//!
//! A handshake holds its permit until it is done, but only for a moment: by then our part is done,
//! and a silent client or a slow network must not hold what others wait for. Time spent here is not
//! counted against a client's deadline: it has done its part.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::base::expiring_set::ExpiringSet;
use crate::base::fair_queue::{FairQueue, QueueTicket};
use crate::base::rate::Bucket;
use crate::base::source_prefix::SourcePrefix;
use crate::config::{Global, Rate};

/// Handshakes for each core where `max_handshakes` is not set. Of 8 to 512 for two cores, 32 to 128
/// served the median client of a storm soonest; fewer waste time between permits, with more all are
/// half done at once.
const PER_CORE: usize = 64;
/// Fewer than `max_setup_connections` by default, so that one source never takes all of set-up;
/// more than are served within the default deadline of 10 s would wait for nothing.
const MAX_WAITING_PER_SOURCE: usize = 8_192;
/// How long a source whose ticket did not resume waits among the others. In this time one of its
/// full handshakes goes first, in place of all that its tickets would bring; a network with one odd
/// client is back among the first soon.
const DISTRUSTED: Duration = Duration::from_secs(60);
/// Entries of about 60 bytes each. An attacker with more networks than that gets a permit for each
/// in either lane.
const MAX_DISTRUSTED: usize = 16_384;

/// A limiter of the process's TLS handshakes.
pub(crate) struct HandshakeLimiter {
    max: AtomicUsize,
    rate: ArcSwapOption<Rate>,
    begun: Bucket,
    epoch: Instant,
    state: Mutex<LimiterState>,
    runtime: Handle,
}

struct LimiterState {
    /// Sources of tickets that did not resume.
    distrusted: ExpiringSet<SourcePrefix>,
    waiting: FairQueue<SourcePrefix, oneshot::Sender<()>>,
    in_progress: usize,
    /// A timer will look again.
    is_timed: bool,
}

impl HandshakeLimiter {
    pub(crate) fn new(global: &Global, runtime: Handle) -> Arc<Self> {
        let limiter = Arc::new(Self {
            max: AtomicUsize::new(0),
            rate: ArcSwapOption::empty(),
            begun: Bucket::default(),
            epoch: Instant::now(),
            state: Mutex::new(LimiterState {
                distrusted: ExpiringSet::new(DISTRUSTED, MAX_DISTRUSTED),
                waiting: FairQueue::new(MAX_WAITING_PER_SOURCE),
                in_progress: 0,
                is_timed: false,
            }),
            runtime,
        });
        limiter.apply(global);
        limiter
    }

    /// Takes over the limits of a configuration.
    pub(crate) fn apply(self: &Arc<Self>, global: &Global) {
        let max = match global.max_handshakes {
            0 => PER_CORE * std::thread::available_parallelism().map_or(1, usize::from),
            max => max,
        };
        self.max.store(max, Ordering::Relaxed);
        self.rate.store(global.max_handshake_rate.map(Arc::new));
        self.advance(&mut self.lock());
    }

    /// Numbers of handshakes in progress and of those that wait.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.in_progress, state.waiting.waiting())
    }

    /// Notes that a ticket of this source went first and did not resume: its clients wait among the
    /// others from now on.
    pub(super) fn distrust(&self, source: SourcePrefix) {
        let mut state = self.lock();
        state.distrusted.insert(source, self.epoch.elapsed());
        state.waiting.demote(source);
    }

    /// Waits for a permit; `None`: too many of this source wait already.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the queue, or gives its permit to the next.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        source: SourcePrefix,
        resumes: bool,
    ) -> Option<HandshakePermit> {
        let (notify, notified) = oneshot::channel();
        let waiting = {
            let mut state = self.lock();
            if state.waiting.waiting() == 0 && self.begin(&mut state) {
                return Some(HandshakePermit(Arc::clone(self)));
            }
            let urgent = resumes && !state.distrusted.contains(&source, self.epoch.elapsed());
            let ticket = state.waiting.push(source, urgent, notify).ok()?;
            self.advance(&mut state);
            Waiting {
                limiter: Arc::clone(self),
                ticket: Some(ticket),
            }
        };
        // Whoever takes the sender out of the queue has notified before it is dropped.
        let _ = notified.await;
        Some(waiting.into_permit())
    }

    /// Counts one more handshake, if it may begin.
    fn begin(&self, state: &mut LimiterState) -> bool {
        let has_room = state.in_progress < self.max.load(Ordering::Relaxed);
        let begins = has_room && self.take_rate();
        state.in_progress += usize::from(begins);
        begins
    }

    fn take_rate(&self) -> bool {
        let rate = self.rate.load();
        rate.as_ref()
            .is_none_or(|rate| self.begun.take(**rate, self.epoch.elapsed()))
    }

    /// Gives permits to those who wait, as many as may begin.
    fn advance(self: &Arc<Self>, state: &mut LimiterState) {
        while state.waiting.waiting() > 0 && self.begin(state) {
            if let Some(next) = state.waiting.pop() {
                // A waiter that is just leaving finds itself out of the queue and gives the permit
                // back.
                let _ = next.send(());
            }
        }
        self.look_again(state);
    }

    /// Sets a timer where only the rate is in the way: then no end of a handshake brings the next.
    fn look_again(self: &Arc<Self>, state: &mut LimiterState) {
        let has_room = state.in_progress < self.max.load(Ordering::Relaxed);
        let rate = self.rate.load();
        let (true, false, Some(rate)) = (
            has_room && state.waiting.waiting() > 0,
            state.is_timed,
            rate.as_ref(),
        ) else {
            return;
        };
        state.is_timed = true;
        let wait = self.begun.wait(**rate, self.epoch.elapsed());
        let limiter = Arc::downgrade(self);
        // It ends by itself, once the rate has room for one.
        self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(limiter) = Weak::upgrade(&limiter) {
                let mut state = limiter.lock();
                state.is_timed = false;
                limiter.advance(&mut state);
            }
        });
    }

    fn ended(self: &Arc<Self>, state: &mut LimiterState) {
        state.in_progress = state.in_progress.saturating_sub(1);
        self.advance(state);
    }

    fn lock(&self) -> MutexGuard<'_, LimiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handshake that waits; dropped, it leaves the queue.
struct Waiting {
    limiter: Arc<HandshakeLimiter>,
    ticket: Option<QueueTicket<SourcePrefix>>,
}

impl Waiting {
    fn into_permit(mut self) -> HandshakePermit {
        self.ticket = None;
        HandshakePermit(Arc::clone(&self.limiter))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let mut state = self.limiter.lock();
        if state.waiting.remove(&ticket).is_none() {
            self.limiter.ended(&mut state);
        }
    }
}

/// A permit for one handshake; dropping it lets the next one begin.
pub(super) struct HandshakePermit(Arc<HandshakeLimiter>);

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.0.ended(&mut self.0.lock());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn limiter(max: usize) -> Arc<HandshakeLimiter> {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"p\"\n\
                    [pool.p]\nbackend = [{ address = \"127.0.0.1:1\" }]\n";
        let config = crate::config::parse(text, std::path::Path::new("a.toml")).unwrap();
        let mut global = config.global;
        global.max_handshakes = max;
        HandshakeLimiter::new(&global, Handle::current())
    }

    fn source(number: u8) -> SourcePrefix {
        SourcePrefix::V4([10, 0, 0, number])
    }

    #[tokio::test]
    async fn above_the_cap_a_handshake_waits_until_one_is_over() {
        let limiter = limiter(1);
        let first = limiter.acquire(source(1), false).await.unwrap();
        let mut second = pin!(limiter.acquire(source(1), false));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(limiter.counts(), (1, 1));
        drop(first);
        assert_eq!(limiter.counts(), (1, 0));
        drop(second.await.unwrap());
        assert_eq!(limiter.counts(), (0, 0));
    }

    #[tokio::test]
    async fn who_leaves_the_queue_leaves_no_trace() {
        let limiter = limiter(1);
        let first = limiter.acquire(source(1), false).await.unwrap();
        let mut left = Box::pin(limiter.acquire(source(2), false));
        assert!((&mut left).now_or_never().is_none());
        // Notified, and gone before it is polled.
        let mut notified = Box::pin(limiter.acquire(source(3), true));
        assert!((&mut notified).now_or_never().is_none());
        drop(first);
        assert_eq!(limiter.counts(), (1, 1));
        drop(notified);
        assert_eq!(limiter.counts(), (1, 0), "its permit went on");
        drop(left);
        assert_eq!(limiter.counts(), (0, 0));
    }

    // With one good ticket a source had all of its full handshakes before everybody else's.
    #[tokio::test]
    async fn a_source_whose_ticket_did_not_resume_waits_with_the_others() {
        let limiter = limiter(1);
        let first = limiter.acquire(source(1), true).await.unwrap();
        let mut waiting: Vec<_> = (0..3)
            .map(|_| Box::pin(limiter.acquire(source(1), true)))
            .collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        let mut other = pin!(limiter.acquire(source(2), false));
        assert!((&mut other).now_or_never().is_none());
        limiter.distrust(source(1));
        let mut late = pin!(limiter.acquire(source(1), true));
        assert!((&mut late).now_or_never().is_none());
        let mut resumed = pin!(limiter.acquire(source(3), true));
        assert!((&mut resumed).now_or_never().is_none());
        drop(first);
        drop(resumed.now_or_never().unwrap());
        // The demoted source came into this lane behind the other one.
        drop(other.now_or_never().unwrap());
        for one in &mut waiting {
            drop(one.now_or_never().unwrap());
        }
        drop(late.now_or_never().unwrap());
        assert_eq!(limiter.counts(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_brings_the_next_permit_by_itself() {
        let limiter = limiter(100);
        limiter.rate.store(Some(Arc::new(Rate::per_second(2))));
        let _one = limiter.acquire(source(1), false).await.unwrap();
        let _two = limiter.acquire(source(1), false).await.unwrap();
        assert!(limiter.acquire(source(1), false).now_or_never().is_none());
        limiter.rate.store(None);
        assert!(limiter.acquire(source(1), false).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_raised_cap_lets_those_in_who_wait() {
        let limiter = limiter(1);
        let _first = limiter.acquire(source(1), false).await.unwrap();
        let mut second = pin!(limiter.acquire(source(1), false));
        assert!((&mut second).now_or_never().is_none());
        limiter.max.store(2, Ordering::Relaxed);
        limiter.advance(&mut limiter.lock());
        assert!(second.await.is_some());
    }
}
