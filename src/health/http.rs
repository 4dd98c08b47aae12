//! The `http` check: an HTTP/1.1 request, whose status decides.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::request::Builder;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::connection::{CheckConnection, drive};
use super::header_case::HeaderCaseStream;
use super::plan::{CheckTarget, HttpCheck};

/// User agent of a check, for the backend's log.
pub(super) const AGENT: &str = concat!("evenkeel/", env!("CARGO_PKG_VERSION"), " check");

/// Largest head of a response, as for backends on the data path.
pub(super) const MAX_HEAD_BYTES: usize = 16 << 10;

/// Succeeds when the status is one of those configured. Ignores the body.
pub(super) async fn ask(
    stream: impl CheckConnection,
    target: &CheckTarget,
    method: &Method,
    request: &HttpCheck,
) -> Result<(), String> {
    let sent = request_builder(target, request)
        .method(method)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("http: {error}"))?;
    let (mut sender, connection) = open(stream, request).await?;
    let answer = async { sender.send_request(sent).await };
    let answer = drive(connection, answer).await;
    let status = answer.map_err(|error| describe(&error))?.status();
    check_status(status, &request.status)
}

/// Begins a request with the common fields. The operator's fields replace ours.
pub(super) fn request_builder(target: &CheckTarget, request: &HttpCheck) -> Builder {
    let mut builder = Request::builder().uri(&request.path);
    if let Some(headers) = builder.headers_mut() {
        headers.insert(HOST, target.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.extend(request.headers.clone());
    }
    builder
}

/// Opens a connection for one request, whose header names are written in their usual case.
pub(super) async fn open<S: CheckConnection>(
    stream: S,
    request: &HttpCheck,
) -> Result<(SendRequest<Empty<Bytes>>, HttpConnection<S>), String> {
    let stream = HeaderCaseStream::new(stream, request.names.clone());
    let opened = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await;
    opened.map_err(|error| describe(&error))
}

/// hyper's side of the connection.
pub(super) type HttpConnection<S> = http1::Connection<TokioIo<HeaderCaseStream<S>>, Empty<Bytes>>;

pub(super) fn check_status(
    status: StatusCode,
    wanted: &[RangeInclusive<u16>],
) -> Result<(), String> {
    if wanted.iter().any(|range| range.contains(&status.as_u16())) {
        return Ok(());
    }
    Err(format!(
        "status {} (wanted {})",
        status.as_u16(),
        ranges(wanted)
    ))
}

fn ranges(wanted: &[RangeInclusive<u16>]) -> String {
    let ranges = wanted.iter().map(|range| {
        if range.start() == range.end() {
            range.start().to_string()
        } else {
            format!("{}-{}", range.start(), range.end())
        }
    });
    ranges.collect::<Vec<_>>().join(", ")
}

/// hyper's message with its cause, which has the details.
pub(super) fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("http: {error}: {cause}"),
        None => format!("http: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_outside_the_ranges_is_named_with_them() {
        let wanted = [200..=399, 418..=418];
        assert_eq!(check_status(StatusCode::NO_CONTENT, &wanted), Ok(()));
        assert_eq!(check_status(StatusCode::IM_A_TEAPOT, &wanted), Ok(()));
        assert_eq!(
            check_status(StatusCode::SERVICE_UNAVAILABLE, &wanted),
            Err("status 503 (wanted 200-399, 418)".into())
        );
    }
}
