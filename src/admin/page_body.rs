//! Body of an answer that is written while it is sent, in chunks. The writer waits for the client,
//! so a page takes the memory of a few chunks, however long it is.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use thiserror::Error;
use tokio::sync::mpsc;

/// Bytes after which a chunk is sent: large enough that a page is few writes, small enough to be
/// held for every connection of the endpoint.
const CHUNK_BYTES: usize = 32 * 1024;
/// Chunks that wait for the client: one on the way while the next one is written.
const MAX_WAITING: usize = 1;

/// The chunks of a page.
#[derive(Debug)]
pub(super) struct PageBody {
    chunks: mpsc::Receiver<Chunk>,
}

/// Writer of a page. For a thread that may block.
#[derive(Debug)]
pub(super) struct PageWriter {
    chunk: String,
    chunks: mpsc::Sender<Chunk>,
}

#[derive(Debug)]
enum Chunk {
    Text(Bytes),
    End,
}

/// The writer went before its page was whole: the connection is closed without the end of the body,
/// so that no client takes the page for whole.
#[derive(Debug, Error)]
#[error("the page broke off")]
pub(super) struct PageBroken;

pub(super) fn page() -> (PageWriter, PageBody) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let writer = PageWriter {
        chunk: String::new(),
        chunks: sender,
    };
    (writer, PageBody { chunks: receiver })
}

impl PageWriter {
    /// Ends the page.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn finish(mut self) -> fmt::Result {
        self.send()?;
        let sent = self.chunks.blocking_send(Chunk::End);
        sent.map_err(|_| fmt::Error)
    }

    fn send(&mut self) -> fmt::Result {
        let text = Bytes::from(std::mem::take(&mut self.chunk));
        let sent = self.chunks.blocking_send(Chunk::Text(text));
        sent.map_err(|_| fmt::Error)
    }
}

impl fmt::Write for PageWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.chunk.push_str(text);
        if self.chunk.len() < CHUNK_BYTES {
            return Ok(());
        }
        self.send()
    }
}

impl Body for PageBody {
    type Data = Bytes;
    type Error = PageBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PageBroken>>> {
        self.chunks.poll_recv(cx).map(|chunk| match chunk {
            Some(Chunk::Text(text)) => Some(Ok(Frame::data(text))),
            Some(Chunk::End) => None,
            None => Some(Err(PageBroken)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::thread::spawn;

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_page_comes_whole_in_bounded_chunks() {
        let (mut writer, mut body) = page();
        let lines = 20_000;
        let writing = spawn(move || {
            (0..lines).try_for_each(|n| writeln!(writer, "line {n}"))?;
            writer.finish()
        });
        let (mut text, mut chunks) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() < CHUNK_BYTES + 16);
            text.extend_from_slice(&data);
            chunks += 1;
        }
        writing.join().unwrap().unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().eq((0..lines).map(|n| format!("line {n}"))));
        assert!(chunks > 3);
    }

    #[tokio::test]
    async fn a_page_that_broke_off_is_an_error() {
        let (mut writer, body) = page();
        spawn(move || writer.write_str("begun"))
            .join()
            .unwrap()
            .unwrap();
        assert!(body.collect().await.is_err());
    }

    #[test]
    fn a_client_that_is_gone_ends_the_writing() {
        let (mut writer, body) = page();
        drop(body);
        let mut writes = 0;
        while writer.write_str("a line of a page\n").is_ok() {
            writes += 1;
        }
        assert!(writes * 17 < CHUNK_BYTES + 17);
        assert!(writer.finish().is_err());
    }
}
