//! Packets with descriptors between two processes of this machine: a pair of sockets that keeps the
//! borders of messages (`SOCK_SEQPACKET`, unix(7)). The end of one process is seen by the other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use socket2::SockRef;

/// Longest packet: far above any message, and below the kernel's buffer of a socket.
pub(crate) const MAX_PACKET_BYTES: usize = 64 << 10;
/// Descriptors in one packet; the kernel takes up to 253 (`SCM_MAX_FD`).
pub(crate) const MAX_PACKET_DESCRIPTORS: usize = 64;
/// Longest wait for a peer that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// One end of the pair.
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

/// A packet as it came.
#[derive(Debug)]
pub(crate) struct Packet {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl PacketSocket {
    /// Makes a pair: the own end, and that of a process to be started.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn pair() -> io::Result<(PacketSocket, OwnedFd)> {
        let (own, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((PacketSocket::new(own)?, other))
    }

    /// Takes the end that the process was started with as its standard input, which is empty from
    /// then on.
    ///
    /// # Errors
    /// The standard input is no such socket, or no descriptor is left.
    pub(crate) fn from_stdin() -> io::Result<PacketSocket> {
        let stdin = rustix::stdio::stdin();
        let kind = SockRef::from(&stdin).r#type()?;
        if kind != socket2::Type::SEQPACKET {
            return Err(io::Error::other("the standard input is no packet socket"));
        }
        let own = stdin.try_clone_to_owned()?;
        let empty = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&empty)?;
        PacketSocket::new(own)
    }

    fn new(socket: OwnedFd) -> io::Result<PacketSocket> {
        SockRef::from(&socket).set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(PacketSocket(socket))
    }

    /// The user that the peer ran as when it made the pair.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn maker_uid(&self) -> io::Result<u32> {
        let credentials = rustix::net::sockopt::socket_peercred(&self.0)?;
        Ok(credentials.uid.as_raw())
    }

    /// Another descriptor of the same end.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn try_clone(&self) -> io::Result<PacketSocket> {
        self.0.try_clone().map(PacketSocket)
    }

    /// Ends the exchange, by whichever descriptor: the peer sees this end as gone.
    pub(crate) fn shut_down(&self) {
        // One whose peer is gone needs no end.
        let _ = SockRef::from(&self.0).shutdown(std::net::Shutdown::Both);
    }

    /// Sends a packet whole; waits at most 5 s for room.
    ///
    /// # Errors
    /// The peer is gone, or does not read.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PACKET_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = bytes.len() <= MAX_PACKET_BYTES
            && descriptors.len() <= MAX_PACKET_DESCRIPTORS
            && (descriptors.is_empty()
                || control.push(SendAncillaryMessage::ScmRights(descriptors)));
        if !fits {
            return Err(io::Error::other("the packet is too large"));
        }
        let sent = loop {
            let sent = sendmsg(
                &self.0,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            );
            if sent != Err(rustix::io::Errno::INTR) {
                break sent?;
            }
        };
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// The next packet; `None`: the peer is gone. Blocks the thread for at most `timeout`.
    ///
    /// # Errors
    /// `TimedOut`; a packet that is longer than any may be; the kernel's.
    pub(crate) fn receive(&self, timeout: Duration) -> io::Result<Option<Packet>> {
        self.wait(timeout)?;
        let mut bytes = vec![0; MAX_PACKET_BYTES];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PACKET_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
            )
        };
        let received = match receive() {
            // The peer is gone with a packet unread. The kernel says so once, before what the peer
            // had sent to its last.
            Err(rustix::io::Errno::CONNRESET) => receive()?,
            received => received?,
        };
        let descriptors = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::Error::other("a packet came cut off"));
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        bytes.truncate(received.bytes);
        Ok(Some(Packet { bytes, descriptors }))
    }

    /// Waits until there is something to read, or the peer is gone.
    fn wait(&self, timeout: Duration) -> io::Result<()> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut watched = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut watched, Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    fn pair() -> (PacketSocket, PacketSocket) {
        let (own, other) = PacketSocket::pair().unwrap();
        (own, PacketSocket::new(other).unwrap())
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn packets_keep_their_borders_and_carry_descriptors() {
        let (one, other) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"inside").unwrap();
        file.rewind().unwrap();
        one.send(b"first", &[file.as_fd()]).unwrap();
        one.send(b"second", &[]).unwrap();
        let first = other.receive(SOON).unwrap().unwrap();
        assert_eq!(first.bytes, b"first");
        let [descriptor] = <[OwnedFd; 1]>::try_from(first.descriptors).unwrap();
        let mut inside = String::new();
        std::fs::File::from(descriptor)
            .read_to_string(&mut inside)
            .unwrap();
        assert_eq!(inside, "inside");
        assert_eq!(other.receive(SOON).unwrap().unwrap().bytes, b"second");
    }

    #[test]
    fn a_peer_that_is_silent_and_one_that_is_gone_differ() {
        let (one, other) = pair();
        let error = one.receive(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(other);
        assert!(one.receive(SOON).unwrap().is_none());
        assert!(one.send(b"nobody", &[]).is_err());
    }

    #[test]
    fn what_a_peer_sent_last_is_read_even_if_it_has_left_something_unread() {
        let (one, other) = pair();
        one.send(b"unread", &[]).unwrap();
        other.send(b"first", &[]).unwrap();
        other.send(b"last", &[]).unwrap();
        drop(other);
        assert_eq!(one.receive(SOON).unwrap().unwrap().bytes, b"first");
        assert_eq!(one.receive(SOON).unwrap().unwrap().bytes, b"last");
        assert!(one.receive(SOON).unwrap().is_none());
    }

    #[test]
    fn an_end_that_is_shut_down_is_gone_for_its_peer() {
        let (one, other) = pair();
        let copy = other.try_clone().unwrap();
        copy.shut_down();
        assert!(one.receive(SOON).unwrap().is_none());
        assert!(one.send(b"nobody", &[]).is_err());
        drop(other);
    }

    #[test]
    fn as_many_descriptors_as_a_packet_may_have_come_over_and_no_more_are_sent() {
        let (one, other) = pair();
        let null = std::fs::File::open("/dev/null").unwrap();
        let many = vec![null.as_fd(); MAX_PACKET_DESCRIPTORS];
        one.send(&[7; MAX_PACKET_BYTES], &many).unwrap();
        let packet = other.receive(SOON).unwrap().unwrap();
        assert_eq!(packet.bytes.len(), MAX_PACKET_BYTES);
        assert_eq!(packet.descriptors.len(), MAX_PACKET_DESCRIPTORS);
        let more = vec![null.as_fd(); MAX_PACKET_DESCRIPTORS + 1];
        assert!(one.send(b"x", &more).is_err());
        assert!(one.send(&[7; MAX_PACKET_BYTES + 1], &[]).is_err());
    }

    #[test]
    fn the_maker_of_the_pair_is_known_to_its_peer() {
        let (one, _other) = pair();
        assert_eq!(
            one.maker_uid().unwrap(),
            rustix::process::geteuid().as_raw()
        );
    }
}
