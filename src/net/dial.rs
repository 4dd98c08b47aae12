//! The socket of a connect: its options, and the address of this machine that it comes from.
//!
//! A source address has a port for each destination, about 28,000 by default (`net.ipv4.ip_local_port_range`). Each connect
//! begins with one of the pool's at random, and goes through the others when that has no port left.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::io::Errno;
use socket2::SockRef;

use super::options::{choose_port_late, prepare_tcp};
use crate::config::{Dial, TcpOptions};

/// The sources to try one after the other for a backend at `ip`; one that says nothing where the kernel chooses.
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
    // Without any the range has one place, and that no address.
    Ok((begin..begin + count.max(1)).map(move |index| sources.nth_for(ip, index)))
}

/// Ours, as every EADDRNOTAVAIL is.
fn no_source() -> io::Error {
    Errno::ADDRNOTAVAIL.into()
}

/// True where another source address may do better.
pub(super) fn is_out_of_ports(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error())
}

/// Gives a socket its source.
pub(super) fn bind_source(socket: &impl AsFd, source: Option<IpAddr>) -> io::Result<()> {
    let Some(source) = source else {
        return Ok(());
    };
    choose_port_late(socket.as_fd())?;
    SockRef::from(socket).bind(&SocketAddr::new(source, 0).into())
}

/// Sets before a connect that nobody waits for what must be set then. The defaults can wait until the connection lasts:
/// [`super::options::prepare_long_life`].
pub(super) fn prepare(socket: &impl AsFd, options: &TcpOptions) -> io::Result<()> {
    match *options == TcpOptions::DEFAULT {
        true => SockRef::from(socket).set_tcp_nodelay(true),
        false => prepare_tcp(socket, options),
    }
}
