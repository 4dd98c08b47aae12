//! One client connection of a `websocket` listener: what its requests share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::HttpClosed;
use super::client_stream::{ClientStream, ClientTimeouts};
use super::hash_key::hash_key;
use crate::admission::SourcePermit;
use crate::config;
use crate::net::Peer;
use crate::observe::{ConnectionRecord, HandshakeFacts, Phase, Refusal, TracePlace};
use crate::pool::Pool;
use crate::proxy::client::ClientConnection;
use crate::proxy::client::identify::{Identified, note_certificate};
use crate::proxy::connect::outgoing_proxy_header::OutgoingProxyHeader;
use crate::proxy::route::{ListenerSnapshot, RouteInput};
use crate::tls::ClientIdentity;
use crate::wire::http::RequestHead;

/// The destination of one request, by the configuration it sees.
pub(super) struct Routed {
    pub listener: Arc<ListenerSnapshot>,
    pub pool: Arc<Pool>,
    pub settings: Arc<config::Pool>,
    /// The client that is served: the peer, or whom a trusted one names.
    pub client: Peer,
    /// Present where the listener gives requests an id.
    pub request_id: Option<String>,
    /// Present while traces are on.
    pub trace: Option<TracePlace>,
}

/// State that the requests of one client connection share.
pub(in crate::proxy) struct HttpConnection {
    pub connection: ClientConnection,
    sni: Option<String>,
    /// The client came over TLS, to us or to the balancer in front.
    pub(super) tls: bool,
    /// Present where TLS ends here.
    handshake: Option<HandshakeFacts>,
    /// Present where the client has shown a certificate.
    pub(super) identity: Option<ClientIdentity>,
    requests: AtomicU64,
    /// The process ends the connection, with what is under way on it.
    is_stopped: AtomicBool,
    /// The connection's own record, which becomes that of its first request.
    first_record: Mutex<Option<ConnectionRecord>>,
}

impl HttpConnection {
    /// Makes an identified client one of which requests are read.
    pub(crate) fn new(
        mut connection: ClientConnection,
        identified: Identified,
        record: ConnectionRecord,
    ) -> (HttpConnection, ClientStream) {
        let Identified {
            stream,
            hello,
            handshake,
            ..
        } = identified;
        let waited = handshake.as_ref().map(|handshake| handshake.waited);
        connection.deadline += waited.unwrap_or(Duration::ZERO);
        let is_tls = stream.is_tls();
        let mut http = HttpConnection::plain(connection, record);
        http.tls |= is_tls;
        http.sni = hello.sni;
        if let Some(handshake) = handshake {
            http.handshake = Some(handshake.tls);
            http.identity = handshake.identity;
        }
        let config = &http.connection.listener.config;
        let client = ClientStream::new(stream, config.head_limits(), http.timeouts());
        (http, client)
    }

    /// A client of which nothing needs to be known.
    pub(super) fn plain(connection: ClientConnection, mut record: ConnectionRecord) -> Self {
        record.enter(Phase::Head);
        let proxied = connection.proxied.as_ref();
        HttpConnection {
            tls: proxied.is_some_and(|proxied| proxied.is_tls()),
            connection,
            sni: None,
            handshake: None,
            identity: None,
            requests: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
            first_record: Mutex::new(Some(record)),
        }
    }

    /// Timeouts of the client between its requests.
    pub(super) fn timeouts(&self) -> ClientTimeouts {
        let config = &self.connection.listener.config;
        ClientTimeouts {
            first_head: self.connection.deadline,
            head: config.handshake_timeout,
            keep_alive: config.keep_alive_timeout,
        }
    }

    /// Finishes a connection that has ended. It has a record where no request has come.
    pub(crate) fn finish(&self, closed: HttpClosed, has_sent: bool) {
        let evicted = (closed == HttpClosed::Evicted).then(|| self.connection.evicted(Phase::Head));
        if let Some(mut record) = self.unused_record() {
            if has_sent {
                record.heard();
            }
            record.finish(evicted.unwrap_or_else(|| closed.end()));
        }
    }

    /// Counts one more request.
    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the latest request is the connection's first one.
    pub(super) fn is_first_request(&self) -> bool {
        self.requests.load(Ordering::Relaxed) <= 1
    }

    /// Notes that the process ends the connection.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Whether a request is refused with 503, as the process stops: a stop would cut its session
    /// soon. A kept connection's last requests are short and served.
    pub(super) fn comes_too_late(&self, is_upgrade: bool) -> bool {
        self.connection.is_late || is_upgrade && self.connection.proxy.stopping.is_cancelled()
    }

    pub(super) fn route_input<'a>(
        &'a self,
        host: Option<&'a str>,
        path: &'a str,
    ) -> RouteInput<'a> {
        RouteInput {
            sni: self.sni.as_deref(),
            host,
            path: Some(path),
            ..RouteInput::default()
        }
    }

    /// Whether nothing is lost by ending the connection between two requests: its first request has
    /// come.
    pub(super) fn may_end(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// The record of the next request: the connection's own for the first.
    pub(super) fn record(&self) -> ConnectionRecord {
        self.unused_record().unwrap_or_else(|| {
            let mut record = self.connection.record();
            if let Some(sni) = &self.sni {
                record.set_sni(sni);
            }
            if let Some(tls) = &self.handshake {
                record.set_client_tls(tls);
            }
            if let Some(identity) = &self.identity {
                note_certificate(&mut record, identity);
            }
            record
        })
    }

    /// The connection's record, when no request has taken it.
    fn unused_record(&self) -> Option<ConnectionRecord> {
        let first = self.first_record.lock();
        first.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The facts for a pool with `send_proxy`; `None` for another one.
    pub(super) fn proxy_header(
        &self,
        settings: &config::Pool,
        client: &ClientStream,
    ) -> Option<OutgoingProxyHeader> {
        settings.send_proxy?;
        let stream = &client.stream;
        let details = stream.details(self.sni.as_deref(), self.identity.is_some());
        let local = stream.local_address();
        Some(OutgoingProxyHeader::of(&self.connection, local, details))
    }

    /// The value that the pool's hash or affinity looks at.
    pub(super) fn hash_key(
        &self,
        settings: &config::Pool,
        head: RequestHead<'_>,
    ) -> Option<Box<[u8]>> {
        let key = settings.request_key()?;
        hash_key(key, self.sni.as_deref(), head).map(Vec::into_boxed_slice)
    }

    /// Counts the session that this request is to become at the source of its client, where no
    /// source has its connection.
    pub(super) fn admit_session(&self, routed: &Routed) -> Result<Option<SourcePermit>, Refusal> {
        let Routed {
            listener, client, ..
        } = routed;
        if !self.connection.names_clients(&listener.config) {
            return Ok(None);
        }
        let admission = &self.connection.admission;
        admission.admit_session(listener.admission(), client.ip())
    }
}
