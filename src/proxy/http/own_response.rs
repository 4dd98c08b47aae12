//! Responses of our own: short ones, for requests that no backend has answered.

use std::io::Write;
use std::time::SystemTime;

use http::StatusCode;

use super::retry_after;
use crate::config::RetryAfter;
use crate::observe::Termination;
use crate::wire::http::{ClientHop, HeadWriter, HttpVersion};
use crate::wire::websocket;

/// A response of our own, and the end that it is in the record.
#[derive(Debug)]
pub(super) struct OwnResponse {
    pub status: StatusCode,
    pub end: Termination,
    /// The connection is closed after it.
    pub closes: bool,
    /// Tells a client what it did wrong; of a backend's failure it learns nothing.
    pub detail: Option<String>,
    pub retry_after: Option<RetryAfter>,
}

impl OwnResponse {
    pub(super) fn new(status: StatusCode, end: Termination) -> OwnResponse {
        OwnResponse {
            status,
            end,
            closes: false,
            detail: None,
            retry_after: None,
        }
    }

    /// As [`OwnResponse::new`], and the connection is closed after it.
    pub(super) fn closing(status: StatusCode, end: Termination) -> OwnResponse {
        OwnResponse {
            closes: true,
            ..OwnResponse::new(status, end)
        }
    }

    pub(super) fn with_detail(self, detail: impl Into<String>) -> OwnResponse {
        OwnResponse {
            detail: Some(detail.into()),
            ..self
        }
    }

    pub(super) fn with_retry_after(self, range: RetryAfter) -> OwnResponse {
        OwnResponse {
            retry_after: Some(range),
            ..self
        }
    }

    /// Writes the response; to a HEAD request without its body.
    pub(super) fn write(&self, hop: ClientHop, to_head: bool) -> Vec<u8> {
        let status = self.status;
        let body = match &self.detail {
            Some(detail) => format!("{status}: {detail}\n"),
            None => format!("{status}\n"),
        };
        let mut out = Vec::with_capacity(256);
        let reason = status.canonical_reason().unwrap_or_default();
        let mut writer = HeadWriter::response(&mut out, status.as_u16(), reason.as_bytes());
        writer.field(b"Date", date().as_bytes());
        writer.field(b"Content-Type", b"text/plain; charset=utf-8");
        writer.number(b"Content-Length", body.len() as u64);
        if let Some(range) = self.retry_after {
            writer.number(b"Retry-After", retry_after::seconds(range));
        }
        let is_offer = status == StatusCode::UPGRADE_REQUIRED;
        if is_offer {
            writer.field(b"Upgrade", b"websocket");
            writer.field(b"Sec-WebSocket-Version", websocket::VERSION.as_bytes());
        }
        let closes = self.closes || hop.closes;
        let connection: Option<&[u8]> = match (is_offer, closes) {
            (true, true) => Some(b"Upgrade, close"),
            (true, false) => Some(b"Upgrade"),
            (false, true) => Some(b"close"),
            (false, false) => (hop.version == HttpVersion::Http10).then_some(b"keep-alive"),
        };
        if let Some(connection) = connection {
            writer.field(b"Connection", connection);
        }
        writer.finish();
        if !to_head {
            // Writing to a vector does not fail.
            let _ = out.write_all(body.as_bytes());
        }
        out
    }
}

/// The present time in the form of the `Date` field (RFC 9110 section 5.6.7).
pub(super) fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Cause, Phase, Side};

    fn written(response: &OwnResponse, closes: bool, to_head: bool) -> String {
        let hop = ClientHop {
            version: HttpVersion::Http11,
            closes,
        };
        String::from_utf8(response.write(hop, to_head)).unwrap()
    }

    #[test]
    fn a_response_says_what_is_wrong_and_whether_more_may_follow() {
        let end = Termination::new(Side::Client, Phase::Head, Cause::Invalid);
        let response = OwnResponse::new(StatusCode::BAD_REQUEST, end).with_detail("odd");
        let text = written(&response, false, false);
        assert!(
            text.starts_with("HTTP/1.1 400 Bad Request\r\nDate: "),
            "{text}"
        );
        assert!(
            text.ends_with("\r\nContent-Length: 21\r\n\r\n400 Bad Request: odd\n"),
            "{text}"
        );
        let text = written(&response, true, true);
        assert!(
            text.ends_with("Content-Length: 21\r\nConnection: close\r\n\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_refused_version_is_told_the_one_that_is_spoken() {
        let end = Termination::new(Side::Client, Phase::Head, Cause::Invalid);
        let response = OwnResponse::closing(StatusCode::UPGRADE_REQUIRED, end);
        let text = written(&response, false, false);
        let fields =
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade, close";
        assert!(text.contains(fields), "{text}");
    }
}
