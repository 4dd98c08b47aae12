//! Endpoint on one address of the admin side: accepts, shakes hands, serves HTTP/1.
//!
//! All that a client can take is bounded: connections, the time of a head, a body and an answer,
//! and their sizes. The endpoint is independent of the data path; a connection that panics ends
//! alone.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Request;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::api::{Api, RequestOrigin};
use super::endpoint_connections::{EndpointConnection, EndpointConnections};
use super::guard::EndpointGuard;
use super::stall::Unstalled;
use crate::config::Bind;
use crate::net::fds::MAX_ENDPOINT_CONNECTIONS;
use crate::net::{Bound, HALF_OPEN_TIME, Incoming, Peer, Stream};
use crate::tls::describe_handshake_error;

// Drains that wait hold a connection each, and must not shut out a probe.
const _: () = assert!(MAX_ENDPOINT_CONNECTIONS >= 2 * super::operate::MAX_WAITERS);
/// Time for a TLS handshake or a request head, and between two requests: half of the 10 s that a
/// whole request has.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit of a head; a larger one is answered with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Time for the rest of an answer, where a connection has to close.
const LEAVE_GRACE: Duration = Duration::from_millis(100);
/// Pause after an error of accept: no descriptor is free, and one may be soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Length of the kernel's queue of connections not yet accepted.
pub(super) const BACKLOG: u32 = 128;

const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: application/problem+json\r\ncontent-length: 174\r\nconnection: close\r\n\r\n\
    {\"type\": \"about:blank\", \"title\": \"Request Timeout\", \"status\": 408, \
    \"detail\": \"the head did not arrive within 5 seconds\", \
    \"error\": \"the head did not arrive within 5 seconds\"}\n";

/// Running endpoint. Dropping it stops accepting; requests in progress are finished.
pub(super) struct HttpEndpoint {
    /// Address in the configuration, to see a change.
    pub configured: Bind,
    /// Real address.
    pub local: Bind,
    guard: Arc<ArcSwap<EndpointGuard>>,
    /// Weak: the accept loop owns the socket.
    bound: Weak<Bound>,
    /// The socket that was left to the next process; it accepts from here again if that one ends.
    left: Option<Arc<Bound>>,
    shared: Weak<EndpointShared>,
    stop: Option<DropGuard>,
}

impl HttpEndpoint {
    pub(super) fn start(
        runtime: &Handle,
        configured: Bind,
        bound: Arc<Bound>,
        guard: Arc<ArcSwap<EndpointGuard>>,
        api: Api,
    ) -> HttpEndpoint {
        let local = bound.local().clone();
        let stop = CancellationToken::new();
        let shared = Arc::new(EndpointShared {
            guard: Arc::clone(&guard),
            api,
            stop: stop.clone(),
            leaves_queue: AtomicBool::new(false),
        });
        let held = Arc::downgrade(&bound);
        let weak = Arc::downgrade(&shared);
        runtime.spawn(accept(bound, shared));
        HttpEndpoint {
            configured,
            local,
            guard,
            bound: held,
            left: None,
            shared: weak,
            stop: Some(stop.drop_guard()),
        }
    }

    pub(super) fn bound(&self) -> Option<Arc<Bound>> {
        self.bound.upgrade()
    }

    /// Leaves the socket, with all that is queued in it, to the next process. Requests under way
    /// are answered.
    pub(super) fn leave_to_next(&mut self) {
        self.left = self.bound();
        if let Some(shared) = self.shared.upgrade() {
            shared.leaves_queue.store(true, Relaxed);
        }
        self.stop = None;
    }

    /// Accepts again from a socket that was left.
    pub(super) fn resume(&mut self, runtime: &Handle, api: Api) {
        if let Some(bound) = self.left.take() {
            let guard = Arc::clone(&self.guard);
            *self = HttpEndpoint::start(runtime, self.configured.clone(), bound, guard, api);
        }
    }

    /// Leaves new connections to the endpoint that replaces this one, and stops when the handshakes
    /// under way have had their time.
    pub(super) fn leave(self, runtime: &Handle) {
        if let Some(bound) = self.bound()
            && let Err(error) = bound.stop_accepting()
        {
            debug!(%error, "admin: new connections to the old address are reset while it closes");
        }
        runtime.spawn(async move {
            sleep(HALF_OPEN_TIME).await;
            drop(self);
        });
    }

    /// Sets the rules of the next request, and the TLS of the next connection.
    pub(super) fn update(&self, guard: EndpointGuard) {
        self.guard.store(Arc::new(guard));
    }
}

struct EndpointShared {
    guard: Arc<ArcSwap<EndpointGuard>>,
    api: Api,
    stop: CancellationToken,
    /// What is queued is another process's.
    leaves_queue: AtomicBool,
}

impl EndpointShared {
    /// Lets a connection in that `allow` and `deny` admit.
    fn admit(
        &self,
        (socket, peer): (OwnedFd, Peer),
        connections: &Arc<EndpointConnections>,
        permit: OwnedSemaphorePermit,
    ) -> io::Result<Option<(Stream, EndpointConnection)>> {
        let stream = Stream::from_owned_fd(socket, peer)?;
        let guard = self.guard.load();
        if guard.admits(peer.ip()) {
            return Ok(Some((stream, connections.enter(peer, permit))));
        }
        debug!(reason = "denied", "admin: connection refused");
        let denied = &guard.refused(&self.api.state.refused).denied;
        denied.fetch_add(1, Relaxed);
        stream.reset_on_close();
        Ok(None)
    }

    fn count_silent(&self) {
        debug!(reason = "silent", "admin: silent connection closed");
        let guard = self.guard.load();
        let silent = &guard.refused(&self.api.state.refused).silent;
        silent.fetch_add(1, Relaxed);
    }
}

async fn accept(bound: Arc<Bound>, shared: Arc<EndpointShared>) {
    let connections = EndpointConnections::new(MAX_ENDPOINT_CONNECTIONS);
    let Some(incoming) = join(&bound, &shared.stop).await else {
        return;
    };
    loop {
        // Cancel safe: neither waiting for a permit nor accept loses a connection.
        let accepted = tokio::select! {
            accepted = accept_one(&bound, &incoming, &connections, &shared) => accepted,
            () = shared.stop.cancelled() => break,
        };
        if let Some((stream, client)) = accepted {
            spawn_serve(stream, client, &shared);
        }
    }
    drop(incoming);
    if shared.leaves_queue.load(Relaxed) {
        return;
    }
    serve_queued(&bound, &connections, &shared).await;
}

/// Serves the connections that the kernel has queued: the close would reset them.
async fn serve_queued(
    bound: &Bound,
    connections: &Arc<EndpointConnections>,
    shared: &Arc<EndpointShared>,
) {
    for _ in 0..=BACKLOG {
        let Some(permit) = connections.permit().await else {
            return;
        };
        let Ok(Some((socket, peer))) = bound.try_accept() else {
            return;
        };
        let Ok(Some((stream, client))) = shared.admit((socket, peer), connections, permit) else {
            continue;
        };
        spawn_serve(stream, client, shared);
    }
}

fn spawn_serve(stream: Stream, client: EndpointConnection, shared: &Arc<EndpointShared>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move { serve(stream, Arc::new(client), &shared).await });
}

/// Registers the listening socket with this runtime, as soon as there is a descriptor for it;
/// `None`: stopped before.
async fn join(bound: &Bound, stop: &CancellationToken) -> Option<Incoming> {
    loop {
        match bound.incoming() {
            Ok(incoming) => return Some(incoming),
            Err(error) => {
                warn!(bind = %bound.local(), %error, "admin endpoint cannot accept");
                // Cancel safe: a sleep.
                tokio::select! {
                    () = sleep(ACCEPT_PAUSE) => {}
                    () = stop.cancelled() => return None,
                }
            }
        }
    }
}

async fn accept_one(
    bound: &Bound,
    incoming: &Incoming,
    connections: &Arc<EndpointConnections>,
    shared: &EndpointShared,
) -> Option<(Stream, EndpointConnection)> {
    // Acquired before a client is accepted, so that none is accepted without one.
    let permit = connections.permit().await?;
    let accepted = incoming.accept().await;
    match accepted.and_then(|accepted| shared.admit(accepted, connections, permit)) {
        Ok(admitted) => admitted,
        Err(error) => {
            warn!(bind = %bound.local(), %error, "admin endpoint cannot accept");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve(stream: Stream, client: Arc<EndpointConnection>, shared: &Arc<EndpointShared>) {
    let terminator = shared.guard.load().tls().cloned();
    let Some(terminator) = terminator else {
        return serve_http(stream, false, client, shared).await;
    };
    let acceptor = TlsAcceptor::from(terminator.config());
    let handshake = tokio::select! {
        handshake = timeout(HEAD_TIMEOUT, acceptor.accept(stream)) => handshake,
        () = client.leave.cancelled() => return shared.count_silent(),
    };
    match handshake {
        Ok(Ok(stream)) => serve_http(stream, true, client, shared).await,
        Ok(Err(error)) => debug!(
            error = describe_handshake_error(&error),
            "admin: tls handshake failed"
        ),
        Err(_) => debug!("admin: tls handshake timed out"),
    }
}

async fn serve_http<S>(
    stream: S,
    secure: bool,
    client: Arc<EndpointConnection>,
    shared: &Arc<EndpointShared>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answering = (Arc::clone(shared), Arc::clone(&client));
    let service = service_fn(move |request: Request<Body>| {
        let (shared, client) = answering.clone();
        async move {
            client.speak();
            let origin = RequestOrigin {
                guard: shared.guard.load_full(),
                current: Arc::clone(&shared.guard),
                stop: shared.stop.clone(),
                secure,
                client,
            };
            let reply = shared.api.answer(&origin, request).await;
            origin.client.fall_silent();
            Ok::<_, std::convert::Infallible>(reply)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(2 * MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Unstalled::new(stream)), service);
    let served = tokio::select! {
        // A request that has come is answered before its connection is found silent.
        biased;
        served = &mut connection => served,
        () = shared.stop.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
        () = client.leave.cancelled() => {
            shared.count_silent();
            if !client.has_spoken() {
                return;
            }
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            if client.is_silent() {
                timeout(LEAVE_GRACE, &mut connection).await.unwrap_or(Ok(()))
            } else {
                (&mut connection).await
            }
        }
    };
    let Err(error) = served else { return };
    debug!(%error, "admin: connection ended");
    let parts = connection.into_parts();
    // Silence between two requests is no slow head.
    if error.is_timeout() && !parts.read_buf.is_empty() {
        refuse_slow_head(parts.io.into_inner()).await;
    }
}

async fn refuse_slow_head<S: AsyncWrite + Unpin>(mut stream: S) {
    if stream.write_all(SLOW_HEAD).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_slow_head_is_whole() {
        let text = std::str::from_utf8(SLOW_HEAD).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = format!("content-length: {}", body.len());
        assert!(
            head.lines().any(|line| line == length),
            "{length} is not in {head}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        assert!(body.contains(&format!("{} seconds", HEAD_TIMEOUT.as_secs())));
    }
}
