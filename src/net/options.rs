//! Socket options of every connection, and socket calls that std does not have.
//!
//! Accepted sockets inherit the options of their listening socket (Linux), so these are set once
//! per listener and once per connect, never per accepted connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::config::TcpOptions;

/// Sets NODELAY, and what `options` say, on a TCP socket.
pub(crate) fn prepare_tcp(socket: &impl AsFd, options: &TcpOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    // First, so that it applies from the first byte.
    if let Some(congestion) = &options.congestion {
        socket.set_tcp_congestion(congestion.as_bytes())?;
    }
    set_long_life(&socket, options)
}

/// Sets the default keepalive and user timeout on a TCP socket, which only a connection that lasts
/// needs. A socket that has keepalive already is left as it is.
pub(crate) fn prepare_long_life(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.keepalive()? {
        Ok(())
    } else {
        set_long_life(&socket, &TcpOptions::DEFAULT)
    }
}

fn set_long_life(socket: &SockRef<'_>, options: &TcpOptions) -> io::Result<()> {
    let keepalive = &options.keepalive;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.count),
    )?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))
}

/// Sets the options of a listening socket's connections. Without `congestion` it is set back to the
/// machine's, where that is known.
pub(super) fn prepare_listening(
    socket: &impl AsFd,
    options: &TcpOptions,
    defer_accept: Option<Duration>,
) -> io::Result<()> {
    let machines;
    let options = match options.congestion {
        Some(_) => options,
        None => {
            machines = TcpOptions {
                congestion: machines_congestion(),
                ..options.clone()
            };
            &machines
        }
    };
    prepare_tcp(socket, options)?;
    // In whole seconds; zero: not at all.
    let seconds = defer_accept.unwrap_or_default().as_secs();
    let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
    int_option::set(
        socket.as_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_DEFER_ACCEPT,
        seconds,
    )
}

fn machines_congestion() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").ok()?;
    Some(name.trim().to_owned())
}

/// Verifies that this process may use a congestion control.
///
/// # Errors
/// The congestion control is not available; names those that are.
pub(crate) fn verify_congestion(name: &str) -> Result<(), String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    let Err(error) = socket.and_then(|socket| socket.set_tcp_congestion(name.as_bytes())) else {
        return Ok(());
    };
    let words = |file: &str| {
        let words = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{file}"));
        words.unwrap_or_default().trim().replace(' ', ", ")
    };
    let allowed = match error.kind() {
        io::ErrorKind::PermissionDenied => words("tcp_allowed_congestion_control"),
        _ => words("tcp_available_congestion_control"),
    };
    Err(format!(
        "tcp_congestion \"{name}\" is not available; the kernel allows: {allowed}"
    ))
}

/// Lets the connect choose the port, not the bind: so a source address has each port once per
/// destination.
pub(super) fn choose_port_late(socket: BorrowedFd<'_>) -> io::Result<()> {
    // The same option for both families.
    int_option::set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Limits a listening socket to new connections of this interface; those under way go on.
pub(super) fn set_interface(socket: BorrowedFd<'_>, index: i32) -> io::Result<()> {
    int_option::set(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, index)
}

/// Makes the next close of a TCP socket a RST that drops whatever is queued. Has no effect on a
/// unix socket.
pub(crate) fn reset_on_close(socket: BorrowedFd<'_>) {
    // A socket that is gone has nothing to reset.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// Bytes written and not yet acknowledged by the peer. 0 where the kernel cannot tell.
pub(crate) fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> usize {
    outq::unsent(socket).unwrap_or(0)
}

/// Room in the send queue now, including the kernel's overhead per piece; acknowledgements add to
/// it. 0 where the kernel cannot tell.
pub(crate) fn send_room(socket: BorrowedFd<'_>) -> usize {
    meminfo::send_room(socket).unwrap_or(0)
}

/// Whether a third of the receive queue is taken, after which the window may close. A packet of
/// which a byte is left counts whole. True where the kernel cannot tell.
pub(crate) fn is_crowded(socket: BorrowedFd<'_>) -> bool {
    meminfo::received(socket).map_or(true, |(taken, all)| taken >= all / 3)
}

/// Sets an option that is an int, for which no library in use has a call.
mod int_option {
    #![allow(unsafe_code)]
    use std::ffi::c_int;
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    pub(super) fn set(
        socket: BorrowedFd<'_>,
        level: c_int,
        name: c_int,
        value: c_int,
    ) -> io::Result<()> {
        let length = size_of::<c_int>() as libc::socklen_t;
        // SAFETY: the pointer is to an int that lives for the call, and the length is its size.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                length,
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

mod meminfo {
    #![allow(unsafe_code)]
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    /// `SK_MEMINFO_VARS` (linux/sock_diag.h).
    const VARIABLES: usize = 9;

    pub(super) fn send_room(socket: BorrowedFd<'_>) -> io::Result<usize> {
        let of = read(socket)?;
        // TCP counts what is queued, a unix socket what its peer has not read.
        let queued = of(libc::SK_MEMINFO_WMEM_QUEUED).max(of(libc::SK_MEMINFO_WMEM_ALLOC));
        Ok(of(libc::SK_MEMINFO_SNDBUF).saturating_sub(queued) as usize)
    }

    /// Bytes taken of the receive queue, and its size.
    pub(super) fn received(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
        let of = read(socket)?;
        Ok((of(libc::SK_MEMINFO_RMEM_ALLOC), of(libc::SK_MEMINFO_RCVBUF)))
    }

    /// The variables by their numbers.
    fn read(socket: BorrowedFd<'_>) -> io::Result<impl Fn(libc::c_int) -> u32> {
        let mut info = [0u32; VARIABLES];
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the pointer is to as many bytes as the length says, and they live for the call.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(move |variable| {
            let at = usize::try_from(variable).ok();
            at.and_then(|at| info.get(at)).copied().unwrap_or(0)
        })
    }
}

mod outq {
    #![allow(unsafe_code)]
    use std::ffi::c_int;
    use std::io;
    use std::os::fd::BorrowedFd;

    use rustix::ioctl::{Getter, Opcode, ioctl};

    /// `SIOCOUTQ` (linux/sockios.h), the same number as `TIOCOUTQ`.
    const SIOCOUTQ: Opcode = 0x5411;

    pub(super) fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: SIOCOUTQ writes one int through its pointer, which is what `Getter<_, c_int>`
        // provides.
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
        assert_eq!(send_room(near.as_fd()), 0);
        let mut left = written;
        let mut sink = vec![0u8; 65536];
        while left > 0 {
            left -= far.read(&mut sink).unwrap();
        }
        assert_eq!(unacknowledged_bytes(near.as_fd()), 0);
        assert!(send_room(near.as_fd()) > 0);
    }
}
