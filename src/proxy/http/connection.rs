//! One client connection of a `websocket` listener: what its requests share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Uri, Version};

use super::client_certificate;
use super::gate_state::GateState;
use super::hash_key::hash_key;
use super::headers::{self, Origin, Purpose};
use super::sticky::Stickiness;
use crate::admission::SourcePermit;
use crate::config::{self, Balance};
use crate::net::{Endpoint, Peer};
use crate::observe::{Cause, ConnectionRecord, HandshakeFacts, Phase, Refusal, Side, Termination};
use crate::pool::{Backend, Pool};
use crate::proxy::client::ClientConnection;
use crate::proxy::client::identify::{Identified, note_certificate};
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::proxy::connect::RetryState;
use crate::proxy::connect::outgoing_proxy_header::OutgoingProxyHeader;
use crate::proxy::route::{ListenerSnapshot, RouteInput};
use crate::tls::ClientIdentity;

/// The destination of one request, by the configuration it sees.
pub(super) struct Routed {
    pub listener: Arc<ListenerSnapshot>,
    pub pool: Arc<Pool>,
    /// The client that is served: the peer, or whom a trusted one names.
    pub client: Peer,
}

/// State that the requests of one client connection share.
pub(in crate::proxy) struct HttpConnection {
    pub connection: ClientConnection,
    pub(super) gate_state: Arc<GateState>,
    sni: Option<String>,
    /// The client came over TLS, to us or to the balancer in front.
    tls: bool,
    /// The facts for a pool with `send_proxy`.
    pub(super) proxy_header: OutgoingProxyHeader,
    /// Present where TLS ends here.
    handshake: Option<HandshakeFacts>,
    /// Present where the client has shown a certificate.
    identity: Option<ClientIdentity>,
    /// The client came when the process was stopping already.
    late: bool,
    requests: AtomicU64,
    /// An upgrade is under way.
    upgrading: AtomicBool,
    /// The connection's own record, which becomes that of its first request.
    first_record: Mutex<Option<ConnectionRecord>>,
}

impl HttpConnection {
    /// Makes an identified client one of which requests are read.
    pub(crate) fn new(
        mut connection: ClientConnection,
        identified: Identified,
        mut record: ConnectionRecord,
    ) -> (HttpConnection, MaybeTlsStream) {
        record.phase = Phase::Head;
        let Identified {
            stream,
            hello,
            handshake,
            ..
        } = identified;
        let waited = handshake.as_ref().map(|handshake| handshake.waited);
        connection.deadline += waited.unwrap_or(Duration::ZERO);
        let (handshake, identity) = match handshake {
            Some(handshake) => (Some(handshake.tls), handshake.identity),
            None => (None, None),
        };
        let details = stream.details(hello.sni.as_deref(), identity.is_some());
        let proxied = connection.proxied.as_ref();
        let tls = stream.is_tls() || proxied.is_some_and(|proxied| proxied.is_tls());
        let proxy_header = OutgoingProxyHeader::of(&connection, stream.local_address(), details);
        let keep_alive = connection.listener.config.keep_alive_timeout;
        let http = HttpConnection {
            late: connection.proxy.stopping.is_cancelled(),
            connection,
            gate_state: Arc::new(GateState::new(keep_alive)),
            sni: hello.sni,
            tls,
            proxy_header,
            handshake,
            identity,
            requests: AtomicU64::new(0),
            upgrading: AtomicBool::new(false),
            first_record: Mutex::new(Some(record)),
        };
        (http, stream)
    }

    /// Finishes a connection that has ended. It has a record where no request has come.
    pub(crate) fn finish(&self, ended: hyper::Result<()>) {
        let connection = &self.connection;
        if let Err(error) = &ended {
            tracing::debug!(listener = %connection.counters.name, %error, "connection ended");
        }
        let is_evicted = connection.setup.is_evicted();
        let evicted = is_evicted.then(|| connection.evicted(Phase::Head));
        let Some(mut record) = self.unused_record() else {
            return;
        };
        if self.gate_state.has_moved() {
            record.heard();
        }
        let (side, cause) = match ended {
            _ if self.gate_state.stopped() => (Side::Evenkeel, Cause::Stop),
            _ if self.gate_state.gave_up() => (Side::Evenkeel, Cause::Timeout),
            Ok(()) => (Side::Client, Cause::Fin),
            Err(_) => (Side::Client, Cause::Rst),
        };
        record.finish(evicted.unwrap_or(Termination::new(side, Phase::Head, cause)));
    }

    /// Counts one more request and returns its number, from 1.
    pub(super) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes that an upgrade is under way.
    pub(super) fn upgrade(&self) {
        self.upgrading.store(true, Ordering::Relaxed);
    }

    /// Whether a request is refused with 503, as the process stops: a stop would cut its session
    /// soon. A kept connection's last requests are short and served.
    pub(super) fn comes_too_late(&self, purpose: Purpose) -> bool {
        let is_stopping = || self.connection.proxy.stopping.is_cancelled();
        self.late || purpose == Purpose::Upgrade && is_stopping()
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

    /// Whether nothing is lost by ending the connection after the responses that are due: its first
    /// request has come, and no upgrade is under way (hyper would take its `Connection: Upgrade`
    /// from a 101).
    pub(super) fn may_end(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0 && !self.upgrading.load(Ordering::Relaxed)
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

    /// Begins the search for a request's backend, and takes out of its head what no backend is to
    /// see.
    pub(super) fn search(
        &self,
        routed: &Routed,
        settings: &config::Pool,
        parts: &mut Parts,
    ) -> (RetryState, Option<Stickiness>) {
        let key = match &settings.balance {
            Balance::Hash(key) => {
                let sni = self.sni.as_deref();
                hash_key(key, sni, &parts.uri, &parts.headers)
            }
            _ => None,
        };
        headers::drop_notes(
            &mut parts.headers,
            settings.resume.as_deref(),
            settings.name_header.as_deref(),
        );
        let sticky = Stickiness::take(&routed.pool, settings, &mut parts.headers);
        let key = key.map(Vec::into_boxed_slice);
        let preferred = sticky.as_ref().and_then(Stickiness::preferred);
        let search = RetryState::new(routed.client.ip(), key, preferred);
        (search, sticky)
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

    /// Makes a client's request head that of the request to a backend.
    pub(super) fn rewrite(
        &self,
        routed: &Routed,
        parts: &mut Parts,
        backend: &Backend,
        purpose: Purpose,
    ) {
        let connection = &self.connection;
        let config = &routed.listener.config;
        let origin = Origin {
            client: connection.peer.ip(),
            real_ip: connection.real_ip(config, routed.client, &parts.headers),
            trusted: connection.is_believed(config),
            tls: self.tls,
            fields: config.forwarded,
        };
        headers::request(&mut parts.headers, origin, purpose);
        client_certificate::set(&mut parts.headers, self.identity.as_ref());
        if !parts.headers.contains_key(HOST) {
            parts.headers.insert(HOST, host_for(&parts.uri, backend));
        }
        parts.uri = origin_form(&parts.uri);
        parts.version = Version::HTTP_11;
    }
}

/// The Host for a request without one: HTTP/1.0 may come without, HTTP/1.1 may not go without.
fn host_for(uri: &Uri, backend: &Backend) -> HeaderValue {
    let name = match (uri.authority(), backend.endpoint()) {
        (Some(authority), _) => authority.to_string(),
        (None, Some(Endpoint::Tcp(address))) => address.to_string(),
        (None, _) => "localhost".to_owned(),
    };
    HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("localhost"))
}

/// The target in the form for a backend, which is no proxy: a path, whatever form the client used.
fn origin_form(uri: &Uri) -> Uri {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    target.parse().unwrap_or_default()
}
