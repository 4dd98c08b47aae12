//! The socket of a connect: its options and source address.
//!
//! A source address has a port for each destination, about 28,000 by default
//! (`net.ipv4.ip_local_port_range`). Each connect starts with a random one of the pool's, and tries
//! the others when that has no port left.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::io::Errno;
use socket2::SockRef;

use super::options::{choose_port_late, prepare_tcp};
use crate::config::{Dial, TcpOptions};

/// The sources to try in order for a backend at `ip`; a single `None` where the kernel chooses.
///
/// # Errors
/// There are some, and none of the backend's family.
pub(super) fn sources(dial: &Dial, ip: IpAddr) -> io::Result<impl Iterator<Item = Option<IpAddr>>> {
    let sources = &dial.source;
    let count = sources.count_for(ip);
    if count == 0 && !sources.is_empty() {
        return Err(no_source());
    }
    let begin = match count {
        0 | 1 => 0,
        count => fastrand::usize(..count),
    };
    // Without any source the range has one index, which has no address.
    Ok((begin..begin + count.max(1)).map(move |index| sources.nth_for(ip, index)))
}

/// The error when there is no source: a local one, as every EADDRNOTAVAIL.
fn no_source() -> io::Error {
    Errno::ADDRNOTAVAIL.into()
}

/// Whether the source has no port left, so that another one may work.
pub(super) fn is_out_of_ports(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error())
}

/// Binds a socket to its source.
pub(super) fn bind_source(socket: &impl AsFd, source: Option<IpAddr>) -> io::Result<()> {
    let Some(source) = source else {
        return Ok(());
    };
    choose_port_late(socket.as_fd())?;
    SockRef::from(socket).bind(&SocketAddr::new(source, 0).into())
}

/// Sets the options that a non-blocking connect needs at once. The defaults can wait until the
/// connection lasts: [`super::options::prepare_long_life`].
pub(super) fn prepare(socket: &impl AsFd, options: &TcpOptions) -> io::Result<()> {
    if *options == TcpOptions::DEFAULT {
        SockRef::from(socket).set_tcp_nodelay(true)
    } else {
        prepare_tcp(socket, options)
    }
}
