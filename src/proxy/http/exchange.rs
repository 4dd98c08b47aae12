//! One request and its answer, between a client and a backend: heads go through as `wire::http`
//! writes them, bodies as they come. Both bodies go at the pace of whoever takes them, at the same
//! time.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::backend_stream::BackendStream;
use super::buffer_charge::BufferCharge;
use super::client_stream::ClientStream;
use super::exchange_clock::{ExchangeClock, ExchangeLimits, Overdue, WriteProgress};
use super::interval::Interval;
use super::outgoing::Outgoing;
use super::request_record::RequestRecord;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::relay::Relay;
use crate::wire::http::{
    Asked, BodyTransfer, CHUNK_END, ClientHop, Edits, Event, ForwardedResponse, HeadLimits,
    HttpVersion, LAST_CHUNK, RequestError, ResponseError, ResponseHead, ResponseReader,
    chunk_start, write_interim, write_response,
};

/// Bytes of a body read at once. Bulk costs few system calls, a reader that stalls little memory.
const READ_BYTES: usize = 16 * 1024;
/// The same while all buffers of the process are full: a peer that takes its bytes is served on.
const READ_BYTES_AT_BUDGET: usize = 2 * 1024;

/// Reason for which an exchange did not come to its end.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The client has finished, and its request is of no use to it any more.
    ClientFinished,
    /// The client has reset, or cannot be written to.
    ClientBroken,
    /// The client has finished within its body.
    BodyIncomplete,
    /// The client's body breaks a rule.
    BodyRefused(RequestError),
    /// The backend's answer breaks a rule, is cut short, or has not even begun.
    Answer(ResponseError),
    Overdue(Overdue),
}

/// The request that an exchange begins with.
pub(super) struct SentRequest {
    /// Written for the backend.
    pub head: Vec<u8>,
    pub asked: Asked,
    /// Version of the client's request.
    pub version: HttpVersion,
}

/// A request at a backend.
pub(super) struct Exchange<'c> {
    client: &'c mut ClientStream,
    backend: BackendStream,
    upload: Upload,
    download: Download,
    clock: ExchangeClock,
    charge: BufferCharge,
    /// The answer is to make the client's connection a WebSocket.
    is_upgrade: bool,
    version: HttpVersion,
}

/// A backend connection behind an exchange.
pub(super) struct EndedConnection {
    pub stream: MaybeTlsStream,
    /// Nothing that the backend has said speaks against another request on it.
    pub is_reusable: bool,
}

/// The request on its way to the backend.
struct Upload {
    outgoing: Outgoing,
    state: UploadState,
    /// Bytes of the body's data.
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadState {
    /// More of the request's body is to come.
    Body,
    Complete,
    /// The backend does not take it. It may have answered all the same.
    Abandoned,
}

/// The answer on its way to the client.
struct Download {
    outgoing: Outgoing,
    reader: ResponseReader,
    /// The answer's head, until it is written.
    head: Vec<u8>,
    /// `None`: the head is not written yet.
    transfer: Option<BodyTransfer>,
    is_complete: bool,
    bytes: u64,
}

/// How far the answer has come.
enum Read {
    Head,
    End,
    More,
    /// Something is to be written before more is looked at.
    Write,
}

impl<'c> Exchange<'c> {
    /// Begins an exchange on a backend connection.
    pub(super) fn new(
        client: &'c mut ClientStream,
        backend: BackendStream,
        request: SentRequest,
        limits: (ExchangeLimits, HeadLimits),
        relay: &Arc<Relay>,
    ) -> Exchange<'c> {
        let is_upgrade = request.asked == Asked::Upgrade;
        let mut outgoing = Outgoing::default();
        *outgoing.own() = request.head;
        Exchange {
            client,
            backend,
            upload: Upload {
                outgoing,
                state: if is_upgrade {
                    UploadState::Complete
                } else {
                    UploadState::Body
                },
                bytes: 0,
            },
            download: Download {
                outgoing: Outgoing::default(),
                reader: ResponseReader::new(limits.1, request.asked),
                head: Vec::new(),
                transfer: None,
                is_complete: false,
                bytes: 0,
            },
            clock: ExchangeClock::new(limits.0),
            charge: BufferCharge::new(relay),
            is_upgrade,
            version: request.version,
        }
    }

    /// Sends the request, as far as it has come, until the head of the final answer has come.
    /// Interim answers pass meanwhile.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) async fn answer(&mut self) -> Result<(), ExchangeError> {
        poll_fn(|context| self.poll_answer(context)).await
    }

    /// The head of the final answer, behind [`Exchange::answer`] and before
    /// [`Exchange::begin_answer`].
    pub(super) fn head(&self) -> ResponseHead<'_> {
        self.download.reader.head(&self.download.head)
    }

    /// Whether the client has sent its whole request.
    pub(super) fn has_whole_request(&self) -> bool {
        self.upload.state == UploadState::Complete
    }

    /// Writes the answer's head for the client. Returns whether its connection ends with the answer.
    pub(super) fn begin_answer(&mut self, hop: ClientHop, edits: &Edits<'_>) -> bool {
        let download = &mut self.download;
        let head = download.reader.head(&download.head);
        let ForwardedResponse { transfer, closes } =
            write_response(head, hop, edits, download.outgoing.own());
        download.transfer = Some(transfer);
        download.head = Vec::new();
        closes
    }

    /// Delivers the answer to its end.
    ///
    /// # Errors
    /// The answer is not complete; what is there of it was delivered, or cannot be.
    pub(super) async fn deliver(
        &mut self,
        record: &mut RequestRecord,
    ) -> Result<(), ExchangeError> {
        let mut interval = record.clock();
        let delivered = poll_fn(|context| {
            self.update_record(context, &mut interval, record);
            self.poll_deliver(context)
        })
        .await;
        self.note_bytes(record);
        delivered
    }

    /// Writes what has passed to the record.
    pub(super) fn note_bytes(&self, record: &mut RequestRecord) {
        record.note(|record| {
            record.bytes_from_client = self.upload.bytes;
            record.bytes_from_backend = self.download.bytes;
        });
    }

    fn update_record(
        &self,
        context: &mut Context<'_>,
        interval: &mut Option<Interval>,
        record: &mut RequestRecord,
    ) {
        let Some(interval) = interval else { return };
        while interval.poll(context) {
            self.note_bytes(record);
            record.note(|record| interval.update(record));
        }
    }

    /// The backend connection, where request and answer are complete.
    pub(super) fn into_ended(self) -> Option<EndedConnection> {
        let unread = self.backend.input.unread();
        let is_complete = self.upload.state == UploadState::Complete && self.download.is_complete;
        (is_complete && unread.is_empty()).then(|| EndedConnection {
            is_reusable: self.download.reader.is_reusable(unread),
            stream: self.backend.stream,
        })
    }

    /// The two ends.
    pub(super) fn into_parts(self) -> (&'c mut ClientStream, BackendStream) {
        (self.client, self.backend)
    }

    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        self.clock.tick();
        let uploaded = self.poll_upload(context);
        match self.poll_download(context) {
            Poll::Ready(done) => return Poll::Ready(done),
            Poll::Pending => ready_error(uploaded)?,
        }
        self.poll_waits(context)
    }

    fn poll_deliver(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        self.clock.tick();
        match self.poll_download(context) {
            Poll::Ready(done) => return Poll::Ready(done),
            Poll::Pending => ready_error(self.poll_upload(context))?,
        }
        self.poll_waits(context)
    }

    /// The end of an exchange that waits, if it has one.
    fn poll_waits(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        if self.upload.state != UploadState::Body {
            if self.client.poll_watch(context, self.is_upgrade).is_ready() {
                return Poll::Ready(Err(ExchangeError::ClientBroken));
            }
            if self.is_upgrade && self.client.is_finished && self.download.transfer.is_none() {
                return Poll::Ready(Err(ExchangeError::ClientFinished));
            }
        }
        self.charge.set(
            self.client.input.len()
                + self.client.stream.held_output()
                + self.backend.input.len()
                + self.backend.stream.held_output()
                + self.upload.outgoing.held()
                + self.download.outgoing.held(),
        );
        let has_answer = self.download.transfer.is_some();
        let is_half_closed = self.client.is_finished;
        let overdue = self.clock.poll_overdue(context, has_answer, is_half_closed);
        overdue.map(|overdue| Err(ExchangeError::Overdue(overdue)))
    }

    fn read_bytes(&self) -> usize {
        if self.charge.has_room() {
            READ_BYTES
        } else {
            READ_BYTES_AT_BUDGET
        }
    }
}

/// The way from the client.
impl Exchange<'_> {
    /// Moves the request on. Ready when nothing more of it is to be sent.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
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

/// The way from the backend.
impl Exchange<'_> {
    /// Moves the answer on. Ready when its head has come that is not written yet, or its end was
    /// delivered.
    fn poll_download(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
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
        let received = loop {
            if download.outgoing.is_empty() {
                break poll_flush(context, &mut client.stream);
            }
            let written =
                download
                    .outgoing
                    .poll_write(context, &mut client.stream, &mut backend.input);
            match written {
                Poll::Ready(Ok(_)) => clock.note_client_write(WriteProgress::Moved),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break (WriteProgress::Blocked, Poll::Pending),
            }
        };
        clock.note_client_write(received.0);
        received.1
    }
}

/// Brings what a stream holds to its socket.
fn poll_flush(
    context: &mut Context<'_>,
    stream: &mut MaybeTlsStream,
) -> (WriteProgress, Poll<io::Result<()>>) {
    let before = stream.held_output();
    let flushed = Pin::new(&mut *stream).poll_flush(context);
    let progress = if stream.held_output() < before {
        WriteProgress::Moved
    } else if flushed.is_pending() {
        WriteProgress::Blocked
    } else {
        WriteProgress::Done
    };
    (progress, flushed)
}

/// Takes the error of a step that is over.
fn ready_error(step: Poll<Result<(), ExchangeError>>) -> Result<(), ExchangeError> {
    match step {
        Poll::Ready(Err(error)) => Err(error),
        Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
    }
}
