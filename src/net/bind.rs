//! Binding and accepting. One listening socket per address: SO_REUSEPORT would hide a port in use and lose queued
//! connections when a listener closes.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::options::prepare_tcp;
use super::{Peer, Stream};
use crate::config::Bind;

/// Why an address could not be bound.
#[derive(Debug, Error)]
#[error("bind {address}: {}", reason(.source))]
pub struct BindError {
    pub address: String,
    #[source]
    pub source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied (a port below 1024 needs CAP_NET_BIND_SERVICE)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".to_owned(),
        _ => error.to_string(),
    }
}

/// A listening socket. It joins the tokio runtime on which it first accepts, not the one it was bound on.
#[derive(Debug)]
pub struct Bound {
    local: Bind,
    unregistered: Mutex<Option<Unregistered>>,
    registered: OnceLock<Registered>,
    /// Kept so that the socket file goes away with the listener, unless somebody else replaced it.
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum Unregistered {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

#[derive(Debug)]
enum Registered {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// Binds and listens. `[::]` takes IPv4 as well. A unix socket file that nobody answers on any more is replaced.
///
/// # Errors
/// [`BindError`] names the address and the reason.
pub fn bind(address: &Bind, backlog: u32) -> Result<Bound, BindError> {
    let bound = match address {
        Bind::Tcp(address) => bind_tcp(*address, backlog),
        Bind::Unix(path) => bind_unix(path, backlog),
    };
    bound.map_err(|source| BindError {
        address: describe(address),
        source,
    })
}

fn describe(address: &Bind) -> String {
    match address {
        Bind::Tcp(address) => address.to_string(),
        Bind::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn bind_tcp(address: SocketAddr, backlog: u32) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    prepare_tcp(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(backlog_length(backlog))?;
    let listener = std::net::TcpListener::from(socket);
    let local = Bind::Tcp(listener.local_addr()?);
    Ok(Bound::new(local, Unregistered::Tcp(listener), None))
}

fn bind_unix(path: &Path, backlog: u32) -> io::Result<Bound> {
    remove_stale(path)?;
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    // std listens with a backlog of its own; listening again only changes the length.
    SockRef::from(&listener).listen(backlog_length(backlog))?;
    listener.set_nonblocking(true)?;
    let file = SocketFile {
        path: path.to_owned(),
        inode: std::fs::metadata(path)?.ino(),
    };
    let local = Bind::Unix(path.to_owned());
    Ok(Bound::new(local, Unregistered::Unix(listener), Some(file)))
}

/// Removes a socket file whose listener is gone. A live one stays, and binding then fails with "address in use".
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Ok(());
    }
    // Not blocking: connecting to a live listener whose queue is full would wait for it, and with it a start or reload.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

fn backlog_length(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}

impl Bound {
    fn new(local: Bind, listener: Unregistered, file: Option<SocketFile>) -> Self {
        Self {
            local,
            unregistered: Mutex::new(Some(listener)),
            registered: OnceLock::new(),
            file,
        }
    }

    /// The address really bound: a port 0 has become the kernel's choice.
    pub fn local(&self) -> &Bind {
        &self.local
    }

    /// Changes the length of the kernel's queue of a listening socket in place.
    pub fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        let length = backlog_length(backlog);
        match self.registered.get() {
            Some(Registered::Tcp(listener)) => SockRef::from(listener).listen(length),
            Some(Registered::Unix(listener)) => SockRef::from(listener).listen(length),
            None => Ok(()),
        }
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The kernel's, of this one accept; the listener stays usable.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self.listener()? {
            Registered::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Peer::tcp(address)))
            }
            Registered::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }

    /// The next connection that the kernel has queued, `None` if there is none. Unlike [`Bound::accept`] it knows
    /// nothing of tokio's readiness and budget. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// As [`Bound::accept`].
    pub fn accept_now(&self) -> io::Result<Option<(Stream, Peer)>> {
        let accepted = match self.listener()? {
            Registered::Tcp(listener) => SockRef::from(listener).accept(),
            Registered::Unix(listener) => SockRef::from(listener).accept(),
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        socket.set_nonblocking(true)?;
        Ok(Some(match address.as_socket() {
            Some(address) => {
                let stream = TcpStream::from_std(socket.into())?;
                (Stream::Tcp(stream), Peer::tcp(address))
            }
            None => {
                let stream = UnixStream::from_std(socket.into())?;
                (Stream::Unix(stream), Peer::Unix)
            }
        }))
    }

    fn listener(&self) -> io::Result<&Registered> {
        if let Some(listener) = self.registered.get() {
            return Ok(listener);
        }
        let taken = match self.unregistered.lock() {
            Ok(mut slot) => slot.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        if let Some(listener) = taken {
            let registered = match listener {
                Unregistered::Tcp(listener) => Registered::Tcp(TcpListener::from_std(listener)?),
                Unregistered::Unix(listener) => Registered::Unix(UnixListener::from_std(listener)?),
            };
            let _ = self.registered.set(registered);
        }
        self.registered
            .get()
            .ok_or_else(|| io::Error::other("listener is not registered"))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::metadata(&self.path).is_ok_and(|now| now.ino() == self.inode);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // The file goes before the socket closes, so that nobody connects to a name without a listener.
        self.file.take();
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
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = bind(&Bind::Unix(path.clone()), 16).unwrap();
        assert!(bind(&Bind::Unix(path.clone()), 16).is_err());
        drop(live);
        assert!(!path.exists());
    }

    /// A blocking probe of a listener whose queue was full never came back.
    #[test]
    fn a_live_listener_with_a_full_queue_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _live = bind(&Bind::Unix(path.clone()), 1).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        let mut waiting = Vec::new();
        let full = (0..16).any(|_| {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let refused = client.connect(&address).is_err();
            waiting.push(client);
            refused
        });
        assert!(full);
        let error = bind(&Bind::Unix(path.clone()), 1).unwrap_err().to_string();
        assert!(error.ends_with("address in use"), "{error}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn what_is_queued_is_accepted_without_a_wait_and_then_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let unix = bind(&Bind::Unix(folder.path().join("s")), 16).unwrap();
        let tcp = bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), 16).unwrap();
        let (Bind::Unix(path), Bind::Tcp(address)) = (unix.local(), tcp.local()) else {
            panic!("one of each was asked for");
        };
        let _unix_client = std::os::unix::net::UnixStream::connect(path).unwrap();
        let tcp_client = std::net::TcpStream::connect(address).unwrap();
        let (_, peer) = unix.accept_now().unwrap().unwrap();
        assert_eq!(peer, Peer::Unix);
        let (_, peer) = tcp.accept_now().unwrap().unwrap();
        assert_eq!(peer, Peer::Tcp(tcp_client.local_addr().unwrap()));
        assert!(unix.accept_now().unwrap().is_none());
        assert!(tcp.accept_now().unwrap().is_none());
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4_clients_as_ipv4_peers() {
        let bound = bind(&Bind::Tcp("[::]:0".parse().unwrap()), 16).unwrap();
        let Bind::Tcp(local) = bound.local().clone() else {
            panic!("a tcp address was asked for");
        };
        let client = tokio::net::TcpStream::connect(("127.0.0.1", local.port()));
        let (accepted, client) = tokio::join!(bound.accept(), client);
        let (_, peer) = accepted.unwrap();
        assert_eq!(peer, Peer::Tcp(client.unwrap().local_addr().unwrap()));
    }
}
