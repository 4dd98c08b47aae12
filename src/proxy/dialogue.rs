//! What the gate of one client connection and the service behind hyper tell each other: which request is a refused one,
//! how many are answered, when bytes last moved, and that the client has said its last word.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::observe::Cause;

/// Why the gate stopped the client, and what it is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GateRefusal {
    /// Which request, from 1: the stand-in for a refused head, or the request whose body was refused.
    pub ordinal: u64,
    pub status: u16,
    pub how: Cause,
    /// Shown to the client and in the debug log.
    pub reason: String,
}

/// One per client connection, shared by its gate and its service.
#[derive(Debug)]
pub(super) struct GateState {
    refused: OnceLock<GateRefusal>,
    answered: AtomicU64,
    /// Wakes the gate's reader when a request has been answered.
    reader: AtomicWaker,
    start: Instant,
    /// Milliseconds after `start` when bytes last moved.
    moved_ms: AtomicU64,
    /// Milliseconds that a write to the client may stall.
    stall_ms: AtomicU64,
    half_closed: AtomicBool,
    changed: Notify,
    left: AtomicBool,
    gave_up: AtomicBool,
    stopped: AtomicBool,
}

impl GateState {
    pub(super) fn new(stall_timeout: Duration) -> GateState {
        GateState {
            refused: OnceLock::new(),
            answered: AtomicU64::new(0),
            reader: AtomicWaker::new(),
            start: Instant::now(),
            moved_ms: AtomicU64::new(0),
            stall_ms: AtomicU64::new(milliseconds(stall_timeout)),
            half_closed: AtomicBool::new(false),
            changed: Notify::new(),
            left: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// The first refusal counts; nothing passes the gate after it.
    pub(super) fn refuse(&self, refused: GateRefusal) {
        let _ = self.refused.set(refused);
    }

    /// The refusal, when it is that of the request with this ordinal number.
    pub(super) fn refused(&self, ordinal: u64) -> Option<&GateRefusal> {
        self.refused
            .get()
            .filter(|refused| refused.ordinal == ordinal)
    }

    /// One more request is answered to its last byte.
    pub(super) fn answered_one(&self) {
        self.answered.fetch_add(1, Ordering::AcqRel);
        self.reader.wake();
    }

    /// True when every one of the `passed` requests is answered; otherwise `waker` is woken at the next answer.
    pub(super) fn all_answered(&self, passed: u64, waker: &Waker) -> bool {
        self.reader.register(waker);
        self.answered.load(Ordering::Acquire) >= passed
    }

    /// Bytes have moved on either side.
    pub(super) fn moved(&self) {
        let now = milliseconds(self.start.elapsed()).max(1);
        self.moved_ms.store(now, Ordering::Relaxed);
    }

    /// Whether bytes have moved at all.
    pub(super) fn has_moved(&self) -> bool {
        self.moved_ms.load(Ordering::Relaxed) > 0
    }

    /// How long a write to the client may stall from now on.
    pub(super) fn set_stall_timeout(&self, timeout: Duration) {
        self.stall_ms
            .store(milliseconds(timeout), Ordering::Relaxed);
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        Duration::from_millis(self.stall_ms.load(Ordering::Relaxed))
    }

    /// The client sent a FIN while an answer is under way.
    pub(super) fn half_close(&self) {
        self.half_closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// The client finished while it waited for an upgrade.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// The gate closes a client that said nothing for too long.
    pub(super) fn give_up(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// The process ends the connection, with what is under way on it.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Returns once no byte has moved for `idle`, or for `fin` after the client half-closed.
    ///
    /// # Cancel safety
    /// Holds no state of its own.
    pub(super) async fn stalled(&self, idle: Duration, fin: Duration) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listening before looking: a half-close in between is not missed.
            changed.as_mut().enable();
            let limit = match self.half_closed.load(Ordering::Acquire) {
                true => idle.min(fin),
                false => idle,
            };
            let moved = self.start + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
            if moved.elapsed() >= limit {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(moved + limit) => {}
                () = changed => {}
            }
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn moving_bytes_put_a_stall_off() {
        let dialogue = GateState::new(MINUTE);
        let start = Instant::now();
        let stalled = dialogue.stalled(MINUTE, HOUR);
        let moving = async {
            for _ in 0..5 {
                tokio::time::sleep(MINUTE / 2).await;
                dialogue.moved();
            }
        };
        tokio::join!(stalled, moving);
        assert_eq!(start.elapsed(), MINUTE / 2 * 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_client_has_less_time() {
        let dialogue = GateState::new(MINUTE);
        let start = Instant::now();
        let half_close = async {
            tokio::time::sleep(MINUTE * 2).await;
            dialogue.moved();
            dialogue.half_close();
        };
        tokio::join!(dialogue.stalled(HOUR, MINUTE), half_close);
        assert_eq!(start.elapsed(), MINUTE * 3);
    }

    #[test]
    fn only_the_first_refusal_counts() {
        let dialogue = GateState::new(MINUTE);
        let refused = |ordinal| GateRefusal {
            ordinal,
            status: 400,
            how: Cause::Invalid,
            reason: String::new(),
        };
        dialogue.refuse(refused(2));
        dialogue.refuse(refused(3));
        assert!(dialogue.refused(2).is_some() && dialogue.refused(3).is_none());
    }
}
