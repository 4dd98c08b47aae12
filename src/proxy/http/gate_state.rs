//! The state that the gate of one client connection and the service behind hyper share: which
//! request is refused, how many are answered, when bytes last moved, and whether the client has
//! finished.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::observe::Cause;

/// A request that the gate has refused, and the response to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GateRefusal {
    /// Number of the request, from 1: the stand-in for a refused head, or that of a refused body.
    pub ordinal: u64,
    pub status: u16,
    pub how: Cause,
    /// Shown to the client and in the debug log.
    pub reason: String,
}

/// State of one client connection, shared by its gate and its service.
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

    /// Sets the refusal. The first one counts; nothing passes the gate after it.
    pub(super) fn refuse(&self, refused: GateRefusal) {
        let _ = self.refused.set(refused);
    }

    /// The refusal, when it is that of the request with this ordinal number.
    pub(super) fn refused(&self, ordinal: u64) -> Option<&GateRefusal> {
        self.refused
            .get()
            .filter(|refused| refused.ordinal == ordinal)
    }

    /// Notes that one more request is answered to its last byte.
    pub(super) fn answered_one(&self) {
        self.answered.fetch_add(1, Ordering::AcqRel);
        self.reader.wake();
    }

    /// Whether all of the `passed` requests are answered; otherwise `waker` is woken at the next
    /// response.
    pub(super) fn all_answered(&self, passed: u64, waker: &Waker) -> bool {
        self.reader.register(waker);
        self.answered.load(Ordering::Acquire) >= passed
    }

    /// Notes that bytes have moved on either side.
    pub(super) fn moved(&self) {
        let now = milliseconds(self.start.elapsed()).max(1);
        self.moved_ms.store(now, Ordering::Relaxed);
    }

    /// Whether bytes have moved at all.
    pub(super) fn has_moved(&self) -> bool {
        self.moved_ms.load(Ordering::Relaxed) > 0
    }

    /// Sets how long a write to the client may stall from now on.
    pub(super) fn set_stall_timeout(&self, timeout: Duration) {
        self.stall_ms
            .store(milliseconds(timeout), Ordering::Relaxed);
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        Duration::from_millis(self.stall_ms.load(Ordering::Relaxed))
    }

    /// Notes that the client sent a FIN while a response is under way.
    pub(super) fn half_close(&self) {
        self.half_closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Notes that the client finished while it waited for an upgrade.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Notes that the gate closes a client that sent nothing for too long.
    pub(super) fn give_up(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// Notes that the process ends the connection, with what is under way on it.
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
            let half_closed = self.half_closed.load(Ordering::Acquire);
            let limit = if half_closed { idle.min(fin) } else { idle };
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
        let gate_state = GateState::new(MINUTE);
        let start = Instant::now();
        let stalled = gate_state.stalled(MINUTE, HOUR);
        let moving = async {
            for _ in 0..5 {
                tokio::time::sleep(MINUTE / 2).await;
                gate_state.moved();
            }
        };
        tokio::join!(stalled, moving);
        assert_eq!(start.elapsed(), MINUTE / 2 * 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_client_has_less_time() {
        let gate_state = GateState::new(MINUTE);
        let start = Instant::now();
        let half_close = async {
            tokio::time::sleep(MINUTE * 2).await;
            gate_state.moved();
            gate_state.half_close();
        };
        tokio::join!(gate_state.stalled(HOUR, MINUTE), half_close);
        assert_eq!(start.elapsed(), MINUTE * 3);
    }

    #[test]
    fn only_the_first_refusal_counts() {
        let gate_state = GateState::new(MINUTE);
        let refused = |ordinal| GateRefusal {
            ordinal,
            status: 400,
            how: Cause::Invalid,
            reason: String::new(),
        };
        gate_state.refuse(refused(2));
        gate_state.refuse(refused(3));
        assert!(gate_state.refused(2).is_some() && gate_state.refused(3).is_none());
    }
}
