//! Responses to requests that reach no backend, or get no answer from one.

use std::io;

use http::StatusCode;

use super::exchange::ExchangeError;
use super::exchange_clock::Overdue;
use super::own_response::OwnResponse;
use crate::net::ConnectError;
use crate::observe::{Cause, Phase, Refusal, Side, Termination};
use crate::pool::Pool;
use crate::proxy::connect::BackendUnavailable;
use crate::wire::http::{RequestError, ResponseError};

/// Responds to a request that breaks a rule; the connection closes after it.
pub(super) fn invalid(error: RequestError, phase: Phase) -> OwnResponse {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let end = Termination::new(Side::Client, phase, Cause::Invalid);
    OwnResponse::closing(status, end).with_detail(error.to_string())
}

/// Responds 408 to a head that was not complete in time.
pub(super) fn slow_head() -> OwnResponse {
    let end = Termination::new(Side::Client, Phase::Head, Cause::Timeout);
    let response = OwnResponse::closing(StatusCode::REQUEST_TIMEOUT, end);
    response.with_detail("head was not complete in time")
}

/// Responds 404 where there is no route, 403 where it is not for this client.
pub(super) fn unrouted(refusal: Refusal) -> OwnResponse {
    let status = match refusal {
        Refusal::Denied => StatusCode::FORBIDDEN,
        _ => StatusCode::NOT_FOUND,
    };
    let end = Termination::new(Side::Evenkeel, Phase::Route, Cause::Refused);
    OwnResponse::new(status, end)
}

/// Responds 429: the sessions of the client's source are at their limit.
pub(super) fn too_many(pool: &Pool, refusal: Refusal) -> OwnResponse {
    let end = Termination::new(Side::Evenkeel, Phase::Route, refusal.how());
    let response = OwnResponse::closing(StatusCode::TOO_MANY_REQUESTS, end);
    response.with_retry_after(pool.settings().retry_after)
}

/// Responds 400 to a path that guards and a backend may read in different ways.
pub(super) fn ambiguous() -> OwnResponse {
    let end = Termination::new(Side::Client, Phase::Route, Cause::Refused);
    let response = OwnResponse::new(StatusCode::BAD_REQUEST, end);
    response.with_detail("encoded slash, backslash or NUL in the path")
}

/// Responds 503 while the process stops or the listener is drained.
pub(super) fn come_again(pool: &Pool) -> OwnResponse {
    let end = Termination::new(Side::Evenkeel, Phase::Route, Cause::Stop);
    let response = OwnResponse::closing(StatusCode::SERVICE_UNAVAILABLE, end);
    response.with_retry_after(pool.settings().retry_after)
}

/// Responds when no backend could be reached: come again (503), or why not (502, 504).
pub(super) fn unavailable(pool: &Pool, error: &BackendUnavailable, id: u64) -> OwnResponse {
    tracing::debug!(id, pool = %pool.name(), %error, "no backend");
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
    let response = OwnResponse::new(status, error.end());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return response.with_retry_after(pool.settings().retry_after);
    }
    response
}

/// Responds where the backend gave no answer, by whose fault that is. `None`: the client has left.
pub(super) fn unanswered(error: &ExchangeError, phase: Phase, id: u64) -> Option<OwnResponse> {
    let backend = |status, cause| {
        Some(OwnResponse::new(
            status,
            Termination::new(Side::Backend, phase, cause),
        ))
    };
    let client = |status, cause, detail: &str| {
        let end = Termination::new(Side::Client, phase, cause);
        Some(OwnResponse::closing(status, end).with_detail(detail))
    };
    match error {
        ExchangeError::BodyRefused(error) => Some(invalid(*error, phase)),
        ExchangeError::BodyIncomplete => {
            client(StatusCode::BAD_REQUEST, Cause::Rst, "body is incomplete")
        }
        ExchangeError::Overdue(Overdue::Body) => {
            let detail = "body was not complete in time";
            client(StatusCode::REQUEST_TIMEOUT, Cause::Timeout, detail)
        }
        ExchangeError::Overdue(Overdue::WriteToClient) => None,
        ExchangeError::Overdue(_) => backend(StatusCode::GATEWAY_TIMEOUT, Cause::Timeout),
        ExchangeError::Answer(ResponseError::Silent | ResponseError::Truncated) => {
            backend(StatusCode::BAD_GATEWAY, Cause::Rst)
        }
        ExchangeError::Answer(error) => {
            tracing::debug!(id, %error, "backend's answer refused");
            backend(StatusCode::BAD_GATEWAY, Cause::Invalid)
        }
        ExchangeError::ClientFinished | ExchangeError::ClientBroken => None,
    }
}

/// The end of a request whose exchange did not come to its end.
pub(super) fn broken_off(error: &ExchangeError, phase: Phase) -> Termination {
    let (side, cause) = match error {
        ExchangeError::ClientFinished => (Side::Client, Cause::Fin),
        ExchangeError::ClientBroken | ExchangeError::BodyIncomplete => (Side::Client, Cause::Rst),
        ExchangeError::BodyRefused(_) => (Side::Client, Cause::Invalid),
        ExchangeError::Answer(ResponseError::Silent | ResponseError::Truncated) => {
            (Side::Backend, Cause::Rst)
        }
        ExchangeError::Answer(_) => (Side::Backend, Cause::Invalid),
        ExchangeError::Overdue(Overdue::Body | Overdue::WriteToClient) => {
            (Side::Client, Cause::Timeout)
        }
        ExchangeError::Overdue(Overdue::Answer | Overdue::WriteToBackend) => {
            (Side::Backend, Cause::Timeout)
        }
        ExchangeError::Overdue(Overdue::Idle) => (Side::Evenkeel, Cause::Timeout),
    };
    Termination::new(side, phase, cause)
}
