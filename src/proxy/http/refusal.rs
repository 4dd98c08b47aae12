//! Responses to requests that reach no backend.

use std::io;

use http::{Response, StatusCode};

use super::gate_state::GateRefusal;
use super::headers::Purpose;
use super::request_record::RequestRecord;
use super::response::{self, ResponseBody};
use super::retry_after;
use crate::net::ConnectError;
use crate::observe::{Cause, Phase, Refusal, Side, Termination};
use crate::pool::Pool;
use crate::proxy::connect::BackendUnavailable;

/// Responds to a request that the gate has refused; the connection closes after it.
pub(super) fn by_gate(
    record: RequestRecord,
    refused: &GateRefusal,
    phase: Phase,
) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_REQUEST);
    tracing::debug!(reason = %refused.reason, "request refused");
    response::own_and_close(
        record,
        status,
        Termination::new(Side::Client, phase, refused.how),
        Some(&refused.reason),
    )
}

/// Responds 404 where there is no route, 403 where it is not for this client.
pub(super) fn unrouted(
    record: RequestRecord,
    refusal: Refusal,
    purpose: Purpose,
) -> Response<ResponseBody> {
    let status = match refusal {
        Refusal::Denied => StatusCode::FORBIDDEN,
        _ => StatusCode::NOT_FOUND,
    };
    let end = Termination::new(Side::Evenkeel, Phase::Route, Cause::Refused);
    own(record, status, end, purpose, None)
}

/// Makes a response of our own. An upgrade's closes the connection: the client may have sent bytes
/// of its tunnel already.
fn own(
    record: RequestRecord,
    status: StatusCode,
    end: Termination,
    purpose: Purpose,
    detail: Option<&str>,
) -> Response<ResponseBody> {
    match purpose {
        Purpose::Ordinary => response::own(record, status, end, detail),
        Purpose::Upgrade => response::own_and_close(record, status, end, detail),
    }
}

/// Responds 429: the sessions of the client's source are at their limit.
pub(super) fn too_many(
    record: RequestRecord,
    pool: &Pool,
    refusal: Refusal,
) -> Response<ResponseBody> {
    let end = Termination::new(Side::Evenkeel, Phase::Route, refusal.how());
    let mut response = response::own_and_close(record, StatusCode::TOO_MANY_REQUESTS, end, None);
    retry_after::set(response.headers_mut(), pool.settings().retry_after);
    response
}

/// Responds 400 to a path that guards and a backend may read in different ways.
pub(super) fn ambiguous(record: RequestRecord, purpose: Purpose) -> Response<ResponseBody> {
    let reason = Refusal::EncodedSlash.word();
    tracing::debug!(reason, "request refused");
    let status = StatusCode::BAD_REQUEST;
    let end = Termination::new(Side::Client, Phase::Route, Cause::Refused);
    let detail = Some("encoded slash, backslash or NUL in the path");
    own(record, status, end, purpose, detail)
}

/// Responds 503 while the process stops or the listener is drained.
pub(super) fn come_again(record: RequestRecord, pool: &Pool) -> Response<ResponseBody> {
    let end = Termination::new(Side::Evenkeel, Phase::Route, Cause::Stop);
    let mut response = response::own_and_close(record, StatusCode::SERVICE_UNAVAILABLE, end, None);
    retry_after::set(response.headers_mut(), pool.settings().retry_after);
    response
}

/// Responds when no backend could be reached: come again (503), or why not (502, 504).
pub(super) fn unavailable(
    record: RequestRecord,
    pool: &Pool,
    error: &BackendUnavailable,
    purpose: Purpose,
) -> Response<ResponseBody> {
    tracing::debug!(pool = %pool.name(), %error, "request refused");
    let status = match error {
        BackendUnavailable::Acquire(_) => StatusCode::SERVICE_UNAVAILABLE,
        BackendUnavailable::Ended { .. } => StatusCode::BAD_GATEWAY,
        BackendUnavailable::Connect { source, .. } => match source {
            ConnectError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            ConnectError::Tls(error) if error.kind() == io::ErrorKind::TimedOut => {
                StatusCode::GATEWAY_TIMEOUT
            }
            ConnectError::Refused(_) | ConnectError::Tls(_) => StatusCode::BAD_GATEWAY,
            ConnectError::Local(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
    };
    let mut response = own(record, status, error.end(), purpose, None);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        retry_after::set(response.headers_mut(), pool.settings().retry_after);
    }
    response
}
