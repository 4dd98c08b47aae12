//! A leg on its way to another relay.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Leg;
use super::flags::Flags;
use super::socket::Socket;
use crate::observe::Cause;
use crate::relay::moved::StayReason;
use crate::wire::moved::MovedLeg;

impl Leg {
    /// The socket, unless the leg is absent.
    pub(in crate::relay) fn own_socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.socket {
            Socket::Own(socket) => Some(socket.as_fd()),
            Socket::Nowhere => None,
        }
    }

    /// Whether it cannot move.
    pub(in crate::relay) fn stays(&self) -> Option<StayReason> {
        self.is_tls().then_some(StayReason::Keys)
    }

    pub(in crate::relay) fn export(&self) -> MovedLeg {
        MovedLeg {
            flags: self.flags.bits(),
            fault: self.fault.map(|cause| cause.word().to_owned()),
            tls: None,
        }
    }

    /// A leg that goes on here. Events that it had are kept; the epoll adds those that came since.
    pub(in crate::relay) fn import(moved: &MovedLeg, socket: OwnedFd) -> Leg {
        let mut flags = Flags::of_bits(moved.flags);
        flags.set(Flags::CONNECTING, false);
        Leg {
            socket: Socket::Own(socket),
            flags,
            fault: moved.fault.as_deref().and_then(Cause::of_word),
            tls: None,
        }
    }
}
