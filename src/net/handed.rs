//! Listening sockets that a predecessor hands to this process in an upgrade. A bind to the address
//! of one takes it, once, in place of a new socket: connections queued in it are not lost.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::Socket;

use crate::config::Bind;

/// Sockets that binds take.
static KEPT: Mutex<Vec<HandedSocket>> = Mutex::new(Vec::new());

/// A listening socket of the predecessor.
#[derive(Debug)]
pub(crate) struct HandedSocket {
    /// Place in the predecessor's list.
    pub number: usize,
    /// The address in its configuration.
    pub configured: Bind,
    /// The real one: port 0 has become the kernel's choice.
    pub local: Bind,
    /// The service manager has opened it, and holds it too.
    pub is_inherited: bool,
    pub socket: OwnedFd,
}

/// Keeps the sockets for the binds of the first configuration.
pub(crate) fn keep_handed(sockets: Vec<HandedSocket>) {
    kept().extend(sockets);
}

/// Gives up the sockets that no bind has taken; returns their numbers.
pub(crate) fn release_handed() -> Vec<usize> {
    let left = std::mem::take(&mut *kept());
    left.iter().map(|socket| socket.number).collect()
}

/// The socket of an address: one that was configured so, else one that is bound there.
pub(super) fn take_handed(address: &Bind) -> Option<(Bind, bool, Socket)> {
    let mut kept = kept();
    let configured = kept.iter().position(|one| one.configured == *address);
    let local = kept.iter().position(|one| one.local == *address);
    let found = kept.remove(configured.or(local)?);
    Some((found.local, found.is_inherited, Socket::from(found.socket)))
}

fn kept() -> MutexGuard<'static, Vec<HandedSocket>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn handed(number: usize, configured: &str) -> (Bind, HandedSocket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = Bind::Tcp(listener.local_addr().unwrap());
        let socket = HandedSocket {
            number,
            configured: configured.parse().unwrap(),
            local: local.clone(),
            is_inherited: false,
            socket: listener.into(),
        };
        (local, socket)
    }

    #[test]
    fn each_bind_takes_the_first_of_its_address_and_the_rest_is_told() {
        // Addresses of this test alone: the list is the process's.
        let wanted: Bind = "127.9.8.7:0".parse().unwrap();
        let (first, one) = handed(100, "127.9.8.7:0");
        let (second, other) = handed(101, "127.9.8.7:0");
        let (_, unused) = handed(102, "127.9.8.6:0");
        keep_handed(vec![one, other, unused]);
        for local in [first, second] {
            let bound = crate::net::bind(&wanted, 16).unwrap();
            assert_eq!(bound.local(), &local);
        }
        assert!(take_handed(&wanted).is_none());
        assert!(release_handed().contains(&102));
    }
}
