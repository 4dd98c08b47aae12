//! Life of the server as a service manager follows it: reloads and the stop, as they happen.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

/// Progress of a stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StopStage {
    /// No stop was asked for.
    #[default]
    None,
    /// Announced to those who ask for readiness; clients are still accepted.
    Announced,
    /// Nothing new is accepted any more; live connections end.
    Closing,
    /// All connections are gone, and the process ends.
    Over,
}

/// State of a server's life at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lifecycle {
    pub stop: StopStage,
    /// Reloads that were begun: a short one may be over before anybody looks.
    pub reloads_begun: u64,
    /// Begin of the latest reload, by the clock that the service manager's own stamps have
    /// (CLOCK_MONOTONIC).
    pub reload_began: Duration,
    pub is_reloading: bool,
    /// The process that has taken over, once it is the service manager's main one.
    pub successor: Option<u32>,
}

/// Publishes each step of a server's life.
#[derive(Debug, Default)]
pub(super) struct LifecycleSender(watch::Sender<Lifecycle>);

impl LifecycleSender {
    pub(super) fn subscribe(&self) -> watch::Receiver<Lifecycle> {
        self.0.subscribe()
    }

    pub(super) fn stop_stage(&self) -> StopStage {
        self.0.borrow().stop
    }

    pub(super) fn stop(&self, stage: StopStage) {
        self.0.send_modify(|life| life.stop = stage);
    }

    pub(super) fn succeeded_by(&self, pid: u32) {
        self.0.send_modify(|life| life.successor = Some(pid));
    }

    /// Publishes the begin of a reload; dropping the guard publishes its end.
    pub(super) fn begin_reload(&self) -> ReloadGuard<'_> {
        self.0.send_modify(|life| {
            life.reloads_begun += 1;
            life.reload_began = monotonic_now();
            life.is_reloading = true;
        });
        ReloadGuard(self)
    }
}

/// A reload that is under way.
pub(super) struct ReloadGuard<'a>(&'a LifecycleSender);

impl Drop for ReloadGuard<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|life| life.is_reloading = false);
    }
}

/// `std::time::Instant` does not show its value.
fn monotonic_now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_nobody_saw_is_counted() {
        let sender = LifecycleSender::default();
        let mut receiver = sender.subscribe();
        let before = monotonic_now();
        let reload = sender.begin_reload();
        assert!(receiver.borrow_and_update().is_reloading);
        drop(reload);
        drop(sender.begin_reload());
        let life = *receiver.borrow_and_update();
        assert_eq!((life.reloads_begun, life.is_reloading), (2, false));
        assert!(life.reload_began >= before && life.reload_began <= monotonic_now());
    }
}
