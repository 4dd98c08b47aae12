//! SilentId connections in set-up. A connection is silent while set-up waits for a word of its client:
//! its PROXY header, its handshake, its first head. When places run short, one of them leaves its own.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::SetupPermit;
use crate::base::silence_queue::{SilenceQueue, SilentId};
use crate::base::source_prefix::SourcePrefix;

/// A client that is honest has said something after this long: a round trip, and a lost packet.
const MIN_SILENCE: Duration = Duration::from_secs(1);
/// The same of a flood, whose network is near more often than not: who waits is to be served at once.
const MIN_SILENCE_OF_FLOOD: Duration = Duration::from_millis(100);
/// Fewer silent connections of one source are no flood, whatever part of the places they take.
const FLOOD: usize = 8;
/// Of a flood so many parts of the places are freed together: each order takes a round of the tasks.
const BATCHES: u64 = 256;

/// The silent ones of the process.
#[derive(Debug, Default)]
pub(super) struct SilentConnections(Mutex<SilenceQueue<(Instant, CancellationToken)>>);

impl SilentConnections {
    pub fn enter(&self, source: SourcePrefix, leave: &CancellationToken, now: Instant) -> SilentId {
        self.lock().push(source, (now, leave.clone()))
    }

    pub fn leave(&self, silent: SilentId) {
        self.lock().remove(silent);
    }

    /// Tells the oldest one of the source that has most to leave, and a few more where they take more
    /// than half of `places`. How long until it has been silent for long enough.
    pub fn evict(&self, places: u64, now: Instant) -> Option<Duration> {
        let mut silence = self.lock();
        let ((since, _), count) = silence.first()?;
        let is_flood = count >= FLOOD && count as u64 > places / 2;
        let (least, batch) = match is_flood {
            true => (MIN_SILENCE_OF_FLOOD, 1 + places / BATCHES),
            false => (MIN_SILENCE, 1),
        };
        let left = least.saturating_sub(now.saturating_duration_since(*since));
        if !left.is_zero() {
            return Some(left);
        }
        for _ in 0..batch {
            if let Some((_, leave)) = silence.pop() {
                leave.cancel();
            }
        }
        None
    }

    /// Nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, SilenceQueue<(Instant, CancellationToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SetupPermit {
    /// What `doing` gives; `None` where the connection has to leave its place meanwhile. It stays where
    /// it is pinned: a future that is moved into another one takes its room twice.
    ///
    /// # Cancel safety
    /// That of `doing`.
    pub(crate) async fn unless_evicted<F: Future>(&self, doing: Pin<&mut F>) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = doing => Some(done),
            () = self.evicted() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(
        silent: &SilentConnections,
        number: u8,
        now: Instant,
    ) -> (CancellationToken, SilentId) {
        let leave = CancellationToken::new();
        let ticket = silent.enter(SourcePrefix::V4([192, 0, 2, number]), &leave, now);
        (leave, ticket)
    }

    #[test]
    fn one_of_a_flood_leaves_sooner_than_others_and_each_has_had_time_to_speak() {
        let (silent, start) = (SilentConnections::default(), Instant::now());
        let places = 2 * FLOOD as u64 - 1;
        let all: Vec<_> = (0..FLOOD).map(|_| enter(&silent, 1, start)).collect();
        let gone = || all.iter().filter(|(leave, _)| leave.is_cancelled()).count();
        assert_eq!(silent.evict(places, start), Some(MIN_SILENCE_OF_FLOOD));
        assert_eq!(silent.evict(2 * places, start), Some(MIN_SILENCE));
        let soon = start + MIN_SILENCE_OF_FLOOD;
        assert_eq!(silent.evict(places, soon), None);
        assert!(gone() == 1 && all[0].0.is_cancelled());
        let left = MIN_SILENCE - MIN_SILENCE_OF_FLOOD;
        assert_eq!(silent.evict(places, soon), Some(left), "a flood no more");
        assert_eq!(silent.evict(places, start + MIN_SILENCE), None);
        assert_eq!(gone(), 2);
    }

    #[test]
    fn a_large_flood_leaves_in_batches() {
        let (silent, start) = (SilentConnections::default(), Instant::now());
        let all: Vec<_> = (0..1000).map(|_| enter(&silent, 1, start)).collect();
        assert_eq!(silent.evict(1024, start + MIN_SILENCE_OF_FLOOD), None);
        let gone = all.iter().filter(|(leave, _)| leave.is_cancelled());
        assert_eq!(gone.count(), 5);
    }

    #[test]
    fn who_speaks_stays() {
        let (silent, start) = (SilentConnections::default(), Instant::now());
        let (leave, ticket) = enter(&silent, 1, start);
        silent.leave(ticket);
        silent.evict(1, start + 2 * MIN_SILENCE);
        assert!(!leave.is_cancelled());
    }
}
