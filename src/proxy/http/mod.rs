//! HTTP/1 on a client connection: requests are served in order, and at most one of them upgrades
//! the connection to a WebSocket session.
//!
//! `gate` lets only checked bytes through to hyper's server. `service` routes each request;
//! `request` exchanges it with a backend, `upgrade` does so for a WebSocket handshake, `resume`
//! repeats that at another backend.

mod backend;
mod client_certificate;
pub(super) mod connection;
mod gate;
mod gate_state;
pub(super) mod hard_stop;
mod hash_key;
mod headers;
mod interval;
mod real_client;
mod refusal;
mod request;
mod request_id;
mod request_record;
mod response;
pub(super) mod resume;
mod retry_after;
mod served;
mod service;
mod sticky;
mod tag;
#[cfg(test)]
pub(super) mod tests;
mod upgrade;
mod upload_wait;

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1::{Builder, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use self::connection::HttpConnection;
use self::gate::{ClientTimeouts, GatedStream};
use self::request_record::RequestRecord;
use self::served::{ServedRequest, Upgraded};
use super::client::ClientConnection;
use super::client::maybe_tls::MaybeTlsStream;
use crate::admission::ConnectionPermit;
use crate::net::{Stream, options};
use crate::observe::{Cause, Phase, Side, Termination};
use crate::relay::NewSession;
use crate::relay::SessionGuards;

/// hyper's buffer for one direction of one connection; above the largest head the gate lets
/// through.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// How long a truncated response may take to be delivered before the reset.
const DELIVER_TIMEOUT: Duration = Duration::from_secs(2);
/// The kernel has no event for a send queue that has emptied.
const DELIVER_INTERVAL: Duration = Duration::from_millis(20);

/// The end of HTTP on a client connection.
pub(super) enum HttpEnd {
    Closed(hyper::Result<()>),
    Upgraded(UpgradedClient),
}

/// A client whose connection has become a WebSocket session.
pub(super) struct UpgradedClient {
    stream: MaybeTlsStream,
    /// Bytes read behind the upgrade's head.
    read: Vec<u8>,
    session: Box<Upgraded>,
}

/// Runs hyper's server over the gate until the connection ends or becomes a session.
pub(super) async fn serve(stream: MaybeTlsStream, client: &HttpConnection) -> HttpEnd {
    let gate = GatedStream::new(stream, timeouts(client), Arc::clone(&client.gate_state));
    // hyper takes only the response of a service.
    let upgraded = &Mutex::new(None);
    let service = service_fn(|request| async move {
        let ServedRequest {
            response,
            upgraded: session,
        } = service::serve(client, request).await;
        if session.is_some() {
            *upgraded.lock().unwrap_or_else(PoisonError::into_inner) = session;
        }
        Ok::<_, Infallible>(response)
    });
    let mut server = Builder::new()
        .preserve_header_case(true)
        .title_case_headers(true)
        .header_read_timeout(None) // the gate's business
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(gate), service);
    // The server is polled on by reference: nothing of it is lost.
    let connection = &client.connection;
    let mut ended = tokio::select! {
        ended = &mut server => Some(ended),
        () = connection.closing.cancelled() => None,
        () = connection.setup.evicted() => return HttpEnd::Closed(Ok(())),
    };
    if ended.is_none() {
        if client.may_end() {
            Pin::new(&mut server).graceful_shutdown();
        }
        ended = tokio::select! {
            ended = &mut server => Some(ended),
            () = hard_stop(client) => None,
        };
    }
    if ended.is_none() {
        client.gate_state.stop();
    }
    let Parts { io, read_buf, .. } = server.into_parts();
    let session = upgraded
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    end(ended, session, io.into_inner(), &read_buf).await
}

/// The end of a connection of which hyper's server has ended, or, for `None`, is cut off by a stop.
async fn end(
    ended: Option<hyper::Result<()>>,
    session: Option<Box<Upgraded>>,
    gate: GatedStream<MaybeTlsStream>,
    read: &[u8],
) -> HttpEnd {
    match (ended, session) {
        // The 101 has left for the client.
        (Some(Ok(())), Some(session)) => {
            let (stream, held) = gate.into_parts();
            HttpEnd::Upgraded(UpgradedClient {
                stream,
                read: [read, &held].concat(),
                session,
            })
        }
        (Some(Err(error)), _) if !error.is_user() => HttpEnd::Closed(Err(error)),
        (Some(Ok(())), None) => HttpEnd::Closed(Ok(())),
        (cut, _) => {
            cut_off(gate).await;
            HttpEnd::Closed(cut.unwrap_or(Ok(())))
        }
    }
}

fn timeouts(client: &HttpConnection) -> ClientTimeouts {
    let config = &client.connection.listener.config;
    ClientTimeouts {
        first_head: client.connection.deadline,
        head: config.handshake_timeout,
        keep_alive: config.keep_alive_timeout,
    }
}

/// Waits for the moment at which a stop ends this connection.
async fn hard_stop(client: &HttpConnection) {
    let proxy = &client.connection.proxy;
    // The listener may have been removed long before.
    proxy.stopping.cancelled().await;
    proxy.hard_stop.moment().await;
}

/// Resets a connection whose response has no end, so that it cannot look complete. What was sent of
/// it is delivered before.
async fn cut_off(gate: GatedStream<MaybeTlsStream>) {
    let (client, _) = gate.into_parts();
    let until = Instant::now() + DELIVER_TIMEOUT;
    while queued_bytes(&client) > 0 && Instant::now() < until {
        tokio::time::sleep(DELIVER_INTERVAL).await;
    }
    client.reset_on_close();
}

fn queued_bytes(client: &MaybeTlsStream) -> usize {
    match client.socket() {
        Stream::Tcp(stream) => options::unacknowledged_bytes(stream.as_fd()),
        Stream::Unix(_) => 0,
    }
}

impl UpgradedClient {
    /// Gives the session to the relay with everything that was read already, in order.
    pub(super) fn adopt(self, connection: &ClientConnection, permit: ConnectionPermit) {
        let Upgraded {
            backend,
            backend_read,
            framing,
            limits,
            record,
            lease,
            source,
            resume,
        } = *self.session;
        let client = self.stream.into_handoff(self.read);
        let both = client.and_then(|client| Ok((client, backend.into_handoff(backend_read)?)));
        let (client, backend) = match both {
            Ok(both) => both,
            Err(error) => return cannot_adopt(record, &error),
        };
        let Some(mut record) = record.into_record() else {
            return;
        };
        record.opened();
        let permit = match source {
            Some(source) => permit.at_source(source),
            None => permit,
        };
        connection.proxy.relay.adopt(NewSession {
            client,
            backend,
            framing,
            connecting: false,
            limits,
            record,
            guards: SessionGuards::new(lease, permit),
            // The backend has had a request.
            connect_handler: None,
            resume_policy: resume,
        });
    }
}

fn cannot_adopt(mut record: RequestRecord, error: &std::io::Error) {
    tracing::warn!(%error, "a connection cannot be handed to the relay");
    let end = Termination::new(Side::Evenkeel, Phase::Upgrade, Cause::Error);
    record.ends(end);
}
