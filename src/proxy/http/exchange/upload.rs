//! The way of the request, from the client to the backend.

use std::io;
use std::task::{Context, Poll, ready};

use super::{Exchange, ExchangeError, UploadState, poll_deliver};
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
                self.upload.give_up(&mut self.client.input);
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
                Ok(Some(Event::Data(count))) => {
                    upload.bytes += count as u64;
                    upload.outgoing.pass(count);
                }
                Ok(Some(Event::Framing(count) | Event::Trailers(count))) => {
                    upload.outgoing.pass(count);
                }
                // No part of this request: never, as its end comes before.
                Ok(Some(Event::Head(_) | Event::Skipped(_) | Event::Interim(_))) => {
                    return Err(ExchangeError::BodyIncomplete);
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
        let (progress, sent) = poll_deliver(
            context,
            &mut upload.outgoing,
            &mut backend.stream,
            &mut client.input,
        );
        clock.note_backend_write(progress);
        let has_sent = matches!(
            progress,
            WriteProgress::Moved | WriteProgress::MovedAndBlocked
        );
        backend.contact.note_write(has_sent, &sent);
        sent.map_ok(drop)
    }
}
