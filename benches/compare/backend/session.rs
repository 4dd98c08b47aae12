//! One connection of the backend: what came in, what goes out, and what is left because the other side would not take it.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

use crate::http::{self, MAX_HEAD_BYTES};
use crate::plan::{BULK_REQUEST_BYTES, Direction, parse_bulk_request};
use crate::websocket::{self, Echo};

/// What a listener serves.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Echo,
    Websocket,
    Http,
    Bulk,
}

enum State {
    Echo,
    Head(Vec<u8>),
    Frames(Box<Echo>),
    /// The part of a request's head that is there.
    Get(Vec<u8>),
    /// Nothing follows what is pending.
    Over,
    Request {
        bytes: [u8; BULK_REQUEST_BYTES],
        seen: usize,
    },
    Source {
        bytes_left: u64,
    },
    Sink {
        bytes_left: u64,
    },
    /// Both at once; the receipt goes behind all bytes.
    Both {
        to_send: u64,
        to_take: u64,
    },
}

const NEW_REQUEST: State = State::Request {
    bytes: [0; BULK_REQUEST_BYTES],
    seen: 0,
};

/// Bytes that are sent before what came is read, where bulk goes both ways.
const BOTH_CHUNK_BYTES: usize = 256 * 1024;

pub struct Session {
    stream: TcpStream,
    state: State,
    pending: Vec<u8>,
}

impl Session {
    pub fn new(stream: TcpStream, kind: Kind) -> Self {
        // Without it, answers of bulk would wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        let state = match kind {
            Kind::Echo => State::Echo,
            Kind::Websocket => State::Head(Vec::new()),
            Kind::Http => State::Get(Vec::new()),
            Kind::Bulk => NEW_REQUEST,
        };
        Self {
            stream,
            state,
            pending: Vec::new(),
        }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Does all that can be done now; false once the connection is over. A read that did not fill the buffer has emptied the
    /// socket, so only an announced end (`to_end`) is worth another one: edges tell of everything later.
    pub fn turn(&mut self, scratch: &mut [u8], to_end: bool) -> io::Result<bool> {
        loop {
            let is_free = self.flush()? && self.pour(scratch)?;
            if !is_free && !matches!(self.state, State::Both { .. }) {
                return Ok(true);
            }
            if matches!(self.state, State::Over) {
                return Ok(false);
            }
            match self.stream.read(scratch) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.take(&scratch[..count])?;
                    let more = to_end
                        || count == scratch.len()
                        || matches!(
                            self.state,
                            State::Source { .. } | State::Both { .. } | State::Over
                        );
                    if !more && self.pending.is_empty() {
                        return Ok(true);
                    }
                }
                // No edge tells of room that was there all the time.
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock && is_free && self.has_more() => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes of bulk both ways are still to be sent.
    fn has_more(&self) -> bool {
        matches!(self.state, State::Both { to_send, .. } if to_send > 0)
    }

    /// Writes what is pending; false while the other side takes no more.
    fn flush(&mut self) -> io::Result<bool> {
        if self.pending.is_empty() {
            return Ok(true);
        }
        let waiting = std::mem::take(&mut self.pending);
        self.send(&waiting)?;
        Ok(self.pending.is_empty())
    }

    /// Writes the rest of a bulk answer; false while the other side takes no more.
    fn pour(&mut self, scratch: &[u8]) -> io::Result<bool> {
        while let State::Source { bytes_left } = self.state {
            let chunk = usize::try_from(bytes_left)
                .unwrap_or(usize::MAX)
                .min(scratch.len());
            let Some(count) = written(self.stream.write(&scratch[..chunk]))? else {
                return Ok(false);
            };
            let bytes_left = bytes_left - count as u64;
            self.state = if bytes_left == 0 {
                NEW_REQUEST
            } else {
                State::Source { bytes_left }
            };
        }
        while let State::Both { to_send, to_take } = self.state
            && to_send > 0
        {
            let chunk = usize::try_from(to_send)
                .unwrap_or(usize::MAX)
                .min(BOTH_CHUNK_BYTES);
            let Some(count) = written(self.stream.write(&scratch[..chunk]))? else {
                return Ok(false);
            };
            let to_send = to_send - count as u64;
            self.state = State::Both { to_send, to_take };
            if count == chunk {
                // The other way has its turn.
                break;
            }
        }
        self.end_both()?;
        Ok(true)
    }

    /// Sends the receipt once all bytes went both ways.
    fn end_both(&mut self) -> io::Result<()> {
        if let State::Both {
            to_send: 0,
            to_take: 0,
        } = self.state
        {
            self.state = NEW_REQUEST;
            return self.send(b"!");
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let count = match self.pending.is_empty() {
            true => written(self.stream.write(bytes))?.unwrap_or(0),
            false => 0,
        };
        self.pending.extend_from_slice(&bytes[count..]);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.state {
            State::Echo => self.send(bytes),
            State::Head(_) => self.head(bytes),
            State::Frames(echo) => {
                let mut out = Vec::with_capacity(bytes.len());
                echo.feed(bytes, &mut out);
                // The server closes first (RFC 6455, 7.1.1).
                if echo.is_over() {
                    self.state = State::Over;
                }
                self.send(&out)
            }
            State::Get(_) => self.get(bytes),
            State::Over => Ok(()),
            State::Request { .. } | State::Source { .. } => self.request(bytes),
            State::Both { to_take, .. } => {
                *to_take = to_take.saturating_sub(bytes.len() as u64);
                self.end_both()
            }
            State::Sink { bytes_left } => {
                *bytes_left = bytes_left.saturating_sub(bytes.len() as u64);
                if *bytes_left == 0 {
                    self.state = NEW_REQUEST;
                    return self.send(b"!");
                }
                Ok(())
            }
        }
    }

    fn head(&mut self, bytes: &[u8]) -> io::Result<()> {
        let State::Head(head) = &mut self.state else {
            return Ok(());
        };
        head.extend_from_slice(bytes);
        let Some(end) = http::head_end(head) else {
            return match head.len() {
                ..MAX_HEAD_BYTES => Ok(()),
                _ => Err(io::Error::other("a head without an end")),
            };
        };
        let answer = websocket::answer(&head[..end])?;
        let rest = head.split_off(end);
        self.state = State::Frames(Box::default());
        self.send(&answer)?;
        self.take(&rest)
    }

    fn get(&mut self, bytes: &[u8]) -> io::Result<()> {
        let State::Get(heads) = &mut self.state else {
            return Ok(());
        };
        heads.extend_from_slice(bytes);
        let mut requests = 0;
        while let Some(end) = http::head_end(heads) {
            heads.drain(..end);
            requests += 1;
        }
        if heads.len() >= MAX_HEAD_BYTES {
            return Err(io::Error::other("a head without an end"));
        }
        (0..requests).try_for_each(|_| self.send(&http::ANSWER))
    }

    fn request(&mut self, bytes: &[u8]) -> io::Result<()> {
        let State::Request {
            bytes: request,
            seen,
        } = &mut self.state
        else {
            return Err(io::Error::other("bytes during a bulk answer"));
        };
        let take = bytes.len().min(BULK_REQUEST_BYTES - *seen);
        request[*seen..*seen + take].copy_from_slice(&bytes[..take]);
        *seen += take;
        if *seen < BULK_REQUEST_BYTES {
            return Ok(());
        }
        self.state = match parse_bulk_request(request) {
            (Direction::Down, bytes_left) => State::Source { bytes_left },
            (Direction::Up, bytes_left) => State::Sink { bytes_left },
            (Direction::Both, bytes) => State::Both {
                to_send: bytes,
                to_take: bytes,
            },
        };
        match &bytes[take..] {
            [] => Ok(()),
            rest => self.take(rest),
        }
    }
}

/// The bytes that a write took, or none when it would have to wait.
fn written(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
