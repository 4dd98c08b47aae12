//! The gate between a client's (decrypted) socket and hyper's server: lets only bytes through that
//! `wire::http` has checked.
//!
//! A refused head is replaced by a harmless stand-in request, so that the refusal is answered in
//! its turn, after the responses that are still due; nothing passes after it. The bytes behind an
//! upgrade head are held back for the session. The gate also keeps the client's timeouts: a head's,
//! the pause between two requests, a stalled write.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::gate_state::{GateRefusal, GateState};
use crate::observe::Cause;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::wire::http::{RequestValidator, StreamPhase};

/// Bytes read from the socket at once.
const READ_BYTES: usize = 8 * 1024;

/// With this much held behind an upgrade head nothing more is read before the session begins.
/// Reading goes on until then, and behind it the end of the stream is watched for, to notice a
/// client that has left: no place in the queue and no lease is kept for it.
const MAX_HELD_BYTES: usize = 8 * 1024;

/// The request that hyper sees in place of a refused head. It never leaves this process.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";

/// How long input on a closed connection is still read and discarded. A close with unread input
/// would turn into a RST, which can overtake the response (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// A stream whose end can be seen behind bytes that are left unread.
pub(super) trait ReadClosed {
    /// Ready once the peer has finished or reset, with which of the two.
    fn poll_read_closed(&self, context: &mut Context<'_>) -> Poll<io::Error>;
}

impl ReadClosed for MaybeTlsStream {
    fn poll_read_closed(&self, context: &mut Context<'_>) -> Poll<io::Error> {
        self.socket().poll_read_closed(context)
    }
}

/// Timeouts of the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientTimeouts {
    /// Deadline of the first head.
    pub first_head: Instant,
    /// From the first byte of a later head to its last.
    pub head: Duration,
    /// From a response to the first byte of the next head.
    pub keep_alive: Duration,
}

/// A client stream of which only checked bytes can be read.
#[derive(Debug)]
pub(super) struct GatedStream<T> {
    io: T,
    validator: RequestValidator,
    gate_state: Arc<GateState>,
    timeouts: ClientTimeouts,
    /// Checked bytes, and how many of them hyper has taken.
    passed: Vec<u8>,
    taken: usize,
    /// Bytes read from the socket behind an upgrade head.
    held: Vec<u8>,
    /// The deadline of what is being waited for, and what that is: a phase after so many heads.
    waiting: Option<((StreamPhase, u64), Instant)>,
    reading: Alarm,
    writing: Alarm,
    stalled_until: Option<Instant>,
    end: ReadEnd,
    lingering_until: Option<Instant>,
}

/// How far the reading side has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadEnd {
    Open,
    /// The client sent a FIN.
    Fin,
    /// The client sent nothing more for too long: closed without a response.
    Quiet,
    /// A stand-in has passed; nothing follows.
    StandIn,
    /// The body under way was refused.
    Broken,
}

impl<T> GatedStream<T> {
    pub(super) fn new(
        io: T,
        timeouts: ClientTimeouts,
        gate_state: Arc<GateState>,
    ) -> GatedStream<T> {
        GatedStream {
            io,
            validator: RequestValidator::new(),
            gate_state,
            timeouts,
            passed: Vec::new(),
            taken: 0,
            held: Vec::new(),
            waiting: None,
            reading: Alarm::default(),
            writing: Alarm::default(),
            stalled_until: None,
            end: ReadEnd::Open,
            lingering_until: None,
        }
    }

    /// The stream and what was read from it behind the upgrade head.
    pub(super) fn into_parts(self) -> (T, Vec<u8>) {
        (self.io, self.held)
    }

    /// Moves checked bytes to hyper; false when there are none.
    fn deliver(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let ready = self.passed.get(self.taken..).unwrap_or_default();
        let count = ready.len().min(buffer.remaining());
        buffer.put_slice(ready.get(..count).unwrap_or_default());
        self.taken += count;
        if self.taken == self.passed.len() {
            self.passed.clear();
            self.taken = 0;
        }
        count > 0
    }

    /// Puts bytes from the socket through the check.
    fn check(&mut self, bytes: &[u8]) {
        self.gate_state.moved();
        let taken = self.validator.feed(bytes, &mut self.passed);
        match self.validator.phase() {
            StreamPhase::Upgrade => self.held.extend(bytes.iter().skip(taken)),
            StreamPhase::Refused(refusal) if refusal.in_body() => {
                self.refuse(
                    self.validator.heads(),
                    refusal.status(),
                    Cause::Invalid,
                    refusal.to_string(),
                );
                self.end = ReadEnd::Broken;
            }
            StreamPhase::Refused(refusal) => {
                self.stand_in(refusal.status(), Cause::Invalid, refusal.to_string())
            }
            StreamPhase::Idle | StreamPhase::Head | StreamPhase::Body => {}
        }
    }

    fn stand_in(&mut self, status: u16, how: Cause, reason: String) {
        self.refuse(self.validator.heads() + 1, status, how, reason);
        self.passed.extend_from_slice(STAND_IN);
        self.end = ReadEnd::StandIn;
    }

    fn refuse(&self, ordinal: u64, status: u16, how: Cause, reason: String) {
        self.gate_state.refuse(GateRefusal {
            ordinal,
            status,
            how,
            reason,
        });
    }

    /// The outcome of a read when nothing is left to deliver; `None` while there is no end.
    fn at_end(&self, context: &Context<'_>) -> Option<Poll<io::Result<()>>> {
        match self.end {
            ReadEnd::Open => None,
            ReadEnd::Quiet => Some(Poll::Ready(Ok(()))),
            ReadEnd::StandIn => Some(Poll::Pending),
            ReadEnd::Broken => Some(Poll::Ready(Err(io::ErrorKind::InvalidData.into()))),
            ReadEnd::Fin => Some(self.at_fin(context)),
        }
    }

    /// The outcome of a read at a FIN. Between two requests it waits for the responses that are
    /// due: hyper would drop them. In a body it is passed on, and behind an upgrade, once it is
    /// that one's turn: there is no session for a client that has left.
    fn at_fin(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        let (phase, heads) = (self.validator.phase(), self.validator.heads());
        let due = match phase {
            StreamPhase::Body => 0,
            StreamPhase::Upgrade => heads.saturating_sub(1),
            _ => heads,
        };
        if !self.gate_state.all_answered(due, context.waker()) {
            self.gate_state.half_close();
            return Poll::Pending;
        }
        if phase == StreamPhase::Upgrade {
            self.gate_state.leave();
        }
        Poll::Ready(Ok(()))
    }

    /// The deadline of the present wait; `None` where it is not the gate's: in a body, and while a
    /// response is due.
    fn deadline(&mut self, context: &Context<'_>) -> Option<Instant> {
        let phase = self.validator.phase();
        let heads = self.validator.heads();
        let limit = match phase {
            StreamPhase::Idle | StreamPhase::Head if heads == 0 => {
                return Some(self.timeouts.first_head);
            }
            StreamPhase::Head => self.timeouts.head,
            StreamPhase::Idle if self.gate_state.all_answered(heads, context.waker()) => {
                self.timeouts.keep_alive
            }
            _ => {
                self.waiting = None;
                return None;
            }
        };
        match self.waiting {
            Some((waited_for, deadline)) if waited_for == (phase, heads) => Some(deadline),
            _ => {
                let deadline = Instant::now() + limit;
                self.waiting = Some(((phase, heads), deadline));
                Some(deadline)
            }
        }
    }

    /// Whether the present wait has lasted too long; the reading side is then at its end.
    fn waited_too_long(&mut self, context: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline(context) else {
            return false;
        };
        if !self.reading.rang(deadline, context) {
            return false;
        }
        match self.validator.phase() {
            StreamPhase::Head => self.stand_in(
                408,
                Cause::Timeout,
                "head was not complete in time".to_owned(),
            ),
            _ => {
                self.gate_state.give_up();
                self.end = ReadEnd::Quiet;
            }
        }
        true
    }

    /// As [`GatedStream::watch`]; written bytes count as bytes that moved.
    fn watch_write(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if matches!(poll, Poll::Ready(Ok(1..))) {
            self.gate_state.moved();
        }
        self.watch(context, poll)
    }

    /// Gives up a write that moves nothing for the stall timeout.
    fn watch<R>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if poll.is_ready() {
            self.stalled_until = None;
            return poll;
        }
        let timeout = self.gate_state.stall_timeout();
        let deadline = *self
            .stalled_until
            .get_or_insert_with(|| Instant::now() + timeout);
        if self.writing.rang(deadline, context) {
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        } else {
            Poll::Pending
        }
    }
}

impl<T: AsyncRead + Unpin> GatedStream<T> {
    /// Reads the socket once; `Ready` when something has changed.
    fn poll_socket(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
        match buffer.filled() {
            [] => self.end = ReadEnd::Fin,
            filled => self.check(filled),
        }
        Poll::Ready(Ok(()))
    }

    /// Discards what still comes, until the client closes too.
    fn poll_linger(&mut self, context: &mut Context<'_>, until: Instant) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut self.io).poll_read(context, &mut buffer);
            if self.reading.rang(until, context) {
                return Poll::Ready(Ok(()));
            }
            match ready!(read) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<T: AsyncRead + ReadClosed + Unpin> AsyncRead for GatedStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            if gate.deliver(buffer) {
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = gate.at_end(context) {
                return end;
            }
            if gate.held.len() >= MAX_HELD_BYTES {
                let error = ready!(gate.io.poll_read_closed(context));
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    return Poll::Ready(Err(error));
                }
                gate.end = ReadEnd::Fin;
                continue;
            }
            match gate.poll_socket(context) {
                Poll::Ready(read) => read?,
                Poll::Pending if gate.waited_too_long(context) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GatedStream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let poll = Pin::new(&mut gate.io).poll_write(context, bytes);
        gate.watch_write(context, poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let poll = Pin::new(&mut gate.io).poll_write_vectored(context, slices);
        gate.watch_write(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        let poll = Pin::new(&mut gate.io).poll_flush(context);
        gate.watch(context, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        if let Some(until) = gate.lingering_until {
            return gate.poll_linger(context, until);
        }
        let poll = Pin::new(&mut gate.io).poll_shutdown(context);
        ready!(gate.watch(context, poll))?;
        if matches!(gate.end, ReadEnd::Fin | ReadEnd::Quiet) {
            return Poll::Ready(Ok(()));
        }
        let until = Instant::now() + LINGER;
        gate.lingering_until = Some(until);
        gate.poll_linger(context, until)
    }
}

/// A timer that is set again and again.
#[derive(Debug, Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Whether `deadline` has passed; otherwise the task is woken then.
    fn rang(&mut self, deadline: Instant, context: &mut Context<'_>) -> bool {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(context).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use http_body_util::{BodyExt, Empty};
    use hyper::body::{Bytes, Incoming};
    use hyper::server::conn::http1::Builder;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    impl ReadClosed for tokio::io::DuplexStream {
        fn poll_read_closed(&self, _context: &mut Context<'_>) -> Poll<io::Error> {
            Poll::Pending
        }
    }

    /// Every body that hyper's server makes of `stream` behind the gate, in order; one that breaks
    /// off is `None`.
    async fn served(stream: Vec<u8>, piece: usize) -> Vec<Option<Vec<u8>>> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let hour = Duration::from_secs(3600);
        let gate_state = Arc::new(GateState::new(hour));
        let times = ClientTimeouts {
            first_head: Instant::now() + hour,
            head: hour,
            keep_alive: hour,
        };
        let gate = GatedStream::new(server, times, Arc::clone(&gate_state));
        let bodies = Mutex::new(Vec::new());
        let calls = std::sync::atomic::AtomicU64::new(0);
        let service = service_fn(|request: Request<Incoming>| {
            let ordinal = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            let (gate_state, bodies) = (&gate_state, &bodies);
            async move {
                if request
                    .headers()
                    .get("host")
                    .is_none_or(|host| host != "refused")
                {
                    let body = request.into_body().collect().await;
                    let body = body.ok().map(|body| body.to_bytes().to_vec());
                    bodies.lock().unwrap().push(body);
                }
                let mut response = Response::new(Empty::<Bytes>::new());
                if gate_state.refused(ordinal).is_some() {
                    response
                        .headers_mut()
                        .insert("connection", "close".parse().unwrap());
                }
                gate_state.answered_one();
                Ok::<_, Infallible>(response)
            }
        });
        let connection = Builder::new().serve_connection(TokioIo::new(gate), service);
        let talk = async {
            for piece in stream.chunks(piece) {
                if client.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let _ = tokio::join!(connection, talk);
        bodies.into_inner().unwrap()
    }

    /// The number of heads that `wire`'s validator alone passes.
    fn heads(stream: &[u8]) -> u64 {
        let mut wire = RequestValidator::new();
        wire.feed(stream, &mut Vec::new());
        wire.heads()
    }

    fn any_stream() -> impl Strategy<Value = (Vec<u8>, Vec<Vec<u8>>)> {
        let body = prop::collection::vec(any::<u8>(), 0..60);
        let request = (body, any::<bool>(), 1usize..30).prop_map(|(body, chunked, size)| {
            let mut bytes = b"POST /a HTTP/1.1\r\nHost: a\r\nX: y\r\n".to_vec();
            if chunked {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(size) {
                    bytes.extend(format!("{:x};e=1\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\nT: v\r\n\r\n");
            } else {
                bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                bytes.extend(&body);
            }
            (bytes, body)
        });
        prop::collection::vec(request, 1..5).prop_map(|requests| {
            let (streams, bodies): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
            (streams.concat(), bodies)
        })
    }

    fn run<F: Future>(future: F) -> F::Output {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn hyper_sees_the_requests_that_were_sent((stream, bodies) in any_stream(), piece in 1usize..200) {
            let expected: Vec<_> = bodies.into_iter().map(Some).collect();
            prop_assert_eq!(run(served(stream, piece)), expected);
        }

        #[test]
        fn hyper_never_sees_another_number_of_requests_than_the_gate(
            (mut stream, _) in any_stream(),
            index in any::<prop::sample::Index>(),
            byte in prop_oneof![any::<u8>(), prop::sample::select(b"\r\n :;,0123abcXT".to_vec())],
            piece in 1usize..200,
        ) {
            let index = index.index(stream.len());
            stream[index] = byte;
            let heads = heads(&stream);
            // An HTTP/1.0 connection ends with its first answer: what comes behind is not read.
            let ends_early = stream.windows(8).any(|window| window == b"HTTP/1.0");
            let seen = run(served(stream, piece)).len() as u64;
            prop_assert!(seen == heads || (ends_early && seen < heads), "{seen} of {heads}");
        }
    }
}
