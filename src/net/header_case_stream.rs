//! A stream that writes the header names of its first message in their usual case.
//!
//! hyper keeps the case of a client's names and writes its own in lower case; a field that we
//! replace would have either. Lengths do not change, so hyper's count of written bytes holds.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::field_names::restore_case;

/// Names to restore, besides those that the code declares.
pub(crate) type HeaderNames = Arc<[String]>;
/// StaticNames of names that the code declares.
type StaticNames = &'static [&'static [&'static str]];

/// A stream of which nothing has been written yet.
pub(crate) struct HeaderCaseStream<S> {
    stream: S,
    head: BufferedHead,
}

enum BufferedHead {
    Unwritten {
        declared: StaticNames,
        own: HeaderNames,
    },
    /// hyper's first bytes, rewritten, and how many of them are written.
    Writing {
        bytes: Vec<u8>,
        written_bytes: usize,
    },
    Written,
}

impl<S> HeaderCaseStream<S> {
    /// A stream that restores these names. hyper writes a head in one piece.
    pub(crate) fn new(stream: S, declared: StaticNames, own: HeaderNames) -> HeaderCaseStream<S> {
        HeaderCaseStream {
            stream,
            head: BufferedHead::Unwritten { declared, own },
        }
    }
}

impl BufferedHead {
    /// Replacement of `bytes`, the next to be written. `None`: they stay as they are.
    fn rewritten(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        if let BufferedHead::Unwritten { declared, own } = self {
            let mut first = bytes.to_vec();
            for names in *declared {
                restore_case(&mut first, names);
            }
            restore_case(&mut first, own);
            *self = BufferedHead::Writing {
                bytes: first,
                written_bytes: 0,
            };
        }
        match self {
            BufferedHead::Writing {
                bytes,
                written_bytes,
            } => bytes.get(*written_bytes..),
            BufferedHead::Unwritten { .. } | BufferedHead::Written => None,
        }
    }

    fn advance(&mut self, count: usize) {
        if let BufferedHead::Writing {
            bytes,
            written_bytes,
        } = self
        {
            *written_bytes += count;
            if *written_bytes >= bytes.len() {
                *self = BufferedHead::Written;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeaderCaseStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeaderCaseStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let HeaderCaseStream { stream, head } = self.get_mut();
        let rewritten = head.rewritten(bytes).unwrap_or(bytes);
        let written = ready!(Pin::new(stream).poll_write(context, rewritten))?;
        head.advance(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let HeaderCaseStream { stream, head } = self.get_mut();
        let stream = Pin::new(stream);
        let Some((first, others)) = slices.split_first() else {
            return stream.poll_write_vectored(context, slices);
        };
        let Some(rewritten) = head.rewritten(first) else {
            return stream.poll_write_vectored(context, slices);
        };
        let written = if rewritten.len() == first.len() {
            let mut all = Vec::with_capacity(slices.len());
            all.push(IoSlice::new(rewritten));
            all.extend(others.iter().map(|slice| IoSlice::new(slice)));
            ready!(stream.poll_write_vectored(context, &all))?
        } else {
            ready!(stream.poll_write(context, rewritten))?
        };
        head.advance(written);
        Poll::Ready(Ok(written))
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const GIVEN: &str = "GET / HTTP/1.1\r\nx-real-ip: 1\r\nx-own: 2\r\n\r\nx-real-ip";
    const SENT: &str = "GET / HTTP/1.1\r\nX-Real-IP: 1\r\nX-oWn: 2\r\n\r\nx-real-ip";

    fn rewritten(
        room: usize,
    ) -> (
        HeaderCaseStream<tokio::io::DuplexStream>,
        tokio::io::DuplexStream,
    ) {
        let (near, far) = tokio::io::duplex(room);
        let own: HeaderNames = Arc::from(vec!["X-oWn".to_owned()]);
        (HeaderCaseStream::new(near, &[&["X-Real-IP"]], own), far)
    }

    /// However little is taken at a time.
    #[tokio::test]
    async fn a_head_that_leaves_in_pieces_is_spelled() {
        for room in [1, 5, 17, 1000] {
            let (mut near, mut far) = rewritten(room);
            let mut sent = String::new();
            let write = async move {
                near.write_all(GIVEN.as_bytes()).await.unwrap();
                near.write_all(b"; x-real-ip: 3").await.unwrap();
            };
            let ((), read) = tokio::join!(write, far.read_to_string(&mut sent));
            read.unwrap();
            assert_eq!(sent, format!("{SENT}; x-real-ip: 3"));
        }
    }

    #[tokio::test]
    async fn a_head_before_a_body_of_its_own_is_spelled() {
        let (mut near, mut far) = rewritten(1000);
        let (head, body) = GIVEN.split_at(GIVEN.len() - 9);
        let slices = [IoSlice::new(head.as_bytes()), IoSlice::new(body.as_bytes())];
        let written = near.write_vectored(&slices).await.unwrap();
        near.write_all(&GIVEN.as_bytes()[written..]).await.unwrap();
        drop(near);
        let mut sent = String::new();
        far.read_to_string(&mut sent).await.unwrap();
        assert_eq!(sent, SENT);
    }
}
