//! Bytes of a message on their way to one peer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::input_buffer::InputBuffer;
use crate::proxy::client::maybe_tls::MaybeTlsStream;

/// Bytes that go to one peer before more of the other is looked at: a head or framing of ours,
/// bytes of the other's input, and the end of a chunk. All go in one write where the socket takes
/// them.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    own: Vec<u8>,
    written: usize,
    /// Bytes at the start of the source's input.
    passing: usize,
    end: &'static [u8],
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.passing == 0 && self.end.is_empty() && self.own.len() == self.written
    }

    /// Bytes of ours that are held.
    pub(super) fn held(&self) -> usize {
        self.own.len()
    }

    /// Bytes of the source that are on their way.
    pub(super) fn passing(&self) -> usize {
        self.passing
    }

    /// The place for bytes of ours, which go before all others.
    pub(super) fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Lets `count` more bytes of the source pass.
    pub(super) fn pass(&mut self, count: usize) {
        self.passing += count;
    }

    /// Sets the bytes that go behind those of the source.
    pub(super) fn end_with(&mut self, end: &'static [u8]) {
        self.end = end;
    }

    /// Gives up all bytes.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes once and returns how many bytes were taken.
    ///
    /// # Errors
    /// Those of the stream; one that takes nothing is at its end.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut MaybeTlsStream,
        source: &mut InputBuffer,
    ) -> Poll<io::Result<usize>> {
        let slices = [
            IoSlice::new(self.own.get(self.written..).unwrap_or_default()),
            IoSlice::new(source.unread().get(..self.passing).unwrap_or_default()),
            IoSlice::new(self.end),
        ];
        let written = ready!(Pin::new(stream).poll_write_vectored(context, &slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written, source);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, written: usize, source: &mut InputBuffer) {
        let own = written.min(self.own.len() - self.written);
        let passed = (written - own).min(self.passing);
        self.written += own;
        if self.written == self.own.len() {
            self.own = Vec::new();
            self.written = 0;
        }
        self.passing -= passed;
        source.consume(passed);
        self.end = self.end.get(written - own - passed..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as StdStream;

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::net::Stream;

    #[tokio::test]
    async fn parts_arrive_in_their_order_however_little_a_write_takes() {
        let (ours, far) = UnixStream::pair().unwrap();
        let mut stream = MaybeTlsStream::Plain(Stream::Unix(ours));
        let mut source = InputBuffer::default();
        let (near, mut writer) = StdStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        std::io::Write::write_all(&mut writer, b"datadatarest").unwrap();
        let mut from = MaybeTlsStream::Plain(Stream::Unix(UnixStream::from_std(near).unwrap()));
        let read = std::future::poll_fn(|context| source.poll_read(context, &mut from, 100)).await;
        assert_eq!(read.unwrap(), 12);
        let mut outgoing = Outgoing::default();
        outgoing.own().extend_from_slice(b"8\r\n");
        outgoing.pass(8);
        outgoing.end_with(b"\r\n");
        let mut total = 0;
        while !outgoing.is_empty() {
            let written = std::future::poll_fn(|context| {
                outgoing.poll_write(context, &mut stream, &mut source)
            });
            total += written.await.unwrap();
        }
        assert_eq!((total, source.unread()), (13, &b"rest"[..]));
        drop(stream);
        let (mut far, mut text) = (far, String::new());
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "8\r\ndatadata\r\n");
    }

    #[test]
    fn a_short_write_leaves_the_rest_of_each_part() {
        let mut source = InputBuffer::default();
        for taken in 0..=9 {
            let mut outgoing = Outgoing::default();
            outgoing.own().extend_from_slice(b"3\r\n");
            outgoing.pass(4);
            outgoing.end_with(b"\r\n");
            outgoing.advance(taken, &mut source);
            let left =
                outgoing.own.len() - outgoing.written + outgoing.passing + outgoing.end.len();
            assert_eq!((left, outgoing.is_empty()), (9 - taken, taken == 9));
        }
    }
}
