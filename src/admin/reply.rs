//! Answers of the admin endpoint: JSON, and errors that say what is allowed.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use serde::Serialize;

use super::events::EventBody;
use super::page_body::PageBody;
use super::view::ErrorView;

/// Body of an answer: whole, as it is being written, or events as they happen.
pub(super) type ReplyBody = Either<Full<Bytes>, Either<PageBody, EventBody>>;

pub(super) type Reply = Response<ReplyBody>;

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            reply(status, "application/json", body)
        }
        Err(error) => reply(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain",
            format!("{error}\n"),
        ),
    }
}

pub(super) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    with_headers(status, kind, Either::Left(Full::new(body.into())))
}

/// An answer whose length is not known yet.
pub(super) fn streamed(kind: &'static str, body: PageBody) -> Reply {
    with_headers(StatusCode::OK, kind, Either::Right(Either::Left(body)))
}

/// An answer that goes on until its stream ends. Its connection is of no other use then.
pub(super) fn events(body: EventBody) -> Reply {
    let body = Either::Right(Either::Right(body));
    let mut reply = with_headers(StatusCode::OK, "text/event-stream", body);
    let close = HeaderValue::from_static("close");
    reply.headers_mut().insert(CONNECTION, close);
    reply
}

fn with_headers(status: StatusCode, kind: &'static str, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    reply
}

/// Refusal of a request, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub status: StatusCode,
    /// Boxed: it is large, and an answer that succeeds should not pay for it.
    pub view: Box<ErrorView>,
    header: ExtraHeader,
}

/// Header that the status requires.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ExtraHeader {
    None,
    Allow(&'static str),
    Authenticate,
    /// `Retry-After` of a second.
    RetryAfter,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            view: Box::new(ErrorView::new(status, message.into())),
            header: ExtraHeader::None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError {
            header: ExtraHeader::Authenticate,
            ..ApiError::new(StatusCode::UNAUTHORIZED, message)
        }
    }

    /// Asks to send the request again: 503 with `Retry-After`.
    pub(super) fn later(message: impl Into<String>) -> ApiError {
        ApiError {
            header: ExtraHeader::RetryAfter,
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    /// `allowed` as in the header: `GET, HEAD`.
    pub(super) fn method(allowed: &'static str) -> ApiError {
        let message = format!("this method is not allowed here; allowed: {allowed}");
        ApiError {
            header: ExtraHeader::Allow(allowed),
            ..ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
        }
    }

    pub(super) fn with_details(mut self, details: Vec<String>) -> ApiError {
        self.view.errors = details;
        self
    }

    /// The request may be sent again with `?local=true`.
    pub(super) fn with_local(mut self) -> ApiError {
        self.view.local = true;
        self
    }

    pub(super) fn with_drawn(mut self, drawn: Option<String>) -> ApiError {
        self.view.drawn = drawn;
        self
    }

    pub(super) fn into_reply(self) -> Reply {
        let mut reply = json(self.status, &self.view);
        let problem = HeaderValue::from_static("application/problem+json");
        reply.headers_mut().insert(CONTENT_TYPE, problem);
        let header = match self.header {
            ExtraHeader::None => None,
            ExtraHeader::Allow(allowed) => Some((ALLOW, HeaderValue::from_static(allowed))),
            ExtraHeader::RetryAfter => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
            ExtraHeader::Authenticate => {
                let scheme = HeaderValue::from_static("Bearer realm=\"evenkeel\"");
                Some((WWW_AUTHENTICATE, scheme))
            }
        };
        reply.headers_mut().extend(header);
        reply
    }
}
