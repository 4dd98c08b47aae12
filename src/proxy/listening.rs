//! One bound listener, and what accepts from it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::accept::{self, AcceptShared, Pause, WARN_SPACING};
use super::accept_on_relay;
use super::route::{AcceptWay, ListenerSnapshot};
use super::shared::Proxy;
use crate::admission::ListenerAdmission;
use crate::base::log_throttle::LogThrottle;
use crate::config::Bind;
use crate::net::Bound;
use crate::observe::ListenerCounters;

/// A listener that accepts. Dropping it without [`Listening::stop`] stops it, too.
pub(crate) struct Listening {
    shared: Arc<AcceptShared>,
    acceptor: Mutex<Acceptor>,
}

/// Where a listener comes from.
pub(crate) enum ListenerOrigin<'a> {
    New(Arc<ListenerCounters>, StartState),
    /// The same listener, at its address before or before it left it: the clients it has let in
    /// still count.
    Moved(&'a Listening),
}

/// State in which a listener begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartState {
    Listening,
    /// The operator drains it.
    Draining,
}

/// The task that accepts, or that lets a relay thread do so.
struct Acceptor {
    way: AcceptWay,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Acceptor {
    fn start(shared: &Arc<AcceptShared>) -> Self {
        let way = shared.listener.load().way();
        let stop = shared.stop.child_token();
        let accepting = run(Arc::clone(shared), way, stop.clone());
        Self {
            way,
            stop,
            task: shared.proxy.runtime.spawn(accepting),
        }
    }
}

impl Listening {
    /// Starts accepting on the proxy's runtime, or on the relay's threads where no byte is needed
    /// to route.
    pub(crate) fn start(
        proxy: &Arc<Proxy>,
        bound: Arc<Bound>,
        listener: impl Into<Arc<ListenerSnapshot>>,
        origin: ListenerOrigin<'_>,
    ) -> Self {
        let listener = listener.into();
        set_options(&bound, &listener);
        let (counters, admission) = match origin {
            ListenerOrigin::New(counters, state) => {
                let admission = ListenerAdmission::new(&proxy.limits, &counters);
                admission.set_draining(state == StartState::Draining);
                (counters, Arc::new(admission))
            }
            ListenerOrigin::Moved(old) => {
                let shared = &old.shared;
                (Arc::clone(&shared.counters), Arc::clone(&shared.admission))
            }
        };
        let shared = Arc::new(AcceptShared {
            proxy: Arc::clone(proxy),
            bound,
            listener: Arc::new(ArcSwap::new(listener)),
            counters,
            admission,
            warned: LogThrottle::new(WARN_SPACING),
            stop: proxy.stopping.child_token(),
        });
        let acceptor = Mutex::new(Acceptor::start(&shared));
        Self { shared, acceptor }
    }

    /// Gives the next connections these settings; the socket is not touched, but for its options
    /// and the length of its queue.
    pub(crate) fn update(&self, new: ListenerSnapshot) {
        let old = self.rules();
        let backlog = new.config.backlog;
        if backlog != old.config.backlog
            && let Err(error) = self.shared.bound.set_backlog(backlog)
        {
            tracing::warn!(listener = %self.shared.counters.name, %error, "backlog cannot be changed");
        }
        if old.config.tcp != new.config.tcp
            || old.config.tcp_defer_accept != new.config.tcp_defer_accept
            || old.config.file != new.config.file
        {
            set_options(&self.shared.bound, &new);
        }
        let way = new.way();
        self.shared.listener.store(Arc::new(new));
        let mut acceptor = self.acceptor();
        if acceptor.way != way {
            // The next one begins before the last one has ended: the kernel gives each connection
            // to one of them, and either looks at the new settings.
            let last = std::mem::replace(&mut *acceptor, Acceptor::start(&self.shared));
            last.stop.cancel();
        }
    }

    /// Leaves the socket, with all that is queued in it, to the acceptors of another process, and
    /// goes on with live sessions. The socket stays open as long as somebody holds it.
    pub(crate) async fn leave(&self) -> Arc<Bound> {
        // Held, so that the acceptor does not take what is queued as if the socket closed.
        let bound = Arc::clone(self.bound());
        self.stop().await;
        bound
    }

    pub(crate) fn rules(&self) -> Arc<ListenerSnapshot> {
        self.shared.listener.load_full()
    }

    /// The socket, for a listener that takes over the address under another name.
    pub(crate) fn bound(&self) -> &Arc<Bound> {
        &self.shared.bound
    }

    /// The address really bound.
    pub(crate) fn local(&self) -> &Bind {
        self.shared.bound.local()
    }

    pub(crate) fn counters(&self) -> &Arc<ListenerCounters> {
        &self.shared.counters
    }

    pub(super) fn proxy(&self) -> &Arc<Proxy> {
        &self.shared.proxy
    }

    pub(crate) fn admission(&self) -> &ListenerAdmission {
        &self.shared.admission
    }

    /// Whether the operator drains it.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.admission.is_draining()
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.shared.admission.set_draining(draining);
    }

    /// Serves what the kernel has already queued and accepts no more; the socket closes with the
    /// last handle to this. Live sessions go on; a kept HTTP connection ends after the response
    /// that is due.
    pub(crate) async fn stop(&self) {
        self.shared.stop.cancel();
        let none = tokio::spawn(async {});
        let task = std::mem::replace(&mut self.acceptor().task, none);
        // A task that panicked has stopped.
        let _ = task.await;
    }

    fn acceptor(&self) -> MutexGuard<'_, Acceptor> {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// Sets the options that accepted sockets inherit. Those accepted already keep what they have.
fn set_options(bound: &Bound, listener: &ListenerSnapshot) {
    let config = &listener.config;
    if let Err(error) = bound.set_options(&config.tcp, config.tcp_defer_accept) {
        tracing::warn!(listener = %config.name, %error, "socket options cannot be set");
    }
    if let Err(error) = bound.set_rights(&config.file) {
        tracing::warn!(listener = %config.name, %error, "rights of the socket's file cannot be set");
    }
}

async fn run(shared: Arc<AcceptShared>, way: AcceptWay, stop: CancellationToken) {
    if way != AcceptWay::SetUp {
        if let Some(socket) = watch(&shared, &stop, Bound::duplicate).await {
            accept_on_relay::accept(shared, socket, way, stop).await;
        }
    } else if let Some(incoming) = watch(&shared, &stop, Bound::incoming).await {
        accept::accept(shared, incoming, stop).await;
    }
}

/// Watches the socket, once there is a descriptor for that. `None`: it is to stop before.
async fn watch<T>(
    shared: &AcceptShared,
    stop: &CancellationToken,
    open: impl Fn(&Bound) -> io::Result<T>,
) -> Option<T> {
    loop {
        let error = match open(&shared.bound) {
            Ok(watched) => return Some(watched),
            Err(error) => error,
        };
        tokio::select! {
            biased;
            // Cancel safe: it only waits.
            () = shared.wait_for_room(Pause::Short(error), AcceptWay::SetUp) => {}
            () = stop.cancelled() => return None,
        }
    }
}
