//! Listening sockets that the service manager has opened and passed: descriptors from 3 on, as
//! sd_listen_fds(3) says. A bind to the address of one takes it in place of a new socket.
//!
//! They are the process's, as its descriptors are: one list, kept for its life. The manager holds
//! each socket too, so a listener that a reload removes could not bind its address again.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::{Socket, Type};

use crate::config::Bind;

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// Limit of descriptors: far above the listeners of any configuration, and no wrong number makes
/// the process try a billion.
const MAX: RawFd = 1024;

/// Sockets that binds take.
static KEPT: Mutex<Vec<InheritedSocket>> = Mutex::new(Vec::new());
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// A descriptor that was passed to this process.
#[derive(Debug)]
pub(crate) struct InheritedSocket {
    pub descriptor: RawFd,
    /// Name that the manager gives it: `FileDescriptorName` of a .socket unit.
    pub name: String,
    /// The address where it listens, or why it cannot be a listener's.
    pub address: Result<Bind, &'static str>,
    /// `None`: the descriptor is not open, or no socket.
    socket: Option<Socket>,
}

/// Takes the descriptors that were passed to this very process; empty at each further call. Call it
/// before the process opens descriptors of its own.
pub(crate) fn take_inherited() -> Vec<InheritedSocket> {
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let own = std::process::id();
    let count = passed(&variable("LISTEN_PID"), &variable("LISTEN_FDS"), own);
    let names = variable("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let descriptors = FIRST..FIRST + count;
    descriptors
        .map(|descriptor| {
            let name = names.next().unwrap_or_default().to_owned();
            InheritedSocket::of(descriptor, name)
        })
        .collect()
}

/// How many descriptors the variables pass to the process `own`.
fn passed(pid: &str, count: &str, own: u32) -> RawFd {
    if pid.parse() != Ok(own) {
        // Passed to a parent that has not removed them.
        return 0;
    }
    count.parse().unwrap_or(0).clamp(0, MAX)
}

/// Keeps the sockets of the `wanted` addresses, so that binds take them, and returns the others.
pub(crate) fn keep_inherited(
    inherited: Vec<InheritedSocket>,
    wanted: &[&Bind],
) -> Vec<InheritedSocket> {
    let mut kept = kept();
    let mut unused = Vec::new();
    for socket in inherited {
        let is_wanted = |address: &Bind| {
            let is_twice = kept.iter().any(|other| other.is_at(address));
            wanted.contains(&address) && !is_twice
        };
        if socket.address.as_ref().is_ok_and(is_wanted) {
            kept.push(socket);
        } else {
            unused.push(socket);
        }
    }
    unused
}

/// Whether a bind to this address takes an inherited socket.
pub(crate) fn is_inherited(address: &Bind) -> bool {
    kept().iter().any(|socket| socket.is_at(address))
}

/// Another descriptor of the inherited socket of this address. `None`: there is none.
pub(super) fn inherited_socket(address: &Bind) -> Option<io::Result<Socket>> {
    let kept = kept();
    let socket = kept.iter().find(|socket| socket.is_at(address))?;
    Some(socket.socket.as_ref()?.try_clone())
}

/// Keeps a socket of the service manager that a predecessor has handed over.
pub(super) fn keep_of_predecessor(local: &Bind, socket: Socket) {
    kept().push(InheritedSocket {
        descriptor: socket.as_raw_fd(),
        name: String::new(),
        address: Ok(local.clone()),
        socket: Some(socket),
    });
}

fn kept() -> MutexGuard<'static, Vec<InheritedSocket>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InheritedSocket {
    fn of(descriptor: RawFd, name: String) -> InheritedSocket {
        let socket = descriptors::take(descriptor).ok().map(Socket::from);
        let address = match &socket {
            Some(socket) => address(socket),
            None => Err("it is not open"),
        };
        InheritedSocket {
            descriptor,
            name,
            address,
            socket,
        }
    }

    fn is_at(&self, address: &Bind) -> bool {
        self.address.as_ref() == Ok(address)
    }
}

/// The address of a stream socket that listens.
fn address(socket: &Socket) -> Result<Bind, &'static str> {
    let kind = socket.r#type().map_err(|_| "it is no socket")?;
    if kind != Type::STREAM {
        return Err("it is no stream socket");
    }
    if !socket.is_listener().unwrap_or(false) {
        return Err("it does not listen");
    }
    let local = socket.local_addr().map_err(|_| "it has no address")?;
    let path = || Some(Bind::Unix(local.as_pathname()?.to_owned()));
    let tcp = local.as_socket().map(Bind::Tcp);
    tcp.or_else(path).ok_or("it has neither port nor path")
}

mod descriptors {
    #![allow(unsafe_code)]
    use std::io;
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};

    /// Takes an open descriptor that the process was started with.
    pub(super) fn take(descriptor: RawFd) -> io::Result<OwnedFd> {
        // SAFETY: it changes a flag of a descriptor, and fails where none is open.
        let done = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open, and by the protocol it was passed to this process to be its own. The
        // caller asks once, before anything else has opened descriptors that it might hit.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn descriptors_of_another_process_are_left_alone() {
        assert_eq!(passed("7", "2", 7), 2);
        for (pid, count) in [("8", "2"), ("", "2"), ("x", "2"), ("7", ""), ("7", "-1")] {
            assert_eq!(passed(pid, count, 7), 0, "{pid} {count}");
        }
        assert_eq!(passed("7", "2000000000", 7), MAX);
    }

    fn address_of(socket: impl Into<OwnedFd>) -> Result<Bind, &'static str> {
        address(&Socket::from(socket.into()))
    }

    #[test]
    fn only_a_stream_socket_that_listens_has_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let unix = UnixListener::bind(&path).unwrap();
        assert_eq!(address_of(unix), Ok(Bind::Unix(path)));
        let tcp = TcpListener::bind("[::1]:0").unwrap();
        let local = tcp.local_addr().unwrap();
        let connected = std::net::TcpStream::connect(local).unwrap();
        assert_eq!(address_of(tcp), Ok(Bind::Tcp(local)));
        assert_eq!(address_of(connected), Err("it does not listen"));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(address_of(udp), Err("it is no stream socket"));
        let file = std::fs::File::open(folder.path()).unwrap();
        assert_eq!(address_of(file), Err("it is no socket"));
    }

    #[test]
    fn a_bind_takes_the_socket_of_its_address_as_often_as_it_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Bind::Tcp(listener.local_addr().unwrap());
        let twin = listener.try_clone().unwrap();
        let inherited = |listener: TcpListener| InheritedSocket {
            descriptor: FIRST,
            name: String::new(),
            address: Ok(address.clone()),
            socket: Some(Socket::from(listener)),
        };
        let unused = keep_inherited(vec![inherited(listener), inherited(twin)], &[&address]);
        assert_eq!(unused.len(), 1, "the second of one address");
        for _ in 0..2 {
            let bound = crate::net::bind(&address, 16).unwrap();
            assert_eq!(bound.local(), &address);
            let Bind::Tcp(to) = address else {
                panic!("tcp was asked for");
            };
            let _client = std::net::TcpStream::connect(to).unwrap();
            assert!(bound.try_accept().unwrap().is_some());
        }
    }
}
