//! A connection to a backend, with what has passed on it.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use tokio::io::AsyncWriteExt;

use super::input_buffer::InputBuffer;
use super::outgoing::Outgoing;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::proxy::connect::repeat::Contact;
use crate::wire::http::{Event, ResponseError, ResponseReader};

/// Bytes of an answer's head read at once.
const READ_BYTES: usize = 8 * 1024;

/// A stream to a backend and what was read of it.
pub(super) struct BackendStream {
    pub stream: MaybeTlsStream,
    pub input: InputBuffer,
    pub contact: Contact,
}

impl BackendStream {
    pub(super) fn new(stream: MaybeTlsStream) -> BackendStream {
        BackendStream {
            stream,
            input: InputBuffer::default(),
            contact: Contact::default(),
        }
    }

    /// A connection on which something has passed, with what was read.
    pub(super) fn going_on(
        stream: MaybeTlsStream,
        read: Vec<u8>,
        contact: Contact,
    ) -> BackendStream {
        BackendStream {
            stream,
            contact,
            input: InputBuffer::of(read),
        }
    }

    /// Reads once, at most `most` bytes; 0 is the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let read = self.input.poll_read(context, &mut self.stream, most);
        self.contact.note_read(&read);
        read
    }

    /// Writes once of `outgoing`, with bytes of `source`.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        outgoing: &mut Outgoing,
        source: &mut InputBuffer,
    ) -> Poll<io::Result<usize>> {
        let written = outgoing.poll_write(context, &mut self.stream, source);
        let has_sent = matches!(written, Poll::Ready(Ok(1..)));
        self.contact.note_write(has_sent, &written);
        written
    }

    /// Writes a whole request and reads the head of its final answer. Returns it.
    ///
    /// # Errors
    /// There is no valid answer.
    pub(super) async fn ask(
        &mut self,
        request: Vec<u8>,
        reader: &mut ResponseReader,
    ) -> Result<Vec<u8>, ResponseError> {
        let (mut outgoing, mut nothing) = (Outgoing::default(), InputBuffer::default());
        *outgoing.own() = request;
        while !outgoing.is_empty() {
            let written =
                poll_fn(|context| self.poll_write(context, &mut outgoing, &mut nothing)).await;
            if let Err(error) = written {
                return Err(self.failed(&error));
            }
        }
        if let Err(error) = self.stream.flush().await {
            return Err(self.failed(&error));
        }
        loop {
            match reader.next(self.input.unread())? {
                Some(Event::Head(length)) => return Ok(self.input.take(length)),
                Some(event) => self.input.consume(event.taken()),
                None => match poll_fn(|context| self.poll_read(context, READ_BYTES)).await {
                    Ok(1..) => {}
                    Ok(0) => reader.finish(self.input.unread())?,
                    Err(error) => return Err(self.failed(&error)),
                },
            }
        }
    }

    /// The kind of answer that a failed connection is.
    pub(super) fn failed(&self, error: &io::Error) -> ResponseError {
        tracing::debug!(%error, "backend connection failed");
        if self.contact.has_heard() {
            ResponseError::Truncated
        } else {
            ResponseError::Silent
        }
    }
}
