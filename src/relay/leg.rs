//! One leg of a session: a non-blocking socket, raw or TLS, and its faults.
//!
//! The first error of a leg is stored before another call is made on it: a failed `send` consumes
//! ECONNRESET, and the next `recv` would return 0, a false FIN.

mod flags;
mod moved;
mod records;
mod socket;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::ioctl_fionread;
use rustix::net::{SendFlags, Shutdown, getpeername, send, shutdown};

use self::flags::Flags;
pub(super) use self::socket::prepare;
use self::socket::{Socket, has_error, receive};
use super::handoff::{SocketHandoff, Tls, Transport};
use super::pipe::Pipe;
use super::scratch::Scratch;
use crate::net::options::{prepare_long_life, reset_on_close, send_room, unacknowledged_bytes};
use crate::net::{ConnectError, take_error};
use crate::observe::Cause;
use crate::tls::record::MAX_CONTROL_BYTES;

/// Outcome of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// This much plaintext stands in the scratch.
    Data(usize),
    /// Nothing now; an event will tell.
    Blocked,
    /// There is no room to hold what has come of a TLS record, and it has not come whole.
    Short,
    /// The peer said it is done: a FIN, or close_notify.
    Fin,
    /// The peer is gone abnormally; [`Leg::fault`] says how.
    Broken,
}

/// Progress of a leg's connect.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Connect {
    Done,
    UnderWay,
    Failed,
}

/// Events that a leg has had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Readiness(Flags);

/// A leg of a session.
pub(super) struct Leg {
    socket: Socket,
    flags: Flags,
    /// The first fault, of whichever call or event.
    fault: Option<Cause>,
    /// `None`: raw.
    tls: Option<Box<Tls>>,
}

const _: () = assert!(size_of::<Leg>() == 16);

impl Leg {
    pub(super) fn new(socket: OwnedFd, transport: Transport, connecting: bool) -> Self {
        Self {
            socket: Socket::Own(socket),
            // Registering reports what is there already. A read before that takes a FIN with a RST
            // behind it for a mere FIN: only EPOLLERR tells of the RST.
            flags: if connecting {
                Flags::CONNECTING
            } else {
                Flags::WRITABLE
            },
            fault: None,
            tls: match transport {
                Transport::Raw => None,
                Transport::Tls(tls) => Some(Box::new(tls)),
            },
        }
    }

    /// A leg in the place of one that is gone: nothing comes from it and it takes nothing. `None`:
    /// before [`prepare`].
    pub(super) fn absent() -> Option<Self> {
        Some(Self {
            socket: Socket::nowhere()?,
            flags: Flags::NONE,
            fault: None,
            tls: None,
        })
    }

    /// Gives the socket back to the set-up plane. It stays open, so the caller has to remove it
    /// from the epoll. `None`: the leg is absent.
    pub(super) fn into_handoff(self) -> Option<SocketHandoff> {
        Some(SocketHandoff {
            socket: self.socket.into_owned()?,
            transport: match self.tls {
                None => Transport::Raw,
                Some(tls) => Transport::Tls(*tls),
            },
            read: Vec::new(),
        })
    }

    pub(super) fn raw_fd(&self) -> i32 {
        self.socket.as_fd().as_raw_fd()
    }

    /// Lets go of keys that an idle TLS leg can make again.
    pub(super) fn drop_keys(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.session.drop_keys();
        }
    }

    pub(super) fn is_raw(&self) -> bool {
        self.tls.is_none()
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn fault(&self) -> Option<Cause> {
        self.fault
    }

    pub(super) fn is_readable(&self) -> bool {
        self.flags.has(Flags::READABLE)
    }

    pub(super) fn is_writable(&self) -> bool {
        self.flags.has(Flags::WRITABLE)
    }

    /// The events that it has had and that were not used up.
    pub(super) fn readiness(&self) -> Readiness {
        Readiness(self.flags)
    }

    /// Takes over the events of a leg of the same socket.
    pub(super) fn restore(&mut self, readiness: Readiness) {
        self.flags = readiness.0;
    }

    /// Takes in an event of the epoll.
    pub(super) fn note_event(&mut self, event: &mio::event::Event) {
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        for (flag, is_on) in [
            (Flags::READABLE, readable),
            (Flags::WRITABLE, event.is_writable()),
            (Flags::FIN_ANNOUNCED, event.is_read_closed()),
            (Flags::ERROR_ANNOUNCED, event.is_error()),
            (Flags::URGENT, event.is_priority()),
        ] {
            if is_on {
                self.flags.set(flag, true);
            }
        }
    }

    /// Progress of the connect; ask after an event.
    pub(super) fn connect(&mut self) -> Connect {
        if !self.flags.has(Flags::CONNECTING) {
            return Connect::Done;
        }
        // Bytes before the error say that it was connected: they are delivered first. Asking does
        // not take the error.
        let has_spoken = || ioctl_fionread(&self.socket).is_ok_and(|count| count > 0);
        if self.flags.has(Flags::ERROR_ANNOUNCED) && !has_spoken() {
            return Connect::Failed;
        }
        if self.is_writable() {
            self.flags.set(Flags::CONNECTING, false);
            return Connect::Done;
        }
        Connect::UnderWay
    }

    /// Whether its connect is done by now, even before an event says so.
    pub(super) fn is_reached(&self) -> bool {
        getpeername(&self.socket).is_ok()
    }

    /// The reason why its connect failed.
    pub(super) fn connect_error(&self) -> ConnectError {
        take_error(self.socket.as_fd())
    }

    /// True once the kernel has said that this leg is broken, even if no call has failed yet.
    pub(super) fn is_broken(&self) -> bool {
        self.flags.has(Flags::ERROR_ANNOUNCED) || self.fault.is_some()
    }

    /// The kernel has announced a FIN or an error.
    pub(super) fn is_ending(&self) -> bool {
        self.is_broken() || self.flags.has(Flags::FIN_ANNOUNCED)
    }

    /// True once it has sent urgent data, before which `splice` stops for good.
    pub(super) fn is_urgent(&self) -> bool {
        self.flags.has(Flags::URGENT)
    }

    /// Whether bytes went in or out since the last time this was asked.
    pub(super) fn take_activity(&mut self) -> bool {
        let active = self.flags.has(Flags::ACTIVE);
        self.flags.set(Flags::ACTIVE, false);
        active
    }

    /// Whether bytes went in or out; see [`Leg::mark_active`].
    pub(super) fn is_active(&self) -> bool {
        self.flags.has(Flags::ACTIVE)
    }

    /// Puts the mark of activity back: bytes of our own are no activity of the session.
    pub(super) fn mark_active(&mut self, is_active: bool) {
        self.flags.set(Flags::ACTIVE, is_active);
    }

    fn moved(&mut self) {
        self.flags.set(Flags::ACTIVE, true);
    }

    /// Takes note of a read, which was full or short. A short one has emptied the queue, unless a
    /// FIN or an error stands behind it.
    fn has_read(&mut self, full: bool) {
        self.moved();
        let behind = self
            .flags
            .has(Flags::FIN_ANNOUNCED | Flags::ERROR_ANNOUNCED | Flags::URGENT);
        self.flags.set(Flags::READABLE, full || behind);
    }

    /// Reads plaintext into `scratch.plain`: at most `limit` bytes, of a TLS leg with a record that
    /// has begun and its seal. `is_last`: the other leg has ended.
    pub(super) fn read(&mut self, scratch: &mut Scratch, limit: usize, is_last: bool) -> Input {
        match &self.tls {
            None => self.read_raw(scratch, limit, is_last),
            Some(_) if scratch.held.has_room() => self.read_tls(scratch, limit),
            Some(_) => self.read_records(scratch, limit),
        }
    }

    fn read_raw(&mut self, scratch: &mut Scratch, limit: usize, is_last: bool) -> Input {
        if !self.is_readable() {
            return self.nothing_to_read();
        }
        let limit = limit.min(scratch.plain.len());
        let window = &mut scratch.plain[..limit];
        match receive(self.socket.as_fd(), window) {
            Ok(0) => self.end_of_stream(is_last),
            Ok(count) => {
                self.has_read(count == limit);
                Input::Data(count)
            }
            Err(error) => self.failed_read(&error),
        }
    }

    /// Moves at most `limit` bytes of a raw leg into an empty pipe. Blocked while it still counts
    /// as readable: only a read tells what is the matter.
    pub(super) fn fill(&mut self, pipe: &mut Pipe, limit: usize) -> Input {
        if !self.is_readable() {
            return self.nothing_to_read();
        }
        match pipe.fill(self.socket.as_fd(), limit) {
            // The end, or an urgent mark with a FIN behind it: `recv` tells.
            Ok(0) => Input::Blocked,
            Ok(count) => {
                self.moved();
                Input::Data(count)
            }
            Err(error) => self.failed_read(&error),
        }
    }

    /// Moves a pipe's bytes out to a raw leg; true once it is empty, or the leg is broken and they
    /// are lost with it.
    pub(super) fn drain(&mut self, pipe: &mut Pipe) -> bool {
        while !pipe.is_empty() && self.fault.is_none() {
            match pipe.drain(self.socket.as_fd()) {
                Ok(_) => self.moved(),
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

    fn end_of_stream(&mut self, is_last: bool) -> Input {
        self.flags.set(Flags::READABLE, false);
        // A RST right behind the FIN: the queue ends with the FIN, and `recv` stops there without
        // the error. Behind the last byte of a session there is nothing that it could cut short.
        if !is_last && has_error(self.socket.as_fd()) {
            self.flags.set(Flags::ERROR_ANNOUNCED, true);
        }
        if self.is_broken() {
            self.fault.get_or_insert(Cause::Rst);
            return Input::Broken;
        }
        Input::Fin
    }

    fn failed_read(&mut self, error: &io::Error) -> Input {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.flags.set(Flags::READABLE, false);
            return Input::Blocked;
        }
        self.store(error);
        self.flags.set(Flags::READABLE, false);
        Input::Broken
    }

    /// Writes plaintext, sealed in the given scratch where the leg is TLS. Returns how much of it
    /// this leg has taken; less than all means it is blocked. Once the leg is broken everything is
    /// taken and thrown away: the fault ends the session.
    pub(super) fn write(&mut self, bytes: &[u8], sealed: &mut [u8]) -> usize {
        let taken = match &self.tls {
            None => self.push(bytes),
            Some(_) => self.write_tls(bytes, sealed),
        };
        if self.fault.is_some() {
            bytes.len()
        } else {
            taken
        }
    }

    /// Takes all: records cannot be sealed twice, so ciphertext that the socket does not take is
    /// kept. The caller has asked for a flush before, so that it is never more than one scratch.
    fn write_tls(&mut self, bytes: &[u8], sealed: &mut [u8]) -> usize {
        let Some(tls) = &mut self.tls else {
            return 0;
        };
        let Ok(done) = tls.session.seal(bytes, sealed) else {
            // Closed or used up: nothing more can be said to this peer.
            self.fault.get_or_insert(Cause::Error);
            return 0;
        };
        self.push_or_keep(&sealed[..done.written]);
        done.taken
    }

    /// Writes bytes to the socket; how many it has taken.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() && self.fault.is_none() {
            match send(&self.socket, &bytes[written..], SendFlags::NOSIGNAL) {
                Ok(count) => {
                    written += count;
                    self.moved();
                }
                Err(errno) => {
                    self.failed_write(errno.into());
                    break;
                }
            }
        }
        written
    }

    /// Ciphertext that the socket does not take waits in the transport; a broken leg takes none.
    fn push_or_keep(&mut self, bytes: &[u8]) {
        let pushed = self.push(bytes);
        if self.fault.is_none()
            && let Some(tls) = &mut self.tls
        {
            tls.output.extend_from_slice(&bytes[pushed..]);
        }
    }

    fn failed_write(&mut self, error: io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.flags.set(Flags::WRITABLE, false);
        } else {
            self.store(&error);
            // Bytes that were received before the fault are still to be read.
            self.flags.set(Flags::READABLE, true);
        }
    }

    /// True when no ciphertext is left to be written; tries to get there.
    pub(super) fn flush(&mut self) -> bool {
        let Some(tls) = &mut self.tls else {
            return true;
        };
        if !tls.output.is_empty() {
            let output = std::mem::take(&mut tls.output);
            self.push_or_keep(&output);
        }
        self.flush_control() || self.fault.is_some()
    }

    /// Writes the answer to a key update, or an alert, behind what waits already.
    fn flush_control(&mut self) -> bool {
        let Some(tls) = &mut self.tls else {
            return true;
        };
        if tls.output.is_empty() && tls.session.has_control() {
            let mut records = [0; MAX_CONTROL_BYTES];
            let length = tls.session.take_control(&mut records);
            self.push_or_keep(&records[..length]);
        }
        self.tls.as_ref().is_none_or(|tls| tls.output.is_empty())
    }

    /// Ciphertext that the socket did not take yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.output.len())
    }

    /// Ciphertext of a record of which not all has come.
    pub(super) fn begun_bytes(&self) -> usize {
        self.tls
            .as_ref()
            .map_or(0, |tls| tls.session.partial_bytes())
    }

    /// Whether its peer has sent a part of a TLS record.
    pub(super) fn is_within_record(&self) -> bool {
        let buffered = self.tls.as_ref().map_or(0, |tls| tls.session.buffered());
        buffered > 0
    }

    /// Bytes that the kernel and the TLS connection still hold for the peer.
    pub(super) fn unsent_bytes(&self) -> usize {
        unacknowledged_bytes(self.socket.as_fd()) + self.held_bytes()
    }

    /// Bytes that a raw leg takes now, unless the kernel runs short of memory. It counts its own
    /// overhead for each piece, too: a twentieth where that is one packet.
    pub(super) fn takes_now(&self) -> usize {
        let room = send_room(self.socket.as_fd());
        room - room / 8
    }

    /// Tells the peer that no more comes: close_notify on TLS, then a FIN, which is left to the
    /// close where that comes `next`. True once it is sent.
    pub(super) fn finish(&mut self, next: bool) -> bool {
        if let Some(tls) = &mut self.tls {
            tls.session.close();
        }
        if !self.flush() {
            return false;
        }
        if !next {
            // ENOTCONN after a reset: the fault is found by the read.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        true
    }

    /// Sets the options that only a long life needs, once.
    pub(super) fn prepare_long_life(&mut self) {
        if !self.flags.has(Flags::LONG_LIVED) {
            self.flags.set(Flags::LONG_LIVED, true);
            // A unix socket has none of them.
            let _ = prepare_long_life(&self.socket);
        }
    }

    /// The coming close is a RST.
    pub(super) fn reset(&self) {
        reset_on_close(self.socket.as_fd());
    }

    fn store(&mut self, error: &io::Error) {
        let cause = match error.kind() {
            io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => Cause::Timeout,
            _ => Cause::Rst,
        };
        self.fault.get_or_insert(cause);
    }
}
