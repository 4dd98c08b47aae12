//! Sockets, DNS and file descriptors. The only room that may use `unsafe`.

mod accounts;
mod address;
mod bind;
mod connect;
mod dial;
pub(crate) mod dns;
pub(crate) mod fds;
mod file_events;
mod handed;
mod hangup;
mod inherited;
pub(crate) mod memory;
pub(crate) mod options;
mod overlap;
mod packets;
mod port_holder;
mod reach;
mod rest;
mod sealed;
pub(crate) mod signals;
mod stream;
mod unix;

pub(crate) use address::{Endpoint, Peer};
#[cfg(test)]
pub(crate) use bind::bind;
pub(crate) use bind::{
    BindError, Bound, Incoming, bind_with, check_bindable, is_transient_accept_error,
    local_address, try_accept,
};
pub(crate) use connect::{
    ConnectError, OVERDUE_AFTER, begin_connect, connect, connect_unless, is_local_shortage,
    take_error,
};
pub(crate) use file_events::{Coverage, FileEvents};
pub(crate) use handed::{HandedSocket, keep_handed, release_handed};
pub(crate) use hangup::wait_for_hangup;
pub(crate) use inherited::{InheritedSocket, is_inherited, keep_inherited, take_inherited};
pub(crate) use overlap::{HALF_OPEN_TIME, Overlap};
pub(crate) use packets::{MAX_PACKET_DESCRIPTORS, PacketSocket};
pub(crate) use port_holder::{PortHolder, find_port_holder};
pub(crate) use reach::reach;
pub(crate) use rest::rest;
pub(crate) use sealed::{read_sealed, seal};
pub(crate) use stream::delegate_io;
pub(crate) use stream::{Io, Stream};
pub(crate) use unix::verify_rights;
