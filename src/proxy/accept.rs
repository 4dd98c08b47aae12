//! One bound listener and its accept task. Nothing is awaited in the loop but accept itself and room to accept.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Arrival, Proxy, Rules, Slot, http, tcp};
use crate::base::pace::Pace;
use crate::config::{Bind, Protocol};
use crate::net::{Bound, Peer, Stream};
use crate::observe::ListenerCounters;

/// A descriptor may be freed by others than our connections; this is how soon it is noticed.
const RETRY_ACCEPT: Duration = Duration::from_millis(50);
/// Between two warnings that accepting pauses.
const WARN_SPACING: Duration = Duration::from_secs(10);

/// A listener that accepts. Dropping it without [`Listening::stop`] stops it, too.
pub struct Listening {
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    proxy: Arc<Proxy>,
    bound: Arc<Bound>,
    rules: Arc<ArcSwap<Rules>>,
    counters: Arc<ListenerCounters>,
    stop: CancellationToken,
}

impl Listening {
    /// Starts accepting on the proxy's runtime.
    pub fn start(
        proxy: &Arc<Proxy>,
        bound: Arc<Bound>,
        rules: Rules,
        counters: Arc<ListenerCounters>,
    ) -> Self {
        let stop = proxy.stopping.child_token();
        let shared = Arc::new(Shared {
            proxy: Arc::clone(proxy),
            bound,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            counters,
            stop: stop.clone(),
        });
        let task = proxy
            .runtime
            .spawn(accept(Arc::clone(&shared), stop.clone()));
        Self {
            shared,
            stop,
            task: Mutex::new(Some(task)),
        }
    }

    /// The next connection sees these rules; the socket is not touched, but for the length of its queue.
    pub fn update(&self, rules: Rules) {
        let backlog = rules.config.backlog;
        if backlog != self.rules().config.backlog
            && let Err(error) = self.shared.bound.set_backlog(backlog)
        {
            tracing::warn!(listener = %self.shared.counters.name, %error, "backlog cannot be changed");
        }
        self.shared.rules.store(Arc::new(rules));
    }

    pub fn rules(&self) -> Arc<Rules> {
        self.shared.rules.load_full()
    }

    /// Its socket, for a listener that takes over the address under another name.
    pub fn bound(&self) -> &Arc<Bound> {
        &self.shared.bound
    }

    /// The address really bound.
    pub fn local(&self) -> &Bind {
        self.shared.bound.local()
    }

    pub fn counters(&self) -> &Arc<ListenerCounters> {
        &self.shared.counters
    }

    /// Serves what the kernel has already queued and accepts no more; the socket closes with the last handle to this. Live
    /// sessions go on; a kept HTTP connection ends after the answer that is due.
    pub async fn stop(&self) {
        self.stop.cancel();
        let task = match self.task.lock() {
            Ok(mut slot) => slot.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        if let Some(task) = task {
            // A task that panicked has stopped.
            let _ = task.await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(shared: Arc<Shared>, stop: CancellationToken) {
    let warned = Pace::new(WARN_SPACING);
    loop {
        // Cancel safe: both only wait. What accept has given is not dropped by a stop.
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = next(&shared, &warned) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let slot = place(&shared, &stop).await;
                arrive(&shared, stream, peer, slot);
            }
            Err(error) => pause(&shared, &error, &warned).await,
        }
    }
    drain(&shared);
}

/// What the kernel has accepted for us before we stopped is not to be reset by the close. This asks the kernel itself:
/// tokio's accept says "nothing" when the task's budget is used up, and before its driver has heard of a connection.
/// The limits are not asked: at most one queue's length more, once.
fn drain(shared: &Arc<Shared>) {
    for _ in 0..=shared.rules.load().config.backlog {
        match shared.bound.accept_now() {
            Ok(Some((stream, peer))) => arrive(shared, stream, peer, shared.proxy.limits.slot()),
            Ok(None) => return,
            Err(error) if crate::net::is_local_shortage(&error) => {
                tracing::warn!(listener = %shared.counters.name, %error, "connections still queued are reset");
                return;
            }
            Err(error) => lost(shared, &error),
        }
    }
}

/// Waits for room, then for a connection. Cancel safe: both are.
async fn next(shared: &Shared, warned: &Pace) -> io::Result<(Stream, Peer)> {
    let limits = &shared.proxy.limits;
    if !limits.has_room() {
        if warned.is_due(std::time::Instant::now()) {
            tracing::warn!(listener = %shared.counters.name, live = limits.live(), in_setup = limits.in_setup(),
                max_connections = limits.max_connections(), "accepting pauses: no room for another connection");
        }
        limits.room().await;
    }
    shared.bound.accept().await
}

/// A place for a connection just accepted. There was room before the wait for it, which another listener may have
/// taken since: then this one is held here, one for each listener, until there is room again or the listener stops.
async fn place(shared: &Shared, stop: &CancellationToken) -> Slot {
    let limits = &shared.proxy.limits;
    tokio::select! {
        biased;
        slot = limits.enter() => slot,
        () = stop.cancelled() => limits.slot(),
    }
}

/// Starts the path of one connection in a task of its own: a panic there ends that connection only.
fn arrive(shared: &Arc<Shared>, stream: Stream, peer: Peer, slot: Slot) {
    shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
    let rules = shared.rules.load_full();
    let arrival = Arrival {
        proxy: Arc::clone(&shared.proxy),
        deadline: Instant::now() + rules.config.handshake_timeout,
        closing: shared.stop.clone(),
        counters: Arc::clone(&shared.counters),
        peer,
        slot: Arc::new(slot),
        rules,
        latest: Arc::clone(&shared.rules),
    };
    let protocol = arrival.rules.config.protocol;
    shared.proxy.runtime.spawn(async move {
        match protocol {
            Protocol::Tcp => tcp::serve(arrival, stream).await,
            Protocol::Websocket => http::serve(arrival, stream).await,
        }
    });
}

/// After an error of accept: go on at once when only that connection failed, else wait for a descriptor.
async fn pause(shared: &Shared, error: &io::Error, warned: &Pace) {
    if !crate::net::is_local_shortage(error) {
        lost(shared, error);
        // Never a busy loop, whatever the kernel says.
        tokio::task::yield_now().await;
        return;
    }
    if warned.is_due(std::time::Instant::now()) {
        tracing::warn!(listener = %shared.counters.name, %error, "accepting pauses");
    }
    let _ = tokio::time::timeout(RETRY_ACCEPT, shared.proxy.limits.freed()).await;
}

/// Only that connection failed, e.g. reset by its client while it was queued.
fn lost(shared: &Shared, error: &io::Error) {
    tracing::debug!(listener = %shared.counters.name, %error, "a connection was gone before it was accepted");
}
