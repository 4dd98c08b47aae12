//! Accepting on the set-up plane. The loop waits only for accept itself and for room to accept.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{ClientConnection, trust};
use super::route::{AcceptWay, ListenerSnapshot};
use super::shared::Proxy;
use crate::admission::{ConnectionPermit, ListenerAdmission, SetupPermit};
use crate::base::log_throttle::LogThrottle;
use crate::net::{Bound, Incoming, Peer, Stream, is_local_shortage, is_transient_accept_error};
use crate::observe::{ConnectionRecord, ListenerCounters, Phase, Refusal, Side, Termination};

/// How soon a free descriptor is noticed: not only our connections free them.
const RETRY_ACCEPT: Duration = Duration::from_millis(50);
/// Between two warnings that accepting pauses.
pub(super) const WARN_SPACING: Duration = Duration::from_secs(10);

/// Reason for which accepting pauses.
#[derive(Debug)]
pub(super) enum Pause {
    /// The limit, by its key, that lets nobody in.
    Full(&'static str),
    /// The process is short of something.
    Short(io::Error),
}

/// State that the acceptors of one listener share.
pub(super) struct AcceptShared {
    pub proxy: Arc<Proxy>,
    pub bound: Arc<Bound>,
    pub listener: Arc<ArcSwap<ListenerSnapshot>>,
    pub counters: Arc<ListenerCounters>,
    pub admission: Arc<ListenerAdmission>,
    pub warned: LogThrottle,
    /// Cancelled when the listener stops.
    pub stop: CancellationToken,
}

impl AcceptShared {
    /// The largest number of connections that the kernel has queued and that closing the socket
    /// would reset. None where the socket stays open for another acceptor.
    pub(super) fn queued_at_close(&self) -> u32 {
        let closes = self.stop.is_cancelled() && Arc::strong_count(&self.bound) == 1;
        if closes {
            self.listener.load().config.backlog.saturating_add(1)
        } else {
            0
        }
    }

    fn warn_of_limit(&self, limit: &'static str) {
        let limits = &self.proxy.limits;
        if self.warned.is_due(std::time::Instant::now()) {
            tracing::warn!(listener = %self.counters.name, live = limits.live(), in_setup = limits.in_setup(),
                max_connections = limits.max_connections(), limit, "accepting pauses: no room for another connection");
        }
    }

    /// Waits until accepting may go on.
    ///
    /// # Cancel safety
    /// Takes nothing.
    pub(super) async fn wait_for_room(&self, pause: Pause, way: AcceptWay) {
        let limits = &self.proxy.limits;
        match pause {
            Pause::Full(limit) => {
                self.warn_of_limit(limit);
                if way == AcceptWay::RelayTcp {
                    limits.connection_room().await;
                } else {
                    limits.room().await;
                }
            }
            Pause::Short(error) => {
                if self.warned.is_due(std::time::Instant::now()) {
                    tracing::warn!(listener = %self.counters.name, %error, "accepting pauses");
                }
                let _ = tokio::time::timeout(RETRY_ACCEPT, limits.freed()).await;
            }
        }
    }

    /// Records a connection that was kept out. Its socket is closed, by a reset: it costs no more.
    pub(super) fn refused(&self, peer: Peer, refusal: Refusal) {
        let record = ConnectionRecord::new(&self.counters, peer);
        let (id, listener) = (record.id, &self.counters.name);
        tracing::debug!(id, %listener, %peer, reason = refusal.word(), "kept out");
        let end = Termination::new(Side::Evenkeel, Phase::Accept, refusal.how());
        record.finish(end);
    }

    /// Logs a connection that failed alone, e.g. reset by its client while it was queued.
    pub(super) fn lost(&self, error: &io::Error) {
        tracing::debug!(listener = %self.counters.name, %error, "a connection was gone before it was accepted");
    }

    /// A client in set-up.
    pub(super) fn client(
        &self,
        listener: Arc<ListenerSnapshot>,
        peer: Peer,
        setup: SetupPermit,
    ) -> ClientConnection {
        ClientConnection {
            proxy: Arc::clone(&self.proxy),
            deadline: Instant::now() + listener.config.handshake_timeout,
            is_late: self.proxy.stopping.is_cancelled(),
            closing: self.stop.clone(),
            counters: Arc::clone(&self.counters),
            admission: Arc::clone(&self.admission),
            peer,
            proxied: None,
            setup,
            listener,
            latest: Arc::clone(&self.listener),
        }
    }

    /// Lets the client in; `None`: its PROXY header has to say first who it is.
    pub(super) fn admit(
        &self,
        listener: &ListenerSnapshot,
        peer: Peer,
        setup: &SetupPermit,
    ) -> Result<Option<ConnectionPermit>, Refusal> {
        if listener.config.accept_proxy {
            return self.admission.admit_unknown().map(|()| None);
        }
        let names_clients = trust::names_clients(&listener.config, peer);
        let rules = listener.admission();
        let permit = self
            .admission
            .admit(Some(setup), rules, peer.ip(), names_clients)?;
        Ok(Some(permit))
    }
}

/// Starts the path of one accepted connection in a task of its own: a panic there ends only that
/// connection.
pub(super) fn start(shared: &Arc<AcceptShared>, stream: Stream, peer: Peer, setup: SetupPermit) {
    shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
    let listener = shared.listener.load_full();
    let permit = match shared.admit(&listener, peer, &setup) {
        Ok(permit) => permit,
        Err(refusal) => {
            stream.reset_on_close();
            drop(stream);
            return shared.refused(peer, refusal);
        }
    };
    let client = shared.client(listener, peer, setup);
    client.fall_silent();
    let runtime = shared.proxy.runtime.clone();
    runtime.spawn(super::serve(client, stream, permit));
}

/// Accepts until `stop`. Connections that the kernel has queued by then are still served.
pub(super) async fn accept(shared: Arc<AcceptShared>, incoming: Incoming, stop: CancellationToken) {
    loop {
        // Cancel safe: both only wait. What accept has given is not dropped by a stop.
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = next(&shared, &incoming) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let setup = setup_permit(&shared, &stop).await;
                start(&shared, stream, peer, setup);
            }
            Err(error) if is_transient_accept_error(&error) => shared.lost(&error),
            // Whatever the kernel says, it must not become a busy loop.
            Err(error) => {
                shared
                    .wait_for_room(Pause::Short(error), AcceptWay::SetUp)
                    .await
            }
        }
    }
    drop(incoming);
    accept_queued(&shared);
}

/// Waits for room, then for a connection. Cancel safe: both are.
async fn next(shared: &AcceptShared, incoming: &Incoming) -> io::Result<(Stream, Peer)> {
    let limits = &shared.proxy.limits;
    if !limits.has_room() {
        shared.warn_of_limit(limits.reached());
        limits.room().await;
    }
    let (socket, peer) = incoming.accept().await?;
    Ok((Stream::from_owned_fd(socket, peer)?, peer))
}

/// Takes a permit for a connection just accepted. There was room before the wait for it, which
/// another listener may have taken since: then this one is held here, one for each listener, until
/// there is room again or the listener stops.
async fn setup_permit(shared: &AcceptShared, stop: &CancellationToken) -> SetupPermit {
    let limits = &shared.proxy.limits;
    tokio::select! {
        biased;
        permit = SetupPermit::acquire(limits) => permit,
        () = stop.cancelled() => SetupPermit::acquire_anyway(limits),
    }
}

/// Accepts what the kernel has queued, so that the close does not reset it. This asks the kernel
/// itself: tokio's accept says "nothing" when the task's budget is used up, and before its driver
/// has heard of a connection. The limits are not asked: at most one queue's length more, once.
fn accept_queued(shared: &Arc<AcceptShared>) {
    for _ in 0..shared.queued_at_close() {
        let accepted = match shared.bound.try_accept() {
            Ok(None) => return,
            Ok(Some((socket, peer))) => {
                Stream::from_owned_fd(socket, peer).map(|stream| (stream, peer))
            }
            Err(error) => Err(error),
        };
        match accepted {
            Ok((stream, peer)) => {
                let setup = SetupPermit::acquire_anyway(&shared.proxy.limits);
                start(shared, stream, peer, setup);
            }
            Err(error) if is_local_shortage(&error) => {
                tracing::warn!(listener = %shared.counters.name, %error, "connections still queued are reset");
                return;
            }
            Err(error) => shared.lost(&error),
        }
    }
}
