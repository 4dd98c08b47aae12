//! Answers of the admin endpoint: JSON, and failures that say what would have been allowed.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

pub(super) type Reply = Response<Full<Bytes>>;

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
    let mut reply = Response::new(Full::new(body.into()));
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

/// A request that was not done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub status: StatusCode,
    /// One sentence: what is wrong and what is allowed.
    pub message: String,
    /// Every single reason, where there may be several.
    pub details: Vec<String>,
    /// The same for a person, with lines and carets.
    drawn: Option<String>,
    header: ExtraHeader,
}

/// What the status asks for besides.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ExtraHeader {
    None,
    Allow(&'static str),
    Authenticate,
}

#[derive(Serialize)]
struct FailureBody<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    errors: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    drawn: Option<&'a str>,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            message: message.into(),
            details: Vec::new(),
            drawn: None,
            header: ExtraHeader::None,
        }
    }

    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    pub fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError {
            header: ExtraHeader::Authenticate,
            ..ApiError::new(StatusCode::UNAUTHORIZED, message)
        }
    }

    /// `allowed` as in the header: `GET, HEAD`.
    pub fn method(allowed: &'static str) -> ApiError {
        let message = format!("this method is not allowed here; allowed: {allowed}");
        ApiError {
            header: ExtraHeader::Allow(allowed),
            ..ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
        }
    }

    pub fn with_details(self, details: Vec<String>) -> ApiError {
        ApiError { details, ..self }
    }

    pub fn with_drawn(self, drawn: Option<String>) -> ApiError {
        ApiError { drawn, ..self }
    }

    pub fn into_reply(self) -> Reply {
        let body = FailureBody {
            error: &self.message,
            errors: &self.details,
            drawn: self.drawn.as_deref(),
        };
        let mut reply = json(self.status, &body);
        let header = match self.header {
            ExtraHeader::None => None,
            ExtraHeader::Allow(allowed) => Some((ALLOW, HeaderValue::from_static(allowed))),
            ExtraHeader::Authenticate => {
                let scheme = HeaderValue::from_static("Bearer realm=\"evenkeel\"");
                Some((WWW_AUTHENTICATE, scheme))
            }
        };
        reply.headers_mut().extend(header);
        reply
    }
}
