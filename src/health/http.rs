//! The `http` check: one HTTP/1.1 request, judged by the status of its answer.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::plan::Target;
use super::probe::Connection;
use crate::config::CheckKind;

/// How a check names itself in the backend's log.
pub(super) const AGENT: &str = concat!("evenkeel/", env!("CARGO_PKG_VERSION"), " check");

/// Largest head of an answer, as for backends on the data path.
pub(super) const MAX_HEAD_BYTES: usize = 16 << 10;

/// Succeeds when the status is one of those configured. The body is not read.
pub(super) async fn ask(
    stream: impl Connection,
    target: &Target,
    method: &Method,
    path: &Uri,
    kind: &CheckKind,
) -> Result<(), String> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, &target.host)
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("http: {error}"))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| reason(&error))?;
    let answer = async { sender.send_request(request).await };
    let answer = super::websocket::drive(connection, answer).await;
    judge(answer.map_err(|error| reason(&error))?.status(), kind)
}

fn judge(status: StatusCode, kind: &CheckKind) -> Result<(), String> {
    let CheckKind::Http { status: wanted, .. } = kind else {
        return Ok(());
    };
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
    let ranges = wanted
        .iter()
        .map(|range| match range.start() == range.end() {
            true => range.start().to_string(),
            false => format!("{}-{}", range.start(), range.end()),
        });
    ranges.collect::<Vec<_>>().join(", ")
}

/// hyper's message with its cause, which says more.
pub(super) fn reason(error: &hyper::Error) -> String {
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
        let kind = CheckKind::Http {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            status: vec![200..=399, 418..=418],
        };
        assert_eq!(judge(StatusCode::NO_CONTENT, &kind), Ok(()));
        assert_eq!(judge(StatusCode::IM_A_TEAPOT, &kind), Ok(()));
        assert_eq!(
            judge(StatusCode::SERVICE_UNAVAILABLE, &kind),
            Err("status 503 (wanted 200-399, 418)".into())
        );
    }
}
