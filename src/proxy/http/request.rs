//! An ordinary HTTP request: sent to the picked backend on a connection of its own, its response
//! streamed back. Both bodies go at the pace of whoever takes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::backend::{self, Exchange, OURS, RequestBody, cause_of};
use super::connection::{HttpConnection, Routed};
use super::headers::{self, Purpose};
use super::refusal;
use super::request_record::RequestRecord;
use super::response::{self, ResponseBody};
use super::sticky::Stickiness;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::proxy::connect::repeat::unanswered;

/// Serves one request. It is tried again only while nothing of it was sent, by
/// [`RequestRecord::connect`].
pub(super) async fn serve(
    client: &HttpConnection,
    routed: &Routed,
    request: Request<Incoming>,
    mut record: RequestRecord,
    number: u64,
) -> Response<ResponseBody> {
    let Routed { pool, .. } = routed;
    let settings = pool.settings();
    client.gate_state.set_stall_timeout(settings.idle_timeout);
    // Set-up is over: a connection kept for polling must not use up its limit.
    client.connection.setup.routed();
    let (mut parts, body) = request.into_parts();
    let (mut search, sticky) = client.search(routed, &settings, &mut parts);
    let connected = record.connect(&mut search, pool, &client.proxy_header);
    let (stream, lease) = match connected.await {
        Ok(connected) => connected,
        Err(error) => return refusal::unavailable(record, pool, &error, Purpose::Ordinary),
    };
    record.phase(Phase::Request);
    client.rewrite(routed, &mut parts, lease.backend(), Purpose::Ordinary);
    headers::set_backend_name(&mut parts.headers, &settings, lease.backend());
    // Not for us: a backend's 101 to an ordinary request is no upgrade.
    parts.extensions.remove::<OnUpgrade>();
    let upload = RequestBody::new(Some(body), &client.gate_state);
    let (sent, broken, wait) = (upload.sent(), upload.broken(), upload.wait());
    let begun = Instant::now();
    let connection = match backend::open(stream, &client.gate_state, &settings, OURS).await {
        Ok(connection) => connection,
        Err(error) => return bad_gateway(record, &error),
    };
    let mut exchange = Exchange {
        connection,
        lease,
        sent,
    };
    let request = Request::from_parts(parts, upload);
    let sending = exchange.connection.sender.send_request(request);
    // Dropping the request half sent ends the backend connection, which is never used again anyway.
    let answer = tokio::select! {
        answer = sending => answer,
        side = wait.overdue(&settings) => return overdue(record, side),
    };
    match answer {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let end = Termination::new(Side::Backend, Phase::Request, Cause::Invalid);
            response::own(record, StatusCode::BAD_GATEWAY, end, None)
        }
        Ok(response) => pass_on(client, response, record, exchange, sticky.as_ref()),
        Err(error) => {
            let backend = exchange.lease.backend();
            unanswered(&exchange.connection.contact, backend, begun, &settings);
            if let Some(refused) = client.gate_state.refused(number) {
                return refusal::by_gate(record, refused, Phase::Request);
            }
            failed(record, &exchange, &broken, &error)
        }
    }
}

fn pass_on(
    client: &HttpConnection,
    response: Response<Incoming>,
    record: RequestRecord,
    exchange: Exchange,
    sticky: Option<&Stickiness>,
) -> Response<ResponseBody> {
    let backend = Arc::clone(exchange.lease.backend());
    backend.answered();
    let mut response = response::stream_back(response, record, exchange, &client.gate_state);
    if let Some(sticky) = sticky {
        sticky.set(&backend, response.headers_mut());
    }
    response
}

/// Responds where the backend gave no response, by whose fault that is.
fn failed(
    record: RequestRecord,
    exchange: &Exchange,
    broken: &AtomicBool,
    error: &hyper::Error,
) -> Response<ResponseBody> {
    if broken.load(Ordering::Relaxed) {
        let end = Termination::new(Side::Client, Phase::Request, Cause::Rst);
        let detail = Some("body is incomplete");
        return response::own_and_close(record, StatusCode::BAD_REQUEST, end, detail);
    }
    if exchange.connection.stalled.load(Ordering::Relaxed) {
        let end = Termination::new(Side::Backend, Phase::Request, Cause::Timeout);
        return response::own(record, StatusCode::GATEWAY_TIMEOUT, end, None);
    }
    bad_gateway(record, error)
}

/// Responds to a request that has waited too long for one of its sides.
fn overdue(record: RequestRecord, side: Side) -> Response<ResponseBody> {
    let end = Termination::new(side, Phase::Request, Cause::Timeout);
    match side {
        Side::Client => {
            let detail = Some("body was not complete in time");
            response::own_and_close(record, StatusCode::REQUEST_TIMEOUT, end, detail)
        }
        Side::Backend | Side::Evenkeel => {
            response::own(record, StatusCode::GATEWAY_TIMEOUT, end, None)
        }
    }
}

fn bad_gateway(record: RequestRecord, error: &hyper::Error) -> Response<ResponseBody> {
    tracing::debug!(%error, "backend gave no answer");
    let end = Termination::new(Side::Backend, Phase::Request, cause_of(error));
    response::own(record, StatusCode::BAD_GATEWAY, end, None)
}
