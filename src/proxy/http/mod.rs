//! HTTP/1 on a client connection: requests are served in order, and at most one of them upgrades
//! the connection to a WebSocket session.
//!
//! `client_stream` reads the client's heads, strictly. `routing` finds each request's pool;
//! `request` exchanges it with a backend, `upgrade` does so for a WebSocket handshake, `resume`
//! repeats that at another backend. `exchange` moves one request and its answer.

mod agreement;
mod backend_request;
mod backend_stream;
mod buffer_charge;
mod client_certificate;
mod client_stream;
pub(super) mod connection;
mod exchange;
mod exchange_clock;
mod forwarded;
pub(super) mod hard_stop;
mod hash_key;
mod input_buffer;
mod interval;
mod outgoing;
mod own_response;
mod real_client;
mod refusal;
mod relay_set_up;
mod request;
mod request_id;
mod request_record;
pub(super) mod resume;
mod retry_after;
mod reuse;
mod routing;
mod sticky;
mod tag;
#[cfg(test)]
pub(super) mod tests;
mod trace;
mod upgrade;
mod upgraded;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use self::backend_stream::BackendStream;
use self::client_stream::{ClientStream, NoRequest, Request};
use self::connection::HttpConnection;
use self::own_response::OwnResponse;
use self::request_record::RequestRecord;
use self::upgrade::{PendingUpgrade, UpgradeStart};
use self::upgraded::Upgraded;
use crate::admission::ConnectionPermit;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::wire::http::{ClientHop, HttpVersion};

pub(super) use relay_set_up::RelaySetUp;
pub(super) use upgraded::UpgradedClient;

/// How long a client may take for a short response of our own, which no pool has a limit for: as
/// the default of a pool's `send_timeout`.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// The end of HTTP on a client connection.
pub(super) enum HttpEnd {
    Closed {
        reason: HttpClosed,
        /// The client has sent something.
        has_sent: bool,
    },
    Upgraded(Box<UpgradedClient>),
}

/// Reason for which a client connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpClosed {
    /// Behind its last answer, or by the client.
    Finished,
    /// The client has broken off.
    Broken,
    /// The client sent nothing for too long.
    Quiet,
    /// The process stops.
    Stopped,
    /// It has made room for another one.
    Evicted,
    /// The process is short of something.
    Failed,
}

impl HttpClosed {
    /// The end of a connection that had no request.
    fn end(self) -> Termination {
        let (side, cause) = match self {
            HttpClosed::Finished => (Side::Client, Cause::Fin),
            HttpClosed::Broken => (Side::Client, Cause::Rst),
            HttpClosed::Quiet => (Side::Evenkeel, Cause::Timeout),
            HttpClosed::Stopped => (Side::Evenkeel, Cause::Stop),
            HttpClosed::Evicted => (Side::Evenkeel, Cause::Full),
            HttpClosed::Failed => (Side::Evenkeel, Cause::Error),
        };
        Termination::new(side, Phase::Head, cause)
    }
}

/// What follows a request on its connection.
enum AfterRequest {
    NextRequest,
    /// The connection is closed in order.
    Close,
    /// The answer has no end, so that the connection must not have one either.
    CutOff,
    /// The client is gone, or said nothing.
    Gone(HttpClosed),
    /// The 101 has left for the client.
    Upgraded(BackendStream, Box<Upgraded>),
}

impl HttpEnd {
    /// Gives a session to the relay, or finishes the connection.
    pub(super) fn conclude(self, http: &HttpConnection, permit: ConnectionPermit) {
        match self {
            HttpEnd::Upgraded(upgraded) => upgraded.adopt(&http.connection, permit),
            HttpEnd::Closed { reason, has_sent } => http.finish(reason, has_sent),
        }
    }
}

/// Place where the set-up plane begins with a connection.
enum Begin {
    Requests,
    /// A request that is refused.
    Refused(Request, RequestRecord, OwnResponse),
    /// An upgrade that was begun on a relay thread.
    Upgrade(Box<PendingUpgrade>, RequestRecord, UpgradeStart),
}

impl Begin {
    /// Ends a connection that cannot be served.
    fn fail(self, http: &HttpConnection) {
        let end = Termination::new(Side::Evenkeel, Phase::Head, Cause::Error);
        match self {
            Begin::Requests => http.finish(HttpClosed::Failed, false),
            Begin::Refused(_, mut record, _) | Begin::Upgrade(_, mut record, _) => record.ends(end),
        }
    }
}

/// Serves requests until the connection ends or becomes a session.
pub(super) async fn serve(client: ClientStream, http: &Arc<HttpConnection>) -> HttpEnd {
    serve_from(client, http, Begin::Requests).await
}

/// As [`serve`], from anywhere.
async fn serve_from(mut client: ClientStream, http: &Arc<HttpConnection>, begin: Begin) -> HttpEnd {
    let after = {
        let mut serving = pin!(serve_begun(&mut client, http, begin));
        tokio::select! {
            biased;
            after = &mut serving => after,
            () = stopped(http) => {
                // Before the request is dropped with its record.
                http.stop();
                AfterRequest::CutOff
            }
            () = http.connection.setup.evicted() => AfterRequest::Gone(HttpClosed::Evicted),
        }
    };
    match after {
        AfterRequest::Upgraded(backend, session) => {
            return HttpEnd::Upgraded(Box::new(UpgradedClient {
                client,
                backend,
                session,
            }));
        }
        AfterRequest::Gone(reason) => {
            if reason == HttpClosed::Quiet {
                client.shut_down().await;
            }
            let has_sent = client.has_sent;
            return HttpEnd::Closed { reason, has_sent };
        }
        AfterRequest::NextRequest | AfterRequest::Close => client.close().await,
        AfterRequest::CutOff => client.cut_off().await,
    }
    HttpEnd::Closed {
        reason: if http.is_stopped() {
            HttpClosed::Stopped
        } else {
            HttpClosed::Finished
        },
        has_sent: client.has_sent,
    }
}

/// Waits for the moment at which a stop ends this connection.
async fn stopped(http: &Arc<HttpConnection>) {
    let connection = &http.connection;
    // First the one that most connections wait for anyway: the listener may have been removed long
    // before the process stops.
    connection.closing.cancelled().await;
    connection.proxy.stopping.cancelled().await;
    connection.proxy.hard_stop.moment().await;
}

async fn serve_begun(
    client: &mut ClientStream,
    http: &Arc<HttpConnection>,
    begin: Begin,
) -> AfterRequest {
    match begin {
        Begin::Requests => serve_requests(client, http).await,
        // On the heap: a client that has sent nothing yet is not to hold memory for it.
        Begin::Refused(request, record, response) => {
            Box::pin(respond(client, http, &request, record, response)).await
        }
        Begin::Upgrade(pending, record, start) => {
            Box::pin(pending.serve(client, record, start)).await
        }
    }
}

async fn serve_requests(client: &mut ClientStream, http: &Arc<HttpConnection>) -> AfterRequest {
    loop {
        let after = match next_request(client, http).await {
            // On the heap: a client that has sent nothing yet is not to hold memory for it.
            Ok(request) => Box::pin(serve_request(client, http, request)).await,
            Err(NoRequest::Refused(error)) => {
                refuse_head(client, http, refusal::invalid(error, Phase::Head)).await
            }
            Err(NoRequest::Slow) => refuse_head(client, http, refusal::slow_head()).await,
            Err(NoRequest::Quiet) => AfterRequest::Gone(HttpClosed::Quiet),
            Err(NoRequest::Finished) => AfterRequest::Gone(HttpClosed::Finished),
            Err(NoRequest::Broken) => AfterRequest::Gone(HttpClosed::Broken),
        };
        if !matches!(after, AfterRequest::NextRequest) {
            return after;
        }
    }
}

/// Reads the next request. A connection between two requests ends with its listener.
async fn next_request(
    client: &mut ClientStream,
    http: &Arc<HttpConnection>,
) -> Result<Request, NoRequest> {
    if http.may_end() && client.is_idle() {
        tokio::select! {
            biased;
            next = client.next_request() => return next,
            () = http.connection.closing.cancelled() => {}
        }
        if client.is_idle() {
            return Err(NoRequest::Quiet);
        }
    }
    client.next_request().await
}

async fn serve_request(
    client: &mut ClientStream,
    http: &Arc<HttpConnection>,
    request: Request,
) -> AfterRequest {
    http.count_request();
    let mut record = RequestRecord::new(http);
    record.begins();
    match routing::route(http, request.view(), &mut record) {
        Ok(routed) if request.view().is_upgrade() => {
            upgrade::serve(client, http, routed, request, record).await
        }
        Ok(routed) => request::serve(client, http, &routed, &request, record).await,
        Err(refused) => respond(client, http, &request, record, refused).await,
    }
}

/// Responds to a request whose head is refused. Nothing behind it is read.
async fn refuse_head(
    client: &mut ClientStream,
    http: &Arc<HttpConnection>,
    response: OwnResponse,
) -> AfterRequest {
    http.count_request();
    let mut record = RequestRecord::new(http);
    record.begins();
    let hop = ClientHop {
        version: HttpVersion::Http11,
        closes: true,
    };
    send(client, record, &response, hop, false).await
}

/// Responds to a request that no backend has answered.
async fn respond(
    client: &mut ClientStream,
    http: &Arc<HttpConnection>,
    request: &Request,
    record: RequestRecord,
    response: OwnResponse,
) -> AfterRequest {
    let head = request.view();
    // Behind an upgrade there may be bytes of its tunnel already.
    let has_more = head.is_upgrade() || !client.skip_body();
    let hop = ClientHop {
        version: head.version(),
        closes: has_more || closes_after(http, request),
    };
    send(client, record, &response, hop, head.is_head_method()).await
}

/// Whether the connection ends with this request's answer, by the client's wish or ours.
fn closes_after(http: &Arc<HttpConnection>, request: &Request) -> bool {
    !request.view().persists() || http.connection.closing.is_cancelled()
}

async fn send(
    client: &mut ClientStream,
    mut record: RequestRecord,
    response: &OwnResponse,
    hop: ClientHop,
    to_head: bool,
) -> AfterRequest {
    let status = response.status.as_u16();
    let (id, end, detail) = (record.id(), response.end, response.detail.as_deref());
    tracing::debug!(id, status, %end, detail, "request refused");
    record.note(|record| record.answered(status));
    record.ends(response.end);
    let bytes = response.write(hop, to_head);
    let sent = client.send(&bytes, SEND_TIMEOUT).await;
    drop(record);
    match sent {
        Ok(()) if response.closes || hop.closes => AfterRequest::Close,
        Ok(()) => AfterRequest::NextRequest,
        Err(_) => AfterRequest::Gone(HttpClosed::Broken),
    }
}
