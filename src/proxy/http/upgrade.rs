//! A WebSocket upgrade: checked, sent to the picked backend, and made a session once the backend's
//! 101 is verified. No byte of the client goes to a backend as a tunnel before that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;

use super::backend::{self, BackendConnection, Exchange, OURS, RequestBody, cause_of};
use super::connection::{HttpConnection, Routed};
use super::headers::{self, Purpose};
use super::refusal;
use super::request_record::RequestRecord;
use super::response::{self, ResponseBody};
use super::resume::handshake::ResumeHandshake;
use super::resume::kept::{More, PoolMigrator};
use super::served::{ServedRequest, Upgraded};
use super::sticky::Stickiness;
use crate::admission::SourcePermit;
use crate::config;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::pool::Lease;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::proxy::connect::RetryState;
use crate::proxy::connect::repeat::{Repeat, unanswered};
use crate::relay::{FramePolicy, Framing, ResumePolicy, SessionLimits};
use crate::wire::websocket::{self, UpgradeOffer};

/// Reason for which a backend gave no response to an upgrade.
enum Unanswered {
    /// The backend has closed, and sent nothing.
    Silent(Repeat),
    TimedOut,
    Failed(Cause),
}

/// An upgrade that is sent to one backend after another.
struct PendingUpgrade<'a> {
    client: &'a HttpConnection,
    routed: &'a Routed,
    settings: Arc<config::Pool>,
    offer: UpgradeOffer,
    source: Option<SourcePermit>,
    key: Option<Box<[u8]>>,
    sticky: Option<Stickiness>,
}

/// Serves one upgrade request. It is sent to another backend within the pool's `retries`, as
/// [`Repeat`] allows.
pub(super) async fn serve(
    client: &HttpConnection,
    routed: &Routed,
    request: Request<Incoming>,
    record: RequestRecord,
) -> ServedRequest {
    let offer =
        match websocket::check_request(request.method(), request.version(), request.headers()) {
            Ok(offer) => offer,
            Err(error) => {
                let end = Termination::new(Side::Client, Phase::Head, Cause::Invalid);
                let (status, detail) = (error.status(), error.to_string());
                return response::own_and_close(record, status, end, Some(&detail)).into();
            }
        };
    let pool = &routed.pool;
    let source = match client.admit_session(routed) {
        Ok(source) => source,
        Err(refusal) => return refusal::too_many(record, pool, refusal).into(),
    };
    let settings = pool.settings();
    client.gate_state.set_stall_timeout(settings.idle_timeout);
    client.connection.setup.routed();
    let (mut parts, _no_body) = request.into_parts();
    // The client's stream is taken from hyper's connection.
    parts.extensions.remove::<OnUpgrade>();
    let (search, sticky) = client.search(routed, &settings, &mut parts);
    let pending = PendingUpgrade {
        client,
        routed,
        settings,
        offer,
        source,
        key: search.key.clone(),
        sticky,
    };
    pending.serve(parts, search, record).await
}

impl PendingUpgrade<'_> {
    /// Sends the request to one backend after another.
    async fn serve(
        self,
        parts: Parts,
        mut search: RetryState,
        mut record: RequestRecord,
    ) -> ServedRequest {
        let pool = &self.routed.pool;
        loop {
            let connected = record.connect(&mut search, pool, &self.client.proxy_header);
            let (stream, lease) = match connected.await {
                Ok(connected) => connected,
                Err(error) => {
                    return refusal::unavailable(record, pool, &error, Purpose::Upgrade).into();
                }
            };
            record.phase(Phase::Upgrade);
            let mut sent = parts.clone();
            self.client
                .rewrite(self.routed, &mut sent, lease.backend(), Purpose::Upgrade);
            let kept = self.kept(&sent);
            // After what is kept: another backend has another name.
            headers::set_backend_name(&mut sent.headers, &self.settings, lease.backend());
            match self.send(sent, stream, &lease).await {
                Ok((mut response, connection)) => {
                    if let Some(sticky) = &self.sticky {
                        sticky.set(lease.backend(), response.headers_mut());
                    }
                    let exchange = Exchange {
                        connection,
                        lease,
                        sent: Arc::default(),
                    };
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return self.switch(response, exchange, kept, record).await;
                    }
                    return pass_on(self.client, response, exchange, record).into();
                }
                Err(Unanswered::Silent(repeat))
                    if search.repeats(pool, lease.backend(), repeat) => {}
                Err(unanswered) => return no_response(record, &unanswered).into(),
            }
        }
    }

    /// The target and the fields that were sent, where the session may outlive its backend.
    fn kept(&self, sent: &Parts) -> Option<(Uri, HeaderMap)> {
        let is_kept = self.settings.resume.is_some() && self.routed.listener.config.follow_frames;
        is_kept.then(|| (sent.uri.clone(), sent.headers.clone()))
    }

    fn upgrade_timeout(&self) -> Duration {
        self.routed.listener.config.upgrade_timeout
    }

    /// Sends the request to one backend and waits for the head of its response.
    async fn send(
        &self,
        parts: Parts,
        stream: MaybeTlsStream,
        lease: &Lease,
    ) -> Result<(Response<Incoming>, BackendConnection), Unanswered> {
        let (settings, gate_state) = (&self.settings, &self.client.gate_state);
        let request = Request::from_parts(parts, RequestBody::new(None, gate_state));
        let begun = Instant::now();
        let sending = async {
            let mut connection = backend::open(stream, gate_state, settings, OURS)
                .await
                .map_err(|_| Unanswered::Silent(Repeat::Free))?;
            match connection.sender.send_request(request).await {
                Ok(response) => {
                    lease.backend().answered();
                    Ok((response, connection))
                }
                Err(_) if connection.stalled.load(Ordering::Relaxed) => Err(Unanswered::TimedOut),
                Err(error) => {
                    let backend = lease.backend();
                    tracing::debug!(%error, backend = %backend.name(), "upgrade failed");
                    let contact = &connection.contact;
                    let repeat = unanswered(contact, backend, begun, settings);
                    if contact.has_heard() {
                        Err(Unanswered::Failed(cause_of(&error)))
                    } else {
                        Err(Unanswered::Silent(repeat))
                    }
                }
            }
        };
        // Dropping the request half sent ends the backend connection, which is never used again.
        timeout(self.upgrade_timeout(), sending)
            .await
            .unwrap_or(Err(Unanswered::TimedOut))
    }

    /// Verifies the backend's 101 and passes it on, with the session that follows it.
    async fn switch(
        self,
        response: Response<Incoming>,
        exchange: Exchange,
        kept: Option<(Uri, HeaderMap)>,
        mut record: RequestRecord,
    ) -> ServedRequest {
        let Exchange {
            connection, lease, ..
        } = exchange;
        let checked = websocket::check_response(response.status(), response.headers(), &self.offer);
        if let Err(error) = checked {
            tracing::debug!(%error, backend = %lease.backend().name(), "backend's 101 refused");
            return no_response(record, &Unanswered::Failed(Cause::Invalid)).into();
        }
        let (mut parts, body) = response.into_parts();
        websocket::drop_empty_subprotocols(&mut parts.headers);
        let mut id = 0;
        record.note(|record| id = record.id);
        let resume = self.resume_policy(kept, &mut parts.headers, id);
        parts.extensions.remove::<OnUpgrade>();
        drop((body, connection.sender));
        let Ok(Some(backend)) = connection.driver.await else {
            return no_response(record, &Unanswered::Failed(Cause::Rst)).into();
        };
        headers::response(&mut parts.headers, Purpose::Upgrade);
        parts.version = Version::HTTP_11;
        record.note(|record| record.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16()));
        let config = &self.routed.listener.config;
        let framing = if config.follow_frames {
            Framing::WebSocket(FramePolicy::of(config, &self.settings))
        } else {
            Framing::Bytes
        };
        let upgraded = Upgraded {
            backend: backend.io.into_inner().into_inner(),
            backend_read: backend.read_buf.to_vec(),
            framing,
            limits: SessionLimits::of(&self.settings),
            record,
            lease,
            source: self.source,
            resume,
        };
        ServedRequest {
            response: Response::from_parts(parts, ResponseBody::Empty),
            upgraded: Some(Box::new(upgraded)),
        }
    }

    /// The session's way to another backend, if it has one. Makes the response one that another
    /// backend can go on with.
    fn resume_policy(
        &self,
        kept: Option<(Uri, HeaderMap)>,
        answer: &mut HeaderMap,
        id: u64,
    ) -> Option<Box<ResumePolicy>> {
        let resume = self.settings.resume.as_ref()?;
        let (target, sent) = kept?;
        let handshake = ResumeHandshake::of(&target, &sent, answer)?;
        let extensions = answer.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
        let edited: Vec<_> = extensions
            .map(websocket::without_context_takeover)
            .collect();
        answer.remove(SEC_WEBSOCKET_EXTENSIONS);
        for value in edited {
            answer.append(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        let send_proxy = self.settings.send_proxy;
        let proxy_header = send_proxy.map(|_| self.client.proxy_header.clone());
        let key = self.key.clone();
        let is_more = proxy_header.is_some() || key.is_some();
        let upgrade_timeout = self.upgrade_timeout().as_millis();
        let migrator = PoolMigrator {
            proxy: Arc::clone(&self.client.connection.proxy),
            pool: Arc::downgrade(&self.routed.pool),
            client: self.routed.client,
            handshake,
            header: Arc::clone(&resume.header),
            upgrade_timeout: u32::try_from(upgrade_timeout).unwrap_or(u32::MAX),
            id,
            more: is_more.then(|| Box::new(More { proxy_header, key })),
            count: AtomicU32::new(0),
            short: AtomicU8::new(0),
        };
        Some(migrator.into_policy(resume))
    }
}

/// Passes on a backend's response other than 101, as an ordinary one. The client may have sent
/// tunnel bytes already, so nothing can follow it.
fn pass_on(
    client: &HttpConnection,
    response: Response<Incoming>,
    exchange: Exchange,
    record: RequestRecord,
) -> Response<ResponseBody> {
    let mut response = response::stream_back(response, record, exchange, &client.gate_state);
    headers::close(response.headers_mut());
    response
}

fn no_response(record: RequestRecord, unanswered: &Unanswered) -> Response<ResponseBody> {
    let (status, cause) = match unanswered {
        Unanswered::TimedOut => (StatusCode::GATEWAY_TIMEOUT, Cause::Timeout),
        Unanswered::Silent(_) => (StatusCode::BAD_GATEWAY, Cause::Rst),
        Unanswered::Failed(cause) => (StatusCode::BAD_GATEWAY, *cause),
    };
    let end = Termination::new(Side::Backend, Phase::Upgrade, cause);
    response::own_and_close(record, status, end, None)
}
