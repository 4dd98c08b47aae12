//! Socket options that every leg gets, and the two ways to look at or end a socket that std has no call for.
//!
//! Accepted sockets inherit the options of their listening socket (Linux), so these are set once per listener and
//! once per connect, never per accepted connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// First probe on a silent connection. NATs and cloud balancers forget flows after minutes.
pub const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// Between two probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered probes until the connection is dead: with the two above, two minutes.
pub const KEEPALIVE_PROBES: u32 = 6;
/// Data unacknowledged for this long ends the connection: keepalive does not run while data is in flight.
pub const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Sets NODELAY, keepalive and the user timeout on a TCP socket.
pub fn prepare_tcp(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)?;
    prepare_long_life(socket)
}

/// Sets keepalive and the user timeout on a TCP socket: what only a connection that lasts needs.
pub fn prepare_long_life(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Makes the next close of a TCP socket a RST that drops whatever is queued. Has no effect on a unix socket.
pub fn reset_on_close(socket: BorrowedFd<'_>) {
    // A socket that is already gone has nothing left to reset.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// Bytes written and not yet acknowledged by the peer. 0 where the kernel cannot tell.
pub fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> usize {
    outq::unsent(socket).unwrap_or(0)
}

mod outq {
    #![allow(unsafe_code)]
    use std::ffi::c_int;
    use std::io;
    use std::os::fd::BorrowedFd;

    use rustix::ioctl::{Getter, Opcode, ioctl};

    /// `SIOCOUTQ` (linux/sockios.h), the same number as `TIOCOUTQ`.
    const SIOCOUTQ: Opcode = 0x5411;

    pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: SIOCOUTQ writes one int through its pointer, which is what `Getter<_, c_int>` provides.
        let bytes: c_int = unsafe { ioctl(socket, Getter::<SIOCOUTQ, c_int>::new())? };
        Ok(usize::try_from(bytes).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn unread_bytes_of_a_peer_are_counted_until_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let block = [0u8; 65536];
        let mut written = 0;
        while let Ok(count) = near.write(&block) {
            written += count;
        }
        assert!(unacknowledged_bytes(near.as_fd()) > 0);
        let mut left = written;
        let mut sink = vec![0u8; 65536];
        while left > 0 {
            left -= far.read(&mut sink).unwrap();
        }
        assert_eq!(unacknowledged_bytes(near.as_fd()), 0);
    }
}
