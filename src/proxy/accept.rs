//! One bound listener and its acceptor. Nothing is awaited in the accept loop but accept itself and room to accept.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    ClientConnection, ListenerSnapshot, Proxy, door, http, introduction, real_client, tcp,
};
use crate::admission::ListenerAdmission;
use crate::admission::SetupPermit;
use crate::base::log_throttle::LogThrottle;
use crate::config::{Bind, Protocol};
use crate::net::{Bound, Incoming, Peer, Stream, is_local_shortage, is_transient_accept_error};
use crate::observe::{ConnectionRecord, ListenerCounters, Phase, Refusal, Side, Termination};

/// A descriptor may be freed by others than our connections; this is how soon it is noticed.
const RETRY_ACCEPT: Duration = Duration::from_millis(50);
/// Between two warnings that accepting pauses.
const WARN_SPACING: Duration = Duration::from_secs(10);

/// A listener that accepts. Dropping it without [`Listening::stop`] stops it, too.
pub struct Listening {
    shared: Arc<AcceptShared>,
    stop: CancellationToken,
    acceptor: Mutex<Acceptor>,
}

pub(super) struct AcceptShared {
    pub proxy: Arc<Proxy>,
    pub bound: Arc<Bound>,
    pub rules: Arc<ArcSwap<ListenerSnapshot>>,
    pub counters: Arc<ListenerCounters>,
    pub admissions: Arc<ListenerAdmission>,
    warned: LogThrottle,
    stop: CancellationToken,
}

impl AcceptShared {
    /// Connections that the kernel may have queued and that the close of the socket would reset. None where the socket
    /// stays open for another acceptor, which heeds the limits.
    pub fn left_behind(&self) -> u32 {
        let closes = self.stop.is_cancelled() && Arc::strong_count(&self.bound) == 1;
        match closes {
            true => self.rules.load().config.backlog.saturating_add(1),
            false => 0,
        }
    }
}

/// Who accepts: a task of the set-up plane, or, through a task that keeps its door, a relay thread.
struct Acceptor {
    on_relay: bool,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Acceptor {
    fn start(shared: &Arc<AcceptShared>) -> Self {
        let on_relay = door::is_plain(&shared.rules.load());
        let stop = shared.stop.child_token();
        let accepting = accept(Arc::clone(shared), on_relay, stop.clone());
        Self {
            on_relay,
            stop,
            task: shared.proxy.runtime.spawn(accepting),
        }
    }
}

impl Listening {
    /// Starts accepting on the proxy's runtime, or on the relay's threads where nothing has to be read to route. `moved`: where
    /// it was before, so that what it has let in still counts.
    pub fn start(
        proxy: &Arc<Proxy>,
        bound: Arc<Bound>,
        rules: ListenerSnapshot,
        counters: Arc<ListenerCounters>,
        moved: Option<&Listening>,
    ) -> Self {
        let stop = proxy.stopping.child_token();
        set_options(&bound, &rules);
        let shared = Arc::new(AcceptShared {
            proxy: Arc::clone(proxy),
            bound,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            admissions: match moved {
                Some(old) => Arc::clone(&old.shared.admissions),
                None => Arc::new(ListenerAdmission::new(&proxy.limits, &counters)),
            },
            counters,
            warned: LogThrottle::new(WARN_SPACING),
            stop: stop.clone(),
        });
        let acceptor = Mutex::new(Acceptor::start(&shared));
        Self {
            shared,
            stop,
            acceptor,
        }
    }

    /// The next connection sees these rules; the socket is not touched, but for the length of its queue.
    pub fn update(&self, rules: ListenerSnapshot) {
        let backlog = rules.config.backlog;
        if backlog != self.rules().config.backlog
            && let Err(error) = self.shared.bound.set_backlog(backlog)
        {
            tracing::warn!(listener = %self.shared.counters.name, %error, "backlog cannot be changed");
        }
        let old = self.rules();
        if old.config.tcp != rules.config.tcp
            || old.config.tcp_defer_accept != rules.config.tcp_defer_accept
            || old.config.file != rules.config.file
        {
            set_options(&self.shared.bound, &rules);
        }
        let on_relay = door::is_plain(&rules);
        self.shared.rules.store(Arc::new(rules));
        let mut acceptor = self.acceptor();
        if acceptor.on_relay != on_relay {
            // The next one begins before the last one has ended: the kernel gives each connection to one of them, and
            // either looks at the new rules.
            let last = std::mem::replace(&mut *acceptor, Acceptor::start(&self.shared));
            last.stop.cancel();
        }
    }

    pub fn rules(&self) -> Arc<ListenerSnapshot> {
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

    /// The operator's word on it.
    pub fn is_draining(&self) -> bool {
        self.shared.admissions.is_draining()
    }

    pub fn set_draining(&self, draining: bool) {
        self.shared.admissions.set_draining(draining);
    }

    /// Serves what the kernel has already queued and accepts no more; the socket closes with the last handle to this. Live
    /// sessions go on; a kept HTTP connection ends after the answer that is due.
    pub async fn stop(&self) {
        self.stop.cancel();
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
        self.stop.cancel();
    }
}

/// Accepted sockets inherit them. What the kernel has accepted already keeps what it has.
fn set_options(bound: &Bound, rules: &ListenerSnapshot) {
    let config = &rules.config;
    if let Err(error) = bound.set_options(&config.tcp, config.tcp_defer_accept) {
        tracing::warn!(listener = %config.name, %error, "socket options cannot be set");
    }
    if let Err(error) = bound.set_rights(&config.file) {
        tracing::warn!(listener = %config.name, %error, "rights of the socket's file cannot be set");
    }
}

async fn accept(shared: Arc<AcceptShared>, on_relay: bool, stop: CancellationToken) {
    let joined = tokio::select! {
        biased;
        // Cancel safe: the socket that was joined is left again.
        joined = join(&shared, on_relay) => joined,
        () = stop.cancelled() => return,
    };
    match joined {
        WatchedSocket::Relay(socket) => door::keep(shared, socket, stop).await,
        WatchedSocket::SetUp(incoming) => accept_here(shared, incoming, stop).await,
    }
}

/// The listening socket as an acceptor watches it.
enum WatchedSocket {
    Relay(OwnedFd),
    SetUp(Incoming),
}

/// Waits for the descriptor that watching takes.
async fn join(shared: &AcceptShared, on_relay: bool) -> WatchedSocket {
    loop {
        let joined = match on_relay {
            true => shared.bound.duplicate().map(WatchedSocket::Relay),
            false => shared.bound.incoming().map(WatchedSocket::SetUp),
        };
        match joined {
            Ok(joined) => return joined,
            Err(error) => await_room(shared, Some(error)).await,
        }
    }
}

async fn accept_here(shared: Arc<AcceptShared>, incoming: Incoming, stop: CancellationToken) {
    loop {
        // Cancel safe: both only wait. What accept has given is not dropped by a stop.
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = next(&shared, &incoming) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let slot = place(&shared, &stop).await;
                arrive(&shared, stream, peer, slot);
            }
            Err(error) => pause(&shared, error).await,
        }
    }
    drop(incoming);
    drain(&shared);
}

/// What the kernel has accepted for us before we stopped is not to be reset by the close. This asks the kernel itself:
/// tokio's accept says "nothing" when the task's budget is used up, and before its driver has heard of a connection.
/// The limits are not asked: at most one queue's length more, once.
fn drain(shared: &Arc<AcceptShared>) {
    for _ in 0..shared.left_behind() {
        let accepted = match shared.bound.try_accept() {
            Ok(None) => return,
            Ok(Some((socket, peer))) => {
                Stream::from_owned_fd(socket, peer).map(|stream| (stream, peer))
            }
            Err(error) => Err(error),
        };
        match accepted {
            Ok((stream, peer)) => arrive(shared, stream, peer, shared.proxy.limits.slot()),
            Err(error) if is_local_shortage(&error) => {
                tracing::warn!(listener = %shared.counters.name, %error, "connections still queued are reset");
                return;
            }
            Err(error) => lost(shared, &error),
        }
    }
}

/// Waits for room, then for a connection. Cancel safe: both are.
async fn next(shared: &AcceptShared, incoming: &Incoming) -> io::Result<(Stream, Peer)> {
    let limits = &shared.proxy.limits;
    if !limits.has_room() {
        warn_of_limit(shared);
        limits.room().await;
    }
    let (socket, peer) = incoming.accept().await?;
    Ok((Stream::from_owned_fd(socket, peer)?, peer))
}

fn warn_of_limit(shared: &AcceptShared) {
    let limits = &shared.proxy.limits;
    if shared.warned.is_due(std::time::Instant::now()) {
        tracing::warn!(listener = %shared.counters.name, live = limits.live(), in_setup = limits.in_setup(),
            max_connections = limits.max_connections(), limit = limits.reached(), "accepting pauses: no room for another connection");
    }
}

/// Waits until accepting may go on: the limits had no room, or the process is short of what the error says. Cancel safe: it
/// takes nothing.
pub(super) async fn await_room(shared: &AcceptShared, why: Option<io::Error>) {
    let limits = &shared.proxy.limits;
    let Some(error) = why else {
        warn_of_limit(shared);
        return limits.room_to_reserve().await;
    };
    if shared.warned.is_due(std::time::Instant::now()) {
        tracing::warn!(listener = %shared.counters.name, %error, "accepting pauses");
    }
    let _ = tokio::time::timeout(RETRY_ACCEPT, limits.freed()).await;
}

/// A place for a connection just accepted. There was room before the wait for it, which another listener may have
/// taken since: then this one is held here, one for each listener, until there is room again or the listener stops.
async fn place(shared: &AcceptShared, stop: &CancellationToken) -> SetupPermit {
    let limits = &shared.proxy.limits;
    tokio::select! {
        biased;
        slot = limits.enter() => slot,
        () = stop.cancelled() => limits.slot(),
    }
}

/// Starts the path of one connection in a task of its own: a panic there ends that connection only.
pub(super) fn arrive(shared: &Arc<AcceptShared>, stream: Stream, peer: Peer, slot: SetupPermit) {
    shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
    let rules = shared.rules.load_full();
    // Who the client is, is said by its PROXY header.
    let is_known = !rules.config.accept_proxy;
    let names_clients = is_known && real_client::names_clients(&rules.config, peer);
    let admissions = &shared.admissions;
    let entered = match is_known {
        true => enter(admissions, &rules, &slot, peer, names_clients),
        false => admissions.admit_unknown(),
    };
    if let Err(refusal) = entered {
        stream.reset_on_close();
        drop(stream);
        return kept_out(shared, peer, refusal);
    }
    let mut arrival = ClientConnection {
        proxy: Arc::clone(&shared.proxy),
        deadline: Instant::now() + rules.config.handshake_timeout,
        closing: shared.stop.clone(),
        counters: Arc::clone(&shared.counters),
        admissions: Arc::clone(&shared.admissions),
        peer,
        announced: None,
        slot: Arc::new(slot),
        rules,
        latest: Arc::clone(&shared.rules),
    };
    arrival.fall_silent();
    let protocol = arrival.rules.config.protocol;
    shared.proxy.runtime.spawn(async move {
        let (mut stream, mut record) = (stream, arrival.record());
        let slot = Arc::clone(&arrival.slot);
        let received = {
            let receiving = introduction::receive(&mut arrival, &mut stream, &mut record);
            slot.unless_evicted(pin!(receiving)).await
        };
        if let Err(end) = received.unwrap_or_else(|| Err(arrival.evicted(record.phase))) {
            return record.finish(end);
        }
        if !is_known {
            arrival.fall_silent();
        }
        if !is_known && let Err(refusal) = arrival.enter() {
            stream.reset_on_close();
            return record.finish(keep_out(refusal));
        }
        match protocol {
            Protocol::Tcp => tcp::serve(arrival, stream, record).await,
            Protocol::Websocket => http::serve(arrival, stream, record).await,
        }
    });
}

/// Lets a client in, as the listener's rules have it.
fn enter(
    admissions: &ListenerAdmission,
    rules: &ListenerSnapshot,
    slot: &SetupPermit,
    client: Peer,
    names_clients: bool,
) -> Result<(), Refusal> {
    slot.admit(admissions.admit(rules.admission(), client.ip(), names_clients)?);
    Ok(())
}

impl ClientConnection {
    fn enter(&self) -> Result<(), Refusal> {
        let names_clients = self.names_clients(&self.rules.config);
        enter(
            &self.admissions,
            &self.rules,
            &self.slot,
            self.peer,
            names_clients,
        )
    }
}

fn keep_out(refusal: Refusal) -> Termination {
    Termination::new(Side::Evenkeel, Phase::Accept, refusal.how())
}

/// The record of a connection that was kept out. Its socket is closed, by a reset: it costs no more than that.
pub(super) fn kept_out(shared: &AcceptShared, peer: Peer, refusal: Refusal) {
    tracing::debug!(listener = %shared.counters.name, %peer, reason = refusal.word(), "kept out");
    let record = ConnectionRecord::new(&shared.counters, peer);
    record.finish(keep_out(refusal));
}

/// After an error of accept: go on at once when only that connection failed, else wait a little: whatever the kernel says,
/// it must not become a busy loop.
async fn pause(shared: &AcceptShared, error: io::Error) {
    match is_transient_accept_error(&error) {
        true => lost(shared, &error),
        false => await_room(shared, Some(error)).await,
    }
}

/// Only that connection failed, e.g. reset by its client while it was queued.
pub(super) fn lost(shared: &AcceptShared, error: &io::Error) {
    tracing::debug!(listener = %shared.counters.name, %error, "a connection was gone before it was accepted");
}
