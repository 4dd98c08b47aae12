//! One leg inside the engine: a non-blocking socket, raw or TLS, and what is known of its health.
//!
//! The first error of a leg is stored before another call is made on it: a failed `send` consumes ECONNRESET, and the
//! next `recv` would return 0, a false FIN.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::Transport;
use super::pipe::{Pipe, Pipes};
use crate::net::options::{reset_on_close, unacknowledged_bytes};
use crate::observe::How;

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// This much plaintext stands in the scratch.
    Data(usize),
    /// Nothing now; an event will tell.
    Blocked,
    /// The peer said it is done: a FIN, or close_notify.
    Fin,
    /// The peer is gone abnormally; [`Leg::fault`] says how.
    Broken,
}

/// What a worker lends to the entry whose turn it is: the buffers through which every byte goes, and pipes for bulk.
pub(super) struct Scratch {
    /// Plaintext.
    pub plain: Box<[u8]>,
    /// Ciphertext as it comes from the socket.
    pub cipher: Box<[u8]>,
    pub pipes: Pipes,
}

impl Scratch {
    /// Large enough that bulk costs few system calls, small enough to stay in the second-level cache.
    const LENGTH: usize = 64 * 1024;

    pub fn new() -> Self {
        Self {
            plain: vec![0; Self::LENGTH].into_boxed_slice(),
            cipher: vec![0; Self::LENGTH].into_boxed_slice(),
            pipes: Pipes::default(),
        }
    }
}

/// One leg of an entry.
pub(super) struct Leg {
    socket: OwnedFd,
    transport: Transport,
    /// May have something to read: set by an event, cleared by a read that blocked.
    pub readable: bool,
    /// May take something: set by an event, cleared by a write that blocked.
    pub writable: bool,
    /// The kernel told of a FIN; a short read is then not the last one.
    fin_announced: bool,
    /// The kernel told of an error; a 0 from `recv` is then a RST, not a FIN.
    error_announced: bool,
    /// Bytes read from and written to the socket: any change is activity.
    pub moved: u64,
    /// The first fault, whichever call or event told of it.
    fault: Option<How>,
}

impl Leg {
    pub fn new(socket: OwnedFd, transport: Transport) -> Self {
        Self {
            socket,
            transport,
            // Registering reports what is there already. A read before that takes a FIN with a RST behind it for a
            // mere FIN: only EPOLLERR tells of the RST.
            readable: false,
            writable: true,
            fin_announced: false,
            error_announced: false,
            moved: 0,
            fault: None,
        }
    }

    /// The way back to the set-up plane. Its epoll entry is the caller's to remove: the socket stays open.
    pub fn into_session_leg(self) -> super::Leg {
        super::Leg {
            socket: self.socket,
            transport: self.transport,
            read: Vec::new(),
        }
    }

    pub fn raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn is_raw(&self) -> bool {
        matches!(self.transport, Transport::Raw)
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    pub fn fault(&self) -> Option<How> {
        self.fault
    }

    /// Takes in what epoll said.
    pub fn announced(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
        self.fin_announced |= event.is_read_closed();
        self.error_announced |= event.is_error();
    }

    /// True once the kernel has said that this leg is broken, even if no call has failed yet.
    pub fn is_broken(&self) -> bool {
        self.error_announced || self.fault.is_some()
    }

    /// Reads plaintext into `scratch.plain`; of a raw leg at most `limit` bytes.
    pub fn read(&mut self, scratch: &mut Scratch, limit: usize) -> Input {
        match &mut self.transport {
            Transport::Raw => self.read_raw(scratch, limit),
            Transport::Tls(_) => self.read_tls(scratch),
        }
    }

    fn read_raw(&mut self, scratch: &mut Scratch, limit: usize) -> Input {
        if !self.readable {
            return self.nothing_to_read();
        }
        let limit = limit.min(scratch.plain.len());
        let window = &mut scratch.plain[..limit];
        match receive(&self.socket, window) {
            Ok(0) => self.end_of_stream(),
            Ok(count) => {
                self.moved += count as u64;
                // A short read emptied the queue, unless a FIN or an error stands behind it.
                let more = count == limit || self.fin_announced || self.error_announced;
                self.readable = more;
                Input::Data(count)
            }
            Err(error) => self.failed_read(&error),
        }
    }

    /// Moves bytes of a raw leg into an empty pipe.
    pub fn fill(&mut self, pipe: &mut Pipe) -> Input {
        if !self.readable {
            return self.nothing_to_read();
        }
        match pipe.fill(self.socket.as_fd()) {
            Ok(0) => self.end_of_stream(),
            Ok(count) => {
                self.moved += count as u64;
                Input::Data(count)
            }
            Err(error) => self.failed_read(&error),
        }
    }

    /// Moves a pipe's bytes out to a raw leg; true once it is empty, or the leg is broken and they are lost with it.
    pub fn drain(&mut self, pipe: &mut Pipe) -> bool {
        while !pipe.is_empty() && self.fault.is_none() {
            match pipe.drain(self.socket.as_fd()) {
                Ok(count) => self.moved += count as u64,
                Err(error) => {
                    self.failed_write(error);
                    return self.fault.is_some();
                }
            }
        }
        true
    }

    fn nothing_to_read(&self) -> Input {
        match self.fault {
            Some(_) => Input::Broken,
            None => Input::Blocked,
        }
    }

    fn end_of_stream(&mut self) -> Input {
        self.readable = false;
        // A RST right behind the FIN: the queue ends with the FIN, and `recv` stops there without the error.
        self.error_announced |= has_error(&self.socket);
        if self.is_broken() {
            self.fault.get_or_insert(How::Rst);
            return Input::Broken;
        }
        Input::Fin
    }

    fn failed_read(&mut self, error: &io::Error) -> Input {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.readable = false;
            return Input::Blocked;
        }
        self.store(error);
        self.readable = false;
        Input::Broken
    }

    /// Plaintext that the connection holds already comes first; then ciphertext from the socket, a batch at a time.
    fn read_tls(&mut self, scratch: &mut Scratch) -> Input {
        let mut filled = 0;
        loop {
            match self.decrypted(&mut scratch.plain[filled..]) {
                Decrypted::Data(count) => filled += count,
                _ if filled > 0 => return Input::Data(filled),
                Decrypted::CloseNotify => return Input::Fin,
                Decrypted::Nothing if self.fault.is_some() => return Input::Broken,
                Decrypted::Nothing if !self.readable => return Input::Blocked,
                Decrypted::Nothing => match self.receive_records(scratch) {
                    Ok(count) => filled = count,
                    Err(input) => return input,
                },
            }
        }
    }

    /// Takes out what the connection has decrypted.
    fn decrypted(&mut self, plain: &mut [u8]) -> Decrypted {
        let Transport::Tls(connection) = &mut self.transport else {
            return Decrypted::Nothing;
        };
        if plain.is_empty() {
            return Decrypted::Nothing;
        }
        match connection.reader().read(plain) {
            Ok(0) => Decrypted::CloseNotify,
            Ok(count) => Decrypted::Data(count),
            Err(_) => Decrypted::Nothing,
        }
    }

    /// Takes one batch of ciphertext from the socket through the connection into `scratch.plain`. rustls accepts
    /// little at a time and none while much plaintext waits, so each piece is taken out before the next goes in.
    fn receive_records(&mut self, scratch: &mut Scratch) -> Result<usize, Input> {
        let batch = &mut scratch.cipher[..TLS_BATCH];
        let count = match receive(&self.socket, batch) {
            Ok(0) => return Err(self.truncated()),
            Ok(count) => count,
            Err(error) => return Err(self.failed_read(&error)),
        };
        self.moved += count as u64;
        self.readable = count == TLS_BATCH || self.fin_announced || self.error_announced;
        let mut records = &scratch.cipher[..count];
        let mut filled = 0;
        while !records.is_empty() {
            match self.feed(&mut records) {
                Ok(true) => {}
                // After close_notify nothing counts any more.
                Ok(false) => break,
                Err(_) => {
                    self.violated();
                    break;
                }
            }
            while let Decrypted::Data(count) = self.decrypted(&mut scratch.plain[filled..]) {
                filled += count;
            }
        }
        Ok(filled)
    }

    /// Moves one piece of ciphertext into the connection. False: it takes no more, ever.
    fn feed(&mut self, records: &mut &[u8]) -> Result<bool, rustls::Error> {
        let Transport::Tls(connection) = &mut self.transport else {
            return Ok(false);
        };
        let taken = connection
            .read_tls(records)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        connection.process_new_packets()?;
        Ok(taken > 0)
    }

    fn truncated(&mut self) -> Input {
        self.readable = false;
        self.fault.get_or_insert(How::Rst);
        Input::Broken
    }

    /// The peer broke the protocol: its alert is sent if the socket takes it.
    fn violated(&mut self) -> Input {
        self.fault.get_or_insert(How::Invalid);
        self.readable = false;
        let _ = self.flush();
        Input::Broken
    }

    /// Writes plaintext. Returns how much of it this leg has taken; less than all means it is blocked.
    /// Once the leg is broken everything is taken and thrown away: the fault ends the session.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if self.fault.is_some() {
            return bytes.len();
        }
        match &mut self.transport {
            Transport::Raw => self.write_raw(bytes),
            Transport::Tls(connection) => {
                // The connection's buffer takes a whole scratch: it is empty, as `flushed` was asked first.
                let taken = connection.writer().write(bytes).unwrap_or(0);
                self.flush();
                taken
            }
        }
    }

    fn write_raw(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match send(&self.socket, &bytes[written..], SendFlags::NOSIGNAL) {
                Ok(count) => {
                    written += count;
                    self.moved += count as u64;
                }
                Err(errno) => {
                    self.failed_write(errno.into());
                    break;
                }
            }
        }
        if self.fault.is_some() {
            bytes.len()
        } else {
            written
        }
    }

    fn failed_write(&mut self, error: io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.writable = false;
        } else {
            self.store(&error);
            // What was received before the fault is still to be read.
            self.readable = true;
        }
    }

    /// True when nothing is left in the TLS connection to be written; tries to get there.
    pub fn flush(&mut self) -> bool {
        let Transport::Tls(connection) = &mut self.transport else {
            return true;
        };
        while connection.wants_write() && self.fault.is_none() {
            match connection.write_tls(&mut Socket(self.socket.as_fd())) {
                Ok(count) => self.moved += count as u64,
                Err(error) => {
                    self.failed_write(error);
                    return self.fault.is_some();
                }
            }
        }
        true
    }

    /// Bytes that the kernel and the TLS connection still hold for the peer.
    pub fn unsent_bytes(&self) -> usize {
        let sealed = match &self.transport {
            Transport::Raw => false,
            Transport::Tls(connection) => connection.wants_write(),
        };
        unacknowledged_bytes(self.socket.as_fd()) + usize::from(sealed)
    }

    /// Says that no more comes from this side: close_notify on TLS, then a FIN. True once it is said.
    pub fn finish(&mut self) -> bool {
        if let Transport::Tls(connection) = &mut self.transport {
            connection.send_close_notify();
        }
        if !self.flush() {
            return false;
        }
        // ENOTCONN after a reset: the fault is found by the read.
        let _ = shutdown(&self.socket, Shutdown::Write);
        true
    }

    /// The coming close is a RST.
    pub fn reset(&self) {
        reset_on_close(self.socket.as_fd());
    }

    fn store(&mut self, error: &io::Error) {
        let how = match error.kind() {
            io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => How::Timeout,
            _ => How::Rst,
        };
        self.fault.get_or_insert(how);
    }
}

/// One batch of ciphertext. What it decrypts to, beside a record begun before it, fits the plaintext scratch.
const TLS_BATCH: usize = 32 * 1024;

/// What a TLS connection had to give.
enum Decrypted {
    Data(usize),
    CloseNotify,
    Nothing,
}

/// True when the kernel holds an error for the socket. Asking does not consume it, as reading SO_ERROR would.
fn has_error(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    // Without waiting; a failure of poll itself says nothing about the socket.
    let _ = poll(&mut fds, Some(&Timespec::default()));
    fds.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, count)) => return Ok(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A borrowed socket as rustls wants to write to it.
struct Socket<'a>(BorrowedFd<'a>);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
