//! HTTP/1.1 as far as GETs on kept connections need it, for both ends of the load.

use std::io;
use std::sync::LazyLock;

/// The bound of a head: it keeps a wrong answer from growing.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The request of the client; nothing follows its head.
pub const REQUEST: &[u8] =
    b"GET /status HTTP/1.1\r\nHost: localhost\r\nUser-Agent: compare\r\nAccept: */*\r\n\r\n";

const BODY: [u8; 128] = [b'a'; 128];

/// The answer of the server.
pub static ANSWER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        BODY.len()
    );
    [head.as_bytes(), &BODY].concat()
});

/// The place behind a head, once it is there whole.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Tells whether the answer is there whole, with whatever fields a balancer has added. Another
/// answer is an error.
pub fn is_whole(bytes: &[u8]) -> io::Result<bool> {
    let Some(end) = head_end(bytes) else {
        return Ok(false);
    };
    let (head, body) = bytes.split_at(end);
    if head.starts_with(b"HTTP/1.1 200 ") && BODY.starts_with(body) {
        return Ok(body.len() == BODY.len());
    }
    Err(io::Error::other(format!(
        "another answer than was due: {}",
        String::from_utf8_lossy(bytes)
    )))
}
