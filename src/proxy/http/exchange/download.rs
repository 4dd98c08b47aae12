//! The way of the answer, from the backend to the client.

use std::io;
use std::task::{Context, Poll, ready};

use super::{Exchange, ExchangeError, poll_deliver};
use crate::wire::http::{BodyTransfer, CHUNK_END, Event, LAST_CHUNK, chunk_start, write_interim};

/// How far the answer has come.
enum Read {
    Head,
    End,
    More,
    /// Something is to be written before more is looked at.
    Write,
}

impl Exchange<'_> {
    /// Moves the answer on. Ready when its head has come that is not written yet, or its end was
    /// delivered.
    pub(super) fn poll_download(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ExchangeError>> {
        loop {
            let read = self.read_answer()?;
            if ready!(self.poll_receive(context)).is_err() {
                return Poll::Ready(Err(ExchangeError::ClientBroken));
            }
            match read {
                Read::Head | Read::End => return Poll::Ready(Ok(())),
                Read::Write => continue,
                Read::More => {}
            }
            let most = self.read_bytes();
            match ready!(self.backend.poll_read(context, most)) {
                Ok(1..) => self.clock.backend_sent(),
                Ok(0) => self.finish_answer()?,
                Err(error) => {
                    let error = self.backend.failed(&error);
                    return Poll::Ready(Err(ExchangeError::Answer(error)));
                }
            }
        }
    }

    /// Takes the end of the backend's stream.
    fn finish_answer(&mut self) -> Result<(), ExchangeError> {
        let finished = self.download.reader.finish(self.backend.input.unread());
        finished.map_err(ExchangeError::Answer)?;
        self.complete();
        Ok(())
    }

    fn complete(&mut self) {
        let download = &mut self.download;
        if !download.is_complete && download.transfer == Some(BodyTransfer::InChunks) {
            download.outgoing.own().extend_from_slice(LAST_CHUNK);
        }
        download.is_complete = true;
    }

    /// Looks at what the backend has sent.
    fn read_answer(&mut self) -> Result<Read, ExchangeError> {
        loop {
            let download = &mut self.download;
            if download.is_complete {
                return Ok(Read::End);
            }
            if !download.head.is_empty() {
                return Ok(Read::Head);
            }
            let passing = download.outgoing.passing();
            let rest = self.backend.input.unread().get(passing..);
            let event = download.reader.next(rest.unwrap_or_default());
            match event.map_err(ExchangeError::Answer)? {
                None => return Ok(Read::More),
                Some(Event::Head(length)) => download.head = self.backend.input.take(length),
                Some(Event::Interim(length)) => {
                    self.pass_interim(length);
                    return Ok(Read::Write);
                }
                Some(Event::End) => self.complete(),
                Some(event) => {
                    if self.pass_body(event) {
                        return Ok(Read::Write);
                    }
                }
            }
        }
    }

    fn pass_interim(&mut self, length: usize) {
        let head = self.backend.input.take(length);
        let view = self.download.reader.head(&head);
        write_interim(view, self.version, self.download.outgoing.own());
    }

    /// Lets a part of the body pass. Returns whether it has to be written before more is looked at.
    fn pass_body(&mut self, event: Event) -> bool {
        let download = &mut self.download;
        let count = event.taken();
        if let Event::Data(count) = event {
            download.bytes += count as u64;
        }
        match download.transfer {
            None | Some(BodyTransfer::Verbatim) => {
                download.outgoing.pass(count);
                false
            }
            Some(BodyTransfer::InChunks) => {
                chunk_start(count, download.outgoing.own());
                download.outgoing.pass(count);
                download.outgoing.end_with(CHUNK_END);
                true
            }
            Some(BodyTransfer::DataOnly) if matches!(event, Event::Data(_)) => {
                download.outgoing.pass(count);
                true
            }
            // Nothing is on its way: it was written behind the event before.
            Some(BodyTransfer::DataOnly) => {
                self.backend.input.consume(count);
                false
            }
        }
    }

    /// Brings what is ready to the client.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            client,
            backend,
            download,
            clock,
            ..
        } = self;
        let (progress, received) = poll_deliver(
            context,
            &mut download.outgoing,
            &mut client.stream,
            &mut backend.input,
        );
        clock.note_client_write(progress);
        received.map_ok(drop)
    }
}
