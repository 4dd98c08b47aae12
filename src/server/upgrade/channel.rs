//! The channel of an upgrade: messages and sealed documents over a pair of sockets.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::net::{PacketSocket, read_sealed, seal};

/// Why an exchange with the other process failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error("the other process has ended")]
    Gone,
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("the other process sent what is not understood: {0}")]
    Malformed(String),
    #[error("{0}")]
    Io(io::Error),
}

impl ChannelError {
    /// Whether the other process is there and does not answer, or does not read.
    pub(super) fn is_silence(&self) -> bool {
        match self {
            ChannelError::Silent(_) => true,
            ChannelError::Io(error) => error.kind() == io::ErrorKind::WouldBlock,
            ChannelError::Gone | ChannelError::Malformed(_) => false,
        }
    }
}

/// One end of the channel.
pub(super) struct Channel(PacketSocket);

/// A message with what came beside it.
pub(super) struct Received<M> {
    pub message: M,
    pub descriptors: Vec<OwnedFd>,
}

impl Channel {
    pub(super) fn new(socket: PacketSocket) -> Channel {
        Channel(socket)
    }

    pub(super) fn socket(&self) -> &PacketSocket {
        &self.0
    }

    /// Another handle of this end, to send by.
    pub(super) fn try_clone(&self) -> io::Result<Channel> {
        self.0.try_clone().map(Channel)
    }

    pub(super) fn send(&self, message: &impl Serialize) -> Result<(), ChannelError> {
        self.send_with(message, &[])
    }

    pub(super) fn send_with(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let bytes = encode(message)?;
        self.0
            .send(&bytes, descriptors)
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ChannelError::Gone,
                _ => ChannelError::Io(error),
            })
    }

    /// Sends a message with a document beside it.
    pub(super) fn send_document(
        &self,
        message: &impl Serialize,
        document: &impl Serialize,
    ) -> Result<(), ChannelError> {
        let sealed = seal(&encode(document)?).map_err(ChannelError::Io)?;
        self.send_with(message, &[std::os::fd::AsFd::as_fd(&sealed)])
    }

    /// The next message; waits at most `timeout`, on this thread.
    pub(super) fn receive<M: DeserializeOwned>(
        &self,
        timeout: Duration,
    ) -> Result<Received<M>, ChannelError> {
        let packet = match self.0.receive(timeout) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(ChannelError::Gone),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(ChannelError::Silent(timeout));
            }
            Err(error) => return Err(ChannelError::Io(error)),
        };
        let message = serde_json::from_slice(&packet.bytes).map_err(malformed)?;
        Ok(Received {
            message,
            descriptors: packet.descriptors,
        })
    }
}

impl<M> Received<M> {
    /// The document that came beside the message.
    pub(super) fn document<D: DeserializeOwned>(self) -> Result<D, ChannelError> {
        let mut descriptors = self.descriptors.into_iter();
        let missing = || ChannelError::Malformed("a document is missing".to_owned());
        let bytes = read_sealed(descriptors.next().ok_or_else(missing)?);
        serde_json::from_slice(&bytes.map_err(ChannelError::Io)?).map_err(malformed)
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, ChannelError> {
    serde_json::to_vec(value).map_err(malformed)
}

fn malformed(error: serde_json::Error) -> ChannelError {
    ChannelError::Malformed(error.to_string())
}
