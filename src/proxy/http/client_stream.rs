//! A client's stream of requests: their heads, within the client's timeouts, and the close behind
//! the last answer.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::input_buffer::InputBuffer;
use crate::net::{Stream, options};
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::wire::http::{
    Event, HeadLimits, ParsedRequest, RequestError, RequestHead, RequestReader,
};

/// Bytes of heads read at once.
const READ_BYTES: usize = 8 * 1024;

/// With this much read behind a request nothing more is read before its answer; then only the end
/// of the stream is watched for, to notice a client that has left: no place in a queue and no
/// lease is kept for it.
const MAX_EARLY_BYTES: usize = 8 * 1024;

/// How long input on a closed connection is still read and discarded. A close with unread input
/// would turn into a RST, which can overtake the answer (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// How long a truncated answer may take to be delivered before the reset.
const DELIVER_TIMEOUT: Duration = Duration::from_secs(2);
/// The kernel has no event for a send queue that has emptied.
const DELIVER_INTERVAL: Duration = Duration::from_millis(20);

/// Timeouts of a client between its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientTimeouts {
    /// Deadline of the first head.
    pub first_head: Instant,
    /// From the first byte of a later head to its last.
    pub head: Duration,
    /// From an answer to the first byte of the next head.
    pub keep_alive: Duration,
}

/// A client's stream and what was read of it.
pub(in crate::proxy) struct ClientStream {
    pub(super) stream: MaybeTlsStream,
    pub(super) input: InputBuffer,
    pub(super) reader: RequestReader,
    timeouts: ClientTimeouts,
    /// Requests whose heads were complete.
    heads: u64,
    /// Bytes have come.
    pub(super) has_sent: bool,
    /// The client has sent a FIN, and all before it was read.
    pub(super) is_finished: bool,
    /// The client is known to have sent a FIN, perhaps behind bytes that are not read.
    pub(super) is_ending: bool,
}

/// The head of a request.
pub(super) struct Request {
    head: Vec<u8>,
    parsed: ParsedRequest,
    /// It came before the answer to the one before.
    pub is_pipelined: bool,
}

impl Request {
    pub(super) fn new(head: Vec<u8>, parsed: ParsedRequest) -> Request {
        Request {
            head,
            parsed,
            is_pipelined: false,
        }
    }

    pub(super) fn view(&self) -> RequestHead<'_> {
        self.parsed.view(&self.head)
    }
}

/// Reason for which there is no further request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The head breaks a rule; it is answered.
    Refused(RequestError),
    /// The head was not complete in time; it is answered.
    Slow,
    /// Nothing was sent for too long: closed without an answer.
    Quiet,
    /// The client has finished.
    Finished,
    /// The client has broken off: in a head, or by a reset.
    Broken,
}

impl ClientStream {
    pub(super) fn new(
        stream: MaybeTlsStream,
        limits: HeadLimits,
        timeouts: ClientTimeouts,
    ) -> ClientStream {
        ClientStream {
            stream,
            input: InputBuffer::default(),
            reader: RequestReader::new(limits),
            timeouts,
            heads: 0,
            has_sent: false,
            is_finished: false,
            is_ending: false,
        }
    }

    /// As [`ClientStream::new`], with bytes that were read before.
    pub(super) fn going_on(
        stream: MaybeTlsStream,
        read: Vec<u8>,
        limits: HeadLimits,
        timeouts: ClientTimeouts,
    ) -> ClientStream {
        ClientStream {
            has_sent: !read.is_empty(),
            input: InputBuffer::of(read),
            ..ClientStream::new(stream, limits, timeouts)
        }
    }

    /// Whether nothing of a further request has come.
    pub(super) fn is_idle(&self) -> bool {
        self.reader.is_idle(self.input.unread())
    }

    /// Reads the head of the next request. The one before was read to its end.
    ///
    /// # Errors
    /// There is no further request.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped; a timeout begins anew.
    pub(super) async fn next_request(&mut self) -> Result<Request, NoRequest> {
        let mut deadline = self.first_deadline();
        let is_pipelined = !self.input.is_empty();
        let mut was_idle = self.is_idle();
        loop {
            match self.reader.next(self.input.unread()) {
                Err(error) => return Err(NoRequest::Refused(error)),
                Ok(Some(Event::Head(length))) => {
                    self.heads += 1;
                    return Ok(Request {
                        head: self.input.take(length),
                        parsed: self.reader.take_parsed(),
                        is_pipelined,
                    });
                }
                Ok(Some(event)) => {
                    self.input.consume(event.taken());
                    continue;
                }
                Ok(None) => {}
            }
            let is_idle = self.is_idle();
            if was_idle && !is_idle && self.heads > 0 {
                deadline = Instant::now() + self.timeouts.head;
            }
            was_idle = is_idle;
            self.read_before(deadline, is_idle).await?;
        }
    }

    fn first_deadline(&self) -> Instant {
        if self.heads == 0 {
            return self.timeouts.first_head;
        }
        let limit = if self.is_idle() {
            self.timeouts.keep_alive
        } else {
            self.timeouts.head
        };
        Instant::now() + limit
    }

    async fn read_before(&mut self, deadline: Instant, is_idle: bool) -> Result<(), NoRequest> {
        if self.is_finished {
            return Err(ended(is_idle));
        }
        match timeout_at(
            deadline,
            poll_fn(|context| self.poll_read(context, READ_BYTES)),
        )
        .await
        {
            Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0)) => Err(ended(is_idle)),
            Ok(Err(_)) => Err(NoRequest::Broken),
            Err(_) if is_idle => Err(NoRequest::Quiet),
            Err(_) => Err(NoRequest::Slow),
        }
    }

    /// Reads once, at most `most` bytes; 0 is the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let read = ready!(self.input.poll_read(context, &mut self.stream, most))?;
        self.has_sent |= read > 0;
        self.is_finished |= read == 0;
        Poll::Ready(Ok(read))
    }

    /// Watches a client that waits for its answer: pending until it resets. Bytes that come
    /// meanwhile are kept, a FIN is noted. Of a client that is not read on here (`is_final`) the
    /// end is seen behind any number of bytes, of another one behind as many as are kept.
    pub(super) fn poll_watch(
        &mut self,
        context: &mut Context<'_>,
        is_final: bool,
    ) -> Poll<io::Error> {
        while !self.is_finished {
            if self.input.len() < MAX_EARLY_BYTES {
                if let Err(error) = ready!(self.poll_read(context, READ_BYTES)) {
                    return Poll::Ready(error);
                }
                continue;
            }
            if !is_final {
                return Poll::Pending;
            }
            // Nothing that has come is reported again after this.
            let error = ready!(self.stream.socket().poll_read_closed(context));
            if error.kind() != io::ErrorKind::UnexpectedEof {
                return Poll::Ready(error);
            }
            self.is_finished = true;
        }
        Poll::Pending
    }

    /// Waits until a client that waits for its answer has left: by a reset, or, where `is_final`,
    /// by a FIN. Returns whether by a FIN.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn departed(&mut self, is_final: bool) -> bool {
        poll_fn(|context| match self.poll_watch(context, is_final) {
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending if is_final && (self.is_finished || self.is_ending) => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Discards what has come of the present request's body. Returns whether it is complete.
    pub(super) fn skip_body(&mut self) -> bool {
        while !self.reader.awaits_head() {
            match self.reader.next(self.input.unread()) {
                Ok(Some(event)) => self.input.consume(event.taken()),
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    /// Whether the client has reset. Bytes that are unread stay so.
    pub(super) fn has_reset(&self) -> bool {
        let closed = self.stream.socket().read_closed().now_or_never();
        closed.is_some_and(|error| error.kind() != io::ErrorKind::UnexpectedEof)
    }

    /// Writes all of `bytes`, within `limit`.
    ///
    /// # Errors
    /// The stream's; `TimedOut`.
    pub(super) async fn send(&mut self, bytes: &[u8], limit: Duration) -> io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(limit, sending).await {
            Ok(sent) => sent,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Ends our side. Returns whether the client was told.
    pub(super) async fn shut_down(&mut self) -> bool {
        let closing = poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context));
        matches!(timeout(LINGER, closing).await, Ok(Ok(())))
    }

    /// Closes behind the last answer. What still comes is discarded, for a while.
    pub(super) async fn close(&mut self) {
        if !self.shut_down().await || self.is_finished {
            return;
        }
        let discarding = poll_fn(|context| {
            loop {
                self.input.consume(usize::MAX);
                match ready!(self.poll_read(context, READ_BYTES)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(()),
                }
            }
        });
        let _ = timeout(LINGER, discarding).await;
    }

    /// Resets a connection whose answer has no end, so that it cannot look complete. What was sent
    /// of it is delivered before.
    pub(super) async fn cut_off(&mut self) {
        let until = Instant::now() + DELIVER_TIMEOUT;
        let _ = timeout(DELIVER_TIMEOUT, self.stream.flush()).await;
        while self.queued_bytes() > 0 && Instant::now() < until {
            tokio::time::sleep(DELIVER_INTERVAL).await;
        }
        self.stream.reset_on_close();
    }

    fn queued_bytes(&self) -> usize {
        match self.stream.socket() {
            Stream::Tcp(stream) => options::unacknowledged_bytes(stream.as_fd()),
            Stream::Unix(_) => 0,
        }
    }
}

/// The end of a stream at which a client has finished.
fn ended(is_idle: bool) -> NoRequest {
    if is_idle {
        NoRequest::Finished
    } else {
        NoRequest::Broken
    }
}
