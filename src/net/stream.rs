//! A connected stream during set-up, TCP or unix, that can leave tokio.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

use super::Peer;

/// A connected socket, registered with the tokio runtime it was made on.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Registers a non-blocking socket with the present tokio runtime.
    pub(crate) fn from_owned_fd(socket: OwnedFd, peer: Peer) -> io::Result<Self> {
        Ok(match peer {
            Peer::V4(..) | Peer::V6(..) => Self::Tcp(TcpStream::from_std(socket.into())?),
            Peer::Unix => Self::Unix(UnixStream::from_std(socket.into())?),
        })
    }

    /// Takes the socket out of tokio: it stays non-blocking and may be registered elsewhere.
    pub(crate) fn into_owned_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp(stream) => stream.into_std()?.into(),
            Self::Unix(stream) => stream.into_std()?.into(),
        })
    }

    /// The address that the peer connected to; `None` for a unix socket.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Makes the coming close a RST (a plain close on a unix socket).
    pub(crate) fn reset_on_close(&self) {
        use std::os::fd::AsFd;
        if let Self::Tcp(stream) = self {
            super::options::reset_on_close(stream.as_fd());
        }
    }

    /// Waits until the peer has sent a FIN or a RST, and returns which; reads nothing. Uses epoll's
    /// RDHUP: no timer and no system call before it comes.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn read_closed(&self) -> io::Error {
        // PRIORITY itself is not of interest: tokio reports the end of the reading side with it.
        let closed = match self {
            Self::Tcp(stream) => stream.ready(Interest::PRIORITY).await,
            Self::Unix(stream) => stream.ready(Interest::PRIORITY).await,
        };
        let error = closed.and_then(|_| match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        });
        match error {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => io::ErrorKind::UnexpectedEof.into(),
        }
    }

    /// As [`Stream::read_closed`], for a task that polls. Clears the readiness for reading until
    /// more comes: from here on the stream is read elsewhere, or closed.
    pub(crate) fn poll_read_closed(&self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            if let Some(closed) = self.read_closed().now_or_never() {
                return Poll::Ready(closed);
            }
            let forget = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let more = match self {
                Self::Tcp(stream) => {
                    let _ = stream.try_io(Interest::READABLE, forget);
                    stream.poll_read_ready(context)
                }
                Self::Unix(stream) => {
                    let _ = stream.try_io(Interest::READABLE, forget);
                    stream.poll_read_ready(context)
                }
            };
            if let Err(error) = ready!(more) {
                return Poll::Ready(error);
            }
        }
    }

    /// Whether the kernel has neither a byte, nor an end, nor an error of the peer.
    pub(crate) fn has_nothing(&self) -> bool {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let peeked = match self {
            Self::Tcp(stream) => rustix::net::recv(stream, &mut [0][..], flags),
            Self::Unix(stream) => rustix::net::recv(stream, &mut [0][..], flags),
        };
        matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }

    /// Reads without consuming; waits for the first byte. 0 is the end of the stream.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(buffer).await,
            Self::Unix(stream) => loop {
                stream.readable().await?;
                let peeked = stream.try_io(Interest::READABLE, || {
                    let (_, count) =
                        rustix::net::recv(stream, &mut *buffer, rustix::net::RecvFlags::PEEK)?;
                    Ok(count)
                });
                match peeked {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    done => return done,
                }
            },
        }
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut dyn Io> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream as &mut dyn Io),
            Self::Unix(stream) => Pin::new(stream as &mut dyn Io),
        }
    }
}

/// A stream that bytes are read from and written to.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// Implements `AsyncRead` and `AsyncWrite` for an enum of streams, by the one that its `io`
/// returns. Writes are vectored.
macro_rules! delegate_io {
    ($streams:ty) => {
        impl tokio::io::AsyncRead for $streams {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.io().poll_read(cx, buf)
            }
        }

        impl tokio::io::AsyncWrite for $streams {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.io().poll_write(cx, bytes)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.io().poll_write_vectored(cx, slices)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.io().poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.io().poll_shutdown(cx)
            }
        }
    };
}
pub(crate) use delegate_io;

delegate_io!(Stream);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::options::reset_on_close;

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (far, near) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Stream::Tcp(near.unwrap().0), far.unwrap())
    }

    async fn a_while() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    #[tokio::test]
    async fn a_fin_behind_bytes_is_seen_and_the_bytes_stay() {
        let (mut near, mut far) = pair().await;
        far.write_all(b"unread").await.unwrap();
        a_while().await;
        assert!(near.read_closed().now_or_never().is_none());
        far.shutdown().await.unwrap();
        let error = near.read_closed().await;
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "unread");
    }

    #[tokio::test]
    async fn a_reset_is_seen_as_one() {
        use std::os::fd::AsFd;
        let (near, mut far) = pair().await;
        far.write_all(b"unread").await.unwrap();
        a_while().await;
        reset_on_close(far.as_fd());
        drop(far);
        let error = near.read_closed().await;
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_task_that_polls_sleeps_over_bytes_and_wakes_at_the_end() {
        let (near, mut far) = pair().await;
        let mut polls = 0;
        let mut closed = std::pin::pin!(poll_fn(|context| {
            polls += 1;
            near.poll_read_closed(context)
        }));
        for _ in 0..3 {
            far.write_all(b"unread").await.unwrap();
            tokio::select! {
                error = &mut closed => panic!("it is open: {error}"),
                () = a_while() => {}
            }
        }
        drop(far);
        assert_eq!(closed.await.kind(), io::ErrorKind::UnexpectedEof);
        assert!(polls < 20, "{polls} polls");
    }
}
