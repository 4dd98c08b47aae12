//! An ordinary HTTP request: sent to the picked backend on a connection of its own, its answer streamed back. Both
//! bodies go at the pace of whoever takes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::answer::{self, BackendBody, ResponseBody};
use super::backend_line::{self, BackendConnection, OURS, RequestBody};
use super::dispatch::ConnectRequest;
use super::forward::{self, Purpose};
use super::repeat::charge_reset;
use super::sticky::Stickiness;
use super::ticket::RequestRecord;
use super::visit::{HttpConnection, Routed, refuse, unavailable};
use crate::observe::{Cause, Phase, Side, Termination};
use crate::pool::Lease;

/// Serves one request; it is tried again only while nothing of it was sent, which is dispatch's business.
pub(super) async fn serve(
    visit: &HttpConnection,
    routed: &Routed,
    request: Request<Incoming>,
    mut ticket: RequestRecord,
    ordinal: u64,
) -> Response<ResponseBody> {
    let Routed { pool, .. } = routed;
    let settings = pool.settings();
    visit.dialogue.set_stall_timeout(settings.idle_timeout);
    // Routed: what follows is no set-up any more, and a connection kept for polling must not use up its places.
    visit.arrival.slot.adopted();
    let (mut parts, body) = request.into_parts();
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
    let (stream, lease) = match ticket.dispatch(pool, &mut wanted).await {
        Ok(connected) => connected,
        Err(error) => return unavailable(ticket, pool, &error, Purpose::Ordinary),
    };
    ticket.phase(Phase::Request);
    visit.forward(routed, &mut parts, lease.backend(), Purpose::Ordinary);
    forward::tell_name(&mut parts.headers, &settings, lease.backend());
    // Not for us: a backend's 101 to an ordinary request is no upgrade.
    parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let upload = RequestBody::new(Some(body), &visit.dialogue);
    let (sent, broken, wait) = (upload.sent(), upload.broken(), upload.wait());
    let begun = Instant::now();
    let mut line = match backend_line::open(stream, &visit.dialogue, &settings, OURS).await {
        Ok(line) => line,
        Err(error) => return bad_gateway(ticket, &error),
    };
    let asking = line.sender.send_request(Request::from_parts(parts, upload));
    // Dropping the request half sent ends the backend connection, which is never used again anyway.
    let answer = tokio::select! {
        answer = asking => answer,
        side = wait.overdue(&settings) => return overdue(ticket, side),
    };
    match answer {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let end = Termination::new(Side::Backend, Phase::Request, Cause::Invalid);
            answer::own(ticket, StatusCode::BAD_GATEWAY, end, None)
        }
        Ok(response) => {
            let backend = Arc::clone(lease.backend());
            backend.answered();
            let mut response = stream_back(visit, response, ticket, line, lease, sent);
            if let Some(sticky) = sticky {
                sticky.set(&backend, response.headers_mut());
            }
            response
        }
        Err(error) => {
            charge_reset(
                &line.contact,
                lease.backend(),
                begun,
                settings.connect_timeout,
            );
            failed(visit, ticket, ordinal, &line, &broken, &error)
        }
    }
}

/// Passes a backend's answer on; everything the request holds goes with its body.
pub(super) fn stream_back(
    visit: &HttpConnection,
    response: Response<Incoming>,
    mut ticket: RequestRecord,
    line: BackendConnection,
    lease: Lease,
    sent: Arc<AtomicU64>,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    forward::response(&mut parts.headers, Purpose::Ordinary);
    parts.version = Version::HTTP_11;
    ticket.note(|record| record.answered(parts.status.as_u16()));
    let streamed = BackendBody {
        body,
        interval: ticket.clock(),
        ticket,
        _driver: line.driver,
        dialogue: Arc::clone(&visit.dialogue),
        sent,
        stalled: line.stalled,
        _lease: lease,
    };
    Response::from_parts(parts, ResponseBody::Backend(Box::new(streamed)))
}

/// The answer when there is none from the backend, by whose fault it is.
fn failed(
    visit: &HttpConnection,
    ticket: RequestRecord,
    ordinal: u64,
    line: &BackendConnection,
    broken: &AtomicBool,
    error: &hyper::Error,
) -> Response<ResponseBody> {
    if let Some(refused) = visit.dialogue.refused(ordinal) {
        return refuse(ticket, refused, Phase::Request);
    }
    if broken.load(Ordering::Relaxed) {
        let end = Termination::new(Side::Client, Phase::Request, Cause::Rst);
        return answer::own_and_close(
            ticket,
            StatusCode::BAD_REQUEST,
            end,
            Some("body is incomplete"),
        );
    }
    if line.stalled.load(Ordering::Relaxed) {
        let end = Termination::new(Side::Backend, Phase::Request, Cause::Timeout);
        return answer::own(ticket, StatusCode::GATEWAY_TIMEOUT, end, None);
    }
    bad_gateway(ticket, error)
}

/// The answer to a request that has waited too long for one of its sides.
fn overdue(ticket: RequestRecord, side: Side) -> Response<ResponseBody> {
    let end = Termination::new(side, Phase::Request, Cause::Timeout);
    match side {
        Side::Client => {
            let detail = Some("body was not complete in time");
            answer::own_and_close(ticket, StatusCode::REQUEST_TIMEOUT, end, detail)
        }
        Side::Backend | Side::Evenkeel => {
            answer::own(ticket, StatusCode::GATEWAY_TIMEOUT, end, None)
        }
    }
}

fn bad_gateway(ticket: RequestRecord, error: &hyper::Error) -> Response<ResponseBody> {
    tracing::debug!(%error, "backend gave no answer");
    answer::own(
        ticket,
        StatusCode::BAD_GATEWAY,
        Termination::new(Side::Backend, Phase::Request, how(error)),
        None,
    )
}

/// How a backend failed to answer.
pub(super) fn how(error: &hyper::Error) -> Cause {
    match error.is_parse() {
        true => Cause::Invalid,
        false => Cause::Rst,
    }
}
