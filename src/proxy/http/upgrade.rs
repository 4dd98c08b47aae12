//! A WebSocket upgrade: checked, sent to the picked backend, and made a session once the backend's
//! 101 is verified. No byte of the client goes to a backend as a tunnel before that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32};
use std::time::{Duration, Instant};

use http::StatusCode;

use super::backend_request::BackendRequest;
use super::backend_stream::BackendStream;
use super::client_stream::{ClientStream, Request};
use super::connection::{HttpConnection, Routed};
use super::exchange::{Exchange, ExchangeError, SentRequest};
use super::exchange_clock::ExchangeLimits;
use super::own_response::OwnResponse;
use super::request::deliver;
use super::request_record::RequestRecord;
use super::resume::handshake::ResumeHandshake;
use super::resume::kept::{More, PoolMigrator};
use super::upgraded::Upgraded;
use super::{AfterRequest, HttpClosed, refusal, respond};
use crate::admission::SourcePermit;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::pool::Lease;
use crate::proxy::connect::repeat::{Contact, unanswered};
use crate::proxy::connect::{ConnectBy, Connected, RetryState};
use crate::relay::{FramePolicy, Framing, ResumePolicy, SessionLimits};
use crate::wire::http::{
    Asked, ClientHop, Edits, Fields, HttpVersion, NextHop, ResponseHead, write_response,
};
use crate::wire::websocket::{self, UpgradeOffer};

const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
const PROTOCOL: &str = "Sec-WebSocket-Protocol";

/// An upgrade that is sent to one backend after another.
struct PendingUpgrade<'a> {
    http: &'a HttpConnection,
    routed: &'a Routed,
    request: &'a Request,
    outgoing: BackendRequest<'a>,
    offer: UpgradeOffer,
    source: Option<SourcePermit>,
}

/// Serves one upgrade request. It is sent to another backend within the pool's `retries`, as
/// [`unanswered`] allows.
pub(super) async fn serve(
    client: &mut ClientStream,
    http: &HttpConnection,
    routed: &Routed,
    request: &Request,
    record: RequestRecord<'_>,
) -> AfterRequest {
    let checked = websocket::check_upgrade(request.view());
    let admitted = checked.map_err(refuse).and_then(|offer| {
        let source = http.admit_session(routed);
        let refuse = |refusal| refusal::too_many(&routed.pool, refusal);
        source.map(|source| (offer, source)).map_err(refuse)
    });
    let (offer, source) = match admitted {
        Ok(admitted) => admitted,
        Err(response) => return respond(client, http, request, record, response).await,
    };
    http.connection.setup.routed();
    let pending = PendingUpgrade {
        http,
        routed,
        request,
        outgoing: BackendRequest::new(http, routed, request),
        offer,
        source,
    };
    pending.serve(client, record).await
}

/// Responds to a request that is no valid upgrade.
fn refuse(error: websocket::UpgradeOfferError) -> OwnResponse {
    let end = Termination::new(Side::Client, Phase::Head, Cause::Invalid);
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    OwnResponse::closing(status, end).with_detail(error.to_string())
}

/// An attempt at one backend that got no answer.
struct FailedAttempt {
    contact: Contact,
    lease: Lease,
    begun: Instant,
}

impl PendingUpgrade<'_> {
    /// Sends the request to one backend after another.
    async fn serve(self, client: &mut ClientStream, mut record: RequestRecord<'_>) -> AfterRequest {
        let pool = &self.routed.pool;
        let mut search = self.outgoing.search();
        let header = self.http.proxy_header(&self.routed.settings, client);
        let by = ConnectBy {
            header: header.as_ref(),
            idle: Some(&self.http.connection.proxy.idle),
            takes_idle: false,
        };
        loop {
            // Both may be dropped: the search leaves the queue or gives its lease back. A client
            // that has left already reaches no backend.
            let connected = tokio::select! {
                biased;
                has_finished = client.departed(true) => return left(record, has_finished),
                connected = record.connect(&mut search, None, pool, by) => connected,
            };
            let Connected { stream, lease, .. } = match connected {
                Ok(connected) => connected,
                Err(error) => {
                    let response = refusal::unavailable(pool, &error);
                    return respond(client, self.http, self.request, record, response).await;
                }
            };
            record.phase(Phase::Upgrade);
            let mut exchange = self.exchange(client, BackendStream::new(stream), &lease);
            let begun = Instant::now();
            let error = match exchange.answer().await {
                Ok(()) if exchange.head().status() == 101 => {
                    let more = More {
                        proxy_header: header,
                        key: search.key,
                    };
                    return self.switch(exchange, lease, more, record).await;
                }
                Ok(()) => return self.pass_on(exchange, lease, record).await,
                Err(error) => error,
            };
            let contact = exchange.into_parts().1.contact;
            let attempt = FailedAttempt {
                contact,
                lease,
                begun,
            };
            if !self.repeats(&mut search, &error, &attempt) {
                drop(attempt.lease);
                return self.no_answer(client, record, &error).await;
            }
        }
    }
    fn exchange<'c>(
        &self,
        client: &'c mut ClientStream,
        backend: BackendStream,
        lease: &Lease,
    ) -> Exchange<'c> {
        let sent = SentRequest {
            head: self.outgoing.write(lease.backend(), NextHop::Upgrade),
            asked: Asked::Upgrade,
            version: HttpVersion::Http11,
        };
        let settings = &self.routed.settings;
        let limits = (
            ExchangeLimits::of(settings, self.upgrade_timeout()),
            settings.http.head_limits(),
        );
        let relay = &self.http.connection.proxy.relay;
        Exchange::new(client, backend, sent, limits, relay)
    }

    fn upgrade_timeout(&self) -> Duration {
        self.routed.listener.config.upgrade_timeout
    }

    /// Charges a backend that has not answered, and says whether another one is asked.
    fn repeats(
        &self,
        search: &mut RetryState,
        error: &ExchangeError,
        attempt: &FailedAttempt,
    ) -> bool {
        let FailedAttempt {
            contact,
            lease,
            begun,
        } = attempt;
        let ExchangeError::Answer(why) = error else {
            return false;
        };
        let backend = lease.backend();
        tracing::debug!(%why, backend = %backend.name(), "upgrade failed");
        let repeat = unanswered(contact, backend, *begun, &self.routed.settings);
        !contact.has_heard() && search.repeats(&self.routed.pool, backend, repeat)
    }

    /// Passes on a backend's answer other than 101, as an ordinary one. The client may have sent
    /// tunnel bytes already, so nothing can follow it.
    async fn pass_on(
        self,
        exchange: Exchange<'_>,
        lease: Lease,
        record: RequestRecord<'_>,
    ) -> AfterRequest {
        let mut edits = Edits::default();
        self.outgoing.set_cookie(lease.backend(), &mut edits);
        deliver(exchange, (record, lease), CLOSING, edits).await.0
    }

    /// Verifies the backend's 101 and passes it on, with the session that follows it.
    async fn switch(
        self,
        exchange: Exchange<'_>,
        lease: Lease,
        more: More,
        mut record: RequestRecord<'_>,
    ) -> AfterRequest {
        lease.backend().answered();
        let head = exchange.head();
        if let Err(error) = websocket::check_response(101, &head.fields(), &self.offer) {
            tracing::debug!(%error, backend = %lease.backend().name(), "backend's 101 refused");
            let (client, _) = exchange.into_parts();
            return self.invalid_answer(client, record).await;
        }
        let mut edits = Edits::default();
        self.outgoing.set_cookie(lease.backend(), &mut edits);
        let mut id = 0;
        record.note(|record| id = record.id);
        let resume = self.resume_policy(head.fields(), &lease, more, id);
        edit_agreement(head.fields(), resume.is_some(), &mut edits);
        let written = write_switch(head, &edits);
        let (client, backend) = exchange.into_parts();
        record.note(|record| record.answered(101));
        if client
            .send(&written, self.routed.settings.http.send_timeout)
            .await
            .is_err()
        {
            return left(record, false);
        }
        let Some(record) = record.into_record() else {
            return AfterRequest::Gone(HttpClosed::Broken);
        };
        let config = &self.routed.listener.config;
        AfterRequest::Upgraded(Box::new(Upgraded {
            backend: backend.stream,
            backend_read: backend.input.into_unread(),
            framing: if config.follow_frames {
                Framing::WebSocket(FramePolicy::of(config, &self.routed.settings))
            } else {
                Framing::Bytes
            },
            limits: SessionLimits::of(&self.routed.settings),
            record,
            lease,
            source: self.source,
            resume,
        }))
    }

    /// The session's way to another backend, if it has one.
    fn resume_policy(
        &self,
        answer: Fields<'_>,
        lease: &Lease,
        more: More,
        id: u64,
    ) -> Option<Box<ResumePolicy>> {
        let resume = self.routed.settings.resume.as_ref()?;
        if !self.routed.listener.config.follow_frames {
            return None;
        }
        let sent = self
            .outgoing
            .write_unnamed(lease.backend(), NextHop::Upgrade);
        let handshake = ResumeHandshake::of(&sent, answer)?;
        let is_more = more.proxy_header.is_some() || more.key.is_some();
        let upgrade_timeout = self.upgrade_timeout().as_millis();
        let migrator = PoolMigrator {
            proxy: Arc::clone(&self.http.connection.proxy),
            pool: Arc::downgrade(&self.routed.pool),
            client: self.routed.client,
            handshake,
            header: Arc::clone(&resume.header),
            upgrade_timeout: u32::try_from(upgrade_timeout).unwrap_or(u32::MAX),
            id,
            more: is_more.then(|| Box::new(more)),
            count: AtomicU32::new(0),
            short: AtomicU8::new(0),
        };
        Some(migrator.into_policy(resume))
    }

    /// Responds where the backend's 101 is no answer to the request.
    async fn invalid_answer(
        self,
        client: &mut ClientStream,
        record: RequestRecord<'_>,
    ) -> AfterRequest {
        let end = Termination::new(Side::Backend, Phase::Upgrade, Cause::Invalid);
        let response = OwnResponse::new(StatusCode::BAD_GATEWAY, end);
        respond(client, self.http, self.request, record, response).await
    }

    async fn no_answer(
        self,
        client: &mut ClientStream,
        record: RequestRecord<'_>,
        error: &ExchangeError,
    ) -> AfterRequest {
        match refusal::unanswered(error, Phase::Upgrade) {
            Some(response) => respond(client, self.http, self.request, record, response).await,
            None => left(record, matches!(error, ExchangeError::ClientFinished)),
        }
    }
}

/// Nothing follows on the connection.
const CLOSING: ClientHop = ClientHop {
    version: HttpVersion::Http11,
    closes: true,
};

/// Ends the record of a client that has left while it waited.
fn left(mut record: RequestRecord<'_>, has_finished: bool) -> AfterRequest {
    let error = if has_finished {
        ExchangeError::ClientFinished
    } else {
        ExchangeError::ClientBroken
    };
    let end = refusal::broken_off(&error, record.reached());
    record.ends(end);
    AfterRequest::Gone(HttpClosed::Broken)
}

/// Makes the agreement of a 101 one that a browser takes, and, for a session that is resumable, one
/// that another backend can go on with.
fn edit_agreement(answer: Fields<'_>, is_resumable: bool, edits: &mut Edits<'_>) {
    if answer.has(PROTOCOL) {
        match websocket::chosen_subprotocol(&answer) {
            Some(protocol) => edits.set(PROTOCOL, protocol),
            None => edits.remove(PROTOCOL),
        }
    }
    if is_resumable && answer.has(EXTENSIONS) {
        let agreed: Vec<_> = answer
            .values(EXTENSIONS)
            .map(websocket::without_context_takeover)
            .collect();
        edits.set(EXTENSIONS, &agreed.join(&b", "[..]));
    }
}

fn write_switch(head: ResponseHead<'_>, edits: &Edits<'_>) -> Vec<u8> {
    let hop = ClientHop {
        version: HttpVersion::Http11,
        closes: false,
    };
    let mut out = Vec::with_capacity(256);
    write_response(head, hop, edits, &mut out);
    out
}
