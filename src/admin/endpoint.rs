//! One bound address of the admin side: accepts, shakes hands, serves HTTP/1. Everything a client may take is
//! bounded: connections, the time of a head, a body and an answer, and their sizes. It runs apart from the data
//! path and from the health of the server; a connection that panics ends alone.

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
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::api::Api;
use super::endpoint_connections::{EndpointConnection, EndpointConnections};
use super::guard::EndpointGuard;
use super::stall::Unstalled;
use crate::config::Bind;
use crate::net::fds::MAX_ENDPOINT_CONNECTIONS;
use crate::net::{Bound, HALF_OPEN_TIME, Incoming, Stream};
use crate::tls::describe_handshake_error;

/// Drains that wait hold a connection each, and must not shut out a probe.
const _: () = assert!(MAX_ENDPOINT_CONNECTIONS >= 2 * super::api::MAX_WAITERS);
/// A TLS handshake or a request head, also the idle time between two requests. Half of the 10 s that a whole
/// request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// What a head may hold; more is answered with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// For the rest of an answer, where a connection has to leave.
const LEAVE_GRACE: Duration = Duration::from_millis(100);
/// Before accepting again after an error: no descriptor is free, and one may be soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The kernel's queue of connections not yet accepted.
pub(super) const BACKLOG: u32 = 128;

const SLOW_HEAD: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: 54\r\n\
    connection: close\r\n\r\n{\"error\": \"the head did not arrive within 5 seconds\"}\n";

/// Dropping it stops accepting; requests in progress are finished.
pub(super) struct HttpEndpoint {
    /// As the configuration says, to see a change.
    pub configured: Bind,
    /// The real address.
    pub local: Bind,
    gate: Arc<ArcSwap<EndpointGuard>>,
    /// Whoever accepts holds it.
    bound: Weak<Bound>,
    _stop: DropGuard,
}

impl HttpEndpoint {
    pub fn start(
        runtime: &Handle,
        configured: Bind,
        bound: Arc<Bound>,
        gate: EndpointGuard,
        api: Api,
    ) -> HttpEndpoint {
        let local = bound.local().clone();
        let gate = Arc::new(ArcSwap::from_pointee(gate));
        let stop = CancellationToken::new();
        let shared = Arc::new(EndpointShared {
            gate: Arc::clone(&gate),
            api,
            stop: stop.clone(),
        });
        let held = Arc::downgrade(&bound);
        runtime.spawn(accept(bound, shared));
        HttpEndpoint {
            configured,
            local,
            gate,
            bound: held,
            _stop: stop.drop_guard(),
        }
    }

    pub fn bound(&self) -> Option<Arc<Bound>> {
        self.bound.upgrade()
    }

    /// Gives what comes to the endpoint that has taken its place, and stops when the handshakes
    /// under way have had their time.
    pub fn leave(self, runtime: &Handle) {
        if let Some(bound) = self.bound()
            && let Err(error) = bound.stop_accepting()
        {
            debug!(%error, "admin: connections that come while the old address closes are reset");
        }
        runtime.spawn(async move {
            sleep(HALF_OPEN_TIME).await;
            drop(self);
        });
    }

    /// Rules for the next request; TLS for the next connection.
    pub fn update(&self, gate: EndpointGuard) {
        self.gate.store(Arc::new(gate));
    }
}

struct EndpointShared {
    gate: Arc<ArcSwap<EndpointGuard>>,
    api: Api,
    stop: CancellationToken,
}

impl EndpointShared {
    fn denies(&self, stream: &Stream) {
        debug!(reason = "denied", "admin: connection refused");
        self.gate.load().refused(&self.api.refused).denied();
        stream.reset_on_close();
    }

    fn shows_out(&self) {
        debug!(reason = "silent", "admin: connection leaves its place");
        self.gate.load().refused(&self.api.refused).silent();
    }
}

async fn accept(bound: Arc<Bound>, shared: Arc<EndpointShared>) {
    let room = EndpointConnections::new(MAX_ENDPOINT_CONNECTIONS);
    let Some(incoming) = join(&bound, &shared.stop).await else {
        return;
    };
    loop {
        // Cancel safe: neither waiting for room nor accept loses a connection.
        let accepted = tokio::select! {
            accepted = accept_one(&bound, &incoming, &room, &shared) => accepted,
            () = shared.stop.cancelled() => break,
        };
        if let Some((stream, guest)) = accepted {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { serve(stream, Arc::new(guest), &shared).await });
        }
    }
    drop(incoming);
    serve_queued(&bound, &room, &shared).await;
}

/// The close would reset what the kernel has queued.
async fn serve_queued(
    bound: &Bound,
    room: &Arc<EndpointConnections>,
    shared: &Arc<EndpointShared>,
) {
    for _ in 0..=BACKLOG {
        let Some(place) = room.place().await else {
            return;
        };
        let Ok(Some((socket, peer))) = bound.try_accept() else {
            return;
        };
        let client = peer.ip();
        let Ok(stream) = Stream::from_owned_fd(socket, peer) else {
            continue;
        };
        if !shared.gate.load().admits(client) {
            shared.denies(&stream);
            continue;
        }
        let (guest, shared) = (room.enter(peer, place), Arc::clone(shared));
        tokio::spawn(async move { serve(stream, Arc::new(guest), &shared).await });
    }
}

/// Joins the listening socket to this runtime, as soon as there is a descriptor for it; `None`: stopped before.
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
    room: &Arc<EndpointConnections>,
    shared: &EndpointShared,
) -> Option<(Stream, EndpointConnection)> {
    // Before there is a client for it: the last place is kept free.
    let place = room.place().await?;
    let accepted = incoming
        .accept()
        .await
        .and_then(|(socket, peer)| Ok((Stream::from_owned_fd(socket, peer)?, peer)));
    match accepted {
        Ok((stream, peer)) if !shared.gate.load().admits(peer.ip()) => {
            shared.denies(&stream);
            None
        }
        Ok((stream, peer)) => Some((stream, room.enter(peer, place))),
        Err(error) => {
            warn!(bind = %bound.local(), %error, "admin endpoint cannot accept");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve(stream: Stream, guest: Arc<EndpointConnection>, shared: &Arc<EndpointShared>) {
    let terminator = shared.gate.load().tls().cloned();
    let Some(terminator) = terminator else {
        return serve_http(stream, false, guest, shared).await;
    };
    let acceptor = TlsAcceptor::from(terminator.config());
    let shaken = tokio::select! {
        shaken = timeout(HEAD_TIMEOUT, acceptor.accept(stream)) => shaken,
        () = guest.leave.cancelled() => return shared.shows_out(),
    };
    match shaken {
        Ok(Ok(stream)) => serve_http(stream, true, guest, shared).await,
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
    guest: Arc<EndpointConnection>,
    shared: &Arc<EndpointShared>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answering = (Arc::clone(shared), Arc::clone(&guest));
    let service = service_fn(move |request: Request<Body>| {
        let (shared, guest) = answering.clone();
        async move {
            guest.speak();
            let gate = shared.gate.load_full();
            let reply = shared.api.answer(&gate, secure, guest.peer, request).await;
            guest.fall_silent();
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
        () = guest.leave.cancelled() => {
            shared.shows_out();
            if !guest.has_spoken() {
                return;
            }
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            match guest.is_silent() {
                true => timeout(LEAVE_GRACE, &mut connection).await.unwrap_or(Ok(())),
                false => (&mut connection).await,
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
