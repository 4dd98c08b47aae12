//! Moves a port from one address to another that covers it, or that it covers: `127.0.0.1:P` to
//! `0.0.0.0:P` and back. No client is refused: the old socket listens until the new one does.
//!
//! The kernel binds both only where both have SO_REUSEPORT. It can be set on a socket that listens
//! already, and is needed until the new one listens; then it is cleared, as it would hide a port in
//! use. Their addresses differ, so the kernel does not group them: the narrower one gets new
//! connections, until [`Bound::stop_accepting`].

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::bind::{BindError, Bound, open_tcp};
use crate::config::Bind;

/// Time for handshakes whose SYN the old socket has got: more than a round trip around the world.
/// Closing a listening socket resets them.
pub(crate) const HALF_OPEN_TIME: Duration = Duration::from_millis(500);

/// A socket that is bound beside listening ones and does not listen yet. The port is no longer
/// shared once it listens or is dropped.
#[derive(Debug)]
pub(crate) struct Overlap {
    new: Arc<Bound>,
    backlog: u32,
    _sharing: Sharing,
}

impl Overlap {
    /// Binds beside `old`, sockets of this process at overlapping addresses, if any.
    ///
    /// # Errors
    /// [`BindError`] names the address and the reason; the port is not shared any more.
    pub(crate) fn bind(
        address: SocketAddr,
        backlog: u32,
        old: &[Arc<Bound>],
    ) -> Result<Overlap, BindError> {
        let named = Bind::Tcp(address);
        // It would go on getting clients in the service manager, and nobody would accept them.
        if let Some(old) = old.iter().find(|old| old.is_inherited()) {
            let why = format!("it overlaps with the inherited socket {}", old.local());
            return Err(BindError::of(&named)(io::Error::other(why)));
        }
        let mut sharing = Sharing::default();
        for old in old {
            old.share_port(true).map_err(BindError::of(&named))?;
            sharing.0.push(Arc::downgrade(old));
        }
        let new = open_tcp(address, !old.is_empty()).map_err(BindError::of(&named))?;
        let new = Arc::new(new);
        sharing.0.push(Arc::downgrade(&new));
        Ok(Overlap {
            new,
            backlog,
            _sharing: sharing,
        })
    }

    pub(crate) fn bound(&self) -> &Arc<Bound> {
        &self.new
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// [`BindError`]: another process has taken the port meanwhile.
    pub(crate) fn listen(self) -> Result<(), BindError> {
        let listening = self.new.set_backlog(self.backlog);
        listening.map_err(BindError::of(self.new.local()))
    }
}

/// The sockets that share their port; weak, so that an old one closes when its listener has
/// stopped.
#[derive(Debug, Default)]
struct Sharing(Vec<Weak<Bound>>);

impl Drop for Sharing {
    fn drop(&mut self) {
        for bound in self.0.iter().filter_map(Weak::upgrade) {
            // If it fails, a second process of the same user could bind the port.
            let _ = bound.share_port(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;
    use crate::net::bind;

    fn at(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    fn listening(ip: &str) -> (Arc<Bound>, u16) {
        let bound = bind(&Bind::Tcp(at(ip, 0)), 16).unwrap();
        let Bind::Tcp(local) = bound.local() else {
            panic!("tcp was asked for");
        };
        let port = local.port();
        (Arc::new(bound), port)
    }

    fn connect(port: u16) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()
    }

    const PAIRS: [(&str, &str); 6] = [
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "::"),
        ("::", "127.0.0.1"),
        ("0.0.0.0", "::"),
        ("::", "0.0.0.0"),
    ];

    #[test]
    fn behind_the_turning_away_all_that_comes_goes_to_the_new_socket() {
        for (from, to) in PAIRS {
            let (old, port) = listening(from);
            let queued = connect(port);
            let overlap = Overlap::bind(at(to, port), 16, &[Arc::clone(&old)]).unwrap();
            let new = Arc::clone(overlap.bound());
            let still = connect(port);
            assert!(new.try_accept().is_err(), "{from} -> {to}: it listens");
            overlap.listen().unwrap();
            let between = connect(port);
            old.stop_accepting().unwrap();
            let behind: Vec<_> = (0..3).map(|_| connect(port)).collect();
            let count = |bound: &Bound| {
                let accepted = std::iter::from_fn(|| bound.try_accept().unwrap());
                accepted.count()
            };
            let (at_old, at_new) = (count(&old), count(&new));
            assert!(
                at_old >= 2 && at_new >= 3,
                "{from} -> {to}: {at_old} {at_new}"
            );
            assert_eq!(at_old + at_new, 6, "{from} -> {to}");
            drop((queued, still, between, behind));
        }
    }

    /// SO_REUSEPORT that stayed would let a second balancer start on the same port.
    #[test]
    fn the_port_is_not_shared_any_more_once_it_listens_or_is_given_up() {
        for (from, to) in PAIRS {
            let (old, port) = listening(from);
            let refused = |ip: &str| {
                let error = bind(&Bind::Tcp(at(ip, port)), 16).unwrap_err();
                assert!(error.to_string().ends_with("address in use"), "{error}");
            };
            drop(Overlap::bind(at(to, port), 16, &[Arc::clone(&old)]).unwrap());
            assert!(Overlap::bind(at(to, port), 16, &[]).is_err());
            refused(to);
            let overlap = Overlap::bind(at(to, port), 16, &[Arc::clone(&old)]).unwrap();
            let new = Arc::clone(overlap.bound());
            overlap.listen().unwrap();
            drop(old);
            refused(from);
            refused(to);
            // And back, on the socket that once shared it.
            let back = Overlap::bind(at(from, port), 16, &[Arc::clone(&new)]).unwrap();
            back.listen().unwrap();
        }
    }
}
