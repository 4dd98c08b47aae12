//! Connecting to a backend. Errors tell a backend's fault from a local one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::dial;
use super::{Endpoint, Stream};
use crate::config::Dial;

/// A connect is overdue after this long: the SYN that followed a lost one after 1 s (RFC 6298
/// section 2) has had half a second for its answer.
pub(crate) const OVERDUE_AFTER: Duration = Duration::from_millis(1500);

/// Why a connect failed.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("timed out after {}", crate::base::units::format_duration(*.0))]
    TimedOut(Duration),
    /// The backend's fault, or the network's.
    #[error("{0}")]
    Refused(#[source] io::Error),
    /// Connected, but the TLS handshake failed or did not end in time (`TimedOut`).
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// This process or machine is short of something; never charged to a backend.
    #[error("{0} (this machine's own limit)")]
    Local(#[source] io::Error),
}

impl ConnectError {
    /// The error of a backend whose name has no address, or no longer.
    pub(crate) fn unresolved() -> Self {
        Self::Refused(io::Error::other("its name is not resolved"))
    }

    /// Whether no process listens there.
    pub(crate) fn is_refusal(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        // The file of a unix socket may be gone.
        matches!(self, Self::Refused(error) if [ConnectionRefused, NotFound].contains(&error.kind()))
    }

    /// Whether the fault is local, not the backend's.
    pub(crate) fn is_ours(&self) -> bool {
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
pub(crate) fn is_local_shortage(error: &io::Error) -> bool {
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

/// Connects within `timeout`, from one of the sources of `dial`. Of its options only those that the
/// first byte needs are set: call [`super::options::prepare_long_life`] later.
///
/// # Errors
/// See [`ConnectError`]; nothing was sent in any case.
///
/// # Cancel safety
/// Dropping the future abandons the attempt and closes its socket.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    dial: &Dial,
    timeout: Duration,
) -> Result<Stream, ConnectError> {
    connect_unless(endpoint, dial, timeout, || false).await
}

/// As [`connect`], but asks `gives_up` each time the connect has taken another [`OVERDUE_AFTER`].
///
/// # Errors
/// As [`connect`]; `TimedOut` also when it was given up.
///
/// # Cancel safety
/// Dropping the future abandons the attempt and closes its socket.
pub(crate) async fn connect_unless(
    endpoint: &Endpoint,
    dial: &Dial,
    timeout: Duration,
    mut gives_up: impl FnMut() -> bool,
) -> Result<Stream, ConnectError> {
    let attempt = async {
        match endpoint {
            Endpoint::Tcp(address) => connect_tcp(*address, dial).await,
            Endpoint::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        }
    };
    let mut attempt = std::pin::pin!(attempt);
    let started = Instant::now();
    let mut waited = Duration::ZERO;
    loop {
        waited = timeout.min(waited + OVERDUE_AFTER);
        match timeout_at(started + waited, attempt.as_mut()).await {
            Ok(connected) => return Ok(connected?),
            Err(_) if waited == timeout || gives_up() => {
                return Err(ConnectError::TimedOut(waited));
            }
            Err(_) => {}
        }
    }
}

/// Begins to connect without waiting; a poll for writing shows when it is done, and [`take_error`]
/// why it failed. Sets only options that the first byte needs; call
/// [`super::options::prepare_long_life`] later.
///
/// # Errors
/// The connect failed at once, by the backend's fault or a local one.
pub(crate) fn begin_connect(endpoint: &Endpoint, dial: &Dial) -> Result<OwnedFd, ConnectError> {
    let started = match endpoint {
        Endpoint::Tcp(address) => {
            begin_tcp(*address, dial, |socket| dial::prepare(socket, &dial.tcp))?
        }
        Endpoint::Unix(path) => begin(new_socket(Domain::UNIX)?, &SockAddr::unix(path)?)?,
    };
    Ok(started)
}

/// Begins to connect over TCP; `prepare` sets the options of the socket.
pub(super) fn begin_tcp(
    address: SocketAddr,
    dial: &Dial,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let mut last = Errno::ADDRNOTAVAIL.into();
    for source in dial::sources(dial, address.ip())? {
        let socket = new_socket(Domain::for_address(address))?;
        prepare(&socket)?;
        let started = dial::bind_source(&socket, source);
        match started.and_then(|()| begin(socket, &address.into())) {
            Err(error) if dial::is_out_of_ports(&error) => last = error,
            started => return started,
        }
    }
    Err(last)
}

fn new_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new_raw(domain, Type::STREAM.nonblocking().cloexec(), None)
}

fn begin(socket: Socket, address: &SockAddr) -> io::Result<OwnedFd> {
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Takes the error of a connect that is over, if it failed.
pub(super) fn socket_error(socket: BorrowedFd<'_>) -> io::Result<()> {
    match SockRef::from(&socket).take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Takes the error of a failed connect from the socket.
pub(crate) fn take_error(socket: BorrowedFd<'_>) -> ConnectError {
    match SockRef::from(&socket).take_error() {
        Ok(Some(error)) | Err(error) => error.into(),
        Ok(None) => ConnectError::Refused(io::ErrorKind::ConnectionReset.into()),
    }
}

async fn connect_tcp(address: SocketAddr, dial: &Dial) -> io::Result<Stream> {
    let mut last = Errno::ADDRNOTAVAIL.into();
    for source in dial::sources(dial, address.ip())? {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        dial::prepare(&socket, &dial.tcp)?;
        let connected = match dial::bind_source(&socket, source) {
            Ok(()) => socket.connect(address).await,
            Err(error) => Err(error),
        };
        match connected {
            Err(error) if dial::is_out_of_ports(&error) => last = error,
            connected => return connected.map(Stream::Tcp),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bind, Keepalive, TcpOptions};
    use crate::net::bind;
    use crate::net::options::prepare_long_life;

    #[tokio::test]
    async fn a_closed_port_is_the_backends_fault() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let error = connect(
            &Endpoint::Tcp(address),
            &Dial::default(),
            Duration::from_secs(5),
        )
        .await
        .unwrap_err();
        assert!(!error.is_ours(), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    fn options() -> TcpOptions {
        TcpOptions {
            keepalive: Keepalive {
                idle: Duration::from_secs(31),
                interval: Duration::from_secs(7),
                count: 4,
            },
            user_timeout: Duration::from_secs(33),
            congestion: Some("reno".into()),
        }
    }

    fn options_of(socket: &impl std::os::fd::AsFd) -> TcpOptions {
        let socket = SockRef::from(socket);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        let congestion = socket.tcp_congestion().unwrap();
        let congestion = String::from_utf8(congestion).unwrap();
        TcpOptions {
            keepalive: Keepalive {
                idle: socket.tcp_keepalive_time().unwrap(),
                interval: socket.tcp_keepalive_interval().unwrap(),
                count: socket.tcp_keepalive_retries().unwrap(),
            },
            user_timeout: socket.tcp_user_timeout().unwrap().unwrap(),
            congestion: Some(congestion.trim_end_matches('\0').to_owned()),
        }
    }

    #[tokio::test]
    async fn both_legs_have_the_options_they_are_to_have() {
        let bound = bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), 16).unwrap();
        let Bind::Tcp(address) = *bound.local() else {
            panic!("a tcp address was asked for");
        };
        let (endpoint, dial) = (
            Endpoint::Tcp(address),
            Dial {
                tcp: options(),
                ..Dial::default()
            },
        );
        let by_set_up = connect(&endpoint, &dial, Duration::from_secs(5)).await;
        let Stream::Tcp(by_set_up) = by_set_up.unwrap() else {
            panic!("tcp")
        };
        assert_eq!(options_of(&by_set_up), options());
        let by_relay = begin_connect(&endpoint, &dial).unwrap();
        // They are not replaced when it has lasted for a while.
        prepare_long_life(&by_relay).unwrap();
        assert_eq!(options_of(&by_relay), options());
        for _ in 0..2 {
            let (accepted, _) = bound.try_accept().unwrap().unwrap();
            assert_eq!(
                options_of(&accepted).keepalive,
                TcpOptions::DEFAULT.keepalive
            );
        }

        bound.set_options(&options(), None).unwrap();
        let plain = begin_connect(&endpoint, &Dial::default()).unwrap();
        let (accepted, _) = bound.try_accept().unwrap().unwrap();
        assert_eq!(options_of(&accepted), options());
        assert!(!SockRef::from(&plain).keepalive().unwrap());
        prepare_long_life(&plain).unwrap();
        let settled = options_of(&plain);
        assert_eq!(settled.user_timeout, TcpOptions::DEFAULT.user_timeout);
        assert_eq!(settled.keepalive, TcpOptions::DEFAULT.keepalive);

        // And back again.
        bound.set_options(&TcpOptions::DEFAULT, None).unwrap();
        let _last = begin_connect(&endpoint, &dial).unwrap();
        let (accepted, _) = bound.try_accept().unwrap().unwrap();
        assert_eq!(
            options_of(&accepted).user_timeout,
            TcpOptions::DEFAULT.user_timeout
        );
        assert_ne!(options_of(&accepted).congestion, options().congestion);
    }

    /// An address that is not this machine's is passed over like one without a free port.
    #[tokio::test]
    async fn a_source_that_cannot_be_used_is_passed_over() {
        let node = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Tcp(node.local_addr().unwrap());
        let mut dial = Dial::default();
        dial.source.v4 = vec!["192.0.2.1".parse().unwrap(), "127.0.0.9".parse().unwrap()];
        for _ in 0..8 {
            let connected = connect(&endpoint, &dial, Duration::from_secs(5)).await;
            let (_, peer) = node.accept().unwrap();
            assert_eq!(peer.ip().to_string(), "127.0.0.9");
            let started = begin_connect(&endpoint, &dial);
            let (_, peer) = node.accept().unwrap();
            assert_eq!(peer.ip().to_string(), "127.0.0.9");
            drop((connected.unwrap(), started.unwrap()));
        }
        dial.source.v4.pop();
        let error = connect(&endpoint, &dial, Duration::from_secs(5)).await;
        assert!(error.unwrap_err().is_ours());
        assert!(begin_connect(&endpoint, &dial).unwrap_err().is_ours());
        // None of the backend's family.
        (dial.source.v4, dial.source.v6) = (Vec::new(), vec!["::1".parse().unwrap()]);
        assert!(begin_connect(&endpoint, &dial).unwrap_err().is_ours());
    }

    #[test]
    fn running_out_of_descriptors_is_ours() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert!(ConnectError::from(error).is_ours());
    }
}
