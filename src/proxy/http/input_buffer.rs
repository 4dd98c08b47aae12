//! Bytes that were read from a peer and are not used yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio_util::io::poll_read_buf;

use crate::proxy::client::maybe_tls::MaybeTlsStream;

/// Bytes read and not used. It holds no memory while it is empty.
#[derive(Debug, Default)]
pub(super) struct InputBuffer {
    bytes: Vec<u8>,
    /// Bytes at the start that were used.
    used: usize,
}

impl InputBuffer {
    /// Bytes that were read before.
    pub(super) fn of(bytes: Vec<u8>) -> InputBuffer {
        InputBuffer { bytes, used: 0 }
    }

    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.used
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops `count` bytes from the start.
    pub(super) fn consume(&mut self, count: usize) {
        self.used += count.min(self.len());
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Takes `count` bytes from the start.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        if self.used == 0 && count == self.bytes.len() {
            return std::mem::take(&mut self.bytes);
        }
        let taken = self.unread().get(..count).unwrap_or_default().to_vec();
        self.consume(count);
        taken
    }

    /// All that is unread.
    pub(super) fn into_unread(mut self) -> Vec<u8> {
        self.take(self.len())
    }

    /// Reads once, at most `most` bytes; 0 is the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut MaybeTlsStream,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        self.bytes.reserve_exact(most);
        let mut room = (&mut self.bytes).limit(most);
        let read = poll_read_buf(Pin::new(stream), context, &mut room);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        read
    }
}
