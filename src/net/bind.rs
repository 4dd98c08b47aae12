//! Binding and accepting. One listening socket per address: SO_REUSEPORT would hide a port in use
//! and lose queued connections when a listener closes. Only [`super::Overlap`] has it, for a
//! moment.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Peer;
use super::handed::take_handed;
use super::inherited::{inherited_socket, keep_of_predecessor};
use super::options::{prepare_listening, prepare_tcp, set_interface};
use super::unix::{self, SocketFile};
use crate::config::{Bind, FileRights, TcpOptions};

/// Why an address could not be bound.
#[derive(Debug, Error)]
#[error("bind {address}: {}", reason(.source))]
pub(crate) struct BindError {
    pub address: String,
    #[source]
    pub source: io::Error,
}

impl BindError {
    pub(super) fn of(address: &Bind) -> impl FnOnce(io::Error) -> BindError {
        let address = address.to_string();
        move |source| BindError { address, source }
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        // The text is about a unix socket's file, and says what was not permitted.
        _ if error.get_ref().is_some() => error.to_string(),
        io::ErrorKind::PermissionDenied => {
            "permission denied (a port below 1024 needs CAP_NET_BIND_SERVICE)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".to_owned(),
        _ => error.to_string(),
    }
}

/// A listening socket, in no epoll: acceptors watch a duplicate of it, so that one can take over
/// from another without losing queued connections.
#[derive(Debug)]
pub(crate) struct Bound {
    local: Bind,
    socket: Socket,
    /// Removes the socket file with the listener, unless another process replaced it.
    file: Option<SocketFile>,
    /// The service manager has it, too: whatever is set on it stays set there.
    is_inherited: bool,
    /// The file is another process's: of one that has taken the socket over, or of one that has
    /// handed it over and may still serve on.
    is_given_up: AtomicBool,
    /// In a socket that was handed over: the length of its queue, once it is this process's.
    wanted_backlog: Option<u32>,
}

/// A bound socket joined to a tokio runtime.
#[derive(Debug)]
pub(crate) struct Incoming {
    watched: AsyncFd<OwnedFd>,
}

/// The index of an interface that no machine has: they are counted from 1.
const NO_INTERFACE: i32 = i32::MAX;

/// Binds with the rights of the umask.
#[cfg(test)]
pub(crate) fn bind(address: &Bind, backlog: u32) -> Result<Bound, BindError> {
    bind_with(address, backlog, &FileRights::default())
}

/// Binds and listens, or takes the socket of that address that a predecessor or the service manager
/// has given. `[::]` takes IPv4 as well. A
/// stale unix socket file is replaced; the new one has its rights before a client can connect.
///
/// # Errors
/// [`BindError`] names the address and the reason, or the rights that cannot be given.
pub(crate) fn bind_with(
    address: &Bind,
    backlog: u32,
    rights: &FileRights,
) -> Result<Bound, BindError> {
    if let Some(taken) = take_handed(address) {
        return handed(taken, backlog).map_err(BindError::of(address));
    }
    let bound = match (inherited_socket(address), address) {
        (Some(socket), _) => socket.and_then(|socket| inherited(address, socket, backlog)),
        (None, Bind::Tcp(address)) => bind_tcp(*address, backlog),
        (None, Bind::Unix(path)) => bind_unix(path, backlog, rights),
    };
    bound.map_err(BindError::of(address))
}

/// Checks that an address can be bound: binds it and drops it.
///
/// # Errors
/// [`BindError`] names the address and the reason.
pub(crate) fn check_bindable(address: SocketAddr) -> Result<(), BindError> {
    let opened = open_tcp(address, false).map(drop);
    opened.map_err(BindError::of(&Bind::Tcp(address)))
}

/// Listens on a socket that the service manager has bound to `local`. On a path its file, with its
/// rights, is the manager's.
fn inherited(local: &Bind, socket: Socket, backlog: u32) -> io::Result<Bound> {
    socket.set_nonblocking(true)?;
    let bound = Bound {
        local: local.clone(),
        socket,
        file: None,
        is_inherited: true,
        is_given_up: AtomicBool::new(false),
        wanted_backlog: None,
    };
    bound.set_backlog(backlog)?;
    Ok(bound)
}

/// Takes a socket of the predecessor and changes nothing of it: that one may still serve on. See
/// [`Bound::own`].
fn handed((local, is_inherited, socket): (Bind, bool, Socket), backlog: u32) -> io::Result<Bound> {
    socket.set_nonblocking(true)?;
    if is_inherited {
        keep_of_predecessor(&local, socket.try_clone()?);
    }
    let file = match &local {
        Bind::Unix(path) if !is_inherited => unix::taken_over(path),
        Bind::Unix(_) | Bind::Tcp(_) => None,
    };
    Ok(Bound {
        local,
        socket,
        file,
        is_inherited,
        is_given_up: AtomicBool::new(true),
        wanted_backlog: Some(backlog),
    })
}

fn bind_tcp(address: SocketAddr, backlog: u32) -> io::Result<Bound> {
    let bound = open_tcp(address, false)?;
    bound.set_backlog(backlog)?;
    Ok(bound)
}

/// Binds and does not listen yet.
pub(super) fn open_tcp(address: SocketAddr, shares_port: bool) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(shares_port)?;
    prepare_tcp(&socket, &TcpOptions::DEFAULT)?;
    socket.bind(&address.into())?;
    let local = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound {
        local: Bind::Tcp(local),
        socket,
        file: None,
        is_inherited: false,
        is_given_up: AtomicBool::new(false),
        wanted_backlog: None,
    })
}

fn bind_unix(path: &Path, backlog: u32, rights: &FileRights) -> io::Result<Bound> {
    let (socket, file) = unix::open(path, rights)?;
    let bound = Bound {
        local: Bind::Unix(path.to_owned()),
        socket,
        file: Some(file),
        is_inherited: false,
        is_given_up: AtomicBool::new(false),
        wanted_backlog: None,
    };
    bound.set_backlog(backlog)?;
    Ok(bound)
}

fn backlog_length(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}

impl Bound {
    /// Whether the service manager has opened the socket, and holds it too.
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// The bound address: port 0 has become the kernel's choice.
    pub(crate) fn local(&self) -> &Bind {
        &self.local
    }

    /// Leaves the socket's file to the process that has taken the socket over.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Makes a socket that was handed over this process's own: the file is removed with it, and the
    /// queue has its configured length. Does nothing with any other socket.
    ///
    /// # Errors
    /// The kernel's, of the queue's length.
    pub(crate) fn own(&self) -> io::Result<()> {
        let Some(backlog) = self.wanted_backlog else {
            return Ok(());
        };
        self.take_back();
        self.set_backlog(backlog)
    }

    /// Removes the socket's file again when this is dropped: the other process is gone.
    pub(crate) fn take_back(&self) {
        self.is_given_up.store(false, Ordering::Relaxed);
    }

    /// Allows another socket of this process to bind to the same port, or no longer.
    pub(super) fn share_port(&self, shares: bool) -> io::Result<()> {
        self.socket.set_reuse_port(shares)
    }

    /// Stops taking new connections; another socket that listens at the port gets them. Those that
    /// the kernel has queued, and those whose handshake is under way, still come here.
    ///
    /// # Errors
    /// The kernel's: one before Linux 5.7 without CAP_NET_RAW. Then nothing has changed.
    pub(crate) fn stop_accepting(&self) -> io::Result<()> {
        set_interface(self.socket.as_fd(), NO_INTERFACE)
    }

    /// Changes the length of the kernel's queue of a listening socket in place; the first time, it
    /// begins to listen.
    pub(crate) fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        self.socket.listen(backlog_length(backlog))
    }

    /// Sets the options of connections accepted from now on. Does nothing on a unix socket.
    ///
    /// # Errors
    /// The kernel's: this process may not use the congestion control.
    pub(crate) fn set_options(
        &self,
        options: &TcpOptions,
        defer_accept: Option<Duration>,
    ) -> io::Result<()> {
        match self.local {
            Bind::Tcp(_) => prepare_listening(&self.socket, options, defer_accept),
            Bind::Unix(_) => Ok(()),
        }
    }

    /// Changes the rights of a unix socket's file. Does nothing on a TCP socket.
    ///
    /// # Errors
    /// The rights cannot be set, or another process has replaced the file.
    pub(crate) fn set_rights(&self, rights: &FileRights) -> io::Result<()> {
        match &self.file {
            Some(file) => file.set_rights(rights),
            None => Ok(()),
        }
    }

    /// A descriptor of the same socket for one acceptor's epoll. Take it out of that epoll before
    /// it is closed: the socket itself stays open, and the entry would, too.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Joins the present tokio runtime.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn incoming(&self) -> io::Result<Incoming> {
        Incoming::join(self.duplicate()?)
    }

    /// The next connection that the kernel has queued, `None` if there is none. Ignores tokio's
    /// readiness and budget.
    ///
    /// # Errors
    /// As [`Incoming::accept`].
    pub(crate) fn try_accept(&self) -> io::Result<Option<(OwnedFd, Peer)>> {
        try_accept(self.socket.as_fd())
    }
}

impl Incoming {
    #[allow(unsafe_code)]
    fn join(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: the watcher owns the descriptor, so it stays open and the same file for as long.
        let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self { watched: watched? })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The kernel's, of this one accept; the listener stays usable.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    pub(crate) async fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        let accept = |socket: &OwnedFd| {
            try_accept(socket.as_fd())?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
        };
        self.watched.async_io(Interest::READABLE, accept).await
    }
}

/// Accepts from a non-blocking listening socket; the new socket is non-blocking. `None`: nothing is
/// queued.
///
/// # Errors
/// The kernel's, of this one accept.
pub(crate) fn try_accept(listening: BorrowedFd<'_>) -> io::Result<Option<(OwnedFd, Peer)>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match acceptfrom_with(listening, flags) {
        Ok((socket, address)) => Ok(Some((socket, peer(address)))),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// True for an error of accept that concerns only the connection it would have returned (accept(2),
/// "Error handling"): that one was gone before it was accepted.
pub(crate) fn is_transient_accept_error(error: &io::Error) -> bool {
    let errnos = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
        Errno::PERM,
    ];
    let code = error.raw_os_error();
    errnos
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == code)
}

/// The address that the peer connected to; `None` for a unix socket.
pub(crate) fn local_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    rustix::net::getsockname(socket)
        .ok()
        .and_then(|address| SocketAddr::try_from(address).ok())
}

fn peer(address: Option<SocketAddrAny>) -> Peer {
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    address.map_or(Peer::Unix, Peer::tcp)
}

impl Drop for Bound {
    fn drop(&mut self) {
        // The file goes before the socket closes, so that nobody connects to a name without a
        // listener.
        if let Some(file) = self.file.take()
            && self.is_given_up.load(Ordering::Relaxed)
        {
            file.keep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let first = bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), 16).unwrap();
        let error = bind(first.local(), 16).unwrap_err().to_string();
        assert!(error.ends_with("address in use"), "{error}");
        assert!(error.starts_with("bind 127.0.0.1:"), "{error}");
    }

    #[test]
    fn what_is_queued_is_accepted_without_a_wait_and_then_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let unix = bind(&Bind::Unix(folder.path().join("s")), 16).unwrap();
        let tcp = bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), 16).unwrap();
        let (Bind::Unix(path), Bind::Tcp(address)) = (unix.local(), tcp.local()) else {
            panic!("one of each was asked for");
        };
        let _unix_client = std::os::unix::net::UnixStream::connect(path).unwrap();
        let tcp_client = std::net::TcpStream::connect(address).unwrap();
        let (_, peer) = unix.try_accept().unwrap().unwrap();
        assert_eq!(peer, Peer::Unix);
        let (_, peer) = tcp.try_accept().unwrap().unwrap();
        assert_eq!(peer, Peer::tcp(tcp_client.local_addr().unwrap()));
        assert!(unix.try_accept().unwrap().is_none());
        assert!(tcp.try_accept().unwrap().is_none());
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4_clients_as_ipv4_peers() {
        let bound = bind(&Bind::Tcp("[::]:0".parse().unwrap()), 16).unwrap();
        let Bind::Tcp(local) = bound.local().clone() else {
            panic!("a tcp address was asked for");
        };
        let client = tokio::net::TcpStream::connect(("127.0.0.1", local.port()));
        let incoming = bound.incoming().unwrap();
        let (accepted, client) = tokio::join!(incoming.accept(), client);
        let (_, peer) = accepted.unwrap();
        assert_eq!(peer, Peer::tcp(client.unwrap().local_addr().unwrap()));
    }
}
