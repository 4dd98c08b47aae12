//! Reading a TLS leg. Where nothing more may be held, whole records only: what has come of another
//! one stays in the kernel, but for its header.

use std::os::fd::AsFd;

use rustix::io::ioctl_fionread;

use super::flags::Flags;
use super::socket::receive;
use super::{Input, Leg};
use crate::net::options::is_crowded;
use crate::observe::Cause;
use crate::relay::scratch::Scratch;
use crate::tls::record::{HEADER_BYTES, PeerStatus};

impl Leg {
    /// Takes ciphertext from the socket, a batch at a time, until it gives plaintext.
    pub(super) fn read_tls(&mut self, scratch: &mut Scratch, limit: usize) -> Input {
        loop {
            match self.tls_status() {
                PeerStatus::Open => {}
                PeerStatus::Closed => return Input::Fin,
                PeerStatus::Failed(_) => return self.violated(),
            }
            if !self.is_readable() {
                return self.nothing_to_read();
            }
            let limit = limit.saturating_sub(self.begun_bytes());
            match self.open_batch(scratch, limit, 0) {
                Ok(0) => {}
                Ok(filled) => return Input::Data(filled),
                Err(input) => return input,
            }
        }
    }

    fn tls_status(&self) -> PeerStatus {
        match &self.tls {
            None => PeerStatus::Open,
            Some(tls) => tls.session.status(),
        }
    }

    /// Opens a batch from the socket into `scratch.plain` from `begin`: how many bytes of plaintext
    /// it gave.
    fn open_batch(
        &mut self,
        scratch: &mut Scratch,
        limit: usize,
        begin: usize,
    ) -> Result<usize, Input> {
        // Never a read of nothing, which looks like an end.
        let limit = limit.clamp(1, scratch.cipher.len());
        let count = match receive(self.socket.as_fd(), &mut scratch.cipher[..limit]) {
            Ok(0) => return Err(self.truncated()),
            Ok(count) => count,
            Err(error) => return Err(self.failed_read(&error)),
        };
        self.has_read(count == limit);
        match &mut self.tls {
            None => Ok(0),
            // The scratches' sizes leave room for all of it.
            Some(tls) => Ok(tls
                .session
                .open(&scratch.cipher[..count], &mut scratch.plain[begin..])
                .filled),
        }
    }

    fn truncated(&mut self) -> Input {
        self.flags.set(Flags::READABLE, false);
        self.fault.get_or_insert(Cause::Rst);
        Input::Broken
    }

    /// The peer broke the protocol: its alert is sent if the socket takes it.
    fn violated(&mut self) -> Input {
        let _ = self.flush();
        self.fault.get_or_insert(Cause::Invalid);
        self.flags.set(Flags::READABLE, false);
        Input::Broken
    }

    /// Reads records that have come whole into `scratch.plain`: one, and more up to `limit` bytes.
    pub(super) fn read_records(&mut self, scratch: &mut Scratch, limit: usize) -> Input {
        let mut filled = 0;
        loop {
            match self.next_record(scratch, filled, limit) {
                Ok(count) => filled += count,
                // Why there is no other one is found again by the next read.
                Err(_) if filled > 0 => return Input::Data(filled),
                Err(why) => return why,
            }
        }
    }

    /// Opens the next record, or a part of it, to `scratch.plain` behind what is `filled`.
    fn next_record(
        &mut self,
        scratch: &mut Scratch,
        filled: usize,
        limit: usize,
    ) -> Result<usize, Input> {
        match self.tls_status() {
            PeerStatus::Open => {}
            PeerStatus::Closed => return Err(Input::Fin),
            PeerStatus::Failed(_) => return Err(self.violated()),
        }
        if !self.is_readable() {
            return Err(self.nothing_to_read());
        }
        let missing = self.missing_bytes();
        let is_short = missing > HEADER_BYTES && !self.is_ending() && self.is_to_come(missing);
        if is_short || filled > 0 && filled + missing > limit {
            return Err(Input::Short);
        }
        self.open_batch(scratch, missing, filled)
    }

    fn missing_bytes(&self) -> usize {
        self.tls
            .as_ref()
            .map_or(0, |tls| tls.session.missing_bytes())
    }

    /// So many bytes have not come yet, and more can come.
    fn is_to_come(&self, count: usize) -> bool {
        let has_come = ioctl_fionread(&self.socket).is_ok_and(|come| come >= count as u64);
        !has_come && !is_crowded(self.socket.as_fd())
    }
}
