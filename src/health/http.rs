//! The `http` check: an HTTP/1.1 request, whose status decides.

use std::io;
use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::request::Builder;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::{CheckConnection, plain_io_error};
use super::header_case::{HeaderCaseStream, HeaderNames, spell};
use super::plan::{CheckTarget, HttpCheck};
use crate::wire::http::{ResponseError, StatusReader, title_case};

/// User agent of a check, for the backend's log.
pub(super) const AGENT: &str = concat!("evenkeel/", env!("CARGO_PKG_VERSION"), " check");

/// Largest head of a response, as for backends on the data path.
pub(super) const MAX_HEAD_BYTES: usize = 16 << 10;

/// Room that an answer's head gets first; most have less.
const FIRST_READ_BYTES: usize = 1024;

/// Succeeds when the status is one of those configured. Ignores the body.
pub(super) async fn ask(
    mut stream: impl CheckConnection,
    target: &CheckTarget,
    method: &Method,
    request: &HttpCheck,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("http: {}", plain_io_error(&error));
    let sent = request_builder(target, request)
        .method(method)
        .header(CONNECTION, "close")
        .body(())
        .map_err(|error| format!("http: {error}"))?;
    let head = write_head(&sent, &request.names);
    stream.write_all(&head).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    check_status(read_status(&mut stream).await?, &request.status)
}

/// Writes the head of a request that has no body.
fn write_head(request: &Request<()>, names: &HeaderNames) -> Vec<u8> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        // Without a body there is nothing to be encoded.
        if name == TRANSFER_ENCODING {
            continue;
        }
        head.extend_from_slice(title_case(name.as_str()).as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    spell(&mut head, names);
    head
}

/// Reads the status of the final answer.
async fn read_status(stream: &mut impl CheckConnection) -> Result<StatusCode, String> {
    let failed = |error: ResponseError| format!("http: {error}");
    let mut reader = StatusReader::new(MAX_HEAD_BYTES);
    let mut input = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        if let Some(status) = reader.read(&mut input).map_err(failed)? {
            return StatusCode::from_u16(status).map_err(|error| format!("http: {error}"));
        }
        // At most the head's limit: the reader fails behind it.
        let read = stream.read_buf(&mut input).await;
        let read = read.map_err(|error| format!("http: {}", plain_io_error(&error)))?;
        if read == 0 {
            return Err(failed(reader.truncated(&input)));
        }
    }
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
