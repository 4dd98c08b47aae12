//! The `expect` check: sends bytes; the answer must have certain bytes or match a regular
//! expression, and must not have others.

use std::time::Duration;

use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::connection::{CheckConnection, plain_io_error};
use crate::config::Expect;

/// Longest answer read: a banner or a reply, not a download.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Pause after which an answer counts as complete, where bytes must not occur in it: packets of one
/// answer come much closer together. At most half of the check's timeout.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes that the answer must and must not have.
pub(super) struct Expectation {
    wanted: ExpectedText,
    unwanted: Option<Vec<u8>>,
    pause: Duration,
}

enum ExpectedText {
    /// Any byte.
    Any,
    Bytes(Vec<u8>),
    Regex(Regex),
}

/// Succeeds as soon as the answer has the wanted bytes and cannot get unwanted ones.
pub(super) async fn ask(
    stream: impl CheckConnection,
    send: &[u8],
    expected: &Expectation,
) -> Result<(), String> {
    let mut answer = CheckResponse::send(stream, send).await?;
    while !expected.wanted.is_in(&answer.bytes) {
        expected.check_unwanted(&answer.bytes)?;
        answer.read_more().await?;
    }
    if expected.unwanted.is_none() {
        return Ok(());
    }
    loop {
        expected.check_unwanted(&answer.bytes)?;
        match timeout(expected.pause, answer.read()).await {
            Ok(Ok(1..)) => {}
            // The end, by whatever means: the wanted bytes are there.
            Ok(Ok(0) | Err(_)) | Err(_) => return Ok(()),
        }
    }
}

/// The answer of a backend so far.
pub(super) struct CheckResponse<S> {
    stream: S,
    pub(super) bytes: Vec<u8>,
}

impl<S: CheckConnection> CheckResponse<S> {
    /// Sends `send` and starts an answer.
    pub(super) async fn send(mut stream: S, send: &[u8]) -> Result<CheckResponse<S>, String> {
        let failed = |error| format!("expect: {}", plain_io_error(&error));
        stream.write_all(send).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        Ok(CheckResponse {
            stream,
            bytes: Vec::new(),
        })
    }

    /// Reads more of an answer that has not the wanted bytes yet.
    pub(super) async fn read_more(&mut self) -> Result<(), String> {
        match self.read().await? {
            0 => Err(format!(
                "expect: closed after {} bytes without it",
                self.bytes.len()
            )),
            _ => Ok(()),
        }
    }

    /// Reads what has come; 0 at the end.
    async fn read(&mut self) -> Result<usize, String> {
        let room = MAX_ANSWER_BYTES.saturating_sub(self.bytes.len());
        if room == 0 {
            return Err(format!(
                "expect: not in the first {MAX_ANSWER_BYTES} bytes of the answer"
            ));
        }
        let mut limited = (&mut self.stream).take(room as u64);
        let read = limited.read_buf(&mut self.bytes).await;
        read.map_err(|error| format!("expect: {}", plain_io_error(&error)))
    }
}

impl Expectation {
    /// # Errors
    /// The regular expression is not valid.
    pub(super) fn new(
        wanted: Option<&Expect>,
        unwanted: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<Expectation, regex::Error> {
        Ok(Expectation {
            wanted: match wanted {
                None => ExpectedText::Any,
                Some(Expect::Bytes(bytes)) => ExpectedText::Bytes(bytes.clone()),
                Some(Expect::Regex(regex)) => ExpectedText::Regex(Regex::new(regex)?),
            },
            unwanted: unwanted.map(<[u8]>::to_vec),
            pause: PAUSE.min(timeout / 2),
        })
    }

    fn check_unwanted(&self, answer: &[u8]) -> Result<(), String> {
        match &self.unwanted {
            Some(bytes) if is_in(bytes, answer) => Err(format!(
                "expect: the answer has {:?}",
                String::from_utf8_lossy(bytes)
            )),
            _ => Ok(()),
        }
    }
}

impl ExpectedText {
    fn is_in(&self, answer: &[u8]) -> bool {
        match self {
            ExpectedText::Any => !answer.is_empty(),
            ExpectedText::Bytes(bytes) => is_in(bytes, answer),
            ExpectedText::Regex(regex) => regex.is_match(answer),
        }
    }
}

/// Whether `answer` has `bytes`; no bytes are in any answer.
fn is_in(bytes: &[u8], answer: &[u8]) -> bool {
    bytes.is_empty() || answer.windows(bytes.len()).any(|window| window == bytes)
}
