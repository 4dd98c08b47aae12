//! A TLS connection during set-up: a handshake by rustls' unbuffered connection, then our own
//! record layer ([`super::record`]) behind `AsyncRead` and `AsyncWrite`, so that the relay can take
//! over between any two records.
//!
//! rustls is fed one record at a time and dropped at the peer's Finished. The session that the
//! relay goes on with opens what a peer sends right behind it (data, a ticket, a key update). A
//! buffered connection would keep such bytes inside.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::handshake::{
    CompletedHandshake, Handshake, HandshakeSide, HandshakeStep, NegotiatedTls,
};
use super::identity::ClientIdentity;
use super::record::{MAX_CONTROL_BYTES, PeerStatus, TlsSession};
use crate::config::TlsVersion;

/// Read from the socket at once: a request head or a few messages. Bulk is the relay's.
const READ_BYTES: usize = 8 * 1024;
/// Plaintext taken by one write.
const WRITE_BYTES: usize = 32 * 1024;
/// Ciphertext behind which a write waits for the socket.
const MAX_OUTPUT_BYTES: usize = 32 * 1024;

/// An established TLS connection, as client or server.
pub struct TlsStream<IO> {
    io: IO,
    session: TlsSession,
    /// Plaintext not read yet; no memory otherwise.
    plain: PendingBytes,
    /// Ciphertext that is not written yet: after the handshake the tickets, which go out with the
    /// first write.
    output: PendingBytes,
    negotiated: NegotiatedTls,
}

/// The state that the relay goes on with.
pub struct TlsStreamParts<IO> {
    pub io: IO,
    pub session: TlsSession,
    /// Plaintext of the peer that was not read.
    pub plain: Vec<u8>,
    /// Ciphertext to be written before anything that the session seals. Empty after a flush.
    pub output: Vec<u8>,
}

/// Makes the handshake on `io`.
#[cfg(any(test, fuzzing))]
pub(crate) async fn accept<IO>(io: IO, config: Arc<ServerConfig>) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    accept_with_prefix(io, Vec::new(), config, |_| {}).await
}

/// Makes the handshake on `io`, after `read` was read from the client. The caller sets the
/// deadline, by dropping the future.
///
/// `on_start` is called after `read` was processed, with whether a session is resumed. Behind a
/// whole ClientHello that is final, unless the client has to send another one.
///
/// # Errors
/// `UnexpectedEof`: the client closed; `InvalidData`: rustls refused it (and its alert was sent) or
/// it exceeds a bound. Others are the socket's.
pub(crate) async fn accept_with_prefix<IO>(
    io: IO,
    read: Vec<u8>,
    config: Arc<ServerConfig>,
    on_start: impl FnOnce(bool),
) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake = Handshake::server(config)?;
    handshake.input().extend_from_slice(&read);
    drop(read);
    run_handshake(io, handshake, on_start).await
}

/// Makes a client's handshake on `io` with a server of this name. The caller sets the deadline, by
/// dropping the future.
///
/// # Errors
/// `UnexpectedEof`: the server closed; `InvalidData`: it is not TLS, or rustls refused it (and its
/// alert was sent), or it exceeds a bound. Others are the socket's.
pub(crate) async fn connect<IO>(
    io: IO,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    run_handshake(io, Handshake::client(config, name)?, |_| {}).await
}

/// Runs a handshake; calls `on_start` after the first step.
async fn run_handshake<IO, E>(
    mut io: IO,
    mut handshake: Handshake<E>,
    on_start: impl FnOnce(bool),
) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    E: HandshakeSide,
{
    let mut on_start = Some(on_start);
    loop {
        let step = handshake.advance();
        if let Some(on_start) = on_start.take() {
            on_start(handshake.is_resumed());
        }
        let is_last = matches!(step, Ok(HandshakeStep::Done));
        if (!is_last || E::SENDS_LAST_FLIGHT) && !handshake.output.is_empty() {
            let sent = send(&mut io, &handshake.output).await;
            // An alert need not reach a peer that is gone.
            if step.is_ok() {
                sent?;
            }
            handshake.output.clear();
        }
        match step? {
            HandshakeStep::Done => return Ok(TlsStream::established(io, handshake.finish()?)),
            HandshakeStep::NeedInput => {}
        }
        if io.read_buf(handshake.input()).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn send<IO: AsyncWrite + Unpin>(io: &mut IO, bytes: &[u8]) -> io::Result<()> {
    io.write_all(bytes).await?;
    io.flush().await
}

impl<IO> TlsStream<IO> {
    fn established(io: IO, done: CompletedHandshake) -> Self {
        let mut stream = Self {
            io,
            session: done.session,
            plain: PendingBytes::default(),
            output: PendingBytes::new(done.output),
            negotiated: done.result,
        };
        stream.decrypt(&done.residue);
        stream
    }

    /// The name that the client asked for, in lower case; only of an accepted connection.
    pub fn server_name(&self) -> Option<&str> {
        self.negotiated.server_name.as_deref()
    }

    pub fn tls_version(&self) -> TlsVersion {
        self.session.version()
    }

    /// The protocol agreed on.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.negotiated.alpn_protocol.as_deref()
    }

    /// The cipher suite, by its number in IANA's registry.
    pub fn cipher(&self) -> u16 {
        self.negotiated.cipher
    }

    /// Whether a ticket resumed an earlier session.
    pub fn resumed(&self) -> bool {
        self.negotiated.is_resumed
    }

    /// Takes the identity of a client that has shown a certificate.
    pub fn take_identity(&mut self) -> Option<ClientIdentity> {
        self.negotiated.identity.take()
    }

    /// Ciphertext that waits for the socket.
    pub fn held_output(&self) -> usize {
        self.output.rest().len()
    }

    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// Takes the stream apart, for the relay. After a flush `output` is empty.
    pub fn into_parts(mut self) -> TlsStreamParts<IO> {
        self.queue_control();
        TlsStreamParts {
            io: self.io,
            session: self.session,
            plain: self.plain.into_rest(),
            output: self.output.into_rest(),
        }
    }

    /// Decrypts ciphertext. Only while no plaintext is pending.
    fn decrypt(&mut self, ciphertext: &[u8]) {
        let mut plain = vec![0; ciphertext.len() + self.session.buffered()];
        let opened = self.session.open(ciphertext, &mut plain);
        plain.truncate(opened.filled);
        plain.shrink_to_fit();
        self.plain = PendingBytes::new(plain);
        self.queue_control();
    }

    /// Appends the session's control records to the output.
    fn queue_control(&mut self) {
        if self.session.has_control() {
            let session = &mut self.session;
            self.output
                .append(MAX_CONTROL_BYTES, |out| (session.take_control(out), ()));
        }
    }

    /// Result of a read when no plaintext is left; `None`: more may come.
    fn read_end(&self) -> Option<io::Result<()>> {
        match self.session.status() {
            PeerStatus::Open => None,
            PeerStatus::Closed => Some(Ok(())),
            PeerStatus::Failed(fault) => {
                Some(Err(io::Error::new(io::ErrorKind::InvalidData, fault)))
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> TlsStream<IO> {
    /// Writes output until none is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.rest().is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, self.output.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals up to [`WRITE_BYTES`] behind the output.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        let session = &mut self.session;
        let sealed = self
            .output
            .append(TlsSession::sealed_bound(bytes.len()), |out| {
                match session.seal(bytes, out) {
                    Ok(sealed) => (sealed.written, Ok(sealed.taken)),
                    Err(error) => (0, Err(error)),
                }
            });
        match sealed {
            Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::BrokenPipe.into()),
            Ok(taken) => Ok(taken),
            Err(error) => Err(io::Error::new(io::ErrorKind::BrokenPipe, error)),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.plain.rest().is_empty() {
            if let Some(end) = this.read_end() {
                // Sends the alert, if the socket takes it; an error of that matters less.
                let _ = this.poll_drain(cx);
                return Poll::Ready(end);
            }
            let mut chunk = [MaybeUninit::uninit(); READ_BYTES];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut this.io).poll_read(cx, &mut chunk) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    // The peer may be waiting for pending output.
                    if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
                        return Poll::Ready(Err(error));
                    }
                    return Poll::Pending;
                }
            }
            if chunk.filled().is_empty() {
                // Without close_notify: the data may be truncated.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.decrypt(chunk.filled());
        }
        let rest = this.plain.rest();
        let (now, _) = rest.split_at(rest.len().min(buf.remaining()));
        buf.put_slice(now);
        let taken = now.len();
        this.plain.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.output.rest().len() > MAX_OUTPUT_BYTES {
            ready!(this.poll_drain(cx))?;
        }
        let mut taken = 0;
        // An empty one would become a record without data.
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            let sealed = this.seal(slice)?;
            taken += sealed;
            if sealed < slice.len() || this.output.rest().len() > MAX_OUTPUT_BYTES {
                break;
            }
        }
        // Output that the socket does not take now goes out with the next write or flush.
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.close();
        this.queue_control();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// Bytes that are consumed from the front; the memory is freed with the last.
#[derive(Default)]
struct PendingBytes {
    bytes: Vec<u8>,
    taken: usize,
}

impl PendingBytes {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, taken: 0 }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= self.bytes.len() {
            *self = Self::default();
        }
    }

    /// Lets `fill` write up to `room` bytes behind the others; it returns how many, and a value for
    /// the caller.
    fn append<T>(&mut self, room: usize, fill: impl FnOnce(&mut [u8]) -> (usize, T)) -> T {
        let end = self.bytes.len();
        self.bytes.resize(end + room, 0);
        let (written, answer) = fill(self.bytes.get_mut(end..).unwrap_or_default());
        self.bytes.truncate(end + written);
        answer
    }

    fn into_rest(mut self) -> Vec<u8> {
        self.bytes.drain(..self.taken.min(self.bytes.len()));
        self.bytes
    }
}

#[cfg(test)]
mod tests;
