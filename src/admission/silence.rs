//! Silent connections in set-up. A connection is silent while set-up waits for its client to send
//! something: a PROXY header, a handshake, a first head. At a limit a silent one is evicted.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::base::silence_queue::{SilenceQueue, SilentId};
use crate::base::source_prefix::SourcePrefix;

/// An honest client has sent something after this long: a round trip, and a lost packet.
const MIN_SILENCE: Duration = Duration::from_secs(1);
/// As [`MIN_SILENCE`], for a flood: its network is near more often than not, and those who wait are
/// to be served at once.
const MIN_SILENCE_OF_FLOOD: Duration = Duration::from_millis(100);
/// Fewer silent connections of one source are no flood, whatever part of the limit they take.
const FLOOD: usize = 8;
/// A flood is evicted by batches of the limit divided by this: each batch takes a round of the
/// tasks.
const BATCHES: u64 = 256;

/// Silent connections of the process.
#[derive(Debug, Default)]
pub(super) struct SilentConnections(Mutex<SilenceQueue<(Instant, CancellationToken)>>);

impl SilentConnections {
    pub(super) fn enter(
        &self,
        source: SourcePrefix,
        evict: &CancellationToken,
        now: Instant,
    ) -> SilentId {
        self.lock().push(source, (now, evict.clone()))
    }

    pub(super) fn leave(&self, silent: SilentId) {
        self.lock().remove(silent);
    }

    /// Evicts the oldest one of the source that has most, and a few more where that source takes
    /// more than half of `limit`. Returns how long it takes until one may be evicted;
    /// `None` where one was, or none is silent.
    pub(super) fn evict(&self, limit: u64, now: Instant) -> Option<Duration> {
        let mut silence = self.lock();
        let ((since, _), count) = silence.first()?;
        let is_flood = count >= FLOOD && count as u64 > limit / 2;
        let (least, batch) = if is_flood {
            (MIN_SILENCE_OF_FLOOD, 1 + limit / BATCHES)
        } else {
            (MIN_SILENCE, 1)
        };
        let left = least.saturating_sub(now.saturating_duration_since(*since));
        if !left.is_zero() {
            return Some(left);
        }
        for _ in 0..batch {
            if let Some((_, evict)) = silence.pop() {
                evict.cancel();
            }
        }
        None
    }

    // Nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, SilenceQueue<(Instant, CancellationToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let evict = CancellationToken::new();
        let ticket = silent.enter(SourcePrefix::V4([192, 0, 2, number]), &evict, now);
        (evict, ticket)
    }

    #[test]
    fn a_flood_is_evicted_sooner_than_others_and_each_has_had_time_to_speak() {
        let (silent, start) = (SilentConnections::default(), Instant::now());
        let limit = 2 * FLOOD as u64 - 1;
        let all: Vec<_> = (0..FLOOD).map(|_| enter(&silent, 1, start)).collect();
        let gone = || all.iter().filter(|(evict, _)| evict.is_cancelled()).count();
        assert_eq!(silent.evict(limit, start), Some(MIN_SILENCE_OF_FLOOD));
        assert_eq!(silent.evict(2 * limit, start), Some(MIN_SILENCE));
        let soon = start + MIN_SILENCE_OF_FLOOD;
        assert_eq!(silent.evict(limit, soon), None);
        assert!(gone() == 1 && all[0].0.is_cancelled());
        let left = MIN_SILENCE - MIN_SILENCE_OF_FLOOD;
        assert_eq!(silent.evict(limit, soon), Some(left), "a flood no more");
        assert_eq!(silent.evict(limit, start + MIN_SILENCE), None);
        assert_eq!(gone(), 2);
    }

    #[test]
    fn a_large_flood_is_evicted_in_batches() {
        let (silent, start) = (SilentConnections::default(), Instant::now());
        let all: Vec<_> = (0..1000).map(|_| enter(&silent, 1, start)).collect();
        assert_eq!(silent.evict(1024, start + MIN_SILENCE_OF_FLOOD), None);
        let gone = all.iter().filter(|(evict, _)| evict.is_cancelled());
        assert_eq!(gone.count(), 5);
    }

    #[test]
    fn who_speaks_stays() {
        let (silent, start) = (SilentConnections::default(), Instant::now());
        let (evict, ticket) = enter(&silent, 1, start);
        silent.leave(ticket);
        silent.evict(1, start + 2 * MIN_SILENCE);
        assert!(!evict.is_cancelled());
    }
}
