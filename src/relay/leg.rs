//! One leg inside the engine: a non-blocking socket, raw or TLS, and what is known of its health.
//!
//! The first error of a leg is stored before another call is made on it: a failed `send` consumes ECONNRESET, and the
//! next `recv` would return 0, a false FIN.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::Transport;
use super::pipe::{Pipe, Pipes};
use crate::net::options::{reset_on_close, unacknowledged_bytes};
use crate::observe::How;
use crate::tls::record::{MAX_CONTROL_BYTES, Session, Status};

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
    /// Ciphertext as it comes from the socket. What it opens to, beside a record begun before it, fits `plain`.
    pub cipher: Box<[u8]>,
    /// Ciphertext on its way out: room for all of `plain`.
    pub sealed: Box<[u8]>,
    pub pipes: Pipes,
}

impl Scratch {
    /// Large enough that bulk costs few system calls, small enough to stay in the second-level cache.
    const LENGTH: usize = 64 * 1024;

    pub fn new() -> Self {
        Self {
            plain: vec![0; Self::LENGTH].into_boxed_slice(),
            cipher: vec![0; Self::LENGTH / 2].into_boxed_slice(),
            sealed: vec![0; Session::sealed_bound(Self::LENGTH)].into_boxed_slice(),
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

    /// Lets go of what an idle TLS leg can make again.
    pub fn cool(&mut self) {
        if let Transport::Tls(tls) = &mut self.transport {
            tls.session.cool();
        }
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

    /// Takes ciphertext from the socket, a batch at a time, until it gives plaintext.
    fn read_tls(&mut self, scratch: &mut Scratch) -> Input {
        loop {
            match self.tls_status() {
                Status::Open => {}
                Status::Closed => return Input::Fin,
                Status::Failed(_) => return self.violated(),
            }
            if !self.readable {
                return self.nothing_to_read();
            }
            match self.open_batch(scratch) {
                Ok(0) => {}
                Ok(filled) => return Input::Data(filled),
                Err(input) => return input,
            }
        }
    }

    fn tls_status(&self) -> Status {
        match &self.transport {
            Transport::Raw => Status::Open,
            Transport::Tls(tls) => tls.session.status(),
        }
    }

    /// One batch from the socket, opened into `scratch.plain`: how many bytes of plaintext it gave.
    fn open_batch(&mut self, scratch: &mut Scratch) -> Result<usize, Input> {
        let count = match receive(&self.socket, &mut scratch.cipher) {
            Ok(0) => return Err(self.truncated()),
            Ok(count) => count,
            Err(error) => return Err(self.failed_read(&error)),
        };
        self.moved += count as u64;
        let full = count == scratch.cipher.len();
        self.readable = full || self.fin_announced || self.error_announced;
        match &mut self.transport {
            Transport::Raw => Ok(0),
            // The scratches' sizes leave room for all of it.
            Transport::Tls(tls) => Ok(tls
                .session
                .open(&scratch.cipher[..count], &mut scratch.plain)
                .filled),
        }
    }

    fn truncated(&mut self) -> Input {
        self.readable = false;
        self.fault.get_or_insert(How::Rst);
        Input::Broken
    }

    /// The peer broke the protocol: its alert is sent if the socket takes it.
    fn violated(&mut self) -> Input {
        let _ = self.flush();
        self.fault.get_or_insert(How::Invalid);
        self.readable = false;
        Input::Broken
    }

    /// Writes plaintext, sealed in the given scratch where the leg is TLS. Returns how much of it this leg has taken; less
    /// than all means it is blocked. Once the leg is broken everything is taken and thrown away: the fault ends the
    /// session.
    pub fn write(&mut self, bytes: &[u8], sealed: &mut [u8]) -> usize {
        let taken = match &mut self.transport {
            Transport::Raw => self.push(bytes),
            Transport::Tls(_) => self.write_tls(bytes, sealed),
        };
        if self.fault.is_some() {
            bytes.len()
        } else {
            taken
        }
    }

    /// All is taken: records cannot be sealed twice, so what the socket does not take is kept. The caller has asked for a
    /// flush before, so that it is never more than one scratch.
    fn write_tls(&mut self, bytes: &[u8], sealed: &mut [u8]) -> usize {
        let Transport::Tls(tls) = &mut self.transport else {
            return 0;
        };
        let Ok(done) = tls.session.seal(bytes, sealed) else {
            // Closed or used up: nothing more can be said to this peer.
            self.fault.get_or_insert(How::Error);
            return 0;
        };
        self.push_or_keep(&sealed[..done.written]);
        done.taken
    }

    /// Gives the socket what it takes; how much that was.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() && self.fault.is_none() {
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
        written
    }

    /// Ciphertext that the socket does not take waits in the transport.
    fn push_or_keep(&mut self, bytes: &[u8]) {
        let pushed = self.push(bytes);
        if let Transport::Tls(tls) = &mut self.transport {
            tls.output.extend_from_slice(&bytes[pushed..]);
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

    /// True when no ciphertext is left to be written; tries to get there.
    pub fn flush(&mut self) -> bool {
        let Transport::Tls(tls) = &mut self.transport else {
            return true;
        };
        if !tls.output.is_empty() {
            let output = std::mem::take(&mut tls.output);
            self.push_or_keep(&output);
        }
        self.flush_control() || self.fault.is_some()
    }

    /// Behind what waits already: the answer to a key update, an alert.
    fn flush_control(&mut self) -> bool {
        let Transport::Tls(tls) = &mut self.transport else {
            return true;
        };
        if tls.output.is_empty() && tls.session.owes() {
            let mut records = [0; MAX_CONTROL_BYTES];
            let length = tls.session.control(&mut records);
            self.push_or_keep(&records[..length]);
        }
        matches!(&self.transport, Transport::Tls(tls) if tls.output.is_empty())
    }

    /// Bytes that the kernel and the TLS connection still hold for the peer.
    pub fn unsent_bytes(&self) -> usize {
        let sealed = match &self.transport {
            Transport::Raw => 0,
            Transport::Tls(tls) => tls.output.len(),
        };
        unacknowledged_bytes(self.socket.as_fd()) + sealed
    }

    /// Says that no more comes from this side: close_notify on TLS, then a FIN. True once it is said.
    pub fn finish(&mut self) -> bool {
        if let Transport::Tls(tls) = &mut self.transport {
            tls.session.close();
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
