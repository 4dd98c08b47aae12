//! A WebSocket upgrade: checked, sent to the picked backend, and handed to the relay once the backend's 101 is verified.
//! No byte of the client goes to a backend as a tunnel before that.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;

use super::answer::{self, ResponseBody};
use super::backend_line::{self, BackendConnection, OURS, RequestBody};
use super::dispatch::ConnectRequest;
use super::exchange::{how, stream_back};
use super::forward::{self, Purpose};
use super::repeat::{Repeat, charge_reset};
use super::resume::{More, PoolMigrator, ResumeHandshake};
use super::sticky::Stickiness;
use super::ticket::RequestRecord;
use super::visit::{HttpConnection, Routed, too_many, unavailable};
use super::{ListenerSnapshot, MaybeTlsStream};
use crate::admission::SourcePermit;
use crate::config;
use crate::net::Peer;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::pool::{Lease, Pool};
use crate::relay::{FramePolicy, Framing, ResumePolicy, SessionLimits};
use crate::wire::websocket::{self, UpgradeOffer};

/// A session between the verified 101 and its adoption.
pub(super) struct Upgraded {
    /// Resolves once the 101 has left for the client.
    pub client: OnUpgrade,
    pub backend: MaybeTlsStream,
    /// What the backend sent behind its 101.
    pub backend_read: Vec<u8>,
    pub framing: Framing,
    pub policy: SessionLimits,
    pub ticket: RequestRecord,
    pub lease: Lease,
    /// Where the client is another than the one whose connection was let in.
    pub source: Option<SourcePermit>,
    /// To another backend, where the pool has its sessions outlive theirs.
    pub way: Option<Box<ResumePolicy>>,
}

/// Why one backend gave no answer to an upgrade.
enum Unanswered {
    /// It is gone, and said nothing.
    Silent(Repeat),
    TimedOut,
    Failed(Cause),
}

/// Serves one upgrade request. It is sent to another backend within the pool's `retries`, as [`Repeat`] allows.
pub(super) async fn serve(
    visit: &HttpConnection,
    routed: &Routed,
    mut request: Request<Incoming>,
    mut ticket: RequestRecord,
) -> Response<ResponseBody> {
    let offer =
        match websocket::check_request(request.method(), request.version(), request.headers()) {
            Ok(offer) => offer,
            Err(error) => {
                let end = Termination::new(Side::Client, Phase::Head, Cause::Invalid);
                return answer::own_and_close(
                    ticket,
                    error.status(),
                    end,
                    Some(&error.to_string()),
                );
            }
        };
    let client = hyper::upgrade::on(&mut request);
    let Routed { rules, pool, .. } = routed;
    let settings = pool.settings();
    let source = match visit.source_permit(routed) {
        Ok(source) => source,
        Err(refusal) => return too_many(ticket, pool, refusal),
    };
    visit.dialogue.set_stall_timeout(settings.idle_timeout);
    visit.arrival.slot.adopted();
    let (mut parts, _no_body) = request.into_parts();
    let key = visit.key(&settings, &parts);
    forward::drop_notes(
        &mut parts.headers,
        settings.resume.as_deref(),
        settings.name_header.as_deref(),
    );
    let sticky = Stickiness::take(pool, &settings, &mut parts.headers);
    let mut wanted = ConnectRequest {
        client: routed.client.ip(),
        introduction: Some(visit.introduction()),
        key: key.as_deref(),
        preferred: sticky.as_ref().and_then(Stickiness::preferred),
        tried: Vec::new(),
    };
    loop {
        let (stream, lease) = match ticket.dispatch(pool, &mut wanted).await {
            Ok(connected) => connected,
            Err(error) => return unavailable(ticket, pool, &error, Purpose::Upgrade),
        };
        ticket.phase(Phase::Upgrade);
        let mut sent = parts.clone();
        visit.forward(routed, &mut sent, lease.backend(), Purpose::Upgrade);
        let resume = settings
            .resume
            .as_ref()
            .filter(|_| rules.config.follow_frames);
        let kept = resume.map(|_| (sent.uri.clone(), sent.headers.clone()));
        // Behind what is kept: another backend has another name.
        forward::tell_name(&mut sent.headers, &settings, lease.backend());
        let mut answered = ask(visit, rules, &settings, sent, stream, &lease).await;
        if let (Ok((response, _)), Some(sticky)) = (&mut answered, &sticky) {
            sticky.set(lease.backend(), response.headers_mut());
        }
        match answered {
            Ok((response, line)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return switch(
                    visit,
                    response,
                    &offer,
                    PendingUpgrade {
                        client,
                        peer: routed.client,
                        line,
                        lease,
                        source,
                        kept,
                        key: key.clone(),
                        pool: Arc::downgrade(pool),
                        upgrade_timeout: rules.config.upgrade_timeout,
                        framing: match rules.config.follow_frames {
                            true => Framing::WebSocket(FramePolicy::of(&rules.config, &settings)),
                            false => Framing::Bytes,
                        },
                        settings,
                    },
                    ticket,
                )
                .await;
            }
            Ok((response, line)) => return pass_on(visit, response, ticket, line, lease),
            Err(Unanswered::Silent(Repeat::Free | Repeat::Chosen))
                if wanted.tried.len() < settings.retries as usize =>
            {
                wanted.tried.push(Arc::clone(lease.backend()));
                pool.counters().retries.fetch_add(1, Ordering::Relaxed);
            }
            Err(unanswered) => return no_answer(ticket, &unanswered),
        }
    }
}

/// Sends the request to one backend and waits for the head of its answer.
async fn ask(
    visit: &HttpConnection,
    rules: &ListenerSnapshot,
    settings: &config::Pool,
    parts: Parts,
    stream: MaybeTlsStream,
    lease: &Lease,
) -> Result<(Response<Incoming>, BackendConnection), Unanswered> {
    let request = Request::from_parts(parts, RequestBody::new(None, &visit.dialogue));
    let begun = Instant::now();
    let asking = async {
        let mut line = backend_line::open(stream, &visit.dialogue, settings, OURS)
            .await
            .map_err(|_| Unanswered::Silent(Repeat::Free))?;
        match line.sender.send_request(request).await {
            Ok(response) => {
                lease.backend().answered();
                Ok((response, line))
            }
            Err(_) if line.stalled.load(Ordering::Relaxed) => Err(Unanswered::TimedOut),
            Err(error) => {
                let backend = lease.backend();
                tracing::debug!(%error, backend = %backend.name(), "upgrade failed");
                charge_reset(&line.contact, backend, begun, settings.connect_timeout);
                match line.contact.has_heard() {
                    true => Err(Unanswered::Failed(how(&error))),
                    false => {
                        let repeat = Repeat::of(&line.contact, backend, settings);
                        Err(Unanswered::Silent(repeat))
                    }
                }
            }
        }
    };
    // Dropping the request half sent ends the backend connection, which is never used again anyway.
    timeout(rules.config.upgrade_timeout, asking)
        .await
        .unwrap_or(Err(Unanswered::TimedOut))
}

/// What an upgrade holds when its answer has come.
struct PendingUpgrade {
    client: OnUpgrade,
    /// Who is served.
    peer: Peer,
    line: BackendConnection,
    lease: Lease,
    source: Option<SourcePermit>,
    settings: Arc<config::Pool>,
    framing: Framing,
    /// The request as it was sent, where its session may outlive its backend.
    kept: Option<(Uri, HeaderMap)>,
    key: Option<Vec<u8>>,
    pool: Weak<Pool>,
    upgrade_timeout: Duration,
}

impl PendingUpgrade {
    /// The session's way to another backend, if it has one, and makes the answer one that another backend can go on with.
    fn way(
        &self,
        visit: &HttpConnection,
        answer: &mut HeaderMap,
        id: u64,
    ) -> Option<Box<ResumePolicy>> {
        let resume = self.settings.resume.as_ref()?;
        let (target, sent) = self.kept.as_ref()?;
        let handshake = ResumeHandshake::of(target, sent, answer)?;
        let extensions = answer.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
        let edited: Vec<_> = extensions
            .map(websocket::without_context_takeover)
            .collect();
        answer.remove(SEC_WEBSOCKET_EXTENSIONS);
        for value in edited {
            answer.append(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        let introduction = self
            .settings
            .send_proxy
            .map(|_| visit.introduction().clone());
        let key = self.key.as_deref().map(Box::from);
        let is_more = introduction.is_some() || key.is_some();
        let way = PoolMigrator {
            proxy: Arc::clone(&visit.arrival.proxy),
            pool: self.pool.clone(),
            client: self.peer,
            handshake,
            header: Arc::clone(&resume.header),
            upgrade_timeout: u32::try_from(self.upgrade_timeout.as_millis()).unwrap_or(u32::MAX),
            id,
            more: is_more.then(|| Box::new(More { introduction, key })),
            count: AtomicU32::new(0),
            short: AtomicU8::new(0),
        };
        Some(way.into_resumption(resume))
    }
}

/// Verifies the backend's 101 and passes it on; the session is handed over once it has left.
async fn switch(
    visit: &HttpConnection,
    response: Response<Incoming>,
    offer: &UpgradeOffer,
    held: PendingUpgrade,
    mut ticket: RequestRecord,
) -> Response<ResponseBody> {
    if let Err(error) = websocket::check_response(response.status(), response.headers(), offer) {
        tracing::debug!(%error, backend = %held.lease.backend().name(), "backend's 101 refused");
        return no_answer(ticket, &Unanswered::Failed(Cause::Invalid));
    }
    let (mut parts, body) = response.into_parts();
    websocket::drop_empty_subprotocols(&mut parts.headers);
    let mut id = 0;
    ticket.note(|record| id = record.id);
    let way = held.way(visit, &mut parts.headers, id);
    let PendingUpgrade {
        client,
        line,
        lease,
        source,
        settings,
        framing,
        ..
    } = held;
    parts.extensions.remove::<OnUpgrade>();
    drop((body, line.sender));
    let Ok(Some(backend)) = line.driver.await else {
        return no_answer(ticket, &Unanswered::Failed(Cause::Rst));
    };
    forward::response(&mut parts.headers, Purpose::Upgrade);
    parts.version = Version::HTTP_11;
    ticket.note(|record| record.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16()));
    visit.put_handover(Upgraded {
        client,
        backend: backend.io.into_inner().into_inner(),
        backend_read: backend.read_buf.to_vec(),
        framing,
        policy: SessionLimits::of(&settings),
        ticket,
        lease,
        source,
        way,
    });
    Response::from_parts(parts, ResponseBody::Empty)
}

/// A backend's answer other than 101 is an ordinary one. The client may have sent tunnel bytes already, so nothing can
/// follow it.
fn pass_on(
    visit: &HttpConnection,
    response: Response<Incoming>,
    ticket: RequestRecord,
    line: BackendConnection,
    lease: Lease,
) -> Response<ResponseBody> {
    let mut response = stream_back(visit, response, ticket, line, lease, Arc::default());
    forward::close(response.headers_mut());
    response
}

fn no_answer(ticket: RequestRecord, unanswered: &Unanswered) -> Response<ResponseBody> {
    let (status, how) = match unanswered {
        Unanswered::TimedOut => (StatusCode::GATEWAY_TIMEOUT, Cause::Timeout),
        Unanswered::Silent(_) => (StatusCode::BAD_GATEWAY, Cause::Rst),
        Unanswered::Failed(how) => (StatusCode::BAD_GATEWAY, *how),
    };
    answer::own_and_close(
        ticket,
        status,
        Termination::new(Side::Backend, Phase::Upgrade, how),
        None,
    )
}
