//! Reader of request bodies, bounded in size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::reply::ApiError;

/// Limit of a change's body: far more than any needs.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;
/// Bytes beyond the limit that are read and discarded, so that a client can read the refusal before
/// the connection closes.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;
/// Time for a body; with that of the head, a whole request has 10 s.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Body of a change without parameters.
#[derive(Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct EmptyBody {}

/// Body of a request, of any source.
pub(super) trait ApiBody: Body<Data = Bytes> + Unpin {}

impl<B: Body<Data = Bytes> + Unpin> ApiBody for B {}

/// Reads a body of at most [`MAX_BODY_BYTES`].
pub(super) async fn read_json<T: DeserializeOwned>(body: impl ApiBody) -> Result<T, ApiError> {
    read_json_of(body, MAX_BODY_BYTES).await
}

/// Reads a body; an empty one counts as `{}`. Unknown keys are errors where `T` says so.
pub(super) async fn read_json_of<T: DeserializeOwned>(
    body: impl ApiBody,
    max_bytes: usize,
) -> Result<T, ApiError> {
    let read = timeout(BODY_TIMEOUT, read(body, max_bytes)).await;
    let bytes = read.map_err(|_| {
        let message = format!("the body did not arrive within {BODY_TIMEOUT:?}");
        ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
    })??;
    let text: &[u8] = if bytes.trim_ascii().is_empty() {
        b"{}"
    } else {
        &bytes
    };
    // Through a map: serde would take an array for a struct.
    let object: Result<serde_json::Map<String, serde_json::Value>, _> =
        serde_json::from_slice(text);
    object
        .and_then(|object| serde_json::from_value(object.into()))
        .map_err(|error| {
            ApiError::bad_request(format!("the body is not what is expected here: {error}"))
        })
}

async fn read(mut body: impl ApiBody, max_bytes: usize) -> Result<Bytes, ApiError> {
    let mut kept = BytesMut::new();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::bad_request("the body was cut off"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        total += data.len();
        if total > max_bytes + MAX_DISCARDED_BYTES {
            break;
        }
        if total <= max_bytes {
            kept.extend_from_slice(&data);
        }
    }
    if total > max_bytes {
        let message = format!("the body is larger than {max_bytes} bytes");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(kept.freeze())
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    async fn status(body: &[u8]) -> Option<StatusCode> {
        let body = Full::new(Bytes::copy_from_slice(body));
        read_json::<EmptyBody>(body)
            .await
            .err()
            .map(|failure| failure.status)
    }

    #[tokio::test]
    async fn nothing_and_an_empty_object_are_the_same() {
        assert_eq!(status(b"").await, None);
        assert_eq!(status(b" \n").await, None);
        assert_eq!(status(b"{}").await, None);
    }

    #[tokio::test]
    async fn what_is_not_expected_is_a_bad_request() {
        for body in [&b"{"[..], b"[]", b"1", b"{\"x\":1}", b"{} {}", b"\xff"] {
            assert_eq!(
                status(body).await,
                Some(StatusCode::BAD_REQUEST),
                "{body:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_limit_is_exact() {
        let spaces = vec![b' '; MAX_BODY_BYTES];
        assert_eq!(status(&spaces).await, None);
        let spaces = vec![b' '; MAX_BODY_BYTES + 1];
        assert_eq!(status(&spaces).await, Some(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_times_out() {
        let silent = http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<hyper::body::Frame<Bytes>, std::io::Error>,
        >());
        let failure = read_json::<EmptyBody>(silent).await.unwrap_err();
        assert_eq!(failure.status, StatusCode::REQUEST_TIMEOUT);
    }
}
