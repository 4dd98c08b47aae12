//! Life of a running server: its signals, and its graceful stop.
//!
//! With `shutdown_delay` it is first not ready, and still serves all who come.
//!
//! A server that stops accepts nothing more and lets the live connections end. Clients that are all
//! closed in one moment all come back in one moment; so connections that are left at half of
//! `hard_stop_after` are closed evenly over the second half.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::lifecycle::StopStage;
use super::listeners;
use super::lock::lock;
use super::signals::{Signal, Signals};
use super::state::Server;
use super::status::ListenerState;
use super::upgrade::Totals;
use super::upgrade::message::FromNew;
use super::upgrade::{SuccessorError, is_init};
use crate::base::units::format_duration;
use crate::relay::CloseFrame;

/// Time between two progress lines.
const PROGRESS: Duration = Duration::from_secs(5);

/// Time for the process that has taken over to be told the last counts.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Time for the end of a WebSocket: a frame under way, and an answer to our Close.
const CLOSE_TIME: Duration = Duration::from_secs(10);

impl Server {
    /// Serves until a signal asks to stop, then until the stop is over; another one during the stop
    /// ends it at once. A process that has handed over ends as if it was asked to, without a
    /// signal.
    ///
    /// # Errors
    /// The process that had taken over has failed.
    pub(crate) async fn run(self: Arc<Self>, mut signals: Signals) -> Result<(), SuccessorError> {
        let asked = Arc::new(Notify::new());
        let _reloading = AbortOnDropHandle::new(
            self.control_runtime()
                .spawn(reload(Arc::clone(&self), Arc::clone(&asked))),
        );
        let upgrading = Arc::clone(&self);
        let _upgrading = AbortOnDropHandle::new(self.control_runtime().spawn(async move {
            loop {
                upgrading.upgrade.wanted.notified().await;
                // The result was logged and counted.
                drop(upgrading.upgrade().await);
            }
        }));
        let mut is_heard = false;
        let (end, allowed) = match self.serve(&mut signals, &asked, &mut is_heard).await {
            End::Settled => {
                let upgrade = self.config().upgrade.hard_stop_after;
                let allowed = upgrade.unwrap_or(self.config().global.hard_stop_after);
                (End::Settled, allowed)
            }
            End::Asked => {
                self.upgrade.tell_predecessor(&FromNew::Stop);
                self.announce_stop(&mut signals, &asked, &mut is_heard)
                    .await;
                (End::Asked, self.config().global.hard_stop_after)
            }
        };
        self.stop_and_answer(&mut signals, &asked, (end, allowed), &mut is_heard)
            .await;
        self.finish().await;
        if !self.is_handing_over() {
            self.leave_cluster().await;
        }
        self.flush_traces().await;
        self.tell_last().await;
        self.outlive_successor(&mut signals, allowed).await;
        self.lifecycle.stop(StopStage::Over);
        self.upgrade.successor_error().map_or(Ok(()), Err)
    }

    /// Stops within that time. A process that has handed over and is then asked to stop has as long
    /// as any other; another request ends it at once, and so does a failure of the new process.
    /// `is_heard`: a signal to stop has come. The first one is no other request where the other
    /// process has passed the same on before it.
    async fn stop_and_answer(
        &self,
        signals: &mut Signals,
        reload: &Notify,
        (mut end, allowed): (End, Duration),
        is_heard: &mut bool,
    ) {
        let mut stop = Box::pin(self.stop(allowed));
        loop {
            let is_asked = tokio::select! {
                () = &mut stop => return,
                () = self.upgrade.abandoned.cancelled() => {
                    let live = self.limits().live();
                    tracing::error!(live, "the new process has failed: stopping at once");
                    return;
                }
                () = self.upgrade.stop_wanted.notified() => end == End::Settled,
                () = self.upgrade.asked_by_old(if end == End::Asked { 2 } else { 1 }) => true,
                signal = signals.next() => {
                    !self.answer(signal, reload)
                        && (std::mem::replace(is_heard, true) || end == End::Settled)
                }
            };
            if !is_asked {
                continue;
            }
            if end == End::Asked {
                tracing::warn!(live = self.limits().live(), "asked again: stopping at once");
                return;
            }
            end = End::Asked;
            self.upgrade.tell_predecessor(&FromNew::Stop);
            stop = Box::pin(self.stop(self.config().global.hard_stop_after));
        }
    }

    /// Serves until somebody asks to stop, or all is handed over.
    async fn serve(&self, signals: &mut Signals, asked: &Notify, is_heard: &mut bool) -> End {
        loop {
            tokio::select! {
                signal = signals.next() => if !self.answer(signal, asked) {
                    *is_heard = true;
                    return End::Asked;
                },
                () = self.upgrade.stop_wanted.notified() => return End::Asked,
                () = self.upgrade.asked_by_old(1) => return End::Asked,
                () = self.upgrade.settled.cancelled() => return End::Settled,
            }
        }
    }

    /// Waits for the end of the new process, where the end of this one would be its end, too: in
    /// the first process of a container, and while the service manager takes this one for the main
    /// one.
    async fn outlive_successor(&self, signals: &mut Signals, allowed: Duration) {
        self.upgrade.concluded().await;
        if !self.upgrade.has_successor() {
            return;
        }
        let until = Instant::now() + allowed + CLOSE_TIME;
        let ended = self.upgrade.outlived_successor();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => return,
                () = tokio::time::sleep_until(until), if !is_init() => return,
                signal = signals.next() => drop(self.pass_on(signal)),
            }
        }
    }

    /// Passes a signal on to the new process; false where that gets its signals itself.
    fn pass_on(&self, signal: Signal) -> bool {
        self.upgrade.forward(match signal {
            Signal::Stop => return self.upgrade.pass_stop_on(),
            Signal::Reload => rustix::process::Signal::HUP,
            Signal::Reopen => rustix::process::Signal::USR1,
            Signal::Upgrade => rustix::process::Signal::USR2,
        })
    }

    /// Tells those who ask for readiness that the server is about to stop, and goes on accepting
    /// for `shutdown_delay`: balancers in front take a while to see it, and send clients
    /// meanwhile. Another signal to stop ends the wait.
    async fn announce_stop(&self, signals: &mut Signals, asked: &Notify, is_heard: &mut bool) {
        let delay = self.config().global.shutdown_delay;
        if delay.is_zero() {
            return;
        }
        self.lifecycle.stop(StopStage::Announced);
        self.upgrade.end_building();
        tracing::info!(
            live = self.limits().live(),
            shutdown_delay = format_duration(delay),
            "about to stop: not ready, new clients are still accepted"
        );
        let signalled = async {
            while self.answer(signals.next().await, asked) || !std::mem::replace(is_heard, true) {}
        };
        let asked_again = async {
            tokio::select! {
                () = signalled => {}
                () = self.upgrade.asked_by_old(2) => {}
            }
        };
        if timeout(delay, asked_again).await.is_ok() {
            tracing::info!("asked again: the stop begins before the delay is over");
        }
    }

    /// Answers a signal; false when the server is to stop.
    fn answer(&self, signal: Signal, reload: &Notify) -> bool {
        let is_passed_on = self.pass_on(signal);
        match signal {
            Signal::Stop => return false,
            Signal::Reopen => {
                self.journal().reopen();
                self.upgrade.tell_predecessor(&FromNew::Reopen);
            }
            // The manager waits for the end of the reload that it has asked this process for.
            Signal::Reload if is_passed_on => drop(self.lifecycle.begin_reload()),
            Signal::Upgrade if is_passed_on => {}
            Signal::Upgrade => self.upgrade.wanted.notify_one(),
            // The next signal must not wait for the reload.
            Signal::Reload => reload.notify_one(),
        }
        true
    }

    /// Stops accepting and returns when the last connection is gone, at the latest after
    /// `allowed`.
    pub(crate) async fn stop(&self, allowed: Duration) {
        let (started, half) = (Instant::now(), allowed / 2);
        self.lifecycle.stop(StopStage::Closing);
        self.upgrade.end_building();
        self.proxy.hard_stop.plan(started + half, half);
        self.stop_accepting().await;
        let limits = self.limits();
        tracing::info!(
            live = limits.live(),
            hard_stop_after = format_duration(allowed),
            "stopping: live connections may end"
        );
        if !self.emptied_by(started + half).await {
            tracing::info!(
                live = limits.live(),
                within = format_duration(half),
                "stopping: closing what is left"
            );
            // The last ones get a Close, too, and time for their answer.
            let spread = half.saturating_sub(CLOSE_TIME.min(half / 5));
            self.relay()
                .close_all_within(spread, &Arc::new(CloseFrame::going_away()));
            self.emptied_by(started + allowed).await;
        }
        tracing::info!(
            live = limits.live(),
            after = format_duration(started.elapsed()),
            "stopped"
        );
    }

    /// Closes the listeners' sockets, after the connections queued in them were served.
    async fn stop_accepting(&self) {
        let stopped = {
            let mut live = lock(&self.live);
            let taken = std::mem::take(&mut live.listeners);
            let status = |listening| listeners::status(listening, ListenerState::Stopped);
            live.stopped
                .get_or_insert_with(|| taken.iter().map(|one| status(one)).collect());
            taken
        };
        self.proxy.stopping.cancel();
        for listening in stopped {
            listening.stop().await;
        }
    }

    /// Waits until no connection is left, and logs the progress; false at `deadline`.
    async fn emptied_by(&self, deadline: Instant) -> bool {
        let limits = self.limits();
        let emptied = async {
            while timeout(PROGRESS, limits.emptied()).await.is_err() {
                tracing::info!(live = limits.live(), "stopping");
            }
        };
        timeout_at(deadline, emptied).await.is_ok()
    }

    /// Ends the sessions that are left. What is still set up, and exchanges of HTTP, end with the
    /// runtime.
    async fn finish(&self) {
        let relay = Arc::clone(self.relay());
        // A panic was logged.
        let _ = tokio::task::spawn_blocking(move || relay.shutdown()).await;
    }

    /// Tells the process that has taken over what the last connections have counted.
    async fn tell_last(self: &Arc<Self>) {
        let server = Arc::clone(self);
        let tell = move || server.upgrade.tell_last(&Totals::of(&server));
        // One that does not read is not waited for.
        let _ = timeout(LAST_WORDS, tokio::task::spawn_blocking(tell)).await;
    }
}

/// Why a server serves no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By a signal, or by the new process.
    Asked,
    /// Another process has taken over for good.
    Settled,
}

/// Reloads whenever `asked`, one after the other: each reload holds a thread while it waits.
async fn reload(server: Arc<Server>, asked: Arc<Notify>) {
    let reload = || {
        let server = Arc::clone(&server);
        // The result was logged and counted.
        async move { drop(server.reload().await) }
    };
    whenever(&asked, reload).await;
}

/// Does `action` whenever it is `asked` for; requests while one is under way make one more after
/// it.
async fn whenever<F: Future<Output = ()>>(asked: &Notify, mut action: impl FnMut() -> F) {
    loop {
        asked.notified().await;
        action().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Each SIGHUP held a thread until the reloads before it were done.
    #[tokio::test]
    async fn what_is_asked_for_meanwhile_is_done_once_more() {
        let (asked, gate, begun) = (Notify::new(), Semaphore::new(0), AtomicUsize::new(0));
        let action = || async {
            begun.fetch_add(1, Ordering::Relaxed);
            gate.acquire().await.unwrap().forget();
        };
        let asking = async {
            for _ in 0..10 {
                asked.notify_one();
                tokio::task::yield_now().await;
            }
            assert_eq!(begun.load(Ordering::Relaxed), 1);
            gate.add_permits(9);
            while begun.load(Ordering::Relaxed) < 2 {
                tokio::task::yield_now().await;
            }
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = whenever(&asked, action) => {}
            () = asking => {}
        }
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }
}
