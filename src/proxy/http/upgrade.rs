//! A WebSocket upgrade: checked, sent to the picked backend, and made a session once the backend's
//! 101 is verified. No byte of the client goes to a backend as a tunnel before that.

use std::sync::Arc;
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
use super::sticky::Stickiness;
use super::upgraded::{SessionTerms, Upgraded};
use super::{AfterRequest, HttpClosed, refusal, respond};
use crate::admission::SourcePermit;
use crate::observe::{Cause, ConnectionRecord, Phase, Side, Termination};
use crate::pool::Lease;
use crate::proxy::connect::idle::TakesIdle;
use crate::proxy::connect::outgoing_proxy_header::OutgoingProxyHeader;
use crate::proxy::connect::repeat::{Contact, unanswered};
use crate::proxy::connect::{ConnectBy, Connected, RetryState, RetryStep};
use crate::relay::SessionLimits;
use crate::wire::http::{Asked, ClientHop, Edits, HttpVersion, NextHop};
use crate::wire::websocket::{self, UpgradeOffer};

/// An upgrade that is sent to one backend after another.
pub(super) struct PendingUpgrade {
    pub http: Arc<HttpConnection>,
    pub routed: Routed,
    pub request: Request,
    pub offer: UpgradeOffer,
    pub search: RetryState,
    /// Present in a pool that sends PROXY headers.
    pub proxy_header: Option<OutgoingProxyHeader>,
    sticky: Option<Stickiness>,
    source: Option<SourcePermit>,
}

/// Place where an upgrade begins, or goes on.
pub(super) enum UpgradeStart {
    /// The search for a backend; `None`: from its begin.
    Search(Option<RetryStep>),
    /// A backend that is connected.
    Sent(SentUpgrade),
}

/// An upgrade at a backend that has not answered.
pub(super) struct SentUpgrade {
    pub backend: BackendStream,
    pub lease: Lease,
    pub begun: Instant,
    /// The part of the request's head that is not sent.
    pub unsent: Vec<u8>,
}

/// Serves one upgrade request. It is sent to another backend within the pool's `retries`, as
/// [`unanswered`] allows.
pub(super) async fn serve(
    client: &mut ClientStream,
    http: &Arc<HttpConnection>,
    routed: Routed,
    request: Request,
    record: RequestRecord,
) -> AfterRequest {
    let proxy_header = http.proxy_header(&routed.settings, client);
    match PendingUpgrade::new(http, routed, request) {
        Ok(mut pending) => {
            pending.proxy_header = proxy_header;
            let start = UpgradeStart::Search(None);
            pending.serve(client, record, start).await
        }
        Err(refused) => {
            let (request, response) = *refused;
            respond(client, http, &request, record, response).await
        }
    }
}

impl PendingUpgrade {
    /// Checks an upgrade and ends its set-up.
    ///
    /// # Errors
    /// The request, and the response to one that is refused.
    pub(super) fn new(
        http: &Arc<HttpConnection>,
        routed: Routed,
        request: Request,
    ) -> Result<PendingUpgrade, Box<(Request, OwnResponse)>> {
        let checked = websocket::check_upgrade(request.view());
        let admitted = checked.map_err(refuse).and_then(|offer| {
            let source = http.admit_session(&routed);
            let refuse = |refusal| refusal::too_many(&routed.pool, refusal);
            source.map(|source| (offer, source)).map_err(refuse)
        });
        let (offer, source) = match admitted {
            Ok(admitted) => admitted,
            Err(response) => return Err(Box::new((request, response))),
        };
        http.connection.setup.routed();
        let sticky = Stickiness::of(&routed.pool, &routed.settings, request.view());
        let search = BackendRequest::new(http, &routed, &request, sticky.as_ref()).search();
        Ok(PendingUpgrade {
            http: Arc::clone(http),
            routed,
            request,
            offer,
            search,
            proxy_header: None,
            sticky,
            source,
        })
    }

    /// The request as a backend is to get it.
    pub(super) fn outgoing(&self) -> BackendRequest<'_> {
        let sticky = self.sticky.as_ref();
        BackendRequest::new(&self.http, &self.routed, &self.request, sticky)
    }

    pub(super) fn upgrade_timeout(&self) -> Duration {
        self.routed.listener.config.upgrade_timeout
    }

    /// Sends the request to one backend after another.
    pub(super) async fn serve(
        mut self,
        client: &mut ClientStream,
        mut record: RequestRecord,
        mut start: UpgradeStart,
    ) -> AfterRequest {
        loop {
            let sent = match start {
                UpgradeStart::Sent(sent) => sent,
                UpgradeStart::Search(step) => match self.connect(client, &mut record, step).await {
                    Ok(sent) => sent,
                    Err(NoBackend::Left { has_finished }) => {
                        return left(record, has_finished);
                    }
                    Err(NoBackend::Refused(response)) => {
                        return self.refuse(client, record, response).await;
                    }
                },
            };
            record.phase(Phase::Upgrade);
            let SentUpgrade {
                backend,
                lease,
                begun,
                unsent,
            } = sent;
            let mut exchange = self.exchange(client, backend, unsent);
            // Dropping a request half sent ends the backend connection, which is never used again.
            let error = match exchange.answer().await {
                Ok(()) if exchange.head().status() == 101 => {
                    return self.switch(exchange, lease, record).await;
                }
                Ok(()) => return self.pass_on(exchange, lease, record).await,
                Err(error) => error,
            };
            exchange.note_bytes(&mut record);
            if let ExchangeError::Answer(why) = &error {
                let (id, backend) = (record.id(), lease.backend().name());
                tracing::debug!(id, %why, %backend, "upgrade failed");
                record.note(|record| record.note_failure(why));
            }
            let contact = exchange.into_parts().1.contact;
            if !self.repeats(&error, &contact, &lease, begun) {
                drop(lease);
                return self.no_answer(client, record, &error).await;
            }
            start = UpgradeStart::Search(None);
        }
    }

    /// Connects to a backend.
    async fn connect(
        &mut self,
        client: &mut ClientStream,
        record: &mut RequestRecord,
        step: Option<RetryStep>,
    ) -> Result<SentUpgrade, NoBackend> {
        let pool = &self.routed.pool;
        let by = ConnectBy {
            header: self.proxy_header.as_ref(),
            idle: Some(&self.http.connection.proxy.idle),
            takes_idle: TakesIdle::Never,
        };
        // Both may be dropped: the search leaves the queue or gives its lease back. A client that
        // has left already reaches no backend.
        let connected = tokio::select! {
            biased;
            has_finished = client.departed(true) => return Err(NoBackend::Left { has_finished }),
            connected = record.connect(&mut self.search, step, pool, by) => connected,
        };
        match connected {
            Ok(Connected { stream, lease, .. }) => Ok(SentUpgrade {
                backend: BackendStream::new(stream),
                begun: Instant::now(),
                unsent: self.outgoing().write(lease.backend(), NextHop::Upgrade),
                lease,
            }),
            Err(error) => {
                let response = refusal::unavailable(pool, &error, record.id());
                Err(NoBackend::Refused(response))
            }
        }
    }

    fn exchange<'c>(
        &self,
        client: &'c mut ClientStream,
        backend: BackendStream,
        head: Vec<u8>,
    ) -> Exchange<'c> {
        let sent = SentRequest {
            head,
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

    /// Charges a backend that has not answered, and says whether another one is asked.
    fn repeats(
        &mut self,
        error: &ExchangeError,
        contact: &Contact,
        lease: &Lease,
        begun: Instant,
    ) -> bool {
        if !matches!(error, ExchangeError::Answer(_)) {
            return false;
        }
        let backend = lease.backend();
        let repeat = unanswered(contact, backend, begun, &self.routed.settings);
        !contact.has_heard() && self.search.repeats(&self.routed.pool, backend, repeat)
    }

    /// Passes on a backend's answer other than 101, as an ordinary one. The client may have sent
    /// tunnel bytes already, so nothing can follow it.
    async fn pass_on(
        self,
        exchange: Exchange<'_>,
        lease: Lease,
        record: RequestRecord,
    ) -> AfterRequest {
        let mut edits = Edits::default();
        self.outgoing().set_cookie(lease.backend(), &mut edits);
        let (after, _) = deliver(exchange, (record, lease), CLOSING, edits).await;
        after
    }

    /// Verifies the backend's 101 and passes it on, with the session that follows it.
    async fn switch(
        self,
        exchange: Exchange<'_>,
        lease: Lease,
        mut record: RequestRecord,
    ) -> AfterRequest {
        let id = record.id();
        let agreed = self.agree(exchange.head(), &lease, id);
        let (client, backend) = exchange.into_parts();
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(error) => {
                tracing::debug!(id, %error, backend = %lease.backend().name(), "backend's 101 refused");
                let end = Termination::new(Side::Backend, Phase::Upgrade, Cause::Invalid);
                let response = OwnResponse::new(StatusCode::BAD_GATEWAY, end);
                return self.refuse(client, record, response).await;
            }
        };
        record.note(|record| record.answered_by_backend(101));
        let limit = self.routed.settings.http.send_timeout;
        if client.send(&agreed.head, limit).await.is_err() {
            return left(record, false);
        }
        match record.into_record() {
            Some(record) => {
                let session = Box::new(self.upgraded(agreed.session, record, lease));
                AfterRequest::Upgraded(backend, session)
            }
            None => AfterRequest::Gone(HttpClosed::Broken),
        }
    }

    /// The session that follows a verified 101.
    pub(super) fn upgraded(
        self,
        (framing, resume): SessionTerms,
        record: ConnectionRecord,
        lease: Lease,
    ) -> Upgraded {
        Upgraded {
            framing,
            limits: SessionLimits::of(&self.routed.settings),
            record,
            lease,
            source: self.source,
            resume,
        }
    }

    async fn refuse(
        self,
        client: &mut ClientStream,
        record: RequestRecord,
        response: OwnResponse,
    ) -> AfterRequest {
        respond(client, &self.http, &self.request, record, response).await
    }

    async fn no_answer(
        self,
        client: &mut ClientStream,
        record: RequestRecord,
        error: &ExchangeError,
    ) -> AfterRequest {
        match refusal::unanswered(error, Phase::Upgrade, record.id()) {
            Some(response) => self.refuse(client, record, response).await,
            None => left(record, matches!(error, ExchangeError::ClientFinished)),
        }
    }
}

/// Reason for which an upgrade got no backend.
enum NoBackend {
    /// The client has left, perhaps by a FIN.
    Left {
        has_finished: bool,
    },
    Refused(OwnResponse),
}

/// Nothing follows on the connection.
const CLOSING: ClientHop = ClientHop {
    version: HttpVersion::Http11,
    closes: true,
};

/// Responds to a request that is no valid upgrade.
fn refuse(error: websocket::UpgradeOfferError) -> OwnResponse {
    let end = Termination::new(Side::Client, Phase::Head, Cause::Invalid);
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    OwnResponse::closing(status, end).with_detail(error.to_string())
}

/// Ends the record of a client that has left while it waited.
fn left(mut record: RequestRecord, has_finished: bool) -> AfterRequest {
    let error = if has_finished {
        ExchangeError::ClientFinished
    } else {
        ExchangeError::ClientBroken
    };
    let end = refusal::broken_off(&error, record.reached());
    record.ends(end);
    AfterRequest::Gone(HttpClosed::Broken)
}
