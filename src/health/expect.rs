//! The `expect` check: bytes are sent, an answer must hold certain bytes or match a regular expression.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::plan::Wanted;
use super::probe::{Connection, plain};

/// What is read of an answer at most: a banner or a reply, not a download.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Succeeds as soon as what was read has what is wanted.
pub(super) async fn ask(
    mut stream: impl Connection,
    send: &[u8],
    wanted: &Wanted,
) -> Result<(), String> {
    let failed = |error| format!("expect: {}", plain(&error));
    stream.write_all(send).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut answer = Vec::new();
    while !wanted.is_in(&answer) {
        let room = MAX_ANSWER_BYTES.saturating_sub(answer.len());
        if room == 0 {
            return Err(format!(
                "expect: not in the first {MAX_ANSWER_BYTES} bytes of the answer"
            ));
        }
        let mut part = (&mut stream).take(room as u64);
        if part.read_buf(&mut answer).await.map_err(failed)? == 0 {
            return Err(format!(
                "expect: closed after {} bytes without it",
                answer.len()
            ));
        }
    }
    Ok(())
}

impl Wanted {
    fn is_in(&self, answer: &[u8]) -> bool {
        match self {
            Wanted::Bytes(bytes) if bytes.is_empty() => true,
            Wanted::Bytes(bytes) => answer.windows(bytes.len()).any(|part| part == bytes),
            Wanted::Regex(regex) => regex.is_match(answer),
        }
    }
}
