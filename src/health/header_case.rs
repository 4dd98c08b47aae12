//! Header names of a check's request, in their usual case. Names are case-insensitive (RFC 9110
//! section 5.1), but some servers, in PHP above all, compare them byte by byte.
//!
//! hyper writes names in lower case, or each word's first letter as a capital. A stream restores
//! the others: lengths do not change, so that hyper's count of written bytes holds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Fields of a handshake whose usual case is not each word's first letter.
const HANDSHAKE_NAMES: &[&str] = &[
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
];

/// Names as the operator spells them.
pub(super) type HeaderNames = Arc<[String]>;

/// A stream that writes the names of its first message in their usual case.
pub(super) struct HeaderCaseStream<S> {
    stream: S,
    head: BufferedHead,
}

enum BufferedHead {
    Unwritten(HeaderNames),
    /// hyper's first bytes, rewritten, and how many of them are written.
    Writing {
        bytes: Vec<u8>,
        written_bytes: usize,
    },
    Written,
}

impl<S> HeaderCaseStream<S> {
    /// A stream that also restores these names. hyper writes a head in one piece.
    pub(super) fn new(stream: S, own: HeaderNames) -> HeaderCaseStream<S> {
        HeaderCaseStream {
            stream,
            head: BufferedHead::Unwritten(own),
        }
    }
}

impl BufferedHead {
    /// Replacement of `bytes`, the next to be written. `None`: they stay as they are.
    fn rewritten(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        if let BufferedHead::Unwritten(own) = self {
            let mut first = bytes.to_vec();
            spell(&mut first, own);
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
            BufferedHead::Unwritten(_) | BufferedHead::Written => None,
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

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Writes the names of a request's head in their usual case, and these as they are spelled.
pub(super) fn spell(head: &mut [u8], own: &HeaderNames) {
    restore_case(head, HANDSHAKE_NAMES);
    restore_case(head, own);
}

/// Writes each of `names` in the message `head` in the given case; other names, values and bytes
/// behind the head stay as they are.
fn restore_case<Name: AsRef<str>>(head: &mut [u8], names: &[Name]) {
    let mut rest = head;
    // The request line has no name.
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        rest = rest.split_at_mut(end + 2).1;
        if rest.starts_with(b"\r\n") {
            return;
        }
        let colon = rest.iter().position(|&byte| byte == b':' || byte == b'\r');
        let name = colon.and_then(|colon| rest.get_mut(..colon));
        if let Some(name) = name {
            respell_name(name, names);
        }
    }
}

fn respell_name<Name: AsRef<str>>(name: &mut [u8], names: &[Name]) {
    let mut names = names.iter().map(|name| name.as_ref().as_bytes());
    if let Some(wanted) = names.find(|wanted| name.eq_ignore_ascii_case(wanted)) {
        name.copy_from_slice(wanted);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn respelled(head: &str) -> String {
        let mut bytes = head.as_bytes().to_vec();
        restore_case(&mut bytes, &["X-Forwarded-For", "X-Real-IP"]);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn known_names_of_the_head_are_spelled_and_nothing_else() {
        assert_eq!(
            respelled(
                "GET /x-real-ip HTTP/1.1\r\nx-REAL-ip: x-real-ip\r\nx-other: 1\r\nX-Forwarded-for: a\r\n\r\n\
                 x-real-ip: body\r\n"
            ),
            "GET /x-real-ip HTTP/1.1\r\nX-Real-IP: x-real-ip\r\nx-other: 1\r\nX-Forwarded-For: a\r\n\r\n\
             x-real-ip: body\r\n"
        );
    }

    #[tokio::test]
    async fn a_head_that_leaves_in_pieces_is_spelled() {
        for room in [1, 5, 17, 1000] {
            let (near, mut far) = tokio::io::duplex(room);
            let own: HeaderNames = Arc::new(["X-Real-IP", "X-oWn"].map(str::to_owned));
            let mut near = HeaderCaseStream::new(near, own);
            let mut sent = String::new();
            let write = async move {
                let head =
                    b"GET / HTTP/1.1\r\nx-real-ip: 1\r\nsec-websocket-key: 2\r\nx-own: 3\r\n\r\n";
                near.write_all(&[&head[..], b"x-real-ip"].concat())
                    .await
                    .unwrap();
                near.write_all(b"; x-real-ip: 3").await.unwrap();
            };
            let ((), read) = tokio::join!(write, far.read_to_string(&mut sent));
            read.unwrap();
            assert_eq!(
                sent,
                "GET / HTTP/1.1\r\nX-Real-IP: 1\r\nSec-WebSocket-Key: 2\r\nX-oWn: 3\r\n\r\n\
                 x-real-ip; x-real-ip: 3"
            );
        }
    }

    proptest! {
        #[test]
        fn only_the_case_of_letters_changes(head in "[xX:\r\n a-]{0,40}|(x-real-ip|X-Real-Ip|:|\r\n|a){0,12}") {
            prop_assert!(respelled(&head).eq_ignore_ascii_case(&head));
        }
    }
}
