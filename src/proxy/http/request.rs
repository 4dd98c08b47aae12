//! An ordinary HTTP request: sent to the picked backend, its answer delivered as it comes.

use std::sync::Arc;
use std::time::Instant;

use super::backend_request::BackendRequest;
use super::backend_stream::BackendStream;
use super::client_stream::{ClientStream, Request};
use super::connection::{HttpConnection, Routed};
use super::exchange::{EndedConnection, Exchange, ExchangeError, SentRequest};
use super::exchange_clock::ExchangeLimits;
use super::own_response;
use super::request_record::RequestRecord;
use super::sticky::Stickiness;
use super::{AfterRequest, HttpClosed, closes_after, refusal, respond, reuse};
use crate::config;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::pool::Lease;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::proxy::connect::idle::{TakesIdle, UnusedConnection};
use crate::proxy::connect::repeat::unanswered;
use crate::proxy::connect::{ConnectBy, RetryStep};
use crate::wire::http::{Asked, ClientHop, Edits, HeadLimits, NextHop};

/// An ordinary request on its way.
struct PendingRequest<'a> {
    http: &'a Arc<HttpConnection>,
    routed: &'a Routed,
    request: &'a Request,
    outgoing: BackendRequest<'a>,
    /// It may go on a connection that has served another one.
    is_reusable: bool,
}

/// Serves one request. It is tried again only while nothing of it was sent, or once where a
/// connection that was idle is closed without a byte of an answer.
pub(super) async fn serve(
    client: &mut ClientStream,
    http: &Arc<HttpConnection>,
    routed: &Routed,
    request: &Request,
    record: RequestRecord,
) -> AfterRequest {
    // Set-up is over: a connection kept for polling must not use up its limit.
    http.connection.setup.routed();
    let sticky = Stickiness::of(&routed.pool, &routed.settings, request.view());
    let pending = PendingRequest {
        http,
        routed,
        request,
        outgoing: BackendRequest::new(http, routed, request, sticky.as_ref()),
        is_reusable: reuse::is_reusable(request.view(), &routed.settings),
    };
    pending.serve(client, record).await
}

impl PendingRequest<'_> {
    async fn serve(self, client: &mut ClientStream, mut record: RequestRecord) -> AfterRequest {
        let Routed { pool, settings, .. } = self.routed;
        let mut search = self.outgoing.search();
        let header = self.http.proxy_header(settings, client);
        let mut by = ConnectBy {
            header: header.as_ref(),
            idle: Some(&self.http.connection.proxy.idle),
            takes_idle: self.takes_idle(),
        };
        let mut step = None;
        loop {
            // Both may be dropped: the search leaves the queue or gives its lease back.
            let connected = tokio::select! {
                biased;
                _ = client.departed(false) => return AfterRequest::Gone(HttpClosed::Broken),
                connected = record.connect(&mut search, step.take(), pool, by) => connected,
            };
            let connected = match connected {
                Ok(connected) => connected,
                Err(error) => {
                    let response = refusal::unavailable(pool, &error, record.id());
                    return respond(client, self.http, self.request, record, response).await;
                }
            };
            record.phase(Phase::Request);
            let (is_reused, begun) = (connected.is_reused, Instant::now());
            if !is_reused {
                connected.stream.prepare_long_life();
            }
            let mut exchange = self.exchange(client, connected.stream, &connected.lease);
            let error = match exchange.answer().await {
                Ok(()) => {
                    return self
                        .deliver(exchange, record, connected.lease, is_reused)
                        .await;
                }
                Err(error) => error,
            };
            exchange.note_bytes(&mut record);
            if let ExchangeError::Answer(why) = &error {
                record.note(|record| record.note_failure(why));
            }
            let contact = exchange.into_parts().1.contact;
            let is_answer = matches!(error, ExchangeError::Answer(_));
            if is_answer && is_reused && !contact.has_heard() {
                // A new connection to the same backend: it has closed the old one, as it may.
                by.takes_idle = TakesIdle::Never;
                step = Some(RetryStep::Connect(connected.lease));
                continue;
            }
            if is_answer {
                unanswered(&contact, connected.lease.backend(), begun, settings);
            }
            return self.no_answer(client, record, &error).await;
        }
    }

    /// A client's first request, and those that it pipelines, are not to find out that a server
    /// reads one of each connection.
    fn takes_idle(&self) -> TakesIdle {
        if !self.is_reusable {
            TakesIdle::Never
        } else if self.http.is_first_request() || self.request.is_pipelined {
            TakesIdle::Proven
        } else {
            TakesIdle::Any
        }
    }

    fn exchange<'c>(
        &self,
        client: &'c mut ClientStream,
        stream: MaybeTlsStream,
        lease: &Lease,
    ) -> Exchange<'c> {
        let hop = if self.is_reusable {
            NextHop::KeepAlive
        } else {
            NextHop::Close
        };
        let sent = SentRequest {
            head: self.outgoing.write(lease.backend(), hop),
            asked: asked(self.request),
            version: self.request.view().version(),
        };
        let backend = BackendStream::new(stream);
        let relay = &self.http.connection.proxy.relay;
        Exchange::new(client, backend, sent, limits(&self.routed.settings), relay)
    }

    async fn deliver(
        self,
        exchange: Exchange<'_>,
        record: RequestRecord,
        lease: Lease,
        is_reused: bool,
    ) -> AfterRequest {
        let head = exchange.head();
        let is_refused = head.status() >= 400;
        let is_kept = self.is_reusable && !reuse::binds_connection(head.fields());
        let hop = ClientHop {
            version: self.request.view().version(),
            // A client that is told so early may not send the rest, or sends it in vain.
            closes: closes_after(self.http, self.request)
                || (is_refused && !exchange.has_whole_request()),
        };
        let mut edits = Edits::default();
        self.outgoing.set_cookie(lease.backend(), &mut edits);
        let backend = Arc::clone(lease.backend());
        let (after, connection) = deliver(exchange, (record, lease), hop, edits).await;
        if let Some(connection) = connection {
            let idle = &self.http.connection.proxy.idle;
            let Routed { pool, settings, .. } = self.routed;
            if is_kept && connection.is_reusable {
                let unused = UnusedConnection {
                    is_proven: is_reused || connection.is_offered,
                    stream: connection.stream,
                };
                idle.put(unused, &backend, pool, settings);
            } else {
                idle.let_close(connection.stream);
            }
        }
        after
    }

    /// Responds to a request that its backend has not answered, unless the client has left.
    async fn no_answer(
        self,
        client: &mut ClientStream,
        mut record: RequestRecord,
        error: &ExchangeError,
    ) -> AfterRequest {
        let phase = record.reached();
        match refusal::unanswered(error, phase, record.id()) {
            Some(response) => respond(client, self.http, self.request, record, response).await,
            None => {
                record.ends(refusal::broken_off(error, phase));
                AfterRequest::Gone(HttpClosed::Broken)
            }
        }
    }
}

/// The kind of answer that a request is to have.
fn asked(request: &Request) -> Asked {
    if request.view().is_head_method() {
        Asked::Head
    } else {
        Asked::Ordinary
    }
}

/// Limits of an exchange, by the pool's configuration.
fn limits(settings: &config::Pool) -> (ExchangeLimits, HeadLimits) {
    let limits = ExchangeLimits::of(settings, settings.response_timeout);
    (limits, settings.http.head_limits())
}

/// Delivers a backend's final answer. Returns the backend connection where that has come to its end
/// in order.
pub(super) async fn deliver(
    mut exchange: Exchange<'_>,
    (mut record, lease): (RequestRecord, Lease),
    hop: ClientHop,
    mut edits: Edits<'_>,
) -> (AfterRequest, Option<EndedConnection>) {
    lease.backend().answered();
    let head = exchange.head();
    record.note(|record| record.answered_by_backend(head.status()));
    // RFC 9110 section 6.6.1.
    if !head.fields().has("date") {
        edits.append("Date", own_response::date().as_bytes());
    }
    let closes = exchange.begin_answer(hop, &edits);
    let after = match exchange.deliver(&mut record).await {
        Ok(()) => {
            record.ends(Termination::new(Side::Backend, Phase::Request, Cause::Fin));
            if closes || !exchange.has_whole_request() {
                AfterRequest::Close
            } else {
                AfterRequest::NextRequest
            }
        }
        Err(error) => {
            record.ends(refusal::broken_off(&error, Phase::Request));
            match error {
                ExchangeError::ClientBroken => AfterRequest::Gone(HttpClosed::Broken),
                _ => AfterRequest::CutOff,
            }
        }
    };
    let connection = exchange.into_ended();
    // Its line is written before a drain can see the lease gone.
    drop(record);
    drop(lease);
    (after, connection)
}
