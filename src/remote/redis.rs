//! A connection to Redis: commands are sent together and answered in order.

use std::fmt;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{RemoteError, RemoteStream};
use crate::wire::resp::{self, MAX_ANSWER, RespError, RespValue};

/// A connection on which commands are answered in order.
pub(crate) struct RedisConnection {
    stream: RemoteStream,
    buffered: Vec<u8>,
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").finish_non_exhaustive()
    }
}

impl RedisConnection {
    pub(crate) fn new(stream: RemoteStream) -> RedisConnection {
        RedisConnection {
            stream,
            buffered: Vec::new(),
        }
    }

    /// Sends a command and reads its answer.
    ///
    /// # Errors
    /// The connection broke, or the answer is none.
    pub(crate) async fn call(&mut self, command: &[u8]) -> Result<RespValue, RemoteError> {
        let sent = self.stream.write_all(command).await;
        sent.map_err(|error| broken(&error))?;
        self.read().await
    }

    /// Sends commands in one piece and reads the answer of each.
    ///
    /// # Errors
    /// As of [`RedisConnection::call`].
    pub(crate) async fn call_all(
        &mut self,
        commands: &[Vec<u8>],
    ) -> Result<Vec<RespValue>, RemoteError> {
        let sent = self.stream.write_all(&commands.concat()).await;
        sent.map_err(|error| broken(&error))?;
        let mut values = Vec::with_capacity(commands.len());
        for _ in commands {
            values.push(self.read().await?);
        }
        Ok(values)
    }

    /// Reads the next answer or message.
    ///
    /// # Errors
    /// As of [`RedisConnection::call`].
    ///
    /// # Cancel safety
    /// Bytes that were read stay for the next call.
    pub(crate) async fn read(&mut self) -> Result<RespValue, RemoteError> {
        loop {
            match resp::read(&self.buffered) {
                Ok((value, length)) => {
                    self.buffered.drain(..length);
                    return Ok(value);
                }
                Err(RespError::Incomplete) if self.buffered.len() <= MAX_ANSWER => {}
                Err(RespError::Malformed) => {
                    return Err(RemoteError::Malformed("no answer of Redis"));
                }
                Err(_) => return Err(RemoteError::TooLarge("too long an answer")),
            }
            let read = self.stream.read_buf(&mut self.buffered).await;
            if read.map_err(|error| broken(&error))? == 0 {
                let what = "the server closed the connection";
                return Err(RemoteError::Unreachable(what.to_owned()));
            }
        }
    }
}

fn broken(error: &std::io::Error) -> RemoteError {
    RemoteError::Unreachable(error.to_string())
}
