//! Connects to an address to see that it accepts, and for nothing else.

#![allow(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::connect::{ConnectError, begin_tcp, socket_error};
use crate::config::Dial;

/// Sees whether `address` accepts a connection within `limit`, from one of the sources of `dial`.
///
/// The connection is whole, and is closed at once without a byte.
///
/// # Errors
/// As [`super::connect()`].
///
/// # Cancel safety
/// Dropping the future abandons the attempt and closes its socket.
pub(crate) async fn reach(
    address: SocketAddr,
    dial: &Dial,
    limit: Duration,
) -> Result<(), ConnectError> {
    // No option matters to a connection without a byte.
    let socket = begin_tcp(address, dial, |_| Ok(()))?;
    // Within a machine a connect is over when the call returns: there is nothing to wait for.
    if is_over(&socket) {
        return Ok(socket_error(socket.as_fd())?);
    }
    let connected = timeout(limit, connected(&socket)).await;
    connected.map_err(|_| ConnectError::TimedOut(limit))??;
    Ok(())
}

/// Whether a connect is over, now.
fn is_over(socket: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Waits until a connect is over.
async fn connected(socket: &OwnedFd) -> std::io::Result<()> {
    // SAFETY: the descriptor is borrowed for longer than `watched` lives, so it stays open and the
    // same file until it is deregistered.
    let watched = unsafe { AsyncFd::register_with_interest(socket.as_fd(), Interest::WRITABLE) };
    watched?.writable().await?.retain_ready();
    socket_error(socket.as_fd())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn who_listens_is_reached_and_sees_a_connection_without_a_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..10 {
            reach(address, &Dial::default(), LIMIT).await.unwrap();
            let (mut seen, _) = listener.accept().unwrap();
            assert_eq!(seen.read(&mut [0]).unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn who_does_not_listen_is_not_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = reach(address, &Dial::default(), LIMIT).await.unwrap_err();
        assert!(error.is_refusal(), "{error}");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_given_up() {
        // A queue that is full: its kernel answers no more.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let _queued = std::net::TcpStream::connect(address).unwrap();
        let error = reach(address, &Dial::default(), Duration::from_millis(50)).await;
        assert!(matches!(error, Err(ConnectError::TimedOut(_))), "{error:?}");
    }
}
