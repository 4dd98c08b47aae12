//! Detects that the peer of a socket outside tokio has gone, without a read: for a client that
//! waits with its bytes unread.

#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until the peer of this socket has gone for good: a RST, or on a unix socket its close.
/// Takes no byte and no error from the socket. Waits for ever where the socket cannot be watched.
///
/// # Cancel safety
/// The socket leaves tokio again with the future.
pub(crate) async fn wait_for_hangup(socket: BorrowedFd<'_>) {
    // "Closed for writing" is epoll's HUP or ERR, which no FIN of the peer causes. SAFETY: the
    // descriptor is borrowed for longer than `watched` lives, so it stays open and the same file
    // until it is deregistered.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE) };
    if let Ok(watched) = watched {
        while let Ok(mut ready) = watched.writable().await {
            if ready.ready().is_write_closed() {
                return;
            }
            ready.clear_ready();
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use futures_util::FutureExt;

    use super::*;
    use crate::net::options::reset_on_close;

    fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        (near, far)
    }

    #[tokio::test]
    async fn a_reset_is_noticed_and_a_fin_with_bytes_before_it_is_not() {
        let (mut near, mut far) = tcp_pair();
        far.write_all(b"said").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        let mut watch = Box::pin(wait_for_hangup(near.as_fd()));
        for _ in 0..10 {
            assert!(watch.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        drop(watch);
        let mut read = [0; 8];
        assert_eq!(near.read(&mut read).unwrap(), 4, "the bytes are all there");
        reset_on_close(far.as_fd());
        drop(far);
        wait_for_hangup(near.as_fd()).await;
        let error = near.read(&mut read).map_err(|error| error.kind());
        assert_ne!(error, Err(std::io::ErrorKind::WouldBlock));
    }

    #[tokio::test]
    async fn the_close_of_a_unix_client_is_noticed() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        drop(far);
        wait_for_hangup(near.as_fd()).await;
    }
}
