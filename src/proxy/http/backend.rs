//! One HTTP/1 connection to a backend, for one request, driven by a task of its own: a backend that
//! stalls in one direction must not stall the other. It is never used again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Parts, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

use super::gate_state::GateState;
use super::upload_wait::UploadWait;
use crate::config;
use crate::net::{HeaderCaseStream, HeaderNames};
use crate::observe::Cause;
use crate::pool::Lease;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::proxy::connect::repeat::Contact;
use crate::wire::field_names::{HANDSHAKE_HEADERS, HOP_HEADERS};

/// hyper's buffer for one direction of one connection; a backend's head may be as large as this.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// The task that moves a backend connection's bytes. It gives the stream back when the connection
/// has become a tunnel.
pub(super) type Driver = AbortOnDropHandle<Option<Parts<TokioIo<MonitoredStream>>>>;

/// A backend connection that waits for its request.
pub(super) struct BackendConnection {
    pub sender: SendRequest<RequestBody>,
    pub driver: Driver,
    pub contact: Arc<Contact>,
    /// The connection was given up because no byte moved for the pool's `idle_timeout`.
    pub stalled: Arc<AtomicBool>,
}

/// Header names that are spelled as servers look for them.
pub(super) type Spelling = &'static [&'static [&'static str]];

/// Spelling for a client's request: only names that we set; the rest has the client's spelling.
pub(super) const OURS: Spelling = &[HOP_HEADERS];
/// Spelling for a handshake that was kept without the client's.
pub(super) const KEPT: Spelling = &[HOP_HEADERS, HANDSHAKE_HEADERS];

/// An exchange of a request and a response with a backend.
pub(super) struct Exchange {
    pub connection: BackendConnection,
    pub lease: Lease,
    /// Bytes of the request's body given to the backend connection.
    pub sent: Arc<AtomicU64>,
}

/// Makes a connected stream one that speaks HTTP/1.
///
/// # Errors
/// hyper's; nothing was sent.
pub(super) async fn open(
    stream: MaybeTlsStream,
    gate_state: &Arc<GateState>,
    pool: &config::Pool,
    names: Spelling,
) -> hyper::Result<BackendConnection> {
    gate_state.moved();
    let contact = Arc::new(Contact::default());
    let stalled = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(MonitoredStream {
        stream: HeaderCaseStream::new(stream, names, HeaderNames::default()),
        contact: Arc::clone(&contact),
    });
    let mut builder = Builder::new();
    builder
        .preserve_header_case(true)
        .title_case_headers(true)
        .max_buf_size(MAX_BUFFER_BYTES);
    let (sender, connection) = builder.handshake::<_, RequestBody>(io).await?;
    let (gate_state, gave_up) = (Arc::clone(gate_state), Arc::clone(&stalled));
    let (idle, fin) = (pool.idle_timeout, pool.fin_timeout);
    let driver = tokio::spawn(async move {
        // Neither branch loses anything: a stall ends the connection, and so does its end.
        tokio::select! {
            ended = connection.without_shutdown() => ended.ok(),
            () = gate_state.stalled(idle, fin) => {
                gave_up.store(true, Ordering::Relaxed);
                None
            }
        }
    });
    Ok(BackendConnection {
        sender,
        driver: AbortOnDropHandle::new(driver),
        contact,
        stalled,
    })
}

/// A client's body on its way to the backend; trailers end at this hop.
pub(super) struct RequestBody {
    body: Option<Incoming>,
    gate_state: Arc<GateState>,
    sent: Arc<AtomicU64>,
    broken: Arc<AtomicBool>,
    wait: Arc<UploadWait>,
}

impl RequestBody {
    pub(super) fn new(body: Option<Incoming>, gate_state: &Arc<GateState>) -> RequestBody {
        RequestBody {
            body,
            gate_state: Arc::clone(gate_state),
            sent: Arc::default(),
            broken: Arc::default(),
            wait: Arc::new(UploadWait::new()),
        }
    }

    /// Bytes given to the backend connection.
    pub(super) fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// Becomes true when the client does not finish its body.
    pub(super) fn broken(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.broken)
    }

    /// The side that the request waits for.
    pub(super) fn wait(&self) -> Arc<UploadWait> {
        Arc::clone(&self.wait)
    }

    fn passed(&self, frame: &Frame<Bytes>) {
        self.gate_state.moved();
        self.wait.for_backend();
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.sent.fetch_add(length, Ordering::Relaxed);
    }

    fn over<T>(&self) -> Poll<Option<T>> {
        self.wait.for_backend();
        Poll::Ready(None)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let upload = self.get_mut();
        let Some(body) = &mut upload.body else {
            return Poll::Ready(None);
        };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => upload.over(),
            Poll::Ready(Some(Ok(frame))) => {
                upload.passed(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                upload.broken.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => upload.over(),
            Poll::Pending => {
                upload.wait.for_client();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A backend stream that notes what has passed on it.
pub(super) struct MonitoredStream {
    stream: HeaderCaseStream<MaybeTlsStream>,
    contact: Arc<Contact>,
}

impl MonitoredStream {
    pub(super) fn into_inner(self) -> MaybeTlsStream {
        self.stream.into_inner()
    }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        let has_bytes = buffer.filled().len() > before;
        self.contact.note_read(&poll, has_bytes);
        poll
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.contact.note_write(&poll);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.contact.note_write(&poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The cause for which a backend failed to answer.
pub(super) fn cause_of(error: &hyper::Error) -> Cause {
    if error.is_parse() {
        Cause::Invalid
    } else {
        Cause::Rst
    }
}
