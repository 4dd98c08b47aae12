//! The `expect` check: sends bytes; the answer must have certain bytes or match a regular
//! expression, and must not have others.

use std::time::Duration;

use regex::bytes::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::connection::{CheckConnection, plain_io_error};
use crate::config::Expect;

/// Longest answer read: a banner or a reply, not a download.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Pause after which an answer counts as complete, where bytes must not occur in it: packets of one
/// answer come much closer together. At most half of the check's timeout.
const PAUSE: Duration = Duration::from_millis(100);

/// Reads after each of which an answer is searched for a regular expression; later ones wait for
/// twice the bytes or for a pause. Most answers come in one.
const MAX_EAGER_SEARCHES: u32 = 16;

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
    let mut search = AnswerSearch::new(expected);
    while !search.has_wanted(&answer.bytes, Instant::now()) {
        search.check_unwanted(&answer.bytes)?;
        let is_behind = search.is_behind(&answer.bytes);
        let more = answer.read_more();
        let more = if is_behind {
            timeout(expected.pause, more).await
        } else {
            Ok(more.await)
        };
        // A pause or the end: nothing more comes for now.
        if !matches!(more, Ok(Ok(()))) && search.has_wanted_at_last(&answer.bytes) {
            break;
        }
        more.unwrap_or(Ok(()))?;
    }
    if expected.unwanted.is_none() {
        return Ok(());
    }
    loop {
        search.check_unwanted(&answer.bytes)?;
        match timeout(expected.pause, answer.read()).await {
            Ok(Ok(1..)) => {}
            // The end, by whatever means: the wanted bytes are there.
            Ok(Ok(0) | Err(_)) | Err(_) => return Ok(()),
        }
    }
}

/// Search of a growing answer. A backend that sends byte by byte must not have all of it searched
/// for each of them: the checks of all pools share one thread.
struct AnswerSearch<'a> {
    expected: &'a Expectation,
    /// Bytes that were searched for the wanted ones, and for the unwanted ones.
    wanted: usize,
    unwanted: usize,
    /// Searches for a regular expression so far, and the time of the latest.
    searches: u32,
    latest: Option<Instant>,
}

impl<'a> AnswerSearch<'a> {
    fn new(expected: &'a Expectation) -> AnswerSearch<'a> {
        AnswerSearch {
            expected,
            wanted: 0,
            unwanted: 0,
            searches: 0,
            latest: None,
        }
    }

    /// Whether the answer so far is known to have what is wanted. A regular expression may be
    /// searched for later: [`Self::has_wanted_at_last`] says it for certain.
    fn has_wanted(&mut self, answer: &[u8], now: Instant) -> bool {
        match &self.expected.wanted {
            ExpectedText::Any => !answer.is_empty(),
            ExpectedText::Bytes(bytes) => is_in_rest(bytes, answer, &mut self.wanted),
            ExpectedText::Regex(_) => {
                let is_due = self.searches < MAX_EAGER_SEARCHES
                    || answer.len() >= 2 * self.wanted
                    || self
                        .latest
                        .is_none_or(|latest| now.duration_since(latest) >= self.expected.pause);
                if !is_due {
                    return false;
                }
                self.latest = Some(now);
                self.has_wanted_at_last(answer)
            }
        }
    }

    /// Whether bytes came that no search has seen.
    fn is_behind(&self, answer: &[u8]) -> bool {
        matches!(self.expected.wanted, ExpectedText::Regex(_)) && answer.len() > self.wanted
    }

    /// Searches what [`Self::has_wanted`] has left for later.
    fn has_wanted_at_last(&mut self, answer: &[u8]) -> bool {
        let ExpectedText::Regex(regex) = &self.expected.wanted else {
            return false;
        };
        if self.searches > 0 && answer.len() == self.wanted {
            return false;
        }
        self.wanted = answer.len();
        self.searches += 1;
        regex.is_match(answer)
    }

    fn check_unwanted(&mut self, answer: &[u8]) -> Result<(), String> {
        match &self.expected.unwanted {
            Some(bytes) if is_in_rest(bytes, answer, &mut self.unwanted) => Err(format!(
                "expect: the answer has {:?}",
                String::from_utf8_lossy(bytes)
            )),
            _ => Ok(()),
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
}

/// Whether `answer` has `bytes` behind the first `searched` ones or across their end; no bytes are
/// in any answer.
fn is_in_rest(bytes: &[u8], answer: &[u8], searched: &mut usize) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let from = searched.saturating_sub(bytes.len() - 1);
    let rest = answer.get(from..).unwrap_or_default();
    *searched = answer.len();
    rest.windows(bytes.len()).any(|window| window == bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(wanted: Expect, unwanted: &[u8]) -> Expectation {
        Expectation::new(Some(&wanted), Some(unwanted), Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn bytes_are_found_wherever_the_pieces_end() {
        let expected = expected(Expect::Bytes(b"ready".to_vec()), b"not");
        let answer = b"is it rereadready, or is it nonot";
        for size in 1..answer.len() {
            let mut search = AnswerSearch::new(&expected);
            let ends = (size..answer.len()).step_by(size).chain([answer.len()]);
            for end in ends {
                let so_far = &answer[..end];
                let has = |bytes: &[u8]| so_far.windows(bytes.len()).any(|part| part == bytes);
                let found = search.has_wanted(so_far, Instant::now());
                // Found once, it is not looked for again.
                if found || !has(b"ready") {
                    assert_eq!(found, has(b"ready"), "{size} {end}");
                }
                assert_eq!(search.check_unwanted(so_far).is_err(), has(b"not"));
            }
        }
    }

    /// Each byte of 64 KiB cost a search of all that had come.
    #[test]
    fn an_answer_that_drips_is_searched_a_few_times() {
        let expected = expected(Expect::Regex("^ready$".to_owned()), b"not");
        let mut search = AnswerSearch::new(&expected);
        let now = Instant::now();
        let answer = vec![b'x'; MAX_ANSWER_BYTES];
        for end in 1..=answer.len() {
            assert!(!search.has_wanted(&answer[..end], now));
        }
        assert!(
            search.searches < 2 * MAX_EAGER_SEARCHES,
            "{}",
            search.searches
        );
        let before = search.searches;
        assert!(!search.has_wanted(&answer, now + PAUSE));
        assert!(!search.has_wanted_at_last(&answer));
        assert!(search.searches <= before + 1);
    }

    #[test]
    fn a_pause_shows_what_was_not_searched_for_yet() {
        let expected = expected(Expect::Regex("ready".to_owned()), b"not");
        let mut search = AnswerSearch::new(&expected);
        let now = Instant::now();
        let answer = [&[b'x'; 1000][..], b"ready"].concat();
        for end in 1..answer.len() {
            search.has_wanted(&answer[..end], now);
        }
        assert!(!search.has_wanted(&answer, now));
        assert!(search.has_wanted_at_last(&answer));
    }
}
