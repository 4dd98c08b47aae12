//! The way of the request, from the client to the backend.

use std::io;
use std::task::{Context, Poll, ready};

use super::{Exchange, ExchangeError, UploadState, poll_flush};
use crate::proxy::http::exchange_clock::WriteProgress;
use crate::wire::http::Event;

impl Exchange<'_> {
    /// Moves the request on. Ready when nothing more of it is to be sent.
    pub(super) fn poll_upload(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ExchangeError>> {
        loop {
            if self.upload.state == UploadState::Abandoned {
                return Poll::Ready(Ok(()));
            }
            self.read_request()?;
            if let Err(error) = ready!(self.poll_send(context)) {
                tracing::debug!(%error, "backend takes no more of the request");
                self.upload.state = UploadState::Abandoned;
                self.upload.outgoing.clear();
                return Poll::Ready(Ok(()));
            }
            if self.upload.state == UploadState::Complete {
                return Poll::Ready(Ok(()));
            }
            if self.client.is_finished {
                return Poll::Ready(Err(ExchangeError::BodyIncomplete));
            }
            let most = self.read_bytes();
            match self.client.poll_read(context, most) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ExchangeError::BodyIncomplete)),
                Poll::Ready(Ok(count)) => self.clock.client_sent(count),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(ExchangeError::ClientBroken)),
                Poll::Pending => {
                    self.clock.waits_for_client();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Looks at what the client has sent, as far as it belongs to this request.
    fn read_request(&mut self) -> Result<(), ExchangeError> {
        let Self { client, upload, .. } = self;
        while upload.state == UploadState::Body {
            let passing = upload.outgoing.passing();
            let rest = client.input.unread().get(passing..).unwrap_or_default();
            match client.reader.next(rest) {
                Err(error) => return Err(ExchangeError::BodyRefused(error)),
                Ok(None) => break,
                Ok(Some(Event::End)) => {
                    upload.state = UploadState::Complete;
                    self.clock.body_is_complete();
                }
                Ok(Some(event)) => {
                    if let Event::Data(count) = event {
                        upload.bytes += count as u64;
                    }
                    upload.outgoing.pass(event.taken());
                }
            }
        }
        Ok(())
    }

    /// Brings what is ready to the backend.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            client,
            backend,
            upload,
            clock,
            ..
        } = self;
        let sent = loop {
            if upload.outgoing.is_empty() {
                break poll_flush(context, &mut backend.stream);
            }
            let written = backend.poll_write(context, &mut upload.outgoing, &mut client.input);
            match written {
                Poll::Ready(Ok(_)) => clock.note_backend_write(WriteProgress::Moved),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break (WriteProgress::Blocked, Poll::Pending),
            }
        };
        clock.note_backend_write(sent.0);
        sent.1
    }
}
