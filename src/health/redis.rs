//! The `redis` check: a server that answers PING, in the role that it should have.
//!
//! After a failover the next check shows the new roles, so that writes go to the primary.

use std::borrow::Cow;

use super::connection::CheckConnection;
use super::expect::CheckResponse;
use crate::config::RedisRole;
use crate::config::Word as _;

/// Inline commands. A server that still loads its data refuses a PING.
const PING: &[u8] = b"PING\r\n";
const PING_AND_ROLE: &[u8] = b"PING\r\nINFO replication\r\n";

/// Succeeds on a PONG, with `role` on that role.
pub(super) async fn ask(
    stream: impl CheckConnection,
    role: Option<RedisRole>,
) -> Result<(), String> {
    let send = match role {
        Some(_) => PING_AND_ROLE,
        None => PING,
    };
    let mut answer = CheckResponse::send(stream, send).await?;
    let mut lines = AnswerLines::default();
    loop {
        if let Some(verdict) = lines.judge(&answer.bytes, role) {
            return verdict;
        }
        answer.read_more().await?;
    }
}

/// Whole lines of a growing answer. Each byte is looked at once, however slowly they come: the
/// checks of all pools share one thread.
#[derive(Default)]
struct AnswerLines {
    /// Start of the next line.
    start: usize,
    /// Where its end has to be, at the earliest.
    scanned: usize,
    /// The PONG has come.
    has_pong: bool,
}

impl AnswerLines {
    fn next<'a>(&mut self, answer: &'a [u8]) -> Option<Cow<'a, str>> {
        let rest = answer.get(self.scanned..)?;
        let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            self.scanned = self.scanned.max(answer.len().saturating_sub(1));
            return None;
        };
        let end = self.scanned + at;
        let line = answer.get(self.start..end)?;
        self.start = end + 2;
        self.scanned = self.start;
        Some(String::from_utf8_lossy(line))
    }

    /// The verdict on an answer; `None`: more must come.
    fn judge(&mut self, answer: &[u8], role: Option<RedisRole>) -> Option<Result<(), String>> {
        while let Some(line) = self.next(answer) {
            if line.starts_with('-') || !self.has_pong && line != "+PONG" {
                let why = line.trim_start_matches('-');
                return Some(Err(format!("redis: {why}")));
            }
            self.has_pong = true;
            let Some(wanted) = role else {
                return Some(Ok(()));
            };
            if let Some(said) = line.strip_prefix("role:") {
                return Some(is_role(said, wanted));
            }
        }
        None
    }
}

fn is_role(said: &str, wanted: RedisRole) -> Result<(), String> {
    let said = match said {
        "master" => RedisRole::Primary,
        "slave" => RedisRole::Replica,
        other => return Err(format!("redis: its role is {other}")),
    };
    if said == wanted {
        Ok(())
    } else {
        Err(format!(
            "redis: its role is {} (wanted {})",
            said.word(),
            wanted.word()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "+PONG\r\n$30\r\n# Replication\r\nrole:slave\r\nx:1\r\n\r\n";

    fn judged(answer: &str, role: Option<RedisRole>) -> Option<Result<(), String>> {
        let answer = answer.as_bytes();
        let whole = AnswerLines::default().judge(answer, role);
        let mut lines = AnswerLines::default();
        let bytewise = (0..=answer.len()).find_map(|end| lines.judge(&answer[..end], role));
        assert_eq!(whole, bytewise);
        whole
    }

    #[test]
    fn the_role_is_read_once_its_line_is_whole() {
        let replica = Some(RedisRole::Replica);
        let end = INFO.find("role:slave\r\n").unwrap() + "role:slave\r\n".len();
        for length in 0..INFO.len() {
            let expected = (length >= end).then_some(Ok(()));
            assert_eq!(judged(&INFO[..length], replica), expected, "{length}");
        }
        let wrong = judged(INFO, Some(RedisRole::Primary));
        let why = "redis: its role is replica (wanted primary)".to_owned();
        assert_eq!(wrong, Some(Err(why)));
    }

    #[test]
    fn without_a_role_a_pong_is_enough_and_an_error_is_told() {
        assert_eq!(judged("+PON", None), None);
        assert_eq!(judged("+PONG\r\n", None), Some(Ok(())));
        for role in [None, Some(RedisRole::Primary)] {
            let error = judged("-NOAUTH Authentication required.\r\n", role);
            let why = "redis: NOAUTH Authentication required.".to_owned();
            assert_eq!(error, Some(Err(why)));
        }
    }
}
