//! One client connection as the service behind hyper sees it: each request is counted, recorded and routed here, then
//! exchanged with a backend as an ordinary request or an upgrade.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::answer::{self, ResponseBody};
use super::dialogue::{GateRefusal, GateState};
use super::dispatch::DispatchError;
use super::forward::{self, Origin, Purpose};
use super::request_key::request_key;
use super::tag::tag_of;
use super::ticket::RequestRecord;
use super::upgrade::Upgraded;
use super::{
    ClientConnection, ListenerSnapshot, OutgoingProxyHeader, RouteInput, client_certificate,
    exchange, request_id, retry_after, upgrade,
};
use crate::admission::SourcePermit;
use crate::base::path::normalize_path;
use crate::config::{self, Balance};
use crate::net::{ConnectError, Endpoint, Peer};
use crate::observe::{Cause, ConnectionRecord, HandshakeFacts, Phase, Refusal, Side, Termination};
use crate::pool::{Backend, Pool};
use crate::tls::ClientIdentity;
use crate::wire::http::parse_host;
use crate::wire::websocket::asks_for_websocket;

/// Where one request goes, by the configuration it sees.
pub(super) struct Routed {
    pub rules: Arc<ListenerSnapshot>,
    pub pool: Arc<Pool>,
    /// Who is served: the peer, or whom a trusted one names.
    pub client: Peer,
}

/// What the requests of one client connection share.
pub(super) struct HttpConnection {
    pub arrival: ClientConnection,
    pub dialogue: Arc<GateState>,
    caller: HttpClient,
    /// It came when the process was stopping already.
    late: bool,
    calls: AtomicU64,
    /// An upgrade is under way.
    upgrading: AtomicBool,
    /// The connection's own record, which becomes that of its first request.
    first: Mutex<Option<ConnectionRecord>>,
    /// A verified upgrade whose 101 is on its way to the client.
    handover: Mutex<Option<Upgraded>>,
}

/// What is known of a client before its first request.
pub(super) struct HttpClient {
    pub sni: Option<String>,
    /// To us, or to the balancer in front.
    pub tls: bool,
    pub introduction: OutgoingProxyHeader,
    /// Where TLS ends here.
    pub shaken: Option<HandshakeFacts>,
    /// Where it has shown a certificate.
    pub identity: Option<ClientIdentity>,
}

impl HttpConnection {
    pub(super) fn new(
        arrival: ClientConnection,
        record: ConnectionRecord,
        caller: HttpClient,
    ) -> HttpConnection {
        let dialogue = Arc::new(GateState::new(arrival.rules.config.keep_alive_timeout));
        HttpConnection {
            late: arrival.proxy.stopping.is_cancelled(),
            arrival,
            dialogue,
            caller,
            calls: AtomicU64::new(0),
            upgrading: AtomicBool::new(false),
            first: Mutex::new(Some(record)),
            handover: Mutex::new(None),
        }
    }

    /// Answers one request; the refused ones stand in the row of the others.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let mut response = self.serve(request).await;
        let closing = self.arrival.closing.is_cancelled();
        if closing && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            forward::close(response.headers_mut());
        }
        Ok(response)
    }

    async fn serve(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        let ordinal = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let mut ticket = RequestRecord::new(self.record(), &self.dialogue);
        ticket.phase(Phase::Head);
        if let Some(refused) = self.dialogue.refused(ordinal) {
            return refuse(ticket, refused, Phase::Head);
        }
        let host = host_of(&request);
        ticket.note(|record| {
            record.set_request(
                request.method().as_str(),
                host.as_deref(),
                request.uri().path(),
            );
            record.phase = Phase::Route;
        });
        let websocket = asks_for_websocket(request.headers());
        let rules = self.arrival.latest.load_full();
        if let Some(tag) = &rules.config.tag
            && let Some(value) = tag_of(tag, request.uri(), request.headers())
        {
            ticket.note(|record| record.set_tag(&value, tag.is_hashed));
        }
        if rules.config.request_id {
            let is_believed = self.arrival.is_believed(&rules.config);
            let id = request_id::settle(request.headers_mut(), is_believed);
            ticket.note(|record| record.set_request_id(&id));
        }
        let peer = self.arrival.peer;
        let named = self.arrival.named(&rules.config, request.headers());
        let client = named.unwrap_or(peer);
        if named.is_some() {
            let announced = self.arrival.announced.as_ref();
            let via = announced.map_or(peer, |announced| announced.via);
            let tlvs = announced.and_then(|announced| announced.tlvs());
            ticket.note(|record| record.announce(client, via, tlvs));
        }
        let path = request.uri().path();
        if rules.refuses_path(path) {
            self.arrival.admissions.refused(Refusal::EncodedSlash);
            return ambiguous(ticket, websocket);
        }
        let pool = {
            let (normal, ambiguous) = (normalize_path(path), rules.ambiguous(path));
            let facts = RouteInput {
                ambiguous: ambiguous.as_ref(),
                ..self.facts(host.as_deref(), &normal)
            };
            if !rules.admits(&facts, peer.ip(), client.ip()) {
                self.arrival.admissions.refused(Refusal::Denied);
                return unrouted(ticket, StatusCode::FORBIDDEN, websocket);
            }
            rules.route(&facts).cloned()
        };
        let Some(pool) = pool else {
            ticket.note(|record| record.refused(Refusal::NoRoute));
            return unrouted(ticket, StatusCode::NOT_FOUND, websocket);
        };
        if self.comes_too_late(websocket) {
            ticket.note(|record| record.refused(Refusal::Stopping));
            return come_again(ticket, &pool);
        }
        if self.arrival.admissions.is_draining() {
            self.arrival.admissions.refused(Refusal::Draining);
            return come_again(ticket, &pool);
        }
        let routed = Routed {
            rules,
            pool,
            client,
        };
        if websocket {
            self.upgrading.store(true, Ordering::Relaxed);
            // Apart, as what follows: a client that has said nothing yet is not to hold room for it.
            return Box::pin(upgrade::serve(self, &routed, request, ticket)).await;
        }
        Box::pin(exchange::serve(self, &routed, request, ticket, ordinal)).await
    }

    /// What a stop would cut soon is better told to come again, to whoever serves then. A kept connection's last requests
    /// are short and served.
    fn comes_too_late(&self, websocket: bool) -> bool {
        self.late || websocket && self.arrival.proxy.stopping.is_cancelled()
    }

    fn facts<'a>(&'a self, host: Option<&'a str>, path: &'a str) -> RouteInput<'a> {
        RouteInput {
            sni: self.caller.sni.as_deref(),
            host,
            path: Some(path),
            ..RouteInput::default()
        }
    }

    /// True when nothing is lost by ending the connection after the answers that are due: its first request has come, and
    /// no upgrade is under way (hyper would take its `Connection: Upgrade` from a 101).
    pub(super) fn may_end(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0 && !self.upgrading.load(Ordering::Relaxed)
    }

    /// The record of the next request: the connection's own for the first.
    fn record(&self) -> ConnectionRecord {
        self.unused_record().unwrap_or_else(|| {
            let mut record = self.arrival.record();
            if let Some(sni) = &self.caller.sni {
                record.set_sni(sni);
            }
            if let Some(tls) = &self.caller.shaken {
                record.set_client_tls(tls);
            }
            if let Some(identity) = &self.caller.identity {
                client_certificate::note(&mut record, identity);
            }
            record
        })
    }

    /// The connection's record, when no request has taken it.
    pub(super) fn unused_record(&self) -> Option<ConnectionRecord> {
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(super) fn put_handover(&self, handover: Upgraded) {
        *self.handover.lock().unwrap_or_else(PoisonError::into_inner) = Some(handover);
    }

    pub(super) fn take_handover(&self) -> Option<Upgraded> {
        self.handover
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// What a backend is told of the client before the request.
    pub(super) fn introduction(&self) -> &OutgoingProxyHeader {
        &self.caller.introduction
    }

    /// What the pool hashes, where it hashes a request's value.
    pub(super) fn key(&self, pool: &config::Pool, parts: &Parts) -> Option<Vec<u8>> {
        match &pool.balance {
            Balance::Hash(key) => {
                request_key(key, self.caller.sni.as_deref(), &parts.uri, &parts.headers)
            }
            _ => None,
        }
    }

    /// Counts the session that this request is to become at the source of its client, where no source has its connection.
    pub(super) fn source_permit(&self, routed: &Routed) -> Result<Option<SourcePermit>, Refusal> {
        let Routed { rules, client, .. } = routed;
        match self.arrival.names_clients(&rules.config) {
            true => self
                .arrival
                .admissions
                .admit_session(rules.admission(), client.ip()),
            false => Ok(None),
        }
    }

    /// Makes a client's request head that of the request to a backend.
    pub(super) fn forward(
        &self,
        routed: &Routed,
        parts: &mut Parts,
        backend: &Backend,
        purpose: Purpose,
    ) {
        let arrival = &self.arrival;
        let config = &routed.rules.config;
        let origin = Origin {
            client: arrival.peer.ip(),
            real_ip: arrival.real_ip(config, routed.client, &parts.headers),
            trusted: arrival.is_believed(config),
            tls: self.caller.tls,
            fields: config.forwarded,
        };
        forward::request(&mut parts.headers, origin, purpose);
        client_certificate::tell(&mut parts.headers, self.caller.identity.as_ref());
        if !parts.headers.contains_key(HOST) {
            parts.headers.insert(HOST, host_for(&parts.uri, backend));
        }
        parts.uri = origin_form(&parts.uri);
        parts.version = Version::HTTP_11;
    }
}

/// The host that is routed by, lower case and without its port. The gate has checked it.
fn host_of(request: &Request<Incoming>) -> Option<String> {
    let named = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    parse_host(named.or(authority)?.trim_ascii()).map(|host| host.name)
}

/// HTTP/1.0 may come without a Host, HTTP/1.1 may not go without.
fn host_for(uri: &Uri, backend: &Backend) -> HeaderValue {
    let name = match (uri.authority(), backend.endpoint()) {
        (Some(authority), _) => authority.to_string(),
        (None, Some(Endpoint::Tcp(address))) => address.to_string(),
        (None, _) => "localhost".to_owned(),
    };
    HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("localhost"))
}

/// A backend is no proxy: it is asked for a path, whatever form the client used.
fn origin_form(uri: &Uri) -> Uri {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    target.parse().unwrap_or_default()
}

/// The answer to what the gate has refused; the connection closes after it.
pub(super) fn refuse(
    ticket: RequestRecord,
    refused: &GateRefusal,
    phase: Phase,
) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_REQUEST);
    tracing::debug!(reason = %refused.reason, "request refused");
    answer::own_and_close(
        ticket,
        status,
        Termination::new(Side::Client, phase, refused.how),
        Some(&refused.reason),
    )
}

/// 404: no route; 403: not for this client.
fn unrouted(ticket: RequestRecord, status: StatusCode, close: bool) -> Response<ResponseBody> {
    let end = Termination::new(Side::Evenkeel, Phase::Route, Cause::Refused);
    match close {
        true => answer::own_and_close(ticket, status, end, None),
        false => answer::own(ticket, status, end, None),
    }
}

/// 429: the sessions of the client's source are at their limit.
pub(super) fn too_many(
    ticket: RequestRecord,
    pool: &Pool,
    refusal: Refusal,
) -> Response<ResponseBody> {
    let end = Termination::new(Side::Evenkeel, Phase::Route, refusal.how());
    let mut response = answer::own_and_close(ticket, StatusCode::TOO_MANY_REQUESTS, end, None);
    retry_after::set(response.headers_mut(), pool.settings().retry_after);
    response
}

/// 400: a path that guards and a backend may read in different ways.
fn ambiguous(ticket: RequestRecord, close: bool) -> Response<ResponseBody> {
    let reason = Refusal::EncodedSlash.word();
    tracing::debug!(reason, "request refused");
    let status = StatusCode::BAD_REQUEST;
    let end = Termination::new(Side::Client, Phase::Route, Cause::Refused);
    let detail = Some("encoded slash, backslash or NUL in the path");
    match close {
        true => answer::own_and_close(ticket, status, end, detail),
        false => answer::own(ticket, status, end, detail),
    }
}

/// The answer to who comes while the process stops or the listener is drained.
fn come_again(ticket: RequestRecord, pool: &Pool) -> Response<ResponseBody> {
    let end = Termination::new(Side::Evenkeel, Phase::Route, Cause::Stop);
    let mut response = answer::own_and_close(ticket, StatusCode::SERVICE_UNAVAILABLE, end, None);
    retry_after::set(response.headers_mut(), pool.settings().retry_after);
    response
}

/// The answer when no backend could be reached: come again (503), or why the way ends here (502, 504).
pub(super) fn unavailable(
    ticket: RequestRecord,
    pool: &Pool,
    error: &DispatchError,
    purpose: Purpose,
) -> Response<ResponseBody> {
    tracing::debug!(pool = %pool.name(), %error, "request refused");
    let status = match error {
        DispatchError::Acquire(_) => StatusCode::SERVICE_UNAVAILABLE,
        DispatchError::Ended { .. } => StatusCode::BAD_GATEWAY,
        DispatchError::Connect { source, .. } => match source {
            ConnectError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            ConnectError::Tls(error) if error.kind() == io::ErrorKind::TimedOut => {
                StatusCode::GATEWAY_TIMEOUT
            }
            ConnectError::Refused(_) | ConnectError::Tls(_) => StatusCode::BAD_GATEWAY,
            ConnectError::Local(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
    };
    let mut response = match purpose {
        Purpose::Ordinary => answer::own(ticket, status, error.end(), None),
        Purpose::Upgrade => answer::own_and_close(ticket, status, error.end(), None),
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        retry_after::set(response.headers_mut(), pool.settings().retry_after);
    }
    response
}
