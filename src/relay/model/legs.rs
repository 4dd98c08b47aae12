//! The legs of a case and the ends at the other side of their sockets.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use super::bench::{full_listener, pair, raw, tight_listener, tight_pair, tighten, tls_leg_over};
use super::case::{Case, Opening};
use super::end::End;
use crate::config::Dial;
use crate::net::{Endpoint, begin_connect};
use crate::relay::side::BACKEND;
use crate::relay::{SocketHandoff, Transport};

/// An outer and an inner socket.
pub(super) fn sockets(case: &Case) -> (TcpStream, TcpStream) {
    if case.is_tight { tight_pair() } else { pair() }
}

/// A connected leg and its outer end.
pub(super) fn leg(case: &Case, side: usize) -> (SocketHandoff, End) {
    let stream = case.stream(side);
    let early = &stream[..case.early[side]];
    let (outer, inner) = sockets(case);
    match case.tls.filter(|tls| tls.side == side) {
        None => (
            raw(inner, early),
            End::new(outer, None, stream, early.len()),
        ),
        Some(tls) => {
            let (leg, client) = tls_leg_over((outer, inner), tls.version(), tls.fragment, early);
            let end = End::new(client.sock, Some(client.conn), stream, early.len());
            (leg, end)
        }
    }
}

/// A socket whose connect is under way, and the end it will have. `None`: the case asks for none,
/// or the kernel has refused it at once.
pub(super) fn connecting(case: &Case) -> Option<(OwnedFd, End)> {
    let begin = |listener: &TcpListener| {
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        begin_connect(&endpoint, &Dial::default()).ok()
    };
    let listener = if case.is_tight {
        tight_listener()
    } else {
        TcpListener::bind("127.0.0.1:0").unwrap()
    };
    match case.opening {
        Opening::Plain | Opening::Returning => None,
        Opening::Connecting => {
            let socket = begin(&listener)?;
            let (outer, _) = listener.accept().unwrap();
            if case.is_tight {
                tighten(&socket);
            }
            Some((socket, End::new(outer, None, case.stream(BACKEND), 0)))
        }
        Opening::Refused => {
            let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
            drop(listener);
            Some((
                begin_connect(&endpoint, &Dial::default()).ok()?,
                End::absent(),
            ))
        }
        Opening::Unanswered => Some((begin(full_listener())?, End::absent())),
    }
}

pub(super) fn bare(socket: OwnedFd) -> SocketHandoff {
    SocketHandoff {
        socket,
        transport: Transport::Raw,
        read: Vec::new(),
    }
}
