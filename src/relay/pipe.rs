//! Pipes for bulk: bytes go from one raw socket to the other inside the kernel (`splice(2)`),
//! without a copy through user space. A pipe is attached to a direction only while bytes are in it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Pipes of one worker, at most; a direction that finds none copies. Each costs two descriptors,
/// and only stalled ones stay away for long.
const MAX_PIPES_PER_WORKER: usize = 8;
/// All pipes take at most this part of the process's descriptors.
const MAX_SHARE_DIVISOR: u64 = 8;
/// Bytes that a pipe is asked to hold; the kernel may give less to an unprivileged process, whose
/// user has 64 MiB of it. With 64 KiB a byte of bulk took 15 % more CPU time than with 256, with
/// 256 2 to 6 % more than with this. So much goes through it at once only where the other socket
/// has room for it.
pub(super) const CAPACITY: usize = 512 * 1024;

/// A pipe and the bytes in it.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
    _counted: Counted,
}

impl Pipe {
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held
    }

    /// Takes the bytes out into memory, behind what is there.
    pub(super) fn empty_into(&mut self, bytes: &mut Vec<u8>) {
        let begin = bytes.len();
        bytes.resize(begin + self.held, 0);
        let mut end = begin;
        while end < bytes.len() {
            match rustix::io::read(&self.reader, &mut bytes[end..]) {
                Ok(count) if count > 0 => end += count,
                _ => break,
            }
        }
        bytes.truncate(end);
        self.held -= (end - begin).min(self.held);
    }

    /// Takes what `from` has, up to the pipe's size and `limit`. 0 is the end of the stream. Call
    /// it on an empty pipe only: then `WouldBlock` means that the socket has nothing.
    pub(super) fn fill(&mut self, from: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = splice(from, None, &self.writer, None, CAPACITY.min(limit), flags)?;
        self.held += count;
        Ok(count)
    }

    /// Gives `to` what it takes; how many bytes it took.
    pub(super) fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = splice(&self.reader, None, to, None, self.held, flags)?;
        self.held -= count.min(self.held);
        Ok(count)
    }
}

/// A worker's pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: Vec<Pipe>,
    open: Arc<AtomicUsize>,
    max: usize,
}

/// Pipes of each of `workers`, where the process may open `descriptors`: small limits are for
/// connections.
pub(super) fn pipes_per_worker(descriptors: u64, workers: usize) -> usize {
    let share = descriptors / MAX_SHARE_DIVISOR / 2;
    let share = usize::try_from(share).unwrap_or(usize::MAX);
    MAX_PIPES_PER_WORKER.min(share / workers.max(1))
}

impl Pipes {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    /// An empty pipe; `None` when there are too many already or no descriptor is left.
    pub(super) fn take(&mut self) -> Option<Pipe> {
        self.free.pop().or_else(|| self.open_one().ok())
    }

    fn open_one(&self) -> io::Result<Pipe> {
        if self.open.load(Ordering::Relaxed) >= self.max {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Smaller is slower, not wrong.
        let _ = fcntl_setpipe_size(&writer, CAPACITY);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Pipe {
            reader,
            writer,
            held: 0,
            _counted: Counted(Arc::clone(&self.open)),
        })
    }

    /// Takes an empty pipe back; one that still holds bytes is closed with them.
    pub(super) fn give(&mut self, pipe: Pipe) {
        if pipe.is_empty() {
            self.free.push(pipe);
        }
    }
}

/// Uncounts a pipe when it is closed, wherever that happens.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_go_from_socket_to_socket() {
        let ((mut one, from), (to, mut other)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let mut pipes = Pipes::new(MAX_PIPES_PER_WORKER);
        let mut pipe = pipes.take().unwrap();
        one.write_all(b"through").unwrap();
        assert_eq!(pipe.fill(from.as_fd(), 100).unwrap(), 7);
        assert!(!pipe.is_empty());
        assert_eq!(pipe.drain(to.as_fd()).unwrap(), 7);
        let mut read = [0; 7];
        other.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"through");
        drop(one);
        assert_eq!(pipe.fill(from.as_fd(), 100).unwrap(), 0);
    }

    #[test]
    fn few_descriptors_or_many_workers_leave_fewer_pipes() {
        let of = |descriptors, workers| pipes_per_worker(descriptors, workers);
        assert_eq!(
            [of(80, 2), of(80, 64), of(1_024, 2)],
            [2, 0, MAX_PIPES_PER_WORKER]
        );
        assert_eq!([of(1_024, 64), of(0, 0)], [1, 0]);
    }

    #[test]
    fn their_number_is_bounded_and_a_closed_one_makes_room() {
        let mut pipes = Pipes::new(MAX_PIPES_PER_WORKER);
        let mut taken: Vec<Pipe> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(taken.len(), MAX_PIPES_PER_WORKER);
        drop(taken.pop());
        assert!(pipes.take().is_some());
    }
}
