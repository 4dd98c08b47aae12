//! One outer end of a relayed session, raw or a TLS client: what it has said, what it has heard,
//! and how that ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;

use crate::net::options::reset_on_close;

pub struct End {
    /// `None`: reset, or never there.
    socket: Option<TcpStream>,
    tls: Option<rustls::ClientConnection>,
    /// Ciphertext that was made and not sent.
    outgoing: Vec<u8>,
    /// Whether it fell silent within a record.
    pub was_behind: bool,
    /// The stream that it sends, from its first byte.
    stream: &'static [u8],
    /// How much of that it has said.
    pub written: usize,
    pub read: Vec<u8>,
    pub finished: bool,
    pub reset: bool,
    /// A write has failed: it took the socket's error with it, and the next read gives 0.
    failed: bool,
    pub seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Open,
    Fin,
    /// A FIN on TLS without close_notify before it.
    Cut,
    Reset,
}

impl End {
    pub fn new(
        socket: TcpStream,
        tls: Option<rustls::ClientConnection>,
        stream: &'static [u8],
        early: usize,
    ) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self {
            socket: Some(socket),
            tls,
            outgoing: Vec::new(),
            was_behind: false,
            stream,
            written: early,
            read: Vec::new(),
            finished: false,
            reset: false,
            failed: false,
            seen: Seen::Open,
        }
    }

    /// That of a backend which is not connected.
    pub fn absent() -> Self {
        Self {
            socket: None,
            tls: None,
            outgoing: Vec::new(),
            was_behind: false,
            stream: &[],
            written: 0,
            read: Vec::new(),
            finished: false,
            reset: true,
            failed: false,
            seen: Seen::Open,
        }
    }

    pub fn is_open(&self) -> bool {
        !self.reset && !self.failed && self.seen == Seen::Open
    }

    /// Whether bytes of it could not be sent yet.
    pub fn is_behind(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub fn fall_silent(&mut self) {
        self.was_behind = self.is_behind();
    }

    /// Says what the kernel takes of the next `length` bytes of its stream. On TLS the records that
    /// this makes are sent up to their byte `piece`, and the rest with what comes next. How much
    /// was said.
    pub fn write(&mut self, length: usize, piece: usize) -> usize {
        if self.finished || self.reset {
            return 0;
        }
        let end = (self.written + length).min(self.stream.len());
        let bytes = &self.stream[self.written..end];
        let is_flushed = self.flush(usize::MAX);
        let count = match &mut self.tls {
            Some(_) if !is_flushed => 0,
            Some(tls) => tls.writer().write(bytes).unwrap(),
            None => self.send(bytes),
        };
        self.written += count;
        self.flush(piece);
        count
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let Some(socket) = &mut self.socket else {
            return 0;
        };
        match socket.write(bytes) {
            Ok(count) => count,
            Err(error) => {
                self.failed |= error.kind() != ErrorKind::WouldBlock;
                0
            }
        }
    }

    /// Sends at most so many bytes of ciphertext. True when none is left.
    fn flush(&mut self, limit: usize) -> bool {
        let Some(tls) = &mut self.tls else {
            return true;
        };
        while tls.wants_write() {
            tls.write_tls(&mut self.outgoing).unwrap();
        }
        let outgoing = std::mem::take(&mut self.outgoing);
        let piece = &outgoing[..limit.min(outgoing.len())];
        let mut sent = 0;
        while sent < piece.len() {
            match self.send(&piece[sent..]) {
                0 => break,
                count => sent += count,
            }
        }
        if !self.failed {
            self.outgoing = outgoing[sent..].to_vec();
        }
        self.outgoing.is_empty()
    }

    /// True when it read something, or an end.
    pub fn read(&mut self, length: usize) -> bool {
        let mut buffer = vec![0; length.max(1)];
        if self.seen != Seen::Open {
            return false;
        }
        let Some(socket) = &mut self.socket else {
            return false;
        };
        let mut is_cut = false;
        let result = match &mut self.tls {
            None => socket.read(&mut buffer),
            Some(tls) => match tls.reader().read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => match tls.read_tls(socket) {
                    Ok(0) => {
                        is_cut = true;
                        Ok(0)
                    }
                    Ok(_) => {
                        tls.process_new_packets().unwrap();
                        tls.reader().read(&mut buffer)
                    }
                    Err(error) => Err(error),
                },
                other => other,
            },
        };
        match result {
            Ok(0) if self.failed => self.seen = Seen::Reset,
            Ok(0) if is_cut => self.seen = Seen::Cut,
            Ok(0) => self.seen = Seen::Fin,
            Ok(count) => self.read.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.seen = Seen::Reset,
        }
        true
    }

    pub fn update_keys(&mut self) {
        if let (Some(tls), false) = (&mut self.tls, self.finished) {
            // TLS 1.2 has none.
            let _ = tls.refresh_traffic_keys();
        }
    }

    /// Queues its close_notify, which goes with the next bytes.
    pub fn notify(&mut self) {
        if let (Some(tls), false) = (&mut self.tls, self.finished) {
            tls.send_close_notify();
        }
    }

    /// True once its FIN is sent, behind all that it has said.
    pub fn try_finish(&mut self) -> bool {
        if !self.finished && self.flush(usize::MAX) {
            if let Some(socket) = &self.socket {
                let _ = socket.shutdown(Shutdown::Write);
            }
            self.finished = true;
        }
        self.finished
    }

    pub fn reset(&mut self) {
        if let Some(socket) = self.socket.take() {
            reset_on_close(socket.as_fd());
            self.reset = true;
        }
    }

    /// The events that it waits for.
    pub fn awaited(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let socket = self.socket.as_ref()?;
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.seen == Seen::Open);
        flags.set(PollFlags::OUT, self.is_behind());
        (!flags.is_empty()).then(|| (socket.as_fd(), flags))
    }
}
