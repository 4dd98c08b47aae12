//! The `expect` check: bytes are sent, an answer must hold certain bytes or match a regular expression, and must not hold
//! others.

use std::time::Duration;

use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::probe::{CheckConnection, plain_io_error};
use crate::config::Expect;

/// What is read of an answer at most: a banner or a reply, not a download.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// An answer that has paused for so long is taken for whole, where bytes must not occur in it: packets of one answer come
/// much closer together. At most half of the check's time-out.
const PAUSE: Duration = Duration::from_millis(100);

/// What the answer must and must not hold.
pub(super) struct Expectation {
    wanted: ExpectedText,
    unwanted: Option<Vec<u8>>,
    pause: Duration,
}

enum ExpectedText {
    /// A byte, whichever.
    Any,
    Bytes(Vec<u8>),
    Regex(Regex),
}

/// Succeeds as soon as what was read has what is wanted and can get nothing that is not.
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
            // Its end, by whatever means: what was wanted is there.
            Ok(Ok(0) | Err(_)) | Err(_) => return Ok(()),
        }
    }
}

/// What a backend has said so far.
pub(super) struct CheckResponse<S> {
    stream: S,
    pub(super) bytes: Vec<u8>,
}

impl<S: CheckConnection> CheckResponse<S> {
    /// Sends `send`, then waits for what comes.
    pub(super) async fn send(mut stream: S, send: &[u8]) -> Result<CheckResponse<S>, String> {
        let failed = |error| format!("expect: {}", plain_io_error(&error));
        stream.write_all(send).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        Ok(CheckResponse {
            stream,
            bytes: Vec::new(),
        })
    }

    /// Reads some more of an answer that does not have yet what is wanted.
    pub(super) async fn read_more(&mut self) -> Result<(), String> {
        match self.read().await? {
            0 => Err(format!(
                "expect: closed after {} bytes without it",
                self.bytes.len()
            )),
            _ => Ok(()),
        }
    }

    /// How much more has come; 0 when it is over.
    async fn read(&mut self) -> Result<usize, String> {
        let room = MAX_ANSWER_BYTES.saturating_sub(self.bytes.len());
        if room == 0 {
            return Err(format!(
                "expect: not in the first {MAX_ANSWER_BYTES} bytes of the answer"
            ));
        }
        let mut part = (&mut self.stream).take(room as u64);
        let read = part.read_buf(&mut self.bytes).await;
        read.map_err(|error| format!("expect: {}", plain_io_error(&error)))
    }
}

impl Expectation {
    /// # Errors
    /// The regular expression's.
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

/// Nothing is in everything.
fn is_in(bytes: &[u8], answer: &[u8]) -> bool {
    bytes.is_empty() || answer.windows(bytes.len()).any(|part| part == bytes)
}
