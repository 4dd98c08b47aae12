//! Connecting to a backend, with the fault told apart: the backend's, or ours.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpSocket, UnixStream};

use super::options::prepare_tcp;
use super::{Endpoint, Stream};

/// Why a connect failed.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("timed out after {}", crate::base::units::format_duration(*.0))]
    TimedOut(Duration),
    /// The backend or the way to it.
    #[error("{0}")]
    Refused(#[source] io::Error),
    /// It is connected, and the TLS handshake with it failed or did not end in time (`TimedOut`).
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// This process or machine is short of something; never charged to a backend.
    #[error("{0} (this machine's own limit)")]
    Local(#[source] io::Error),
}

impl ConnectError {
    /// A backend whose name has no address yet, or no more.
    pub fn unresolved() -> Self {
        Self::Refused(io::Error::other("its name is not resolved"))
    }

    /// True where no backend is to blame.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        if is_local_shortage(&error) {
            Self::Local(error)
        } else {
            Self::Refused(error)
        }
    }
}

/// True for errors that say this process or machine ran out of something.
pub fn is_local_shortage(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else {
        return false;
    };
    [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
    ]
    .iter()
    .any(|errno| errno.raw_os_error() == code)
}

/// Connects within `timeout` and sets the options of a leg.
///
/// # Errors
/// See [`ConnectError`]; nothing was sent in any case.
///
/// # Cancel safety
/// Dropping the future abandons the attempt and closes its socket.
pub async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Stream, ConnectError> {
    let attempt = async {
        match endpoint {
            Endpoint::Tcp(address) => connect_tcp(*address).await,
            Endpoint::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        }
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(ConnectError::TimedOut(timeout)),
    }
}

/// Begins to connect without waiting; a poll for writing tells when it is done, and [`take_error`] then why it failed.
/// Only what must be set before the first byte is set: [`super::options::prepare_long_life`] is still to come.
///
/// # Errors
/// It failed at once, by the backend's fault or ours.
pub fn begin_connect(endpoint: &Endpoint) -> Result<OwnedFd, ConnectError> {
    let (domain, address) = match endpoint {
        Endpoint::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Endpoint::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = Socket::new_raw(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    if domain != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    match socket.connect(&address) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
            Err(error.into())
        }
        _ => Ok(socket.into()),
    }
}

/// Why a connect that was begun has failed; takes the error from the socket.
pub fn take_error(socket: BorrowedFd<'_>) -> ConnectError {
    match SockRef::from(&socket).take_error() {
        Ok(Some(error)) | Err(error) => error.into(),
        Ok(None) => ConnectError::Refused(io::ErrorKind::ConnectionReset.into()),
    }
}

async fn connect_tcp(address: SocketAddr) -> io::Result<Stream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    prepare_tcp(&socket)?;
    Ok(Stream::Tcp(socket.connect(address).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_the_backends_fault() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let error = connect(&Endpoint::Tcp(address), Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(!error.is_ours(), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn running_out_of_descriptors_is_ours() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert!(ConnectError::from(error).is_ours());
    }
}
