//! One request and its answer, between a client and a backend: heads go through as `wire::http`
//! writes them, bodies as they come. Both bodies go at the pace of whoever takes them, at the same
//! time.

mod download;
mod upload;

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
use super::input_buffer::InputBuffer;
use super::interval::Interval;
use super::outgoing::Outgoing;
use super::request_record::RequestRecord;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::relay::Relay;
use crate::wire::http::{
    Asked, BodyTransfer, ClientHop, Edits, ForwardedResponse, HeadLimits, HttpVersion,
    RequestError, ResponseError, ResponseHead, ResponseReader, write_response,
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
    /// The backend has said that it takes one.
    pub is_offered: bool,
}

/// The request on its way to the backend.
struct Upload {
    outgoing: Outgoing,
    state: UploadState,
    /// Bytes of the body's data.
    bytes: u64,
}

impl Upload {
    /// Drops what is ready to be sent: the client's reader has looked at it already.
    fn give_up(&mut self, input: &mut InputBuffer) {
        input.consume(self.outgoing.passing());
        self.outgoing.clear();
    }
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
    /// The head offers to take another request on the connection.
    is_offered: bool,
    bytes: u64,
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
        // Behind an attempt that got no answer all of it may have been looked at already.
        let is_whole = is_upgrade || client.reader.awaits_head();
        let mut outgoing = Outgoing::default();
        *outgoing.own() = request.head;
        Exchange {
            client,
            backend,
            upload: Upload {
                outgoing,
                state: if is_whole {
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
                is_offered: false,
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

    /// Whether the client has sent its whole request, and the backend was given it.
    pub(super) fn has_whole_request(&self) -> bool {
        self.upload.state == UploadState::Complete && self.upload.outgoing.is_empty()
    }

    /// Writes the answer's head for the client. Returns whether its connection ends with the
    /// answer.
    pub(super) fn begin_answer(&mut self, hop: ClientHop, edits: &Edits<'_>) -> bool {
        let download = &mut self.download;
        let head = download.reader.head(&download.head);
        let ForwardedResponse { transfer, closes } =
            write_response(head, hop, edits, download.outgoing.own());
        download.is_offered = head.connection().offers_more();
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
        let is_complete = self.has_whole_request() && self.download.is_complete;
        (is_complete && unread.is_empty()).then(|| EndedConnection {
            is_reusable: self.download.reader.is_reusable(unread),
            is_offered: self.download.is_offered,
            stream: self.backend.stream,
        })
    }

    /// The two ends.
    pub(super) fn into_parts(mut self) -> (&'c mut ClientStream, BackendStream) {
        self.upload.give_up(&mut self.client.input);
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
        loop {
            let is_half_closed = self.client.is_finished;
            let overdue = self.clock.poll_overdue(context, has_answer, is_half_closed);
            if let Some(overdue) = ready!(overdue) {
                return Poll::Ready(Err(ExchangeError::Overdue(overdue)));
            }
            if self.client.has_reset() {
                return Poll::Ready(Err(ExchangeError::ClientBroken));
            }
        }
    }

    fn read_bytes(&self) -> usize {
        if self.charge.has_room() {
            READ_BYTES
        } else {
            READ_BYTES_AT_BUDGET
        }
    }
}

/// Writes `outgoing`, with bytes of `source`, and brings it to the socket. Notes for the clock what
/// has become of it: a slow peer that takes a little makes progress.
fn poll_deliver(
    context: &mut Context<'_>,
    outgoing: &mut Outgoing,
    stream: &mut MaybeTlsStream,
    source: &mut InputBuffer,
) -> (WriteProgress, Poll<io::Result<usize>>) {
    let before = stream.held_output();
    let mut written = 0;
    let outcome = loop {
        if outgoing.is_empty() {
            break Pin::new(&mut *stream)
                .poll_flush(context)
                .map_ok(|()| written);
        }
        match outgoing.poll_write(context, stream, source) {
            Poll::Ready(Ok(count)) => written += count,
            other => break other,
        }
    };
    let progress = match &outcome {
        Poll::Pending if written > 0 || stream.held_output() < before => {
            WriteProgress::MovedAndBlocked
        }
        Poll::Pending => WriteProgress::Blocked,
        Poll::Ready(_) if written > 0 || before > 0 => WriteProgress::Moved,
        Poll::Ready(_) => WriteProgress::Done,
    };
    (progress, outcome)
}

/// Takes the error of a step that is over.
fn ready_error(step: Poll<Result<(), ExchangeError>>) -> Result<(), ExchangeError> {
    match step {
        Poll::Ready(Err(error)) => Err(error),
        Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
    }
}
